use futures_util::future::join;
use jiff::Timestamp;
use seawall_core::{Result, TimelineId};
use seawall_repo::Line;
use seawall_repo::wal::WalArchive;
use serde::Serialize;

use super::{ClusterSurvey, ForeignWal, KnownBackup};
use crate::events::standings;
use crate::wal::{BackupPlace, Look, Obstacle, Reach, list, reach};

/// The moments a cluster can be restored to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryWindow {
    /// The end of the backup that is least far in the log.
    pub earliest: Timestamp,
    /// The last commit that is archived without a gap.
    pub latest: Timestamp,
    /// What keeps some of the moments between from being restored.
    pub hole: Option<String>,
}

/// Why archived WAL of a repository is of no use to its newest backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnusableWal {
    /// The repository's name.
    pub repository: String,
    /// What is in the way.
    pub obstacle: Obstacle,
    /// The same in words.
    pub message: String,
}

impl UnusableWal {
    /// What a repository's reach tells, if anything is in the way.
    pub(super) fn of(repository: &str, reach: &Reach) -> Option<Self> {
        let obstacle = reach.obstacle.clone()?;
        let (repository, message) = (repository.to_owned(), obstacle.to_string());
        Some(Self { repository, obstacle, message })
    }
}

impl ClusterSurvey {
    /// From the end of the oldest backup to the last commit that follows the newest one without a
    /// gap, in the repository that leads farthest.
    pub(super) fn window(&self, hole: Option<String>) -> Option<RecoveryWindow> {
        let earliest = self.oldest_backup()?.finished_at?;
        Some(RecoveryWindow { earliest, latest: self.reach.as_ref()?.time, hole })
    }
}

/// What one repository has of the line that is written, for whoever looks at no other.
#[derive(Debug)]
pub(crate) struct LineSeen {
    backups: Vec<KnownBackup>,
    /// The newest timeline of which WAL is archived.
    pub newest_timeline: Option<TimelineId>,
    /// Up to where the newest of its whole backups leads; `None` if none can be restored. That is
    /// said only where every backup could be read.
    pub reach: Option<Reach>,
    /// WAL that another server archives, as it seems.
    pub foreign_wal: Vec<ForeignWal>,
}

impl LineSeen {
    /// # Errors
    /// A damaged history or note of a verification, or a store that fails; why a backup could not be read,
    /// if no other can be restored.
    pub async fn look(line: &Line, repository: &str) -> Result<Self> {
        let (summaries, standings) = join(line.backups(), standings(line)).await;
        let summaries = summaries?;
        if let Some(error) = standings.unread {
            return Err(error);
        }
        let backups = KnownBackup::of_line(&summaries, &standings.known, line.id(), repository);
        let archive = WalArchive::open(line.clone()).await?;
        let listing = list(&archive).await?;
        let newest_timeline = listing.timelines.iter().map(|it| it.timeline).max();
        let reach = reach_of(&archive, &backups).await?;
        let foreign_wal = ForeignWal::of(&archive, &listing, &backups, repository).await?;
        let unread = summaries.into_iter().find_map(|backup| backup.info.err());
        if let Some(error) = unread.filter(|_| reach.is_none()) {
            return Err(error);
        }
        match listing.lost().next() {
            Some(lost) => Err(lost.error()),
            None => Ok(Self { backups, newest_timeline, reach, foreign_wal }),
        }
    }

    /// The backup that is farthest in the log, in whatever state it is.
    pub fn newest_backup(&self) -> Option<&KnownBackup> {
        self.backups.iter().max_by_key(|backup| backup.age())
    }
}

/// Up to where the newest of those backups leads that are whole.
pub(super) async fn reach_of(
    archive: &WalArchive,
    backups: &[KnownBackup],
) -> Result<Option<Reach>> {
    let whole = backups.iter().filter(|it| it.is_complete() && !it.is_asked_to_go());
    let places: Vec<BackupPlace> = whole.filter_map(KnownBackup::place).collect();
    if places.is_empty() {
        return Ok(None);
    }
    reach(archive, &places, Look::AtItsEnd).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seawall_core::{BackupId, Code, Error, Lsn, Ulid};
    use seawall_repo::BackupSummary;

    use super::*;
    use crate::survey::BackupState;

    /// A whole backup of an id that stops there in the log, and ended at that second.
    fn backup(id: u128, stop: u64, finished_s: i64) -> KnownBackup {
        let summary = BackupSummary {
            id: BackupId(Ulid(id)),
            info: Err(Error::new(Code::Internal, "x")),
            goes_at: None,
        };
        let line = "7-0".parse().unwrap();
        let known = KnownBackup::of_line(&[summary], &BTreeMap::new(), line, "primary");
        KnownBackup {
            state: BackupState::Complete,
            timeline: Some(TimelineId(1)),
            stop_lsn: Some(Lsn(stop)),
            finished_at: Some(Timestamp::from_second(finished_s).unwrap()),
            ..known.into_iter().next().unwrap()
        }
    }

    /// An id says when by a clock, or is what a caller chose.
    #[test]
    fn the_window_begins_with_the_backup_that_is_least_far_in_the_log() {
        let mut cluster = ClusterSurvey::empty("main".parse().unwrap());
        cluster.line = Some("7-0".parse().unwrap());
        cluster.backups = vec![backup(1, 300, 30), backup(2, 100, 10), backup(3, 200, 20)];
        let time = Timestamp::from_second(40).unwrap();
        let reach = Reach {
            backup: BackupId(Ulid(1)),
            timeline: TimelineId(1),
            lsn: Lsn(400),
            time,
            obstacle: None,
            hole: None,
        };
        cluster.reach = Some(reach);
        let window = cluster.window(None).unwrap();
        assert_eq!((window.earliest.as_second(), window.latest.as_second()), (10, 40));
    }
}
