//! What is archived of the log.

use futures_util::future::try_join;
use jiff::Timestamp;
use seawall_core::{Lsn, Result, TimelineId};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::LastRecord;

use super::listing::{RangeCursor, cold_ranges};
use super::names::Names;
use super::walk::{Detail, LogStep, LogWalker, WalHole};
use super::{LsnRange, WalArchive};

/// A stretch of the log without a hole, along one ancestry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalStretch {
    /// What is archived.
    pub range: LsnRange,
    /// Every record before here is whole: the end, or where a record begins that goes on behind it.
    pub complete_to: Lsn,
    /// The last whole record.
    pub last_record: Option<LastRecord>,
}

/// What is archived of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineCoverage {
    /// The timeline.
    pub timeline: TimelineId,
    /// Sorted and disjoint; between two of them something is missing.
    pub ranges: Vec<LsnRange>,
    /// How many objects hold them.
    pub objects: u64,
    /// How many bytes these have in the store.
    pub stored_bytes: u64,
    /// When the newest of them was written, by the clock of the store; `None` where there is none.
    pub written: Option<Timestamp>,
}

impl WalArchive {
    /// What is archived of one timeline, by names alone.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn timeline_coverage(&self, timeline: TimelineId) -> Result<TimelineCoverage> {
        let names = self.names().from(timeline, Lsn::INVALID).await?;
        let objects = names.spans.iter().map(|span| u64::from(span.objects)).sum();
        let ranges = names.spans.iter().map(LsnRange::from).collect();
        let Names { stored_bytes, written, .. } = names;
        Ok(TimelineCoverage { timeline, ranges, objects, stored_bytes, written })
    }

    /// Whether any WAL of the timeline is archived from the segment on that holds `from`.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn has_wal_from(&self, timeline: TimelineId, from: Lsn) -> Result<bool> {
        let behind =
            LsnRange { start: self.segment_at(timeline, from).start(), end: Lsn(u64::MAX) };
        let mut cursor = RangeCursor::new(self, timeline, from)?;
        let cold = cold_ranges(self.line(), timeline, behind);
        let (hot, cold) = try_join(cursor.next(), cold).await?;
        Ok(hot.is_some() || !cold.is_empty())
    }

    /// The stretches of log along `ancestry` that end after `from`, in order. Two that touch do
    /// not continue each other.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn coverage(&self, ancestry: &Ancestry, from: Lsn) -> Result<Vec<WalStretch>> {
        let walker = self.walk(ancestry, from, Lsn(u64::MAX), Detail::Seams);
        Ok(stretches(walker).await?.0)
    }

    /// As [`WalArchive::coverage`], with ranges that cannot be read taken for holes; and those
    /// holes.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn readable_coverage(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
    ) -> Result<(Vec<WalStretch>, Vec<WalHole>)> {
        stretches(self.walk(ancestry, from, Lsn(u64::MAX), Detail::Seams).passing_damage()).await
    }

    /// The parts of the log along `ancestry` that are archived behind `from`, by names alone: in
    /// order, disjoint, and something is missing between two of them.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn archived(&self, ancestry: &Ancestry, from: Lsn) -> Result<Vec<LsnRange>> {
        let mut parts: Vec<LsnRange> = Vec::new();
        for span in ancestry.spans() {
            let lived =
                LsnRange { start: span.begin.max(from), end: span.end.unwrap_or(Lsn(u64::MAX)) };
            if lived.start >= lived.end {
                continue;
            }
            let names = self.names().from(span.timeline, lived.start).await?;
            let spans = names.spans.iter().map(LsnRange::from);
            for part in spans.filter_map(|part| part.overlap(lived)) {
                match parts.last_mut() {
                    Some(last) if last.end == part.start => last.end = part.end,
                    _ => parts.push(part),
                }
            }
        }
        Ok(parts)
    }

    /// Up to where the log is archived from `from` on without a hole, by names alone; `from` itself
    /// if nothing is.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn contiguous_end(&self, ancestry: &Ancestry, from: Lsn) -> Result<Lsn> {
        let archived = self.archived(ancestry, from).await?;
        Ok(archived.first().filter(|part| part.start == from).map_or(from, |part| part.end))
    }
}

async fn stretches(mut walker: LogWalker) -> Result<(Vec<WalStretch>, Vec<WalHole>)> {
    let mut stretches = Vec::new();
    let mut damaged = Vec::new();
    let mut open: Option<WalStretch> = None;
    while let Some(step) = walker.next().await? {
        match step {
            LogStep::Hole(hole) => {
                stretches.extend(open.take());
                damaged.extend(Some(hole).filter(|hole| hole.damage.is_some()));
            }
            LogStep::Range { index, crossing } => {
                let range = LsnRange { start: index.start, end: index.end };
                let last_record = index.last_record.or(crossing);
                let before = open.take();
                open = Some(WalStretch {
                    range: LsnRange {
                        start: before.map_or(range.start, |open| open.range.start),
                        ..range
                    },
                    complete_to: walker.complete_to(),
                    last_record: last_record.or(before.and_then(|open| open.last_record)),
                });
            }
        }
    }
    stretches.extend(open);
    Ok((stretches, damaged))
}
