//! Whether a cluster is well, for a monitor: what is wrong, and how bad that is.

mod remark;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{Error, TimelineId, seconds_of};
use seawall_repo::manifest::BackupKind;
use serde::Serialize;

pub(super) use remark::ANOTHER_ARCHIVER;
pub use remark::Remark;

use super::{Archiving, BackupState, ClusterSurvey, JobState, KnownBackup};
use crate::verify::NotWhole;

/// So far the clocks of two hosts may be apart without anything being told of it.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// So many times its limit is critical: a backup's age, which grows for hours.
const AGE_CRITICAL: u32 = 2;

/// The same of commits at risk, which come and go by the second.
const RPO_CRITICAL: u32 = 10;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Ok,
    /// Somebody should look.
    Warning,
    /// Something cannot be restored, will soon not be, or nobody knows.
    Critical,
}

/// What a cluster must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// How old the newest backup may be.
    pub max_age: Duration,
    /// Of how long commits may be lost.
    pub max_rpo: Duration,
}

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// The worst of the remarks.
    pub level: Level,
    /// How old the newest backup is; `None` if there is none, or clocks cannot tell.
    pub backup_age_seconds: Option<f64>,
    /// Seconds of commits that would be lost if the server were lost now; `None` if unknown.
    pub rpo_seconds: Option<f64>,
    /// What is not well.
    pub remarks: Vec<Judged>,
}

/// A remark, and how bad that is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// How bad.
    pub level: Level,
    /// What.
    pub remark: Remark,
}

/// Judges a cluster by what its repositories hold and what its server says, or why it says nothing.
///
/// What the best of several repositories has counts, and each is judged by itself as well: what is
/// not well with one alone is a warning, for then there are fewer copies than are meant.
#[must_use]
pub fn health(
    cluster: &ClusterSurvey,
    server: Result<&Archiving, &Error>,
    limits: Thresholds,
    now: Timestamp,
) -> Health {
    let mut health = judged(cluster, server, limits, now);
    for (repository, alone) in &cluster.alone {
        let own = judged(alone, server, limits, now).remarks.into_iter();
        let own: Vec<Remark> = own.map(|judged| judged.remark).collect();
        for remark in own.into_iter().filter(|remark| !health.tells(remark)).collect::<Vec<_>>() {
            let (repository, remark) = (repository.clone(), Box::new(remark));
            health.remark(Level::Warning, Remark::InRepository { repository, remark });
        }
    }
    health
}

/// As [`health`], of all repositories together, or of one.
fn judged(
    cluster: &ClusterSurvey,
    server: Result<&Archiving, &Error>,
    limits: Thresholds,
    now: Timestamp,
) -> Health {
    let mut health = Health::new();
    health.backups(cluster, limits, now);
    match server {
        Err(why) => {
            health.timelines(cluster, None);
            // What was not asked is unknown, and unknown is never well.
            health.remark(Level::Critical, Remark::of_unasked(why));
        }
        Ok(archiving) => {
            health.timelines(cluster, archiving.timeline);
            health.archiving(cluster, archiving, limits, now);
        }
    }
    health.reach(cluster);
    health.jobs(cluster);
    health
}

impl Health {
    const fn new() -> Self {
        Self { level: Level::Ok, backup_age_seconds: None, rpo_seconds: None, remarks: Vec::new() }
    }

    /// Of a cluster that could not be looked at.
    #[must_use]
    pub fn unknown(why: String) -> Self {
        let mut health = Self::new();
        health.remark(Level::Critical, Remark::Unseen { why });
        health
    }

    /// Adds why something could not be looked at.
    pub fn add_unseen(&mut self, why: &Error) {
        self.remark(Level::Critical, Remark::Unseen { why: why.chain() });
    }

    /// Adds that a repository has two names: there are fewer copies than are meant.
    pub fn add_named_twice(&mut self, what: &Error) {
        self.remark(Level::Warning, Remark::RepositoryNamedTwice { names: what.chain() });
    }

    /// Whether it is told already, of all repositories together. That the archiver fails is no
    /// repository's own matter.
    fn tells(&self, remark: &Remark) -> bool {
        let is_it = |told: &Remark| match (told, remark) {
            (Remark::ArchiverHeldUp(_), Remark::ArchiverFails { .. }) => true,
            (told, remark) => told == remark,
        };
        self.remarks.iter().any(|judged| is_it(&judged.remark))
    }

    fn remark(&mut self, level: Level, remark: Remark) {
        self.level = self.level.max(level);
        self.remarks.push(Judged { level, remark });
    }

    fn backups(&mut self, cluster: &ClusterSurvey, limits: Thresholds, now: Timestamp) {
        let newest = cluster.newest_backup();
        for backup in &cluster.backups {
            let id = backup.id;
            let BackupState::Not(why) = backup.state else { continue };
            match why {
                NotWhole::Damaged => self.remark(Level::Critical, Remark::BackupDamaged { id }),
                NotWhole::Unread => self.remark(Level::Critical, Remark::BackupUnreadable { id }),
                NotWhole::OtherFormat => {
                    let level = newest.map_or(Level::Critical, |_| Level::Warning);
                    self.remark(level, Remark::BackupOfOtherFormat { id });
                }
            }
        }
        let Some((newest, finished)) = newest.and_then(|b| Some((b, b.finished_at?))) else {
            // What was not seen, or not read, may be one.
            let is_unread = |it: &KnownBackup| it.state == BackupState::Not(NotWhole::Unread);
            if cluster.is_seen_wholly() && !cluster.backups.iter().any(is_unread) {
                self.remark(Level::Critical, none_of(cluster));
            }
            return;
        };
        self.age(newest, finished, limits.max_age, now);
        if let Some(pages @ 1..) = newest.page_errors {
            self.remark(Level::Critical, Remark::DamagedPages { pages, id: newest.id });
        }
        self.incidents(cluster);
    }

    /// What a backup met beside stays so until one that reads everything.
    fn incidents(&mut self, cluster: &ClusterSurvey) {
        let is_full =
            |backup: &&KnownBackup| backup.is_complete() && backup.kind == Some(BackupKind::Full);
        let full = cluster.written_backups().filter(is_full).map(KnownBackup::age).max();
        let since = cluster.written_backups().filter(|backup| Some(backup.age()) >= full);
        let with_incidents = since.filter(|backup| backup.incidents.is_some_and(|it| it > 0));
        if let Some(newest) = with_incidents.max_by_key(|backup| backup.age()) {
            let blocks = newest.incidents.unwrap_or_default();
            self.remark(Level::Critical, Remark::Incidents { blocks, id: newest.id });
        }
    }

    /// How old the newest backup is, if clocks can tell.
    fn age(&mut self, newest: &KnownBackup, finished: Timestamp, max: Duration, now: Timestamp) {
        let age = now.duration_since(finished);
        if age < -CLOCKS_DIFFER {
            let what = Remark::BackupFromTheFuture { id: newest.id, finished_at: finished };
            return self.remark(Level::Warning, what);
        }
        let age = Duration::try_from(age.max(SignedDuration::ZERO)).unwrap_or(Duration::ZERO);
        self.backup_age_seconds = Some(age.as_secs_f64());
        if let Some(level) = over(age, max, AGE_CRITICAL) {
            self.remark(level, Remark::BackupOld { age });
        }
    }

    /// `server` is the timeline the configured server writes.
    fn timelines(&mut self, cluster: &ClusterSurvey, server: Option<TimelineId>) {
        let Some(archived) = cluster.newest_timeline() else { return };
        if let Some(server) = server.filter(|server| *server < archived) {
            return self.remark(Level::Critical, Remark::ServerLeftBehind { server, archived });
        }
        // Until something of it is archived, nobody knows where the server left the one before.
        let newest = server.map_or(archived, |server| server.max(archived));
        let backup = cluster.newest_backup().and_then(|backup| backup.timeline);
        if let Some(backup) = backup.filter(|backup| *backup < newest) {
            self.remark(Level::Warning, Remark::NoBackupOfTimeline { backup, newest });
        }
        for foreign in &cluster.foreign_wal {
            self.remark(Level::Warning, Remark::Foreign(foreign.clone()));
        }
    }

    fn archiving(
        &mut self,
        cluster: &ClusterSurvey,
        archiving: &Archiving,
        limits: Thresholds,
        now: Timestamp,
    ) {
        if !archiving.own_archiver {
            return self.remark(Level::Critical, Remark::AnotherArchiver);
        }
        if archiving.idle {
            let waits_for_restart = archiving.waits_for_restart;
            self.remark(Level::Critical, Remark::ArchivesNothing { waits_for_restart });
        } else if let Some(wal) = archiving.failing_on.clone() {
            let hold = cluster.archiver_hold(archiving, now);
            let remark = hold.map_or(Remark::ArchiverFails { wal }, Remark::ArchiverHeldUp);
            self.remark(Level::Critical, remark);
        }
        if cluster.is_seen_wholly() {
            if let Some(contradiction) = cluster.contradiction(archiving) {
                self.remark(Level::Critical, Remark::Contradicted(contradiction));
            }
            if !cluster.archived_to().is_valid() {
                self.remark(Level::Critical, Remark::NothingArchived);
            }
        }
        self.rpo_seconds = cluster.at_risk_s(archiving, now);
        // Without a backup to roll forward there is nothing to measure from; that is told already.
        let Some(seconds) = self.rpo_seconds else { return };
        let commits_of = seconds_of(seconds);
        if let Some(level) = over(commits_of, limits.max_rpo, RPO_CRITICAL) {
            self.remark(level, Remark::AtRisk { commits_of });
        }
    }

    /// What is archived and cannot be restored. A backup that begins behind it ends the alarm.
    fn reach(&mut self, cluster: &ClusterSurvey) {
        let covered = cluster.reach.as_ref().is_some_and(|reach| reach.obstacle.is_none());
        for unusable in &cluster.blocked_wal {
            let level = if covered { Level::Warning } else { Level::Critical };
            self.remark(level, Remark::Unusable(unusable.clone()));
        }
        for damaged in &cluster.damaged_histories {
            let (repository, timeline) = (damaged.repository.clone(), damaged.timeline);
            if damaged.is_missing {
                self.remark(Level::Critical, Remark::HistoryMissing { repository, timeline });
                continue;
            }
            let told_by = damaged.told_by;
            let level = if told_by.is_some() { Level::Warning } else { Level::Critical };
            self.remark(level, Remark::HistoryDamaged { repository, timeline, told_by });
        }
        let has_backup = cluster.written_backups().next().is_some();
        if cluster.reach.is_none() && has_backup && cluster.is_seen_wholly() {
            self.remark(Level::Critical, Remark::NothingRestorable);
        }
    }

    fn jobs(&mut self, cluster: &ClusterSurvey) {
        let written = cluster.jobs.iter().filter(|job| Some(job.line) == cluster.line);
        for job in written.filter(|job| job.state == JobState::Silent) {
            let (kind, host) = (job.kind.clone(), job.host.clone());
            self.remark(Level::Warning, Remark::JobSilent { job: kind, id: job.id, host });
        }
    }
}

/// What is to be said where no backup counts.
fn none_of(cluster: &ClusterSurvey) -> Remark {
    if cluster.backups.is_empty() {
        Remark::NoBackup
    } else if cluster.backups.iter().all(|backup| Some(backup.line) != cluster.line) {
        Remark::NoBackupSinceAdoption
    } else {
        Remark::NoWholeBackup
    }
}

fn over(value: Duration, limit: Duration, critical_factor: u32) -> Option<Level> {
    let critical = limit.saturating_mul(critical_factor);
    if value > critical { Some(Level::Critical) } else { (value > limit).then_some(Level::Warning) }
}

#[cfg(test)]
mod tests {
    use seawall_core::{Code, Lsn};

    use super::super::ArchivedWal;
    use super::*;

    const LIMITS: Thresholds =
        Thresholds { max_age: Duration::from_secs(60), max_rpo: Duration::from_secs(60) };

    fn main() -> ClusterSurvey {
        ClusterSurvey::empty("main".parse().unwrap())
    }

    fn judged(cluster: &ClusterSurvey, server: Result<&Archiving, &Error>) -> Vec<Remark> {
        let health = health(cluster, server, LIMITS, Timestamp::UNIX_EPOCH);
        assert_eq!(health.level, Level::Critical);
        health.remarks.into_iter().map(|judged| judged.remark).collect()
    }

    #[test]
    fn a_limit_is_a_warning_first() {
        let limit = Duration::from_secs(60);
        assert_eq!(over(Duration::from_secs(60), limit, 2), None);
        assert_eq!(over(Duration::from_secs(61), limit, 2), Some(Level::Warning));
        assert_eq!(over(Duration::from_secs(121), limit, 2), Some(Level::Critical));
    }

    #[test]
    fn a_cluster_without_backups_and_a_server_that_says_nothing_are_critical() {
        let refused = Error::new(Code::ConnectFailed, "refused");
        let silent = Remark::ServerSilent { why: "refused".to_owned(), help: None };
        assert_eq!(judged(&main(), Err(&refused)), [Remark::NoBackup, silent]);
        let unknown = Error::new(Code::NotConfigured, "no connection");
        let not_asked = Remark::ServerNotAsked { why: "no connection".to_owned() };
        assert_eq!(judged(&main(), Err(&unknown))[1], not_asked);
    }

    #[test]
    fn what_is_not_well_in_one_repository_alone_is_a_warning_and_told_once() {
        let quiet = Archiving::quiet();
        let both = ClusterSurvey {
            alone: vec![("primary".to_owned(), main()), ("offsite".to_owned(), main())],
            ..main()
        };
        assert_eq!(judged(&both, Ok(&quiet)), [Remark::NoBackup, Remark::NothingArchived]);
        // All together have WAL, and the second has none.
        let line = "7-0".parse().unwrap();
        let archived = || ClusterSurvey {
            line: Some(line),
            wal: vec![ArchivedWal {
                line,
                timeline: TimelineId(1),
                repository: "primary".to_owned(),
                first_lsn: Lsn(0x100_0000),
                last_lsn: Lsn(0x300_0000),
                gaps: Vec::new(),
                objects: 2,
                stored_bytes: 1,
            }],
            ..main()
        };
        let alone = vec![("primary".to_owned(), archived()), ("offsite".to_owned(), main())];
        let health =
            health(&ClusterSurvey { alone, ..archived() }, Ok(&quiet), LIMITS, Timestamp::MIN);
        let (repository, remark) = ("offsite".to_owned(), Box::new(Remark::NothingArchived));
        let only =
            Judged { level: Level::Warning, remark: Remark::InRepository { repository, remark } };
        assert_eq!(health.remarks[1..], [only]);
        assert_eq!(health.remarks[0].remark, Remark::NoBackup);
    }

    #[test]
    fn a_repository_that_holds_the_archiver_up_is_named_and_that_the_archiver_fails_told_once() {
        let line = "7-0".parse().unwrap();
        let archived = |repository: &str, last_lsn| ClusterSurvey {
            line: Some(line),
            wal: vec![ArchivedWal {
                line,
                timeline: TimelineId(1),
                repository: repository.to_owned(),
                first_lsn: Lsn(0x100_0000),
                last_lsn: Lsn(last_lsn),
                gaps: Vec::new(),
                objects: 2,
                stored_bytes: 1,
            }],
            ..main()
        };
        let alone = vec![
            ("primary".to_owned(), archived("primary", 0x300_0000)),
            ("offsite".to_owned(), archived("offsite", 0x200_0000)),
        ];
        let wal = alone.iter().flat_map(|(_, own)| own.wal.clone()).collect();
        let both = ClusterSurvey { line: Some(line), wal, alone, ..main() };
        let failing_on = Some("000000010000000000000002".to_owned());
        let failing = Archiving { failing_on, ..Archiving::quiet() };
        let remarks = judged(&both, Ok(&failing));
        let [Remark::NoBackup, Remark::ArchiverHeldUp(hold)] = remarks.as_slice() else {
            panic!("{remarks:?}")
        };
        assert_eq!(hold.held_up_by[0].repository, "offsite");
        let none = ClusterSurvey { wal: Vec::new(), alone: Vec::new(), ..both };
        let fails = Remark::ArchiverFails { wal: "000000010000000000000002".to_owned() };
        assert_eq!(judged(&none, Ok(&failing))[1], fails);
    }

    #[test]
    fn what_is_in_none_of_the_repositories_that_were_seen_may_be_in_another() {
        let quiet = Archiving::quiet();
        let seen = judged(&main(), Ok(&quiet));
        assert_eq!(seen, [Remark::NoBackup, Remark::NothingArchived]);
        let not_all = ClusterSurvey { unseen: vec!["offsite".to_owned()], ..main() };
        let health = health(&not_all, Ok(&quiet), LIMITS, Timestamp::UNIX_EPOCH);
        assert_eq!(health.remarks, []);
    }
}
