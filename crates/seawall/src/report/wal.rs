use jiff::Timestamp;
use seawall_core::{Lsn, Result, TimelineId};
use seawall_engine::wal::TimelineListing;
use seawall_pgdata::history::Ancestry;
use seawall_repo::Line;
use seawall_repo::wal::{FactsPart, LsnRange, WalArchive};
use serde::Serialize;

use super::BackupReport;

/// How many segments are searched for the last commit before all of them are.
const LAST_SEGMENTS: u64 = 8;

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

/// Up to where the newest backup can be rolled forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The end of the WAL that follows it without a gap.
    pub lsn: Lsn,
    /// The last commit in it; the end of the backup if none followed.
    pub time: Timestamp,
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

/// Up to where a backup can be rolled forward, along the newest timeline it is part of.
///
/// # Errors
/// Those of the repository.
pub async fn reach(line: &Line, backup: &BackupReport) -> Result<Option<Reach>> {
    let (Some(start), Some(timeline), Some(finished)) =
        (backup.start_lsn, backup.timeline, backup.finished_at)
    else {
        return Ok(None);
    };
    let archive = WalArchive::open(line.clone()).await?;
    let mut newest: Option<Ancestry> = None;
    for ancestry in archive.ancestries().await? {
        let holds = ancestry.span(timeline).is_some_and(|span| {
            let stop = backup.stop_lsn.unwrap_or(start);
            span.end.is_none_or(|end| stop <= end)
        });
        if holds && newest.as_ref().is_none_or(|newest| newest.tip() < ancestry.tip()) {
            newest = Some(ancestry);
        }
    }
    let Some(ancestry) = newest else { return Ok(None) };
    let lsn = archive.contiguous_end(&ancestry, start).await?;
    let back = archive.segment_size().bytes().saturating_mul(LAST_SEGMENTS);
    let near = Lsn(lsn.0.saturating_sub(back)).max(start);
    let mut time = last_commit(&archive, &ancestry, near, lsn).await?;
    if time.is_none() && near > start {
        time = last_commit(&archive, &ancestry, start, near).await?;
    }
    Ok(Some(Reach { lsn, time: time.map_or(finished, |time| time.max(finished)) }))
}

async fn last_commit(
    archive: &WalArchive,
    ancestry: &Ancestry,
    from: Lsn,
    to: Lsn,
) -> Result<Option<Timestamp>> {
    let mut parts = archive.facts(ancestry, from, to);
    let mut last = None;
    while let Some(part) = parts.next().await? {
        if let FactsPart::Facts { facts, .. } = part {
            let newest = facts.commits.iter().map(|commit| commit.time.to_timestamp()).max();
            last = last.max(newest);
        }
    }
    Ok(last)
}
