//! Small files that share a frame.

use seawall_core::Result;
use seawall_pgdata::page::is_all_zero;
use seawall_repo::hash::{BlockHash, ContentHasher, FullBlockHash};
use seawall_repo::manifest::{Content, Entry, PageError};
use seawall_repo::pack::{BLOCK_BYTES, BlobSize, FramePayload};

use super::copy::Copied;
use super::pack_sink::PackSink;
use super::worker::{Done, narrow};

/// A frame of small files holds at most so much.
const BUNDLE_BYTES: u64 = 128 * 1024;

/// A small file that was read.
pub(super) struct Bundled {
    pub sequence: u64,
    pub entry: Entry,
    pub bytes: Vec<u8>,
    pub errors: Vec<PageError>,
    /// How many bytes there were in the file.
    pub read_bytes: u64,
}

/// Files for one frame.
#[derive(Default)]
pub(super) struct Bundle {
    payload: Vec<u8>,
    hashes: Vec<FullBlockHash>,
    names: Vec<(Vec<u8>, u32)>,
    size: BlobSize,
    files: Vec<Packed>,
}

/// A file in the payload.
struct Packed {
    sequence: u64,
    entry: Entry,
    errors: Vec<PageError>,
    read_bytes: u64,
    /// Where it begins.
    offset: u32,
    /// The hashes of its blocks, as metadata has them.
    hashes: Vec<u8>,
}

impl Bundle {
    /// Whether a file still fits.
    pub fn has_room_for(&self, file: &Bundled) -> bool {
        fits(self.size.with(file.entry.path(), file.bytes.len() as u64))
    }

    pub fn add(&mut self, file: Bundled, hasher: &ContentHasher) -> Result<()> {
        let Bundled { sequence, entry, bytes, errors, read_bytes } = file;
        let mut hashes = Vec::with_capacity(bytes.len().div_ceil(BLOCK_BYTES) * 8);
        for block in bytes.chunks(BLOCK_BYTES) {
            let hash = hasher.block(block);
            hashes.extend(if is_all_zero(block) { [0; 8] } else { hash.short() });
            self.hashes.push(hash);
        }
        self.size = self.size.with(entry.path(), bytes.len() as u64);
        self.names.push((entry.path().to_vec(), narrow(bytes.len())?));
        let offset = narrow(self.payload.len())?;
        self.payload.extend_from_slice(&bytes);
        self.files.push(Packed { sequence, entry, errors, read_bytes, offset, hashes });
        Ok(())
    }

    /// Puts the files into a frame, if there are any.
    pub fn store(self, sink: &mut PackSink, done: Done<'_>) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let what = FramePayload::Blob { files: &self.names };
        let placed = sink.frame(what, &self.payload, &self.hashes)?;
        for Packed { sequence, mut entry, errors, read_bytes, offset, hashes } in self.files {
            let (pack, frame) = (placed.pack, placed.frame);
            entry.content = Some(Content::Blob { pack, frame, offset, hashes });
            done(Copied::Small { sequence, entry, errors, read_bytes })?;
        }
        Ok(())
    }
}

/// Whether files of that size together are to share a frame.
pub(super) fn fits(size: BlobSize) -> bool {
    size.payload_bytes() <= BUNDLE_BYTES && size.fits()
}

/// A block's hash as metadata has it.
pub(super) fn short_hash(hasher: &ContentHasher, block: &[u8]) -> BlockHash {
    if is_all_zero(block) { [0; 8] } else { hasher.block(block).short() }
}
