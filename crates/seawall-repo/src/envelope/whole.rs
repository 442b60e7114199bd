use seawall_store::ObjectPath;

use super::layout::{ChunkPrefix, FLAG_CLEAR, Header, Trailer};
use super::open::{Decompressor, ObjectOpener, check_chunks, checked_chunk};
use super::{CHUNK_PREFIX_BYTES, HEADER_BYTES, ObjectKind, Section, TRAILER_BYTES};
use crate::Damage;
use crate::keys::Keyring;

/// A whole object in memory, authenticated from end to end.
#[derive(Debug, Clone)]
pub struct WholeObject {
    /// The chunks before the footer: section and plaintext.
    pub chunks: Vec<(Section, Vec<u8>)>,
    /// The footer's plaintext.
    pub footer: Vec<u8>,
}

impl WholeObject {
    /// Opens every chunk of an object.
    ///
    /// # Errors
    /// [`Damage`], naming the first chunk that is not as it was written.
    pub fn open(
        keyring: &Keyring,
        kind: ObjectKind,
        path: &ObjectPath,
        bytes: &[u8],
    ) -> Result<Self, Damage> {
        let (mut walk, footer) = ChunkWalk::begin(keyring, kind, path, bytes)?;
        let mut chunks = Vec::new();
        while let Some((section, plaintext)) = walk.next()? {
            chunks.push((section, plaintext.to_vec()));
        }
        Ok(Self { chunks, footer })
    }

    /// Proves every chunk of an object and keeps none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn prove(
        keyring: &Keyring,
        kind: ObjectKind,
        path: &ObjectPath,
        bytes: &[u8],
    ) -> Result<(), Damage> {
        let (mut walk, _) = ChunkWalk::begin(keyring, kind, path, bytes)?;
        while walk.next()?.is_some() {}
        Ok(())
    }

    /// Reads the first clear chunk of an object without a key. It is not authenticated by this.
    ///
    /// # Errors
    /// [`Damage`] if the object is not whole, or has no clear chunk.
    pub fn peek_clear(kind: ObjectKind, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
        let header = Header::decode(bytes.get(..HEADER_BYTES).ok_or(Damage::Length)?)?;
        if header.kind != kind as u8 {
            return Err(Damage::Kind { expected: kind as u8, found: header.kind });
        }
        let trailer = Trailer::decode(last_bytes(bytes), bytes.len() as u64)?;
        let end = bytes.len() - TRAILER_BYTES;
        let chunks = bytes.get(HEADER_BYTES..end).ok_or(Damage::Length)?;
        if check_chunks(chunks, HEADER_BYTES as u64)? != trailer.chunks {
            return Err(Damage::Length);
        }
        let prefix = ChunkPrefix::decode(chunks).ok_or(Damage::Length)?;
        let body = CHUNK_PREFIX_BYTES..CHUNK_PREFIX_BYTES + prefix.length as usize;
        (prefix.flags == FLAG_CLEAR)
            .then(|| chunks.get(body))
            .flatten()
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Damage::Content("the first part is not clear".to_owned()))
    }
}

/// The chunks of an object in memory, opened one after another: only one is held in plaintext. The
/// object is proven when [`ChunkWalk::next`] has said, once, that there are no more.
pub(crate) struct ChunkWalk<'b> {
    kind: ObjectKind,
    opener: ObjectOpener,
    rest: &'b [u8],
    offset: u64,
    /// Chunks left, the footer among them.
    left: u64,
    /// The next chunk's number in each section.
    counters: [u32; 3],
    decompressor: Decompressor,
    sealed: Vec<u8>,
    plaintext: Vec<u8>,
}

impl<'b> ChunkWalk<'b> {
    /// Opens the footer; its plaintext stands beside the walk.
    ///
    /// # Errors
    /// [`Damage`] if the object's ends are not as they were written.
    pub fn begin(
        keyring: &Keyring,
        kind: ObjectKind,
        path: &ObjectPath,
        bytes: &'b [u8],
    ) -> Result<(Self, Vec<u8>), Damage> {
        let length = bytes.len() as u64;
        let opener = ObjectOpener::new(keyring, kind, path, bytes)?;
        let trailer = Trailer::decode(last_bytes(bytes), length)?;
        let split = usize::try_from(trailer.footer_offset).map_err(|_| Damage::Length)?;
        let (head, tail) = bytes.split_at_checked(split).ok_or(Damage::Length)?;
        let footer = opener.footer(&mut tail.to_vec(), length)?;
        let walk = Self {
            kind,
            opener,
            rest: head.get(HEADER_BYTES..).ok_or(Damage::Length)?,
            offset: HEADER_BYTES as u64,
            left: u64::from(trailer.chunks),
            counters: [0; 3],
            decompressor: Decompressor::for_footer()?,
            sealed: Vec::new(),
            plaintext: Vec::new(),
        };
        Ok((walk, footer))
    }

    /// The next chunk before the footer: its section and its plaintext.
    ///
    /// # Errors
    /// [`Damage`] if it is not as it was written, or if there are fewer or more than were written.
    pub fn next(&mut self) -> Result<Option<(Section, &[u8])>, Damage> {
        let offset = self.offset;
        self.left = self.left.checked_sub(1).ok_or(Damage::Length)?;
        if self.rest.is_empty() {
            return if self.left == 0 { Ok(None) } else { Err(Damage::Length) };
        }
        let (chunk, after) = self.rest.split_at(chunk_length(self.rest, offset)?);
        self.sealed.clear();
        self.sealed.extend_from_slice(chunk);
        let (prefix, body) = checked_chunk(&mut self.sealed, offset)?;
        let expected = self
            .counters
            .get_mut(usize::from(prefix.section))
            .ok_or(Damage::Authentication { offset })?;
        if prefix.counter != *expected {
            return Err(Damage::Authentication { offset });
        }
        *expected += 1;
        self.plaintext.clear();
        if prefix.flags == FLAG_CLEAR && self.kind.may_be_clear() {
            self.plaintext.extend_from_slice(body);
        } else {
            let decompressor = &mut self.decompressor;
            self.opener.open(prefix, body, offset, &[], decompressor, &mut self.plaintext)?;
        }
        self.offset += chunk.len() as u64;
        self.rest = after;
        Ok(Some((Section(prefix.section), &self.plaintext)))
    }
}

fn last_bytes(bytes: &[u8]) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(TRAILER_BYTES)..).unwrap_or_default()
}

fn chunk_length(bytes: &[u8], offset: u64) -> Result<usize, Damage> {
    let prefix = ChunkPrefix::decode(bytes).ok_or(Damage::Checksum { offset })?;
    let length = CHUNK_PREFIX_BYTES + prefix.length as usize;
    if length <= bytes.len() { Ok(length) } else { Err(Damage::Checksum { offset }) }
}
