use aws_lc_rs::aead::{Aad, Nonce};
use aws_lc_rs::digest;
use seawall_core::{Code, Error, Result};
use seawall_store::ObjectPath;

use super::layout::{ChunkPrefix, FLAG_CLEAR, FLAG_ZSTD, Header, Trailer};
use super::seal::ObjectKeys;
use super::{CHUNK_PREFIX_BYTES, HEADER_BYTES, ObjectKind, Section, TRAILER_BYTES};
use crate::Damage;
use crate::keys::Keyring;

/// No chunk inflates to more; what is longer is not compressed. The largest are manifest pages, map
/// leaves and WAL indexes.
pub(super) const PLAINTEXT_BYTES_MAX: usize = 64 << 20;

/// A zstd decompressor that is reused from chunk to chunk.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    /// A new decompressor.
    ///
    /// # Errors
    /// [`Code::Internal`] if zstd cannot make one.
    pub fn new() -> Result<Self> {
        zstd::bulk::Decompressor::new()
            .map(Self)
            .map_err(|error| Error::new(Code::Internal, "cannot set up zstd").with_source(error))
    }

    fn inflate(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Damage> {
        let content = |what: &str| Damage::Content(what.to_owned());
        let size = zstd::zstd_safe::get_frame_content_size(bytes)
            .ok()
            .flatten()
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| *size <= PLAINTEXT_BYTES_MAX)
            .ok_or_else(|| content("a compressed chunk does not state a sane size"))?;
        out.clear();
        out.resize(size, 0);
        match self.0.decompress_to_buffer(bytes, out.as_mut_slice()) {
            Ok(written) if written == size => Ok(()),
            _ => Err(content("a chunk does not decompress")),
        }
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressor")
    }
}

/// Opens the chunks of one object, wherever they were read from.
pub struct ObjectOpener {
    kind: ObjectKind,
    keys: ObjectKeys,
}

impl std::fmt::Debug for ObjectOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectOpener").field("kind", &self.kind).finish()
    }
}

impl ObjectOpener {
    /// Reads an object's first 64 bytes and derives its keys.
    ///
    /// # Errors
    /// [`Damage`] if they are not the header of an object of this kind.
    pub fn new(
        keyring: &Keyring,
        kind: ObjectKind,
        path: &ObjectPath,
        header_bytes: &[u8],
    ) -> Result<Self, Damage> {
        let bytes: &[u8; HEADER_BYTES] = header_bytes
            .get(..HEADER_BYTES)
            .and_then(|b| b.try_into().ok())
            .ok_or(Damage::Length)?;
        let header = Header::decode(bytes)?;
        if header.kind != kind as u8 {
            return Err(Damage::Kind { expected: kind as u8, found: header.kind });
        }
        let keys =
            ObjectKeys::new(keyring, &header, bytes, path).ok_or(Damage::Epoch(header.epoch))?;
        Ok(Self { kind, keys })
    }

    /// Opens the chunk that begins at `bytes` and fills it; `offset` is its place in the object.
    /// The plaintext replaces what `scratch` held and is returned from there.
    ///
    /// # Errors
    /// [`Damage`]: checksum first, then authentication, then content.
    pub fn chunk<'s>(
        &self,
        section: Section,
        counter: u32,
        bytes: &mut [u8],
        offset: u64,
        decompressor: &mut Decompressor,
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], Damage> {
        let (prefix, body) = checked_chunk(bytes, offset)?;
        if prefix.section != section.0 || prefix.counter != counter {
            return Err(Damage::Authentication { offset });
        }
        self.open(prefix, body, offset, &[], decompressor, scratch)?;
        Ok(scratch)
    }

    /// Like [`ObjectOpener::chunk`], for readers that know a chunk by its hash and not by its
    /// number within the section.
    ///
    /// # Errors
    /// [`Damage`]: checksum first, then authentication, then content.
    pub fn any_chunk(
        &self,
        section: Section,
        bytes: &mut [u8],
        offset: u64,
        decompressor: &mut Decompressor,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        let (prefix, body) = checked_chunk(bytes, offset)?;
        if prefix.section != section.0 {
            return Err(Damage::Authentication { offset });
        }
        self.open(prefix, body, offset, &[], decompressor, plaintext)
    }

    fn open(
        &self,
        prefix: ChunkPrefix,
        body: &mut [u8],
        offset: u64,
        tail: &[u8],
        decompressor: &mut Decompressor,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        if prefix.flags & FLAG_CLEAR != 0 {
            return Err(Damage::Authentication { offset });
        }
        let section = Section(prefix.section);
        let opened = self
            .keys
            .key(section.domain(self.kind))
            .open_in_place(
                Nonce::assume_unique_for_key(prefix.nonce()),
                Aad::from(self.keys.aad(section, prefix.flags, tail)),
                body,
            )
            .map_err(|_| Damage::Authentication { offset })?;
        if prefix.flags & FLAG_ZSTD != 0 {
            decompressor.inflate(opened, plaintext)
        } else {
            plaintext.clear();
            plaintext.extend_from_slice(opened);
            Ok(())
        }
    }

    /// Opens the footer. `tail` is the object's end, from the footer's chunk to its last byte, and
    /// `object_bytes` the object's length.
    ///
    /// # Errors
    /// [`Damage`] if the object was truncated, extended or changed.
    pub fn footer(&self, tail: &mut [u8], object_bytes: u64) -> Result<Vec<u8>, Damage> {
        let split = tail.len().checked_sub(TRAILER_BYTES).ok_or(Damage::Length)?;
        let (chunk, trailer) = tail.split_at_mut_checked(split).ok_or(Damage::Length)?;
        let trailer = Trailer::decode(trailer, object_bytes)?;
        let offset = trailer.footer_offset;
        if offset + (split + TRAILER_BYTES) as u64 != object_bytes {
            return Err(Damage::Length);
        }
        let (prefix, body) = checked_chunk(chunk, offset)?;
        if prefix.section != Section::FOOTER.0 || prefix.counter != 0 {
            return Err(Damage::Authentication { offset });
        }
        let mut plaintext = Vec::new();
        let authenticated = trailer.authenticated();
        self.open(
            prefix,
            body,
            offset,
            &authenticated,
            &mut Decompressor::for_footer()?,
            &mut plaintext,
        )?;
        Ok(plaintext)
    }
}

impl Decompressor {
    fn for_footer() -> Result<Self, Damage> {
        Self::new().map_err(|error| Damage::Content(error.to_string()))
    }
}

/// Where an object's footer begins, given its last 32 bytes and its length.
pub(crate) fn footer_offset(trailer: &[u8], object_bytes: u64) -> Result<u64, Damage> {
    Trailer::decode(trailer, object_bytes).map(|trailer| trailer.footer_offset)
}

/// Tests, without a key, that every chunk of a piece of an object is as it was stored. `bytes`
/// begins with a chunk, at `offset` in the object, and ends with one. Returns their number.
pub(crate) fn check_chunks(mut bytes: &[u8], mut offset: u64) -> Result<u32, Damage> {
    let mut chunks = 0;
    while !bytes.is_empty() {
        let prefix = ChunkPrefix::decode(bytes).ok_or(Damage::Checksum { offset })?;
        let length = CHUNK_PREFIX_BYTES + prefix.length as usize;
        let body = bytes.get(CHUNK_PREFIX_BYTES..length).ok_or(Damage::Checksum { offset })?;
        if !prefix.matches(body) {
            return Err(Damage::Checksum { offset });
        }
        bytes = bytes.get(length..).unwrap_or_default();
        offset += length as u64;
        chunks += 1;
    }
    Ok(chunks)
}

fn checked_chunk(bytes: &mut [u8], offset: u64) -> Result<(ChunkPrefix, &mut [u8]), Damage> {
    let damaged = Damage::Checksum { offset };
    let prefix = ChunkPrefix::decode(bytes).ok_or_else(|| damaged.clone())?;
    let body = bytes.get_mut(CHUNK_PREFIX_BYTES..).ok_or_else(|| damaged.clone())?;
    if prefix.matches(body) { Ok((prefix, body)) } else { Err(damaged) }
}

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
        let mut chunks = Vec::new();
        let footer = walk(keyring, kind, path, bytes, &mut |section, plaintext| {
            chunks.push((section, std::mem::take(plaintext)));
        })?;
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
        walk(keyring, kind, path, bytes, &mut |_, _| ()).map(drop)
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

/// Opens an object's chunks one after another, gives the plaintext of each to `each`, and returns
/// the footer's.
fn walk(
    keyring: &Keyring,
    kind: ObjectKind,
    path: &ObjectPath,
    bytes: &[u8],
    each: &mut dyn FnMut(Section, &mut Vec<u8>),
) -> Result<Vec<u8>, Damage> {
    let length = bytes.len() as u64;
    let opener = ObjectOpener::new(keyring, kind, path, bytes)?;
    let trailer = Trailer::decode(last_bytes(bytes), length)?;
    let split = usize::try_from(trailer.footer_offset).map_err(|_| Damage::Length)?;
    let (head, tail) = bytes.split_at_checked(split).ok_or(Damage::Length)?;
    let footer = opener.footer(&mut tail.to_vec(), length)?;
    let mut decompressor = Decompressor::for_footer()?;
    let (mut chunks, mut counters) = (0u64, [0u32; 3]);
    let (mut sealed, mut plaintext) = (Vec::new(), Vec::new());
    let mut rest = head.get(HEADER_BYTES..).ok_or(Damage::Length)?;
    let mut offset = HEADER_BYTES as u64;
    while !rest.is_empty() {
        let chunk_bytes = chunk_length(rest, offset)?;
        let (chunk, after) = rest.split_at(chunk_bytes);
        sealed.clear();
        sealed.extend_from_slice(chunk);
        let (prefix, body) = checked_chunk(&mut sealed, offset)?;
        let expected = counters
            .get_mut(usize::from(prefix.section))
            .ok_or(Damage::Authentication { offset })?;
        if prefix.counter != *expected {
            return Err(Damage::Authentication { offset });
        }
        *expected += 1;
        plaintext.clear();
        if prefix.flags == FLAG_CLEAR && kind.may_be_clear() {
            plaintext.extend_from_slice(body);
        } else {
            opener.open(prefix, body, offset, &[], &mut decompressor, &mut plaintext)?;
        }
        each(Section(prefix.section), &mut plaintext);
        chunks += 1;
        offset += chunk_bytes as u64;
        rest = after;
    }
    if chunks + 1 == u64::from(trailer.chunks) { Ok(footer) } else { Err(Damage::Length) }
}

fn last_bytes(bytes: &[u8]) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(TRAILER_BYTES)..).unwrap_or_default()
}

fn chunk_length(bytes: &[u8], offset: u64) -> Result<usize, Damage> {
    let prefix = ChunkPrefix::decode(bytes).ok_or(Damage::Checksum { offset })?;
    let length = CHUNK_PREFIX_BYTES + prefix.length as usize;
    if length <= bytes.len() { Ok(length) } else { Err(Damage::Checksum { offset }) }
}

/// SHA-256, as the footers of objects with a clear part carry it.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = digest::digest(&digest::SHA256, bytes);
    out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    out
}
