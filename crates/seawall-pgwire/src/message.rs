//! The message layer: frames of PostgreSQL's protocol 3.0 over any stream, in both directions.
//!
//! It knows nothing of sessions and queries. Reading and flushing may be cancelled at any await:
//! what was read or written so far is kept.

use std::io;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{Header, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The tag byte and the length, which counts itself.
const HEADER_BYTES: usize = 5;

/// How much is asked of the operating system at a time.
const READ_BYTES: usize = 64 << 10;

/// `CopyBothResponse`, of which postgres-protocol knows nothing.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// `NegotiateProtocolVersion`, likewise.
const NEGOTIATE_PROTOCOL_VERSION_TAG: u8 = b'v';

/// A message of the server.
pub(crate) enum BackendMessage {
    /// One that postgres-protocol parses.
    Standard(Message),
    /// The server is ready for replication in both directions.
    CopyBothResponse,
    /// The server did not take a startup option; it names the newest version it speaks.
    NegotiateProtocolVersion,
}

/// The longest error, notice or notification. PostgreSQL's own are far shorter.
const COMPLAINT_BYTES: usize = 1 << 20;

/// The longest of all other messages but results, in libpq too (`pqParseInput3`, fe-protocol3.c, 18).
const SHORT_MESSAGE_BYTES: usize = 30_000;

/// How long a message with this tag may be (`VALID_LONG_MESSAGE_TYPE`, fe-protocol3.c, 18), if none
/// may exceed `limit`.
fn limit_for(tag: u8, limit: usize) -> usize {
    match tag {
        b'T' | b'D' | b'd' => limit,
        b'E' | b'N' | b'A' => limit.min(COMPLAINT_BYTES),
        _ => limit.min(SHORT_MESSAGE_BYTES),
    }
}

/// Why no message could be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The other side closed the stream.
    #[error("the server closed the connection")]
    Closed,
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What arrived is not a message.
    #[error("{0}")]
    Malformed(String),
    /// The message is longer than allowed; nothing of it was kept.
    #[error("a message of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
}

/// Messages over a stream.
#[derive(Debug)]
pub(crate) struct MessageStream<S> {
    stream: S,
    incoming: BytesMut,
    outgoing: BytesMut,
    message_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageStream<S> {
    /// `message_bytes` limits the messages accepted; most kinds may not even be that long.
    pub(crate) fn new(stream: S, message_bytes: usize) -> Self {
        Self { stream, incoming: BytesMut::new(), outgoing: BytesMut::new(), message_bytes }
    }

    /// Changes the limit from the next message on.
    pub(crate) fn set_limit(&mut self, message_bytes: usize) {
        self.message_bytes = message_bytes;
    }

    /// Where frontend messages are put to be sent by the next [`flush`](Self::flush).
    pub(crate) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Sends what was queued.
    pub(crate) async fn flush(&mut self) -> Result<(), WireError> {
        while self.outgoing.has_remaining() {
            self.stream.write_all_buf(&mut self.outgoing).await?;
        }
        Ok(self.stream.flush().await?)
    }

    /// Closes the sending half.
    pub(crate) async fn shutdown(&mut self) -> Result<(), WireError> {
        Ok(self.stream.shutdown().await?)
    }

    /// The next message.
    pub(crate) async fn read(&mut self) -> Result<BackendMessage, WireError> {
        let (tag, mut frame) = self.read_frame().await?;
        match tag {
            COPY_BOTH_RESPONSE_TAG => Ok(BackendMessage::CopyBothResponse),
            NEGOTIATE_PROTOCOL_VERSION_TAG => Ok(BackendMessage::NegotiateProtocolVersion),
            _ => match Message::parse(&mut frame) {
                Ok(Some(message)) => Ok(BackendMessage::Standard(message)),
                Ok(None) => Err(WireError::Malformed("a message shorter than its length".into())),
                Err(error) => Err(WireError::Malformed(error.to_string())),
            },
        }
    }

    /// A whole message with its header. Memory grows with what arrives, never with what a length
    /// field promises.
    async fn read_frame(&mut self) -> Result<(u8, BytesMut), WireError> {
        loop {
            let header = Header::parse(&self.incoming)
                .map_err(|error| WireError::Malformed(error.to_string()))?;
            let needed = match header {
                None => HEADER_BYTES,
                Some(header) => {
                    let bytes = usize::try_from(header.len()).unwrap_or(usize::MAX);
                    let limit = limit_for(header.tag(), self.message_bytes);
                    if bytes > limit {
                        return Err(WireError::TooLarge { bytes, limit });
                    }
                    if self.incoming.len() > bytes {
                        return Ok((header.tag(), self.incoming.split_to(bytes + 1)));
                    }
                    bytes + 1
                }
            };
            self.fill(needed).await?;
        }
    }

    async fn fill(&mut self, needed: usize) -> Result<(), WireError> {
        let missing = needed.saturating_sub(self.incoming.len());
        self.incoming.reserve(missing.min(self.incoming.len()).max(READ_BYTES));
        match self.stream.read_buf(&mut self.incoming).await? {
            0 if self.incoming.is_empty() => Err(WireError::Closed),
            0 => Err(WireError::Malformed("the connection ended within a message".into())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    /// Everything a stream of these bytes, arriving in pieces, is read as.
    fn read_all(bytes: &[u8], piece: usize, limit: usize) -> (Vec<&'static str>, WireError) {
        block_on(async {
            let (client, mut server) = tokio::io::duplex(piece.max(1));
            let sent = bytes.to_vec();
            let sender = async move {
                let _ = server.write_all(&sent).await;
            };
            let reader = async {
                let mut wire = MessageStream::new(client, limit);
                let mut seen = Vec::new();
                loop {
                    match wire.read().await {
                        Ok(BackendMessage::CopyBothResponse) => seen.push("copy both"),
                        Ok(BackendMessage::Standard(Message::ReadyForQuery(_))) => {
                            seen.push("ready");
                        }
                        Ok(_) => seen.push("other"),
                        Err(error) => return (seen, error),
                    }
                }
            };
            tokio::join!(sender, reader).1
        })
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let bytes = b"Z\0\0\0\x05IW\0\0\0\x07\0\0\0Z\0\0\0\x05T";
        for piece in 1..bytes.len() {
            let (seen, end) = read_all(bytes, piece, 100);
            assert_eq!(seen, ["ready", "copy both", "ready"], "in pieces of {piece}");
            assert!(matches!(end, WireError::Closed));
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_body_arrives() {
        let (_, end) = read_all(b"D\x7f\xff\xff\xff", 5, 1000);
        assert!(matches!(end, WireError::TooLarge { bytes: 0x7fff_ffff, limit: 1000 }));
    }

    #[test]
    fn a_negative_length_and_a_cut_message_are_malformed() {
        let (_, end) = read_all(b"D\xff\xff\xff\xff", 5, 1000);
        assert!(matches!(end, WireError::Malformed(_)));
        let (_, end) = read_all(b"Z\0\0\0\x05", 5, 1000);
        assert!(matches!(end, WireError::Malformed(_)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes, 16, 1000);
        }
    }
}
