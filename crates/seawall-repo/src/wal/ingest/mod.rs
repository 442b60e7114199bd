//! Takes the log into the archive: segment files, and stretches of any length.

mod compare;
mod seams;
mod segment_file;
mod stretch;

use std::borrow::Cow;
use std::collections::BTreeSet;

use seawall_core::{Code, Error, Lsn, Result, TimelineId, WalSegment};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::RangeIndex;
use seawall_store::StoreError;

use super::range::RangeSealer;
use super::so_far::LogSoFar;
use super::walk::filler_index;
use super::{LsnRange, WalArchive};
use crate::layout::{LineObject, WalRangeName};
pub(super) use seams::crossing_facts;
use segment_file::doubtful;
use stretch::{Examined, Origin, Stretch, TimelinePiece};

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

/// The part of a stretch that one timeline wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPiece {
    /// The timeline.
    pub timeline: TimelineId,
    /// The part.
    pub range: LsnRange,
    /// How many of its bytes were not archived before.
    pub new_bytes: u64,
}

/// What became of a stretch. All of it up to [`StretchStored::valid_to`] is in the archive and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StretchStored {
    /// In LSN order.
    pub pieces: Vec<StoredPiece>,
    /// Up to here it is WAL, or filler after a switch. What lies behind was not stored: in a file
    /// because it is none, in a stream because a record goes on behind it, so that the next stretch
    /// begins here.
    pub valid_to: Lsn,
}

impl StretchStored {
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
    /// archive; [`Code::UnknownFormat`] where that is compacted; damage there, or a store that fails.
    pub async fn store_segment(
        &self,
        segment: WalSegment,
        kind: SegmentKind,
        bytes: &[u8],
    ) -> Result<StretchStored> {
        let file = self.stretch(segment, segment.start(), bytes, Origin::File(kind));
        file.prove_identity()?;
        let ancestry = self.ancestry(segment.timeline).await?;
        let examined = file.examine(&ancestry)?;
        if let Some(doubt) = examined.doubt {
            let others = self.archived_histories().await?;
            let mut forks =
                others.known.iter().filter_map(|other| other.fork_lsn_of(segment.timeline));
            // A standby has the segment archived under its own name when its primary's timeline
            // ends in it (`WalReceiverMain`, walreceiver.c; `archive_mode = always`).
            let left = |fork: Lsn| segment.start() < fork && fork <= examined.valid_to;
            if !forks.any(left) {
                // One that nobody can read may have left it there.
                let lost = others.lost().find(|lost| lost.timeline > segment.timeline);
                return Err(lost.map_or_else(
                    || doubtful(&file, kind, examined.valid_to, &doubt),
                    |lost| lost.error().context(format_args!(
                        "{} cannot be archived: its records end at {}, and whether timeline {} begins there cannot be told",
                        file.name(), examined.valid_to, lost.timeline
                    )),
                ));
            }
        }
        self.store_examined(&file, &ancestry, &examined).await
    }

    /// Stores what a stream brought of a timeline from `start` on, where a page or a record begins:
    /// byte for byte what is not archived yet, up to the last place where the log can be read on. As
    /// [`WalArchive::store_segment`] otherwise.
    ///
    /// # Errors
    /// As for [`WalArchive::store_segment`].
    pub async fn store_stretch(
        &self,
        timeline: TimelineId,
        start: Lsn,
        bytes: &[u8],
    ) -> Result<StretchStored> {
        let ancestry = self.ancestry(timeline).await?;
        let mut stored = StretchStored { pieces: Vec::new(), valid_to: start };
        let mut rest = bytes;
        while !rest.is_empty() {
            let segment = self.segment_at(timeline, stored.valid_to);
            let room = segment.end().bytes_since(stored.valid_to);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at(room);
            let stretch = self.stretch(segment, stored.valid_to, part, Origin::Stream).readable();
            if stretch.bytes.is_empty() {
                break;
            }
            let examined = match self.filler(&stretch, &ancestry).await? {
                Some(filler) => filler,
                None => stretch.examine(&ancestry)?,
            };
            let part = self.store_examined(&stretch, &ancestry, &examined).await?;
            stored.pieces.extend(part.pieces);
            stored.valid_to = part.valid_to;
            if part.valid_to < segment.end() {
                break;
            }
            rest = behind;
        }
        Ok(stored)
    }

    const fn stretch<'a>(
        &self,
        segment: WalSegment,
        start: Lsn,
        bytes: &'a [u8],
        origin: Origin,
    ) -> Stretch<'a> {
        let (system_id, major) = (self.system_id(), self.major());
        Stretch { segment, start, bytes, origin, system_id, major }
    }

    /// A stretch of nothing, if it goes on where the filler behind a segment switch was stored.
    async fn filler(&self, stretch: &Stretch<'_>, ancestry: &Ancestry) -> Result<Option<Examined>> {
        let range = stretch.range();
        if stretch.bytes.iter().any(|byte| *byte != 0) || range.start == stretch.segment.start() {
            return Ok(None);
        }
        let timeline = ancestry.timeline_at(range.start);
        for listed in self.ranges_in(WalSegment { timeline, ..stretch.segment }).await? {
            if listed.name.end == range.start {
                let before = self.read_footer(&listed).await?.index;
                if before.padding_from.is_some() {
                    let index = filler_index(&before, range);
                    let pieces = vec![TimelinePiece { timeline, range, index }];
                    return Ok(Some(Examined { pieces, valid_to: range.end, doubt: None }));
                }
            }
        }
        Ok(None)
    }

    async fn store_examined(
        &self,
        stretch: &Stretch<'_>,
        ancestry: &Ancestry,
        examined: &Examined,
    ) -> Result<StretchStored> {
        let mut pieces = Vec::new();
        for piece in &examined.pieces {
            let new_bytes = self.store_piece(stretch, ancestry, piece).await?;
            let (timeline, range) = (piece.timeline, piece.range);
            pieces.push(StoredPiece { timeline, range, new_bytes });
        }
        Ok(StretchStored { pieces, valid_to: examined.valid_to })
    }

    /// Stores what is missing of a piece; looks again after each write, so that of two writers who
    /// cross at least one sees what the other wrote.
    async fn store_piece(
        &self,
        stretch: &Stretch<'_>,
        ancestry: &Ancestry,
        piece: &TimelinePiece,
    ) -> Result<u64> {
        let segment = WalSegment { timeline: piece.timeline, ..stretch.segment };
        let mut missing = vec![piece.range];
        let mut seen = BTreeSet::new();
        let mut new_bytes = 0;
        let mut races_lost = 0;
        while races_lost < RACES_LOST_MAX {
            let there = self.ranges_to_read(segment, piece.range).await?;
            for listed in &there {
                let overlap = listed.range().overlap(piece.range);
                if let Some(held) = overlap.filter(|_| seen.insert(listed.name)) {
                    self.compare(stretch, piece, listed, held).await?;
                    // Its writer may not have come so far as to make it durable.
                    self.line().store().make_durable(&listed.path).await?;
                    held.subtract_from(&mut missing);
                }
            }
            let Some(gap) = missing.first().copied() else { return Ok(new_bytes) };
            let index = gap_index(stretch, piece, gap)?;
            let so_far = self.prove_seams(stretch, ancestry, &index, &there).await?;
            match self.create_range(&index, so_far, stretch.slice(gap)).await? {
                Some(name) => {
                    gap.subtract_from(&mut missing);
                    seen.insert(name);
                    new_bytes += gap.len_bytes();
                }
                None => races_lost += 1,
            }
        }
        let what = format!("other writers kept changing what is archived of {}", stretch.name());
        Err(Error::new(Code::StoreFailed, what))
    }

    /// Creates a range; `None` if another writer was first.
    async fn create_range(
        &self,
        index: &RangeIndex,
        so_far: LogSoFar,
        bytes: &[u8],
    ) -> Result<Option<WalRangeName>> {
        let name = WalRangeName {
            timeline: index.timeline,
            segment: self.segment_at(index.timeline, index.start).start(),
            start: index.start,
            end: index.end,
        };
        let path = self.line().paths().path(&LineObject::WalHot(name))?;
        let mut sealer = RangeSealer::new(self.system_id(), self.compression_level())?;
        let object = sealer.seal(self.line().keyring(), &path, index, so_far, bytes)?;
        match self.line().store().create(&path, object.into()).await {
            Ok(()) => Ok(Some(name)),
            Err(StoreError::AlreadyExists { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The index of a part of a piece. Within filler there is nothing to read.
fn gap_index<'a>(
    stretch: &Stretch<'_>,
    piece: &'a TimelinePiece,
    gap: LsnRange,
) -> Result<Cow<'a, RangeIndex>> {
    if gap == piece.range {
        return Ok(Cow::Borrowed(&piece.index));
    }
    match piece.index.padding_from {
        Some(padding) if padding <= gap.start => Ok(Cow::Owned(filler_index(&piece.index, gap))),
        _ => stretch.index(piece.timeline, gap, None).map(Cow::Owned),
    }
}
