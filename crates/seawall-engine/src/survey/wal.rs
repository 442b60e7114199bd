use seawall_core::{LineId, Lsn, TimelineId};
use seawall_repo::wal::LsnRange;
use serde::Serialize;

use crate::wal::{TimelineListing, WalListing};

/// The WAL of one timeline in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchivedWal {
    /// The repository's name.
    pub repository: String,
    /// The line it is in.
    #[serde(with = "crate::as_text")]
    pub line: LineId,
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it begins.
    pub first_lsn: Lsn,
    /// Where it ends.
    pub last_lsn: Lsn,
    /// What is missing between.
    pub gaps: Vec<WalGap>,
    /// Objects in the repository.
    pub objects: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// WAL that is not there, between some that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WalGap {
    /// Where it begins.
    pub start_lsn: Lsn,
    /// Where it ends.
    pub end_lsn: Lsn,
}

/// What one repository has of a line's WAL, timeline by timeline.
pub(super) fn archived_wal(
    listing: WalListing,
    line: LineId,
    repository: &str,
) -> Vec<ArchivedWal> {
    let archived = |timeline: TimelineListing| {
        let gap = |gap: &LsnRange| WalGap { start_lsn: gap.start, end_lsn: gap.end };
        Some(ArchivedWal {
            repository: repository.to_owned(),
            line,
            timeline: timeline.timeline,
            first_lsn: timeline.ranges.first()?.start,
            last_lsn: timeline.ranges.last()?.end,
            gaps: timeline.gaps.iter().map(gap).collect(),
            objects: timeline.objects,
            stored_bytes: timeline.stored_bytes,
        })
    };
    listing.timelines.into_iter().filter_map(archived).collect()
}
