//! Small files that share a frame.

use seawall_core::Result;
use seawall_pgdata::page::is_all_zero;
use seawall_repo::hash::{BlockHash, ContentHasher, FullBlockHash};
use seawall_repo::manifest::{Content, Entry, PageError};
use seawall_repo::pack::{BLOCK_BYTES, FramePayload};

use super::copy::{BUNDLE_BYTES, Copied};
use super::pack_sink::PackSink;
use super::worker::Done;

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
    files: Vec<Copied>,
}

impl Bundle {
    /// Whether a file still fits.
    pub fn has_room_for(&self, file: &Bundled) -> bool {
        self.payload.len() + file.bytes.len() <= BUNDLE_BYTES as usize
    }

    pub fn add(&mut self, file: Bundled, hasher: &ContentHasher) {
        let Bundled { sequence, mut entry, bytes, errors, read_bytes } = file;
        let mut short = Vec::with_capacity(bytes.len().div_ceil(BLOCK_BYTES) * 8);
        for block in bytes.chunks(BLOCK_BYTES) {
            let hash = hasher.block(block);
            short.extend(if is_all_zero(block) { [0; 8] } else { hash.short() });
            self.hashes.push(hash);
        }
        self.names.push((entry.path().to_vec(), bytes.len() as u32));
        entry.content = Some(Content::Blob {
            pack: 0,
            frame: 0,
            offset: self.payload.len() as u32,
            hashes: short,
        });
        self.payload.extend_from_slice(&bytes);
        self.files.push(Copied::Small { sequence, entry, errors, read_bytes });
    }

    /// Puts the files into a frame, if there are any.
    pub fn store(self, sink: &mut PackSink, done: Done<'_>) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let what = FramePayload::Blob { files: &self.names };
        let placed = sink.frame(what, &self.payload, &self.hashes)?;
        for mut copied in self.files {
            if let Copied::Small { entry: Entry { content: Some(content), .. }, .. } = &mut copied
                && let Content::Blob { pack, frame, .. } = content
            {
                (*pack, *frame) = (placed.pack_index, placed.frame);
            }
            done(copied)?;
        }
        Ok(())
    }
}

/// A block's hash as metadata has it.
pub(super) fn short_hash(hasher: &ContentHasher, block: &[u8]) -> BlockHash {
    if is_all_zero(block) { [0; 8] } else { hasher.block(block).short() }
}
