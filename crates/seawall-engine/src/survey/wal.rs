use seawall_core::{Error, LineId, Lsn, TimelineId, WalSegment};
use seawall_repo::wal::{DamagedHistory, LsnRange};
use serde::Serialize;

use crate::wal::TimelineListing;

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

impl ArchivedWal {
    /// Whether a segment is there, with its beginning at least: what follows its last record need not
    /// be. The first one of a timeline begins where that left its parent.
    pub(super) fn has(&self, segment: WalSegment) -> bool {
        let at = segment.start().max(self.first_lsn);
        let is_missing = |gap: &WalGap| gap.start_lsn <= at && at < gap.end_lsn;
        self.timeline == segment.timeline
            && at < segment.end()
            && at < self.last_lsn
            && !self.gaps.iter().any(is_missing)
    }
}

/// WAL that is not there, between some that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WalGap {
    /// Where it begins.
    pub start_lsn: Lsn,
    /// Where it ends.
    pub end_lsn: Lsn,
}

/// A timeline's history that is damaged, or missing, in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedTimeline {
    /// The repository's name.
    pub repository: String,
    /// The line it is in.
    #[serde(with = "crate::as_text")]
    pub line: LineId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The timeline whose history tells the same. Without one it cannot be restored.
    pub told_by: Option<TimelineId>,
    /// Whether there is WAL of the timeline and no history at all.
    pub is_missing: bool,
    /// What is wrong.
    pub message: String,
    /// The same with the way out.
    #[serde(skip)]
    history: DamagedHistory,
}

impl DamagedTimeline {
    pub(super) fn new(history: DamagedHistory, line: LineId, repository: &str) -> Self {
        let (timeline, told_by) = (history.timeline, history.told_by);
        let (repository, message) = (repository.to_owned(), history.error().chain());
        let is_missing = history.is_missing();
        Self { repository, line, timeline, told_by, is_missing, message, history }
    }

    /// What is wrong, and what to do.
    #[must_use]
    pub fn error(&self) -> Error {
        self.history.error().context(format_args!("repository {}", self.repository))
    }
}

/// What one repository has of a line's WAL, timeline by timeline.
pub(super) fn archived_wal(
    timelines: &[TimelineListing],
    line: LineId,
    repository: &str,
) -> Vec<ArchivedWal> {
    let archived = |timeline: &TimelineListing| {
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
    timelines.iter().filter_map(archived).collect()
}
