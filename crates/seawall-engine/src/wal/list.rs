//! What is archived.

use seawall_core::{Lsn, Result, TimelineId};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{Ancestries, DamagedHistory, LsnRange, WalArchive};

/// The WAL of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalListing {
    /// By number.
    pub timelines: Vec<TimelineListing>,
    /// The histories that are damaged.
    pub damaged_histories: Vec<DamagedHistory>,
}

impl WalListing {
    /// The timelines whose ancestors nobody knows.
    pub fn lost(&self) -> impl Iterator<Item = &DamagedHistory> {
        self.damaged_histories.iter().filter(|damaged| damaged.told_by.is_none())
    }
}

/// The WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineListing {
    /// The timeline.
    pub timeline: TimelineId,
    /// The timeline it left; absent for the first, and where nobody knows.
    pub parent: Option<TimelineId>,
    /// Where it left that.
    pub begin: Option<Lsn>,
    /// What is archived; sorted and disjoint.
    pub ranges: Vec<LsnRange>,
    /// What is missing before the last archived byte, or before a timeline that left this one.
    pub gaps: Vec<LsnRange>,
    /// Objects in the repository.
    pub objects: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// Lists timelines, ranges and gaps.
///
/// # Errors
/// A store that fails.
pub async fn list(archive: &WalArchive) -> Result<WalListing> {
    let all = archive.ancestries().await?;
    let mut timelines = Vec::new();
    for ancestry in &all.known {
        timelines.push(listing(archive, ancestry.tip(), Some(ancestry), &all).await?);
    }
    for lost in all.lost() {
        timelines.push(listing(archive, lost.timeline, None, &all).await?);
    }
    timelines.sort_by_key(|listing| listing.timeline);
    Ok(WalListing { timelines, damaged_histories: all.damaged })
}

/// The ancestry is `None` if nobody knows it.
async fn listing(
    archive: &WalArchive,
    timeline: TimelineId,
    ancestry: Option<&Ancestry>,
    all: &Ancestries,
) -> Result<TimelineListing> {
    let coverage = archive.timeline_coverage(timeline).await?;
    let mut spans = ancestry.into_iter().flat_map(|ancestry| ancestry.spans().rev());
    let begin = spans.next().map(|own| own.begin).filter(|begin| begin.is_valid());
    let left_at = all.known.iter().filter_map(|other| other.fork_lsn_of(timeline)).max();
    Ok(TimelineListing {
        timeline,
        parent: spans.next().map(|parent| parent.timeline),
        begin,
        gaps: gaps(&coverage.ranges, begin, left_at),
        ranges: coverage.ranges,
        objects: coverage.objects,
        stored_bytes: coverage.stored_bytes,
    })
}

/// What is missing between `begin`, the ranges, and `left_at`.
fn gaps(ranges: &[LsnRange], begin: Option<Lsn>, left_at: Option<Lsn>) -> Vec<LsnRange> {
    let Some(first) = ranges.first() else { return Vec::new() };
    let mut position = begin.unwrap_or(first.start);
    let mut gaps = Vec::new();
    let beyond = left_at.map(|lsn| LsnRange { start: lsn, end: lsn });
    for range in ranges.iter().copied().chain(beyond) {
        if position < range.start {
            gaps.push(LsnRange { start: position, end: range.start });
        }
        position = position.max(range.end);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> LsnRange {
        LsnRange { start: Lsn(start), end: Lsn(end) }
    }

    #[test]
    fn gaps_are_what_lies_between_and_at_the_edges_of_a_timeline() {
        let ranges = [range(10, 20), range(30, 40)];
        assert_eq!(gaps(&ranges, None, None), [range(20, 30)]);
        let edges = gaps(&ranges, Some(Lsn(5)), Some(Lsn(45)));
        assert_eq!(edges, [range(5, 10), range(20, 30), range(40, 45)]);
        assert_eq!(gaps(&ranges, Some(Lsn(10)), Some(Lsn(35))), [range(20, 30)]);
        assert_eq!(gaps(&[], Some(Lsn(5)), None), []);
    }
}
