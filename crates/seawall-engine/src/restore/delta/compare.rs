//! Comparing a file of the directory with the backup's, block by block.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use seawall_core::{Code, Error, Progress, Result};
use seawall_pgdata::wal::BlockSet;
use seawall_repo::hash::{BlockHash, ContentHasher};
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::pack::BLOCK_BYTES;
use seawall_store::direct::AlignedBuffer;

use super::local::{Stamp, usable};
use crate::backup::{OpenFile, Piece};
use crate::pace::Pace;
use crate::restore::execute::{FileBlocks, FileToWrite};

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) enum Compared {
    /// It is to be written anew: there is none that can be written into, or nothing of it is of use.
    #[default]
    Whole,
    /// It is the backup's.
    Same {
        /// What tells that it still is.
        stamp: Option<Stamp>,
        /// Its CRC-32C.
        crc: u32,
    },
    /// Some of its blocks are.
    Differs {
        /// What tells that no others are.
        stamp: Option<Stamp>,
        /// Which ones are not.
        difference: Box<Difference>,
    },
    /// What was found was too much to be kept.
    Forgotten,
}

/// The blocks of a file that differ, once it has the right length.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Which blocks differ.
    pub blocks: BlockSet,
    /// CRC-32C of each stretch of blocks that do not, in their order.
    pub crcs: Vec<u32>,
}

impl Difference {
    /// Those of the blocks that are not to be zero.
    pub fn stored(&self, hashes: &[BlockHash]) -> BlockSet {
        let mut stored = BlockSet::new();
        let is_zero = |block: u32| hashes.get(block as usize) == Some(&BlockHash::default());
        for block in self.blocks.iter().filter(|block| !is_zero(*block)) {
            stored.insert(block);
        }
        stored
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let blocks = usize::try_from(self.blocks.len()).unwrap_or(usize::MAX);
        blocks.saturating_mul(2).min(16 << 10) + self.crcs.len() * 4
    }
}

/// Reads files of the directory and compares them.
pub(super) struct Comparer<'c> {
    hasher: ContentHasher,
    pace: Arc<Pace>,
    progress: &'c dyn Progress,
    buffers: Vec<AlignedBuffer>,
    /// Bytes that were read.
    pub read_bytes: u64,
}

impl<'c> Comparer<'c> {
    pub fn new(hasher: ContentHasher, pace: Arc<Pace>, progress: &'c dyn Progress) -> Self {
        Self { hasher, pace, progress, buffers: Vec::new(), read_bytes: 0 }
    }

    /// Compares a file. `blocks` are those of one that has a block map.
    ///
    /// # Errors
    /// [`Code::ClusterUnreadable`] if it cannot be read.
    pub fn compare(&mut self, file: &FileToWrite, blocks: Option<&FileBlocks>) -> Result<Compared> {
        let FileToWrite { location, entry, .. } = file;
        let Some(found) = usable(location)? else { return Ok(Compared::Whole) };
        if found.size() == 0 && entry.size_bytes() > 0 {
            return Ok(Compared::Whole);
        }
        let stamp = Stamp::of(&found);
        let length_is_right = found.size() == entry.size_bytes();
        match &entry.content {
            None if length_is_right => Ok(Compared::Same { stamp, crc: 0 }),
            Some(Content::Blob { hashes, .. }) if length_is_right => {
                let (hashes, _) = hashes.as_chunks::<8>();
                let difference = self.difference(location, entry, hashes)?;
                Ok(match difference {
                    Some(difference) if difference.blocks.is_empty() => {
                        let crc = difference.crcs.first().copied().unwrap_or_default();
                        Compared::Same { stamp, crc }
                    }
                    Some(_) | None => Compared::Whole,
                })
            }
            None | Some(Content::Blob { .. }) => Ok(Compared::Whole),
            Some(Content::Mapped { .. }) => {
                let missing = || Error::new(Code::Internal, "a file came without its block map");
                let hashes = &blocks.ok_or_else(missing)?.hashes;
                let Some(difference) = self.difference(location, entry, hashes)? else {
                    return Ok(Compared::Whole);
                };
                if difference.blocks.len() == hashes.len() as u64 {
                    return Ok(Compared::Whole);
                }
                if difference.blocks.is_empty() && length_is_right {
                    let crc = difference.crcs.first().copied().unwrap_or_default();
                    return Ok(Compared::Same { stamp, crc });
                }
                Ok(Compared::Differs { stamp, difference: Box::new(difference) })
            }
        }
    }

    /// Compares what a file will be once it has the right length: zeroes where it is too short.
    /// `None` if it is gone.
    fn difference(
        &mut self,
        location: &Path,
        entry: &Entry,
        hashes: &[BlockHash],
    ) -> Result<Option<Difference>> {
        let Some(mut open) = OpenFile::open(location)? else { return Ok(None) };
        let mut walk = Walk::new(&self.hasher, hashes);
        let (pace, progress) = (&self.pace, self.progress);
        let mut read_bytes = 0;
        let whole = (0, entry.size_bytes());
        open.pieces(location, whole, &mut self.buffers, &mut |_, piece: Piece<'_>| {
            pace.take(piece.read_bytes)?;
            progress.advance(piece.bytes.len() as u64);
            read_bytes += piece.read_bytes;
            walk.piece(piece.bytes);
            Ok(())
        })?;
        self.read_bytes += read_bytes;
        Ok(Some(walk.end()))
    }
}

/// Goes through a file's blocks.
struct Walk<'w> {
    hasher: &'w ContentHasher,
    hashes: &'w [BlockHash],
    block: u32,
    /// Of the stretch that is the same, if the last block was.
    crc: Option<u32>,
    found: Difference,
}

impl<'w> Walk<'w> {
    fn new(hasher: &'w ContentHasher, hashes: &'w [BlockHash]) -> Self {
        Self { hasher, hashes, block: 0, crc: None, found: Difference::default() }
    }

    fn piece(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK_BYTES) {
            if self.is_same(block) {
                self.crc = Some(crc32c::crc32c_append(self.crc.unwrap_or_default(), block));
            } else {
                self.found.crcs.extend(self.crc.take());
                self.found.blocks.insert(self.block);
            }
            self.block += 1;
        }
    }

    fn is_same(&self, bytes: &[u8]) -> bool {
        match self.hashes.get(self.block as usize) {
            None => false,
            Some(expected) if *expected == BlockHash::default() => {
                bytes.iter().all(|byte| *byte == 0)
            }
            Some(expected) => self.hasher.block(bytes).short() == *expected,
        }
    }

    fn end(mut self) -> Difference {
        self.found.crcs.extend(self.crc.take());
        self.found
    }
}
