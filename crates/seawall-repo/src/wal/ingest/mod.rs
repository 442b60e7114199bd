//! Takes segment files into the archive.

mod compare;
mod examine;
mod seams;

use std::borrow::Cow;
use std::collections::BTreeSet;

use seawall_core::{Action, Code, Error, Lsn, Result, TimelineId, WalSegment, hint};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{EndOfWal, RangeIndex};
use seawall_store::StoreError;

use super::listing::Listed;
use super::range::RangeSealer;
use super::walk::filler_index;
use super::{LsnRange, WalArchive};
use crate::layout::{LineObject, WalRangeName};
use examine::{Piece, SegmentFile};

/// How often another writer may be first with the same piece. Its bytes are there then, so that
/// once would do unless ranges vanish.
const RACES_LOST_MAX: usize = 16;

/// Whether a file holds a segment to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// A segment as PostgreSQL archives it: full, or switched, or left by a timeline that is known.
    Whole,
    /// The last segment of a timeline that was left (`.partial`), or of a server that is gone: up to
    /// its last whole record.
    Partial,
}

/// The part of a pushed segment that one timeline wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPiece {
    /// The timeline.
    pub timeline: TimelineId,
    /// The part.
    pub range: LsnRange,
    /// How many of its bytes were not archived before.
    pub new_bytes: u64,
}

/// What became of a pushed segment. All of it that is WAL is in the archive and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStored {
    /// In LSN order.
    pub pieces: Vec<StoredPiece>,
    /// Up to here the file is WAL, or filler after a switch. What lies behind was not stored.
    pub valid_to: Lsn,
}

impl SegmentStored {
    /// How many bytes were not archived before.
    #[must_use]
    pub fn new_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.new_bytes).sum()
    }
}

impl WalArchive {
    /// Stores a segment file, byte for byte what is not archived yet.
    ///
    /// Each byte goes to the timeline that wrote it, so the head of a new timeline's first segment
    /// is compared with its parent's. Every record's CRC is checked. Equal bytes again are success.
    ///
    /// # Errors
    /// [`Code::NotWal`], [`Code::WalWrongCluster`], [`Code::WalDamaged`] for what may not be
    /// archived; [`Code::WalConflict`] and [`Code::WalDiscontinuous`] for what contradicts the
    /// archive; damage there, or a store that fails.
    pub async fn store_segment(
        &self,
        segment: WalSegment,
        kind: SegmentKind,
        bytes: &[u8],
    ) -> Result<SegmentStored> {
        let (system_id, major) = (self.system_id(), self.major());
        let file = SegmentFile { segment, kind, bytes, system_id, major };
        file.check_identity()?;
        let ancestry = self.ancestry(segment.timeline).await?;
        let examined = file.examine(&ancestry)?;
        if let Some(doubt) = examined.doubt {
            let forks = self.forks_of(segment.timeline).await?;
            // A standby has the segment archived under its own name when its primary's timeline
            // ends in it (`WalReceiverMain`, walreceiver.c; `archive_mode = always`).
            let left = |fork: &Lsn| segment.start() < *fork && *fork <= examined.valid_to;
            if !forks.iter().any(left) {
                return Err(doubtful(&file, examined.valid_to, &doubt));
            }
        }
        let mut pieces = Vec::new();
        for piece in &examined.pieces {
            let new_bytes = self.store_piece(&file, &ancestry, piece).await?;
            let (timeline, range) = (piece.timeline, piece.range);
            pieces.push(StoredPiece { timeline, range, new_bytes });
        }
        Ok(SegmentStored { pieces, valid_to: examined.valid_to })
    }

    /// Stores what is missing of a piece; looks again after each write, so that of two writers who
    /// cross at least one sees what the other wrote.
    async fn store_piece(
        &self,
        file: &SegmentFile<'_>,
        ancestry: &Ancestry,
        piece: &Piece,
    ) -> Result<u64> {
        let segment = WalSegment { timeline: piece.timeline, ..file.segment };
        let mut missing = vec![piece.range];
        let mut seen = BTreeSet::new();
        let mut new_bytes = 0;
        let mut races_lost = 0;
        while races_lost < RACES_LOST_MAX {
            for listed in self.ranges_in(segment).await? {
                if seen.contains(&listed.name) {
                    continue;
                }
                if let Some(held) = self.compare(file, piece, &listed).await? {
                    // Its writer may not have come so far as to make it durable.
                    self.line().store().make_durable(&listed.path).await?;
                    held.subtract_from(&mut missing);
                }
                seen.insert(listed.name);
            }
            let Some(gap) = missing.first().copied() else { return Ok(new_bytes) };
            let index = gap_index(file, piece, gap)?;
            self.check_seams(file, ancestry, &index).await?;
            if let Some(listed) = self.create_range(&index, file.slice(gap)).await? {
                gap.subtract_from(&mut missing);
                seen.insert(listed.name);
                new_bytes += gap.len_bytes();
            } else {
                races_lost += 1;
            }
        }
        let what = format!("other writers kept changing what is archived of {}", file.name());
        Err(Error::new(Code::StoreFailed, what))
    }

    /// Creates a range; `None` if another writer was first.
    async fn create_range(&self, index: &RangeIndex, bytes: &[u8]) -> Result<Option<Listed>> {
        let name = WalRangeName {
            timeline: index.timeline,
            segment: self.segment_at(index.timeline, index.start).start(),
            start: index.start,
        };
        let path = self.line().paths().path(&LineObject::WalHot(name))?;
        let mut sealer = RangeSealer::new(self.system_id(), self.compression_level())?;
        let object = sealer.seal(self.line().keyring(), &path, index, bytes)?;
        let size_bytes = object.len() as u64;
        match self.line().store().create(&path, object.into()).await {
            Ok(()) => {
                self.memory().range_ends.insert(name, index.end);
                Ok(Some(Listed { name, path, size_bytes }))
            }
            Err(StoreError::AlreadyExists { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The index of a part of a piece. Within filler there is nothing to read.
fn gap_index<'a>(
    file: &SegmentFile<'_>,
    piece: &'a Piece,
    gap: LsnRange,
) -> Result<Cow<'a, RangeIndex>> {
    if gap == piece.range {
        return Ok(Cow::Borrowed(&piece.index));
    }
    match piece.index.padding_from {
        Some(padding) if padding <= gap.start => Ok(Cow::Owned(filler_index(&piece.index, gap))),
        _ => file.index(piece.timeline, gap, None).map(Cow::Owned),
    }
}

fn doubtful(file: &SegmentFile<'_>, valid_to: Lsn, ended: &EndOfWal) -> Error {
    let (name, reason) = (file.name(), ended.reason);
    match file.kind {
        SegmentKind::Whole => {
            let what = format!(
                "{name} cannot be archived: it is not whole; its records end at {valid_to}, not at its end, with a segment switch or where a timeline left it: at {}, {reason}",
                ended.fault_lsn
            );
            Error::new(Code::WalDamaged, what).with_hint(
                hint!["PostgreSQL keeps the segment and pushes it again; look at the disk, and take a backup. If the server is gone and this is its last segment: ", Action::PushPartialWal { cluster: None }, "."],
            )
        }
        SegmentKind::Partial => {
            let what = format!(
                "{name} cannot be archived: its records end at {valid_to}, and more WAL follows behind: at {}, {reason}",
                ended.fault_lsn
            );
            Error::new(Code::WalDamaged, what)
                .with_hint("Push the history of the timeline that continued, then push this again.")
        }
    }
}
