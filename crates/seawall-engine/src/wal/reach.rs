//! Up to where a line can be restored, and what keeps the rest of its WAL from being of use.

use std::cmp::Reverse;
use std::fmt;

use jiff::Timestamp;
use seawall_core::{BackupId, ExitClass, Lsn, Result, TimelineId};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::RangeIndex;
use seawall_repo::BackupSummary;
use seawall_repo::wal::{Detail, FactsPart, LogEnd, LogStep, LsnRange, WalArchive, WalHole};
use serde::Serialize;

/// How many segments are searched for the last commit before all of them are.
const LAST_SEGMENTS: u64 = 8;

/// A complete backup, as far as the WAL behind it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupPlace {
    /// Its id.
    pub id: BackupId,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where it is consistent.
    pub stop_lsn: Lsn,
    /// The timeline of the stop.
    pub stop_timeline: TimelineId,
    /// When it was done.
    pub finished_at: Timestamp,
}

impl BackupPlace {
    /// The backup's place, if its manifest can be read.
    #[must_use]
    pub fn of(summary: &BackupSummary) -> Option<Self> {
        let info = summary.info.as_ref().ok()?;
        Some(Self {
            id: summary.id,
            start_lsn: info.start_lsn,
            stop_lsn: info.stop_lsn,
            stop_timeline: info.stop_timeline,
            finished_at: Timestamp::from_microsecond(info.finished_us).ok()?,
        })
    }
}

/// What WAL that is archived cannot be replayed across.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Obstacle {
    /// WAL is missing or cannot be read; the range is empty where two parts do not continue each
    /// other.
    Hole {
        /// What is missing.
        range: LsnRange,
        /// What is wrong.
        why: String,
    },
    /// `wal_level` became `minimal`: what was written then is not in the WAL.
    MinimalWal {
        /// The record that says so.
        lsn: Lsn,
    },
}

impl From<WalHole> for Obstacle {
    fn from(hole: WalHole) -> Self {
        Self::Hole { range: hole.range, why: hole.damage.unwrap_or(hole.why) }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole { range, why } if range.start == range.end => {
                write!(f, "the WAL does not go on at {}: {why}", range.start)
            }
            Self::Hole { range, why } => write!(f, "WAL from {range} is missing: {why}"),
            Self::MinimalWal { lsn } => write!(
                f,
                "wal_level was set to minimal at LSN {lsn}: what was written then is not in the WAL"
            ),
        }
    }
}

/// Up to where a line can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The newest backup that can be restored.
    pub backup: BackupId,
    /// The timeline it leads to.
    pub timeline: TimelineId,
    /// Every record before here can be replayed from it.
    pub lsn: Lsn,
    /// The last commit there; the end of the backup if none followed.
    pub time: Timestamp,
    /// What keeps archived WAL behind that from being replayed.
    pub obstacle: Option<Obstacle>,
    /// What the WAL from the oldest backup up to there cannot be replayed across.
    pub hole: Option<Obstacle>,
}

/// How the log behind a backup is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// By names and at its end: what is archived, told at once however long the archive is. Ranges
    /// between that are damaged do not show.
    AtItsEnd,
    /// At the footer of every range, so that damage there shows, and at every seam.
    AlongIt,
}

/// Up to where the log can be replayed from a backup on.
struct Replayable {
    lsn: Lsn,
    /// Why not to the end of what is archived.
    obstacle: Option<Obstacle>,
    last_commit: Option<Timestamp>,
}

/// Up to where the newest backup of a line that has all its WAL can be rolled forward, along the
/// newest timeline it leads to. `None` if there is no such backup. The newest is the one farthest in
/// the log: clocks can be wrong. No bodies of WAL are read. A timeline whose history is damaged leads
/// nowhere; [`list`](super::list) tells of it.
///
/// # Errors
/// A store that fails. Damaged WAL is an [`Obstacle`].
pub async fn reach(
    archive: &WalArchive,
    backups: &[BackupPlace],
    look: Look,
) -> Result<Option<Reach>> {
    let ancestries = archive.ancestries().await?.known;
    let mut newest_first: Vec<&BackupPlace> = backups.iter().collect();
    newest_first.sort_by_key(|backup| Reverse((backup.stop_timeline, backup.stop_lsn)));
    let mut nearest = None;
    for backup in newest_first {
        let Some(ancestry) = newest_from(&ancestries, backup) else { continue };
        let Replayable { lsn, obstacle, last_commit } =
            replayable(archive, ancestry, backup.start_lsn, look).await?;
        // What keeps a newer backup from being restored is in the way still.
        nearest = nearest.or(obstacle);
        if lsn < backup.stop_lsn {
            let range = LsnRange { start: lsn, end: backup.stop_lsn };
            let why = "nothing is archived there".to_owned();
            nearest.get_or_insert(Obstacle::Hole { range, why });
            continue;
        }
        let hole = hole_from_oldest(archive, &ancestries, backups, lsn).await?;
        return Ok(Some(Reach {
            backup: backup.id,
            timeline: ancestry.timeline_at(Lsn(lsn.0.saturating_sub(1))),
            lsn,
            time: last_commit.map_or(backup.finished_at, |time| time.max(backup.finished_at)),
            obstacle: nearest,
            hole,
        }));
    }
    Ok(None)
}

/// What is missing of the log from the oldest backup on up to an LSN, by names alone: there may be years
/// of it.
async fn hole_from_oldest(
    archive: &WalArchive,
    ancestries: &[Ancestry],
    backups: &[BackupPlace],
    to: Lsn,
) -> Result<Option<Obstacle>> {
    let oldest = backups.iter().min_by_key(|backup| (backup.stop_timeline, backup.stop_lsn));
    let way = oldest.and_then(|oldest| Some((oldest, newest_from(ancestries, oldest)?)));
    let Some((oldest, ancestry)) = way else { return Ok(None) };
    let archived = archive.archived(ancestry, oldest.start_lsn).await?;
    let mut end = oldest.start_lsn;
    for part in archived {
        if end >= to || part.start > end {
            let range = LsnRange { start: end, end: part.start.min(to) };
            let why = "nothing is archived there".to_owned();
            return Ok((end < to).then_some(Obstacle::Hole { range, why }));
        }
        end = end.max(part.end);
    }
    Ok(None)
}

fn newest_from<'a>(ancestries: &'a [Ancestry], backup: &BackupPlace) -> Option<&'a Ancestry> {
    let leads_to = |ancestry: &&Ancestry| {
        let span = ancestry.span(backup.stop_timeline);
        span.is_some_and(|span| span.end.is_none_or(|end| backup.stop_lsn <= end))
    };
    ancestries.iter().filter(leads_to).max_by_key(|ancestry| ancestry.tip())
}

async fn replayable(
    archive: &WalArchive,
    ancestry: &Ancestry,
    from: Lsn,
    look: Look,
) -> Result<Replayable> {
    if look == Look::AtItsEnd {
        match archive.log_end(ancestry, from).await {
            Ok(Some(end)) => return Ok(end.into()),
            // Only a walk tells where it ends then.
            Ok(None) => {}
            Err(error) if error.exit_class() == ExitClass::Integrity => {}
            Err(error) => return Err(error),
        }
    }
    let (lsn, obstacle) = walk(archive, ancestry, from).await?;
    let last_commit = last_commit_before(archive, ancestry, from, lsn).await?;
    Ok(Replayable { lsn, obstacle, last_commit })
}

impl From<LogEnd> for Replayable {
    fn from(end: LogEnd) -> Self {
        let why = || "nothing is archived there".to_owned();
        Self {
            lsn: end.complete_to,
            obstacle: end.hole.map(|range| Obstacle::Hole { range, why: why() }),
            last_commit: end.last_commit.map(|commit| commit.time.to_timestamp()),
        }
    }
}

/// Walks along the log as far as it can be replayed.
async fn walk(
    archive: &WalArchive,
    ancestry: &Ancestry,
    from: Lsn,
) -> Result<(Lsn, Option<Obstacle>)> {
    let walker = archive.walk(ancestry, from, Lsn(u64::MAX), Detail::Events);
    let mut walker = walker.passing_damage();
    let (mut reached, mut hole) = (from, None);
    while let Some(step) = walker.next().await? {
        match step {
            LogStep::Hole(found) => {
                let is_damage = found.damage.is_some();
                let first = hole.get_or_insert(found);
                if is_damage {
                    return Ok((reached, Some(first.clone().into())));
                }
            }
            LogStep::Range { index, .. } => {
                if let Some(hole) = hole {
                    return Ok((reached, Some(hole.into())));
                }
                if let Some(lsn) = minimal_from(&index, from) {
                    return Ok((lsn, Some(Obstacle::MinimalWal { lsn })));
                }
                reached = walker.complete_to();
            }
        }
    }
    // A hole with nothing behind it is where the archive ends.
    Ok((reached, None))
}

fn minimal_from(index: &RangeIndex, from: Lsn) -> Option<Lsn> {
    let minimal = index.facts.events.iter().filter(|event| event.kind.begins_minimal_wal());
    minimal.map(|event| event.lsn).find(|lsn| *lsn >= from)
}

async fn last_commit_before(
    archive: &WalArchive,
    ancestry: &Ancestry,
    start: Lsn,
    end: Lsn,
) -> Result<Option<Timestamp>> {
    let back = archive.segment_size().bytes().saturating_mul(LAST_SEGMENTS);
    let near = Lsn(end.0.saturating_sub(back)).max(start);
    match last_commit(archive, ancestry, near, end).await? {
        None if near > start => last_commit(archive, ancestry, start, near).await,
        found => Ok(found),
    }
}

async fn last_commit(
    archive: &WalArchive,
    ancestry: &Ancestry,
    from: Lsn,
    to: Lsn,
) -> Result<Option<Timestamp>> {
    let mut parts = archive.facts(ancestry, from, to).passing_damage();
    let mut last = None;
    while let Some(part) = parts.next().await? {
        if let FactsPart::Facts { facts, .. } = part {
            let commits = facts.commits.iter().filter(|commit| commit.kind.is_commit());
            last = last.max(commits.map(|commit| commit.time.to_timestamp()).max());
        }
    }
    Ok(last)
}
