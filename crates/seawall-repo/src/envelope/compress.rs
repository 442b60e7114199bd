use std::io::Cursor;

use seawall_core::{Code, Error, Result};

use super::open::PLAINTEXT_BYTES_MAX;

/// A zstd compressor that is reused from chunk to chunk.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// A compressor of the given level.
    ///
    /// # Errors
    /// [`Code::Internal`] if zstd cannot make one.
    pub fn new(level: i32) -> Result<Self> {
        zstd::bulk::Compressor::new(level)
            .map(Self)
            .map_err(|error| Error::new(Code::Internal, "cannot set up zstd").with_source(error))
    }
}

/// What a chunk holds, before it is sealed: compressed where that makes it smaller. The same for
/// every object it is sealed into, whatever their keys.
#[derive(Debug, Default)]
pub struct ChunkBody {
    bytes: Vec<u8>,
    is_compressed: bool,
}

impl ChunkBody {
    /// Makes it that of `plaintext`; its buffer is kept.
    pub fn fill(&mut self, plaintext: &[u8], compressor: &mut Compressor) {
        self.bytes.clear();
        self.is_compressed = compress(compressor, plaintext, &mut self.bytes);
        if !self.is_compressed {
            self.bytes.extend_from_slice(plaintext);
        }
    }

    /// The bytes as they are sealed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether they are compressed.
    pub(super) const fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}

/// Compresses `plaintext` to the end of `out`; leaves `out` as it was if that does not pay, or if
/// nobody would unpack so much.
pub(super) fn compress(compressor: &mut Compressor, plaintext: &[u8], out: &mut Vec<u8>) -> bool {
    if plaintext.len() > PLAINTEXT_BYTES_MAX {
        return false;
    }
    let start = out.len();
    out.reserve(plaintext.len());
    let mut target = Cursor::new(&mut *out);
    target.set_position(start as u64);
    let written = compressor.0.compress_to_buffer(plaintext, &mut target);
    let pays = written.is_ok_and(|bytes| bytes < plaintext.len());
    if !pays {
        out.truncate(start);
    }
    pays
}
