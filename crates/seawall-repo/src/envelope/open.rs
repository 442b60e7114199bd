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
        let keys = ObjectKeys::new(keyring, &header, bytes, path)?;
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

    pub(super) fn open(
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
    pub(super) fn for_footer() -> Result<Self, Damage> {
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

pub(super) fn checked_chunk(
    bytes: &mut [u8],
    offset: u64,
) -> Result<(ChunkPrefix, &mut [u8]), Damage> {
    let damaged = Damage::Checksum { offset };
    let prefix = ChunkPrefix::decode(bytes).ok_or_else(|| damaged.clone())?;
    let body = bytes.get_mut(CHUNK_PREFIX_BYTES..).ok_or_else(|| damaged.clone())?;
    if prefix.matches(body) { Ok((prefix, body)) } else { Err(damaged) }
}

/// SHA-256, as the footers of objects with a clear part carry it.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = digest::digest(&digest::SHA256, bytes);
    out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    out
}
