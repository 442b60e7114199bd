//! One range of WAL as an object (format.md, 9).
//!
//! ```text
//! section 1: the bytes, in chunks of 256 KiB · section 2: the index · footer
//! ```

mod footer;
mod open;
mod seal;

use seawall_core::{Lsn, SystemId};
use seawall_pgdata::wal::RangeIndex;
use seawall_pgdata::wal::page::WAL_PAGE_BYTES;

use super::so_far::LogSoFar;
use crate::hash::{BlockHash, ContentHasher};

pub use open::{OpenedRange, open_range, read_events, read_index, read_range};
pub use seal::{DEFAULT_COMPRESSION_LEVEL, RangeSealer};

/// Bytes of WAL in a chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// What the footer of a range says, and with [`read_index`] its index too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRange {
    /// The cluster that wrote it.
    pub system_id: SystemId,
    /// What is known of its records. Its facts are empty unless the index was read.
    pub index: RangeIndex,
    /// A hash for each part of a WAL page that the range holds, in order.
    pub page_hashes: Vec<BlockHash>,
    /// What the log says up to its end.
    pub so_far: LogSoFar,
    /// The lengths of the chunks of section 1.
    chunk_lengths: Vec<u32>,
    /// Offset and length of the index chunk.
    index_at: (u64, u32),
}

impl WalRange {
    /// The range's first byte.
    #[must_use]
    pub const fn start(&self) -> Lsn {
        self.index.start
    }

    /// After the range's last byte.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.index.end
    }
}

/// The pieces of `bytes`, which begin at `start`, that lie in one WAL page each.
pub(super) fn page_parts(start: Lsn, bytes: &[u8]) -> impl Iterator<Item = (Lsn, &[u8])> {
    let mut lsn = start;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let left_in_page =
            usize::try_from(WAL_PAGE_BYTES - lsn.0 % WAL_PAGE_BYTES).unwrap_or(rest.len());
        let (part, after) = rest.split_at(left_in_page.min(rest.len()));
        let at = lsn;
        lsn = lsn.saturating_add(part.len() as u64);
        rest = after;
        Some((at, part))
    })
}

/// The hash of a part of a page: that of a block (format.md, 5).
pub(super) fn part_hash(hasher: &ContentHasher, part: &[u8]) -> BlockHash {
    if part.iter().all(|byte| *byte == 0) { [0; 8] } else { hasher.block(part).short() }
}
