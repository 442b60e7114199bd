//! What is archived of the log.

use seawall_core::{Lsn, Result, TimelineId};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::LastRecord;

use super::listing::RangeCursor;
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
}

impl WalArchive {
    /// What is archived of one timeline, by footers alone.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn timeline_coverage(&self, timeline: TimelineId) -> Result<TimelineCoverage> {
        let mut coverage =
            TimelineCoverage { timeline, ranges: Vec::new(), objects: 0, stored_bytes: 0 };
        let mut cursor = RangeCursor::new(self, timeline, Lsn::INVALID)?;
        while let Some(listed) = cursor.next().await? {
            let extent = self.extent(&listed).await?;
            match coverage.ranges.last_mut() {
                Some(last) if extent.start <= last.end => last.end = last.end.max(extent.end),
                _ => coverage.ranges.push(extent),
            }
            coverage.objects += 1;
            coverage.stored_bytes += listed.size_bytes;
        }
        Ok(coverage)
    }

    /// Whether any WAL of the timeline is archived from the segment on that holds `from`.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn has_wal_from(&self, timeline: TimelineId, from: Lsn) -> Result<bool> {
        Ok(RangeCursor::new(self, timeline, from)?.next().await?.is_some())
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

    /// Up to where the log is archived from `from` on without a hole; `from` itself if nothing is.
    /// Ranges whose footers were read before are not read again.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn contiguous_end(&self, ancestry: &Ancestry, from: Lsn) -> Result<Lsn> {
        let mut position = from;
        for span in ancestry.spans().filter(|span| span.end.is_none_or(|end| end > from)) {
            let end = span.end.unwrap_or(Lsn(u64::MAX));
            let mut cursor = RangeCursor::new(self, span.timeline, position)?;
            while position < end
                && let Some(listed) = cursor.next().await?
            {
                if listed.name.start > position {
                    break;
                }
                position = position.max(self.extent(&listed).await?.end).min(end);
            }
            if position < end {
                break;
            }
        }
        Ok(position)
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
