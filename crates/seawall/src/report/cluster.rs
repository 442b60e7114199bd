use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use seawall_core::{
    Action, BackupId, ClusterName, Code, Error, Lsn, Result, SystemId, TimelineId, hint,
};
use seawall_engine::liveness::{Life, life_of};
use seawall_engine::verify::{Verdict, verdicts};
use seawall_engine::wal::{BackupPlace, Look, Obstacle, Reach, reach};
use seawall_repo::records::About;
use seawall_repo::wal::WalArchive;
use seawall_repo::{Attempt, Line, Repository};
use serde::Serialize;

use super::backup::DAMAGED;
use super::{Archiving, BackupReport, Contradiction, Depth, WalReport};
use crate::context::{Opened, Target, ambiguous, no_such_cluster};

/// A cluster, over all its repositories.
#[derive(Debug, Serialize)]
pub struct ClusterReport {
    pub name: ClusterName,
    pub system_identifier: Option<SystemId>,
    pub postgres_version: Option<String>,
    /// The line that is written now: system identifier and branch.
    pub line: Option<String>,
    /// Of all lines, oldest first.
    pub backups: Vec<BackupReport>,
    pub wal: Vec<WalReport>,
    pub recovery_window: Option<RecoveryWindow>,
    /// Seconds of commits that would be lost if the server were lost now; `None` if unknown.
    pub rpo_seconds: Option<f64>,
    /// Why the server could not be asked, if it was to be.
    pub server_error: Option<String>,
    /// Up to where the line that is written can be restored, from the repository that leads
    /// farthest.
    #[serde(skip)]
    pub reach: Option<Reach>,
    /// Archived WAL that no backup leads to, by repository.
    pub blocked_wal: Vec<Blocked>,
    /// Jobs that began and have not ended, as far as a repository knows of them.
    pub jobs: Vec<JobReport>,
    /// When the look at the repositories began.
    #[serde(skip)]
    looked_at: Instant,
}

/// The moments a cluster can be restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RecoveryWindow {
    /// The end of the oldest backup.
    pub earliest: Timestamp,
    /// The last commit that is archived without a gap.
    pub latest: Timestamp,
}

/// Why archived WAL of a repository is of no use to its newest backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocked {
    pub repository: String,
    /// What is in the way.
    pub obstacle: Obstacle,
    /// The same in words.
    pub message: String,
}

/// A job.
#[derive(Debug, Serialize)]
pub struct JobReport {
    pub kind: String,
    pub id: String,
    /// `running`, or `silent` if its process is gone or it has not been heard of for a while.
    pub state: &'static str,
    pub host: String,
    pub process_id: u32,
    pub started_at: Timestamp,
    pub heard_of_at: Timestamp,
    pub repository: String,
    pub line: String,
}

impl ClusterReport {
    /// A cluster of which nothing is known.
    pub fn empty(name: ClusterName) -> Self {
        Self {
            name,
            system_identifier: None,
            postgres_version: None,
            line: None,
            backups: Vec::new(),
            wal: Vec::new(),
            recovery_window: None,
            rpo_seconds: None,
            server_error: None,
            reach: None,
            blocked_wal: Vec::new(),
            jobs: Vec::new(),
            looked_at: Instant::now(),
        }
    }

    /// Looks at one cluster in the repositories that are open. A repository that fails is added to
    /// `problems`.
    ///
    /// # Errors
    /// None today; kept fallible like its callers.
    pub async fn collect(
        target: &Target,
        opened: &[Opened],
        depth: Depth,
        problems: &mut Vec<Error>,
    ) -> Result<Self> {
        let mut report = Self::empty(target.name.clone());
        let mut backups = BTreeMap::new();
        for place in &target.places {
            let Some(opened) = opened.iter().find(|opened| opened.place.name == place.name) else {
                continue;
            };
            if let Err(problem) = report.add(opened, depth, &mut backups).await {
                problems.push(problem.context(format!("repository {}", place.name)));
            }
        }
        report.backups = backups.into_values().collect();
        if depth == Depth::Wal
            && let Err(problem) = report.find_window(target, opened).await
        {
            problems.push(problem);
        }
        Ok(report)
    }

    /// The end of the WAL that is archived, on whichever timeline and in whichever repository.
    pub fn archived_to(&self) -> Lsn {
        self.written_wal().map(|wal| wal.last_lsn).max().unwrap_or(Lsn::INVALID)
    }

    /// The end of the WAL that is archived of one timeline, in whichever repository.
    pub fn archived_to_on(&self, timeline: TimelineId) -> Option<Lsn> {
        let own = self.written_wal().filter(|wal| wal.timeline == timeline);
        own.map(|wal| wal.last_lsn).max()
    }

    /// What of the server's word the archive contradicts.
    pub fn contradiction(&self, archiving: &Archiving) -> Option<Contradiction> {
        Contradiction::find(self, archiving, self.looked_at)
    }

    /// The newest timeline of which WAL is archived.
    pub fn newest_timeline(&self) -> Option<TimelineId> {
        self.written_wal().map(|wal| wal.timeline).max()
    }

    fn written_wal(&self) -> impl Iterator<Item = &WalReport> {
        self.wal.iter().filter(|wal| Some(&wal.line) == self.line.as_ref())
    }

    /// The whole backups of the line that is written: what else there is leads to the past only.
    pub fn written_backups(&self) -> impl DoubleEndedIterator<Item = &BackupReport> {
        let whole = self.backups.iter().filter(|backup| backup.state == "complete");
        whole.filter(|backup| Some(&backup.line) == self.line.as_ref())
    }

    /// The backup that is farthest in the log. Ids are in the order of clocks, which can be wrong.
    pub fn newest_backup(&self) -> Option<&BackupReport> {
        self.written_backups().max_by_key(|backup| (backup.timeline, backup.stop_lsn))
    }

    /// Seconds of commits that would be lost if the server were lost now: those that no repository
    /// can give back, be they archived or not. `None` if nothing can be restored, or nobody knows.
    pub fn at_risk_s(&self, archiving: &Archiving, now: Timestamp) -> Option<f64> {
        let reach = self.reach.as_ref().filter(|_| archiving.own_archiver)?;
        // By the clock of this host; the commit was timed by the server's.
        let since_last = now.duration_since(reach.time).as_secs_f64().max(0.0);
        // That the archiver succeeded a moment ago says nothing of what it has not come to yet.
        let word_counts = reach.obstacle.is_none()
            && !self.is_of_another_past(reach, archiving)
            && !archiving.lags_behind(reach.lsn)
            && self.contradiction(archiving).is_none();
        let by_its_word = archiving.at_risk_s(reach.lsn).filter(|_| word_counts);
        by_its_word.or(Some(since_last))
    }

    /// Whether the newest backup leads somewhere else than to what the server writes, as after a restore
    /// to a moment before that backup's end. A standby tells no timeline, and may be behind the archive.
    fn is_of_another_past(&self, reach: &Reach, archiving: &Archiving) -> bool {
        archiving.timeline.is_some_and(|server| {
            let archived = || self.written_wal().any(|wal| wal.timeline == server);
            reach.timeline != server && (reach.lsn > archiving.insert_lsn || archived())
        })
    }

    /// From the end of the oldest backup to the last commit that follows the newest one without a
    /// gap, in the repository that leads farthest; and what is in the way of more.
    async fn find_window(&mut self, target: &Target, opened: &[Opened]) -> Result<()> {
        let Some(oldest) = self.written_backups().next() else { return Ok(()) };
        let earliest = oldest.finished_at;
        for opened in
            opened.iter().filter(|opened| target.places.iter().any(|p| p.name == opened.place.name))
        {
            let repository = &opened.place.name;
            let here = self.written_backups().filter(|it| it.repositories.contains(repository));
            let places: Vec<BackupPlace> = here.filter_map(BackupReport::place).collect();
            if places.is_empty() {
                continue;
            }
            let line = current_line(&opened.repository, &self.name).await?;
            let archive = WalArchive::open(line).await?;
            let found = reach(&archive, &places, Look::AtItsEnd).await?;
            if let Some(obstacle) = found.as_ref().and_then(|found| found.obstacle.clone()) {
                let (repository, message) = (repository.clone(), obstacle.to_string());
                self.blocked_wal.push(Blocked { repository, obstacle, message });
            }
            let far = |reach: &Option<Reach>| reach.as_ref().map(|it| (it.timeline, it.lsn));
            if far(&found) > far(&self.reach) {
                self.reach = found;
            }
        }
        self.recovery_window = earliest
            .zip(self.reach.as_ref())
            .map(|(earliest, reach)| RecoveryWindow { earliest, latest: reach.time });
        Ok(())
    }

    async fn add(
        &mut self,
        opened: &Opened,
        depth: Depth,
        backups: &mut BTreeMap<BackupId, BackupReport>,
    ) -> Result<()> {
        let repository = opened.place.name.as_str();
        for (line, about) in lines(&opened.repository, &self.name).await? {
            self.system_identifier = Some(about.system_id);
            self.postgres_version = Some(about.major.to_string());
            self.line = Some(line.id().to_string());
            let verdicts = verdicts(&line).await?;
            for summary in line.backups().await? {
                let mut report = BackupReport::new(&summary, line.id(), repository);
                match verdicts.get(&summary.id) {
                    Some(Verdict::Whole { at }) => report.verified_at = Some(*at),
                    Some(Verdict::Damaged(_)) => report.state = DAMAGED,
                    None => {}
                }
                match backups.entry(summary.id) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(report);
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        entry.get_mut().merge(report);
                    }
                }
            }
            if depth == Depth::Wal {
                self.wal.extend(WalReport::collect(&line, repository).await?);
            }
            let now = Timestamp::now();
            let attempts = line.attempts().await?;
            for attempt in &attempts {
                self.jobs.extend(job(attempt, &line, repository, now).await?);
            }
        }
        Ok(())
    }
}

/// `None` for an attempt of which no record can be read.
async fn job(
    attempt: &Attempt,
    line: &Line,
    repository: &str,
    now: Timestamp,
) -> Result<Option<JobReport>> {
    let first = line.record(attempt, attempt.first_record).await?;
    let newest = line.record(attempt, attempt.newest_record).await?;
    let Some(last) = newest.or_else(|| first.clone()) else { return Ok(None) };
    let first = first.unwrap_or_else(|| last.clone());
    let Ok(heard_of_at) = Timestamp::from_microsecond(last.time_us) else { return Ok(None) };
    let state = match life_of(line, attempt, now).await? {
        Life::Runs => "running",
        Life::Ended => "silent",
    };
    Ok(Some(JobReport {
        kind: first.purpose.clone(),
        id: attempt.id.to_string(),
        state,
        host: first.host.clone(),
        process_id: first.process_id,
        started_at: attempt.id.created_at(),
        heard_of_at,
        repository: repository.to_owned(),
        line: line.id().to_string(),
    }))
}

/// A cluster's lines in a repository, the newest last.
pub async fn lines(repository: &Repository, cluster: &ClusterName) -> Result<Vec<(Line, About)>> {
    let mut lines = Vec::new();
    for (name, id) in repository.lines().await? {
        if name != *cluster {
            continue;
        }
        let line = repository.line(&name, id)?;
        if let Some(about) = line.about().await? {
            lines.push((line, about));
        }
    }
    lines.sort_by_key(|(line, about)| (about.created_us, line.id()));
    Ok(lines)
}

/// The line a cluster writes to: the newest.
///
/// # Errors
/// [`Code::NoSuchCluster`], and those of the repository.
pub async fn current_line(repository: &Repository, cluster: &ClusterName) -> Result<Line> {
    let newest = lines(repository, cluster).await?.pop();
    newest.map(|(line, _)| line).ok_or_else(|| {
        let url = repository.store().url();
        Error::new(
            Code::NoSuchCluster,
            format!("the repository {url} does not know cluster {cluster}"),
        )
        .with_hint(hint![
            "Add it: ",
            Action::Init { cluster: Some(cluster.clone()), repository: Some(url.to_string()) },
            "."
        ])
    })
}

/// The current line of a cluster, or of the only one a repository holds.
///
/// # Errors
/// [`Code::NoSuchCluster`], [`Code::Usage`] if there are several, and those of the repository.
pub async fn stored_cluster(
    repository: &Repository,
    cluster: Option<&ClusterName>,
) -> Result<Line> {
    let mut names: Vec<ClusterName> =
        repository.lines().await?.into_iter().map(|(name, _)| name).collect();
    names.dedup();
    match (cluster, names.as_slice()) {
        (Some(cluster), names) if names.contains(cluster) => {
            current_line(repository, cluster).await
        }
        (Some(cluster), names) => Err(no_such_cluster(cluster, names.iter())),
        (None, [only]) => current_line(repository, only).await,
        (None, []) => Err(Error::new(Code::NoSuchCluster, "the repository holds no cluster yet")),
        (None, names) => Err(ambiguous(names.iter())),
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use seawall_core::Ulid;

    use super::*;

    fn reach_of(obstacle: Option<Obstacle>, lsn: u64, time: Timestamp) -> ClusterReport {
        let (backup, timeline) = (BackupId(Ulid(7)), TimelineId(2));
        let reach = Some(Reach { backup, timeline, lsn: Lsn(lsn), time, obstacle });
        ClusterReport { reach, ..ClusterReport::empty("main".parse().unwrap()) }
    }

    fn archiving() -> Archiving {
        Archiving {
            system_id: SystemId(7),
            version: "15.18".to_owned(),
            insert_lsn: Lsn(0x600_0000),
            timeline: Some(TimelineId(2)),
            failing_on: None,
            own_archiver: true,
            idle: false,
            waits_for_restart: false,
            archived_s_ago: Some(1.0),
            last_archived: None,
            timeout_s: 60,
            segment_bytes: 16 << 20,
        }
    }

    #[test]
    fn what_cannot_be_restored_counts_from_the_last_commit_that_can() {
        let now = Timestamp::UNIX_EPOCH + 9.hours();
        let archiving = archiving();
        let minimal = Obstacle::MinimalWal { lsn: Lsn(0x500_0000) };
        let at_risk = |obstacle: Option<Obstacle>, lsn| {
            reach_of(obstacle, lsn, Timestamp::UNIX_EPOCH).at_risk_s(&archiving, now)
        };
        // All that is archived can be restored.
        assert_eq!(at_risk(None, 0x600_0000), Some(0.0));
        // Archived a second ago, and of no use.
        assert_eq!(at_risk(Some(minimal), 0x500_0000), Some(32_400.0));
        // A clock that is behind the server's.
        let later = reach_of(Some(Obstacle::MinimalWal { lsn: Lsn(8) }), 8, now + 1.hour());
        assert_eq!(later.at_risk_s(&archiving, now), Some(0.0));
        let none = ClusterReport::empty("main".parse().unwrap());
        assert_eq!(none.at_risk_s(&archiving, now), None, "without a backup all is lost");
    }

    /// Restored to a moment before the newest backup's end: its WAL is all there, and not the server's.
    #[test]
    fn a_backup_of_a_past_that_was_left_gives_no_commit_of_the_server_back() {
        let now = Timestamp::UNIX_EPOCH + 9.hours();
        let of_timeline = |timeline, lsn| {
            let mut cluster = reach_of(None, lsn, Timestamp::UNIX_EPOCH);
            cluster.reach = cluster.reach.map(|reach| Reach { timeline, ..reach });
            cluster
        };
        let at_risk = |cluster: &ClusterReport| cluster.at_risk_s(&archiving(), now);
        assert_eq!(at_risk(&of_timeline(TimelineId(1), 0x700_0000)), Some(32_400.0));
        let mut archived = of_timeline(TimelineId(1), 0x5FF_0000);
        archived.wal.push(WalReport {
            line: String::new(),
            timeline: TimelineId(2),
            repository: "primary".to_owned(),
            first_lsn: Lsn(0x400_0000),
            last_lsn: Lsn(0x600_0000),
            gaps: Vec::new(),
            objects: 1,
            stored_bytes: 1,
        });
        archived.line = Some(String::new());
        assert_eq!(at_risk(&archived), Some(32_400.0));
        // Promoted just now, and nothing archived since.
        assert_eq!(at_risk(&of_timeline(TimelineId(1), 0x5FF_0000)), Some(1.0));
        // A standby that is behind the archive.
        let standby = Archiving { timeline: None, insert_lsn: Lsn(0x500_0000), ..archiving() };
        assert_eq!(of_timeline(TimelineId(1), 0x600_0000).at_risk_s(&standby, now), Some(0.0));
        let another_s = Archiving { own_archiver: false, ..standby };
        let unknown = of_timeline(TimelineId(1), 0x600_0000).at_risk_s(&another_s, now);
        assert_eq!(unknown, None, "whether its primary archives");
    }

    /// The archiver succeeds all the time, with what was written long ago.
    #[test]
    fn an_archiver_that_lags_behind_is_not_believed_to_be_up_to_date() {
        let cluster = reach_of(None, 0x500_0000, Timestamp::UNIX_EPOCH);
        let now = Timestamp::UNIX_EPOCH + 1.hour();
        let at_risk = |insert_lsn| {
            cluster.at_risk_s(&Archiving { insert_lsn: Lsn(insert_lsn), ..archiving() }, now)
        };
        assert_eq!(at_risk(0x700_0000), Some(1.0));
        assert_eq!(at_risk(0x700_0001), Some(3600.0));
    }

    /// Statistics that were reset tell of no success; the archive does.
    #[test]
    fn an_archiver_that_remembers_nothing_does_not_make_the_rpo_unknown() {
        let archiving = Archiving { archived_s_ago: None, ..archiving() };
        let cluster = reach_of(None, 0x500_0000, Timestamp::UNIX_EPOCH);
        let now = Timestamp::UNIX_EPOCH + 1.hour();
        assert_eq!(cluster.at_risk_s(&archiving, now), Some(3600.0));
    }
}
