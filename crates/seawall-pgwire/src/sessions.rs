use std::fmt;
use std::io;
use std::mem;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::CancelToken;

/// How long a server may take to end a session whose client went away.
const FAREWELL: Duration = Duration::from_secs(10);

/// The sessions of a [`Config`](crate::Config), to be sure in the end that the server has ended them.
///
/// Whoever drops a session closes a socket, and the process behind it notices that when it next
/// reads: at once, or after the statement it is at. Only then is a backup aborted that it had begun.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<Left>>);

/// A socket of either kind.
pub(crate) trait Socket: AsyncRead + AsFd + Unpin + Send + fmt::Debug {}

impl<T: AsyncRead + AsFd + Unpin + Send + fmt::Debug> Socket for T {}

#[derive(Debug, Default)]
struct Left {
    /// Sockets whose clients went away.
    sockets: Vec<Box<dyn Socket>>,
    /// What cancels the statements that were left alone.
    statements: Vec<CancelToken>,
}

impl Sessions {
    /// Waits until the server has ended every session that was closed or dropped; what one of them
    /// was still doing is cancelled. One that cannot be reached is waited for not long.
    pub async fn end(&self) {
        let Left { sockets, statements } = mem::take(&mut *self.left());
        for statement in statements {
            if let Err(error) = statement.cancel().await {
                tracing::debug!(%error, "the cancel request could not be sent");
            }
        }
        for socket in sockets {
            match timeout(FAREWELL, closed(socket)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a session that was left"),
                Err(_) => tracing::warn!(
                    "PostgreSQL has not ended a session within {} s; it will when it next looks",
                    FAREWELL.as_secs()
                ),
            }
        }
    }

    /// A statement was left alone.
    pub(crate) fn abandon(&self, statement: CancelToken) {
        self.left().statements.push(statement);
    }

    /// Nobody has the socket any more.
    fn leave(&self, socket: Box<dyn Socket>) {
        if let Err(error) = SockRef::from(&socket).shutdown(Shutdown::Write) {
            tracing::debug!(%error, "a session that was left");
        }
        let mut left = self.left();
        left.sockets.retain(|socket| !is_closed(socket.as_ref()));
        left.sockets.push(socket);
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server has closed its side: a process does so when it has ended.
fn is_closed(socket: &dyn Socket) -> bool {
    match SockRef::from(&socket).peek(&mut [mem::MaybeUninit::uninit(); 1]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Reads until the server has closed its side.
async fn closed(mut socket: Box<dyn Socket>) -> io::Result<()> {
    // Last words that nobody wants to hear.
    let mut words = [0; 4096];
    loop {
        match socket.read(&mut words).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A socket that tells when nobody has it any more.
pub(crate) struct Watched<S: Socket + 'static> {
    /// Always there, until it is dropped.
    socket: Option<S>,
    sessions: Sessions,
}

impl<S: Socket + 'static> Watched<S> {
    pub(crate) const fn new(socket: S, sessions: Sessions) -> Self {
        Self { socket: Some(socket), sessions }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut S>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: Socket + 'static> Drop for Watched<S> {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.sessions.leave(Box::new(socket));
        }
    }
}

impl<S: Socket + 'static> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl<S: Socket + 'static> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket()?.poll_read(context, buffer)
    }
}

impl<S: Socket + AsyncWrite + 'static> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(context)
    }
}
