//! What is archived.

use seawall_core::{Lsn, Result, TimelineId};
use seawall_repo::wal::{LsnRange, WalArchive};
use serde::Serialize;

/// The WAL of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalListing {
    /// By number.
    pub timelines: Vec<TimelineListing>,
}

/// The WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineListing {
    /// The timeline.
    pub timeline: TimelineId,
    /// The timeline it left, and where; absent for the first.
    pub parent: Option<TimelineId>,
    /// Where it begins.
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
/// Damage, or a store that fails.
pub async fn list(archive: &WalArchive) -> Result<WalListing> {
    let ancestries = archive.ancestries().await?;
    let mut timelines = Vec::new();
    for ancestry in &ancestries {
        let timeline = ancestry.tip();
        let coverage = archive.timeline_coverage(timeline).await?;
        let mut spans = ancestry.spans().rev();
        let begin = spans.next().map(|own| own.begin).filter(|begin| begin.is_valid());
        let left_at = ancestries.iter().filter_map(|other| other.fork_lsn_of(timeline)).max();
        timelines.push(TimelineListing {
            timeline,
            parent: spans.next().map(|parent| parent.timeline),
            begin,
            gaps: gaps(&coverage.ranges, begin, left_at),
            ranges: coverage.ranges,
            objects: coverage.objects,
            stored_bytes: coverage.stored_bytes,
        });
    }
    Ok(WalListing { timelines })
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
