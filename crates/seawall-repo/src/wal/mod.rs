//! The WAL archive of a line: bytes, not files, immutable by (line, timeline, LSN).
//!
//! [`WalArchive`] takes segments and history files in any order and from several writers at once,
//! stores what is not there yet, and refuses what contradicts what is there. It gives segments
//! back, and tells along an [`Ancestry`](seawall_pgdata::history::Ancestry) what the log says
//! without reading its bytes: [`LogWalker`].

mod ancestries;
mod archive;
mod coverage;
mod facts;
mod history;
mod index;
mod ingest;
mod listing;
mod log_end;
mod names;
pub mod range;
mod records;
mod segment;
mod so_far;
mod walk;

pub use ancestries::{Ancestries, DamagedHistory};
pub use archive::WalArchive;
pub use coverage::{TimelineCoverage, WalStretch};
pub use facts::{FactsPart, FactsReader, WalChanges};
pub use history::HistoryStored;
pub use ingest::{SegmentKind, StoredPiece, StretchStored};
pub use log_end::LogEnd;
pub use names::listing_splits;
pub(crate) use names::wal_of;
pub use records::RecordsAround;
pub use segment::SegmentRead;
pub use so_far::{LastCommit, LogSoFar};
pub use walk::{Detail, LogStep, LogWalker, WalHole};

use std::fmt;

use seawall_core::Lsn;
use serde::Serialize;

use crate::records::WalSpan;

/// A stretch of the log: `start` is in it, `end` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LsnRange {
    /// The first byte.
    pub start: Lsn,
    /// After the last byte.
    pub end: Lsn,
}

impl LsnRange {
    /// The part that lies in both; `None` if they do not overlap.
    #[must_use]
    pub fn overlap(self, other: Self) -> Option<Self> {
        let both = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (both.start < both.end).then_some(both)
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn len_bytes(self) -> u64 {
        self.end.bytes_since(self.start)
    }

    /// The same bytes in sorted ranges, of which no two touch.
    #[must_use]
    pub fn joined(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort_unstable();
        let mut joined: Vec<Self> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    /// Takes it out of sorted, disjoint ranges.
    pub fn subtract_from(self, ranges: &mut Vec<Self>) {
        let left = |range: Self| {
            let before = Self { start: range.start, end: range.end.min(self.start) };
            let after = Self { start: range.start.max(self.end), end: range.end };
            [before, after].into_iter().filter(|part| part.start < part.end)
        };
        *ranges = ranges.iter().copied().flat_map(left).collect();
    }

    /// The bytes of `self` out of bytes that begin at `at`.
    fn of(self, bytes: &[u8], at: Lsn) -> &[u8] {
        let from = usize::try_from(self.start.bytes_since(at)).unwrap_or(usize::MAX);
        let to = usize::try_from(self.end.bytes_since(at)).unwrap_or(usize::MAX);
        bytes.get(from..to.min(bytes.len())).unwrap_or_default()
    }

    /// The same, of bytes that nobody else needs.
    fn out_of(self, mut bytes: Vec<u8>, at: Lsn) -> Vec<u8> {
        let before = usize::try_from(self.start.bytes_since(at)).unwrap_or(usize::MAX);
        bytes.truncate(usize::try_from(self.end.bytes_since(at)).unwrap_or(usize::MAX));
        bytes.drain(..before.min(bytes.len()));
        bytes
    }
}

impl From<&WalSpan> for LsnRange {
    fn from(span: &WalSpan) -> Self {
        Self { start: span.start, end: span.end }
    }
}

impl fmt::Display for LsnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.start, self.end)
    }
}
