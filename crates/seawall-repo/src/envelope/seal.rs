use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use seawall_core::{Code, Error, Result};
use seawall_store::ObjectPath;

use super::compress::{ChunkBody, Compressor, compress};
use super::layout::{ChunkPrefix, FLAG_CLEAR, FLAG_ZSTD, Header, Trailer};
use super::{CHUNK_PREFIX_BYTES, HEADER_BYTES, ObjectKind, Section, TAG_BYTES};
use crate::Damage;
use crate::keys::{Domain, Keyring, random_bytes};

/// The keys and additional data of one object.
pub(super) struct ObjectKeys {
    metadata: LessSafeKey,
    data: LessSafeKey,
    aad: Vec<u8>,
}

impl ObjectKeys {
    /// # Errors
    /// [`Damage::Epoch`] and [`Damage::Locked`] for an epoch without keys.
    pub fn new(
        keyring: &Keyring,
        header: &Header,
        header_bytes: &[u8; HEADER_BYTES],
        path: &ObjectPath,
    ) -> Result<Self, Damage> {
        let key = |domain| {
            let key = keyring.object_key(header.epoch, domain, &header.salt)?;
            let key = UnboundKey::new(&AES_256_GCM, &key);
            let unfit = |_| Damage::Content("AES-256-GCM does not take its key".to_owned());
            key.map(LessSafeKey::new).map_err(unfit)
        };
        let path = path.as_str().as_bytes();
        // A store's path has at most 700 bytes.
        let path_bytes = u16::try_from(path.len()).unwrap_or(u16::MAX);
        let mut aad = Vec::with_capacity(16 + HEADER_BYTES + 4 + path.len() + 20);
        aad.extend_from_slice(keyring.repository());
        aad.extend_from_slice(header_bytes);
        aad.extend_from_slice(&[0, 0]);
        aad.extend_from_slice(&path_bytes.to_le_bytes());
        aad.extend_from_slice(path);
        Ok(Self { metadata: key(Domain::Metadata)?, data: key(Domain::Data)?, aad })
    }

    pub fn key(&self, domain: Domain) -> &LessSafeKey {
        match domain {
            Domain::Metadata => &self.metadata,
            Domain::Data => &self.data,
        }
    }

    /// The additional data of a chunk; `tail` is the trailer's part for the footer.
    pub fn aad(&self, section: Section, flags: u8, tail: &[u8]) -> Vec<u8> {
        let mut aad = Vec::with_capacity(self.aad.len() + tail.len());
        aad.extend_from_slice(&self.aad);
        if let Some(place) = aad.get_mut(16 + HEADER_BYTES..16 + HEADER_BYTES + 2) {
            place.copy_from_slice(&[section.0, flags]);
        }
        aad.extend_from_slice(tail);
        aad
    }
}

/// Seals one object's chunks in order. The bytes it returns, joined, are the object.
pub struct ObjectSealer {
    kind: ObjectKind,
    keys: ObjectKeys,
    offset: u64,
    chunks: u32,
    counters: [u32; 3],
}

impl std::fmt::Debug for ObjectSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectSealer")
            .field("kind", &self.kind)
            .field("offset", &self.offset)
            .finish()
    }
}

impl ObjectSealer {
    /// Begins an object under `path`, appending its header to `out`.
    ///
    /// # Errors
    /// [`Code::KeyEpochGone`] if the newest epoch has no keys, [`Code::Internal`] without randomness.
    pub fn begin(
        keyring: &Keyring,
        kind: ObjectKind,
        path: &ObjectPath,
        out: &mut Vec<u8>,
    ) -> Result<Self> {
        keyring.current()?;
        let header =
            Header { kind: kind as u8, epoch: keyring.current_epoch(), salt: random_bytes()? };
        let bytes = header.encode();
        let keys = ObjectKeys::new(keyring, &header, &bytes, path)
            .map_err(|damage| Error::new(Code::Internal, damage.to_string()))?;
        out.extend_from_slice(&bytes);
        Ok(Self { kind, keys, offset: HEADER_BYTES as u64, chunks: 0, counters: [0; 3] })
    }

    /// The offset at which the next chunk will begin.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Seals `plaintext` as the next chunk of `section` and appends it to `out`. It is compressed
    /// where a compressor is given and compression makes it smaller. Returns the chunk's length.
    ///
    /// # Errors
    /// [`Code::Internal`] past 2³² chunks or bytes.
    pub fn chunk(
        &mut self,
        section: Section,
        plaintext: &[u8],
        compressor: Option<&mut Compressor>,
        out: &mut Vec<u8>,
    ) -> Result<u32> {
        let counter = self.next_counter(section)?;
        let put = |out: &mut Vec<u8>| put(plaintext, compressor, out);
        self.seal(section, counter, put, &[], out)
    }

    /// Seals as the next chunk of `section` what was compressed already, and appends it to `out`.
    /// Returns the chunk's length.
    ///
    /// # Errors
    /// [`Code::Internal`] past 2³² chunks or bytes.
    pub fn body_chunk(
        &mut self,
        section: Section,
        body: &ChunkBody,
        out: &mut Vec<u8>,
    ) -> Result<u32> {
        let counter = self.next_counter(section)?;
        let put = |out: &mut Vec<u8>| {
            out.extend_from_slice(body.bytes());
            body.is_compressed()
        };
        self.seal(section, counter, put, &[], out)
    }

    /// Appends `bytes` unencrypted; the caller puts their SHA-256 into the footer.
    ///
    /// # Errors
    /// [`Code::Internal`] past 2³² chunks or bytes.
    pub fn clear_chunk(&mut self, section: Section, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let counter = self.next_counter(section)?;
        let prefix = ChunkPrefix::over(section, FLAG_CLEAR, counter, bytes).ok_or_else(too_long)?;
        out.extend_from_slice(&prefix.encode());
        out.extend_from_slice(bytes);
        self.grow(CHUNK_PREFIX_BYTES + bytes.len());
        Ok(())
    }

    /// Seals the footer and ends the object. Returns the object's length.
    ///
    /// # Errors
    /// [`Code::Internal`] if the footer cannot be sealed.
    pub fn finish(mut self, footer: &[u8], out: &mut Vec<u8>) -> Result<u64> {
        let trailer = Trailer::after(self.offset, footer.len() + TAG_BYTES, self.chunks + 1);
        let put = |out: &mut Vec<u8>| put(footer, None, out);
        self.seal(Section::FOOTER, 0, put, &trailer.authenticated(), out)?;
        out.extend_from_slice(&trailer.encode());
        Ok(trailer.object_bytes)
    }

    /// Seals what `put` appends; it tells whether that is compressed.
    fn seal(
        &mut self,
        section: Section,
        counter: u32,
        put: impl FnOnce(&mut Vec<u8>) -> bool,
        tail: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u32> {
        let internal = |what: &str| Error::new(Code::Internal, what.to_owned());
        let start = out.len();
        out.resize(start + CHUNK_PREFIX_BYTES, 0);
        let body = start + CHUNK_PREFIX_BYTES;
        let flags = if put(out) { FLAG_ZSTD } else { 0 };
        let nonce = ChunkPrefix { section: section.0, flags, counter, length: 0, crc: 0 }.nonce();
        let sealed = out.get_mut(body..).ok_or_else(|| internal("chunk out of bounds"))?;
        let tag = self
            .keys
            .key(section.domain(self.kind))
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.keys.aad(section, flags, tail)),
                sealed,
            )
            .map_err(|_| internal("cannot encrypt a chunk"))?;
        out.extend_from_slice(tag.as_ref());
        let prefix =
            ChunkPrefix::over(section, flags, counter, out.get(body..).unwrap_or_default())
                .ok_or_else(too_long)?
                .encode();
        if let Some(place) = out.get_mut(start..body) {
            place.copy_from_slice(&prefix);
        }
        let length = out.len() - start;
        self.grow(length);
        u32::try_from(length).map_err(|_| too_long())
    }

    fn next_counter(&mut self, section: Section) -> Result<u32> {
        let full = || Error::new(Code::Internal, "an object has too many chunks");
        let counter = self.counters.get_mut(usize::from(section.0)).ok_or_else(full)?;
        let this = *counter;
        *counter = counter.checked_add(1).ok_or_else(full)?;
        Ok(this)
    }

    fn grow(&mut self, bytes: usize) {
        self.offset += bytes as u64;
        self.chunks += 1;
    }
}

/// Appends `plaintext`, compressed where a compressor is given and that makes it smaller: then it is
/// `true`.
fn put(plaintext: &[u8], compressor: Option<&mut Compressor>, out: &mut Vec<u8>) -> bool {
    let compressed = compressor.is_some_and(|compressor| compress(compressor, plaintext, out));
    if !compressed {
        out.extend_from_slice(plaintext);
    }
    compressed
}

fn too_long() -> Error {
    Error::new(Code::Internal, "a part of an object is longer than 4 GiB")
}
