use seawall_core::{Lsn, Result, TimelineId};
use seawall_engine::wal::TimelineListing;
use seawall_repo::Line;
use seawall_repo::wal::LsnRange;
use serde::Serialize;

/// The WAL of one timeline in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalReport {
    pub repository: String,
    /// System identifier and branch.
    pub line: String,
    pub timeline: TimelineId,
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    pub gaps: Vec<Gap>,
    pub objects: u64,
    pub stored_bytes: u64,
}

/// WAL that is not there, between some that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub start_lsn: Lsn,
    pub end_lsn: Lsn,
}

impl WalReport {
    /// What one repository has of a line's WAL, timeline by timeline.
    ///
    /// # Errors
    /// Those of the repository.
    pub async fn collect(line: &Line, repository: &str) -> Result<Vec<Self>> {
        let listing = seawall_engine::wal::list(line).await?;
        let report = |timeline: TimelineListing| {
            let gap = |gap: &LsnRange| Gap { start_lsn: gap.start, end_lsn: gap.end };
            Some(Self {
                repository: repository.to_owned(),
                line: line.id().to_string(),
                timeline: timeline.timeline,
                first_lsn: timeline.ranges.first()?.start,
                last_lsn: timeline.ranges.last()?.end,
                gaps: timeline.gaps.iter().map(gap).collect(),
                objects: timeline.objects,
                stored_bytes: timeline.stored_bytes,
            })
        };
        Ok(listing.timelines.into_iter().filter_map(report).collect())
    }

    /// The report in one line.
    pub fn line(&self) -> String {
        let Self { repository, timeline, first_lsn, last_lsn, .. } = self;
        let gaps = self.gaps_shown();
        format!("timeline {timeline}, {first_lsn} to {last_lsn} in {repository}, {gaps}")
    }

    /// The gaps in words.
    pub fn gaps_shown(&self) -> String {
        let gaps: Vec<String> =
            self.gaps.iter().map(|gap| format!("{} to {}", gap.start_lsn, gap.end_lsn)).collect();
        match gaps.as_slice() {
            [] => "no gaps".to_owned(),
            [gap] => format!("gap {gap}"),
            gaps => format!("gaps {}", gaps.join(", ")),
        }
    }
}
