//! Looking at the repositories of clusters. What can be asked for at once is, and answers are taken
//! in the order of asking.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Instant;

use futures_util::future::{join, join_all, join3};
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use seawall_core::{BackupId, ClusterName, Error, LineId, Result, SystemId};
use seawall_repo::wal::WalArchive;
use seawall_repo::{Line, Repository};

use super::jobs::known_jobs;
use super::order::{in_order, lines_in_order};
use super::wal::{DamagedTimeline, archived_wal};
use super::window::reach_of;
use super::{ArchivedWal, ClusterSurvey, ForeignWal, KnownBackup, KnownJob, UnusableWal};
use crate::events::standings;
use crate::lines::{KnownLine, LineAge, lines_of, newest_of};
use crate::wal::{Obstacle, Reach, WalListing, list};

/// So many clusters are looked at at once: each asks for much at once itself.
const CLUSTERS_AT_ONCE: usize = 4;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Commits.
    Backups,
    /// WAL too.
    Wal,
}

/// A repository of a cluster, by the name people know it by.
#[derive(Debug, Clone)]
pub struct NamedRepository {
    /// Its name in the configuration, or its URL.
    pub name: String,
    /// The repository; `None` if it could not be opened.
    pub repository: Option<Repository>,
}

/// What a look at a cluster gave.
#[derive(Debug)]
pub struct Surveyed {
    /// What was seen.
    pub cluster: ClusterSurvey,
    /// Why not all was, of repositories that are open: one for each.
    pub problems: Vec<Error>,
}

/// Looks at several clusters, each in its repositories.
pub async fn survey_all(
    clusters: &[(ClusterName, Vec<NamedRepository>)],
    depth: Depth,
) -> Vec<Surveyed> {
    let looks = clusters.iter().map(|(cluster, repositories)| survey(cluster, repositories, depth));
    stream::iter(looks).buffered(CLUSTERS_AT_ONCE).collect().await
}

/// Looks at a cluster in all its repositories. One that fails does not hide the others.
pub async fn survey(
    cluster: &ClusterName,
    repositories: &[NamedRepository],
    depth: Depth,
) -> Surveyed {
    let mut survey = ClusterSurvey::empty(cluster.clone());
    survey.looked_at = Instant::now();
    let opened: Vec<(&str, &Repository)> = repositories
        .iter()
        .filter_map(|named| Some((named.name.as_str(), named.repository.as_ref()?)))
        .collect();
    // Which line is written is decided over all of them, before any is looked at more closely.
    let lines = join_all(opened.iter().map(|(_, repository)| lines_of(repository, cluster))).await;
    let written = newest_of(&lines.iter().map(ages).collect::<Vec<_>>());
    let now = Timestamp::now();
    let looks = opened.iter().zip(lines).map(async |((name, _), lines)| match lines {
        Ok(lines) => Shelf::look(name, lines, written, depth, now).await,
        Err(error) => Shelf::unknown(name, error),
    });
    let shelves = join_all(looks).await;
    survey.unseen = repositories
        .iter()
        .filter(|named| named.repository.is_none())
        .map(|named| named.name.clone())
        .collect();
    survey.take_in(written, &shelves);
    if let [_, _, ..] = shelves.as_slice() {
        survey.alone = shelves.iter().map(|shelf| shelf.alone(&survey)).collect();
    }
    let problems = shelves.into_iter().filter_map(|shelf| {
        Some(shelf.problem?.context(format_args!("repository {}", shelf.repository)))
    });
    Surveyed { cluster: survey, problems: problems.collect() }
}

fn ages(lines: &Result<Vec<KnownLine>>) -> Vec<LineAge> {
    lines.as_ref().map(|lines| lines.iter().map(KnownLine::age).collect()).unwrap_or_default()
}

/// What one repository holds of a cluster.
struct Shelf {
    repository: String,
    /// The cluster's lines that say what they are.
    lines: Vec<LineAge>,
    /// Of the line that is written now, if the repository has it: system identifier and major.
    written: Option<(SystemId, u32)>,
    backups: Vec<KnownBackup>,
    wal: Vec<ArchivedWal>,
    damaged_histories: Vec<DamagedTimeline>,
    jobs: Vec<KnownJob>,
    /// How far the line that is written can be restored from here.
    reach: Option<Reach>,
    /// Of the line that is written: what comes from another server.
    foreign_wal: Vec<ForeignWal>,
    /// The first thing that could not be looked at.
    problem: Option<Error>,
}

impl Shelf {
    fn empty(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            lines: Vec::new(),
            written: None,
            backups: Vec::new(),
            wal: Vec::new(),
            damaged_histories: Vec::new(),
            jobs: Vec::new(),
            reach: None,
            foreign_wal: Vec::new(),
            problem: None,
        }
    }

    fn unknown(repository: &str, problem: Error) -> Self {
        Self { problem: Some(problem), ..Self::empty(repository) }
    }

    async fn look(
        repository: &str,
        lines: Vec<KnownLine>,
        written: Option<LineId>,
        depth: Depth,
        now: Timestamp,
    ) -> Self {
        let mut shelf = Self::empty(repository);
        shelf.lines = lines.iter().map(KnownLine::age).collect();
        let looks = lines.iter().map(async |known| {
            let is_written = Some(known.line.id()) == written;
            let looks = (
                known_backups(&known.line, repository),
                wal(&known.line, depth),
                known_jobs(&known.line, repository, now),
            );
            (known, is_written, join3(looks.0, looks.1, looks.2).await)
        });
        for (known, is_written, (backups, wal, jobs)) in join_all(looks).await {
            if is_written {
                shelf.written = Some((known.about.system_id, known.about.major));
            }
            let backups = shelf.keep(backups).map(|(backups, unread)| {
                unread.into_iter().for_each(|error| shelf.tell(error));
                backups
            });
            let wal = shelf.keep(wal).flatten();
            if let Some(LookedAt { listing, .. }) = &wal {
                let line = known.line.id();
                shelf.wal.extend(archived_wal(&listing.timelines, line, repository));
                let damaged = listing.damaged_histories.iter().cloned();
                let damaged =
                    damaged.map(|history| DamagedTimeline::new(history, line, repository));
                shelf.damaged_histories.extend(damaged);
            }
            let jobs = shelf.keep(jobs);
            shelf.jobs.extend(jobs.into_iter().flatten());
            if let (true, Some(backups), Some(LookedAt { archive, listing })) =
                (is_written, &backups, wal)
            {
                let (reach, foreign) = join(
                    reach_of(&archive, backups),
                    ForeignWal::of(&archive, &listing, backups, repository),
                )
                .await;
                shelf.reach = shelf.keep(reach).flatten();
                shelf.foreign_wal = shelf.keep(foreign).unwrap_or_default();
            }
            shelf.backups.extend(backups.into_iter().flatten());
        }
        shelf
    }

    /// What it says by itself.
    fn alone(&self, all: &ClusterSurvey) -> (String, ClusterSurvey) {
        let mut survey = ClusterSurvey::empty(all.name.clone());
        survey.looked_at = all.looked_at;
        survey.take_in(all.line, std::slice::from_ref(self));
        (self.repository.clone(), survey)
    }

    /// The value; the first error is kept as the problem.
    fn keep<T>(&mut self, looked: Result<T>) -> Option<T> {
        match looked {
            Ok(value) => Some(value),
            Err(error) => {
                self.tell(error);
                None
            }
        }
    }

    fn tell(&mut self, problem: Error) {
        self.problem.get_or_insert(problem);
    }
}

impl ClusterSurvey {
    /// Puts together what the repositories hold.
    fn take_in(&mut self, written: Option<LineId>, shelves: &[Shelf]) {
        let mut backups = BTreeMap::<BackupId, KnownBackup>::new();
        self.line = written;
        for shelf in shelves {
            if let Some((system_id, major)) = shelf.written {
                self.system_identifier = Some(system_id);
                self.postgres_version = Some(major.to_string());
            }
            for backup in &shelf.backups {
                match backups.entry(backup.id) {
                    Entry::Vacant(entry) => _ = entry.insert(backup.clone()),
                    Entry::Occupied(mut entry) => entry.get_mut().merge(backup.clone()),
                }
            }
            self.wal.extend_from_slice(&shelf.wal);
            self.damaged_histories.extend_from_slice(&shelf.damaged_histories);
            self.jobs.extend_from_slice(&shelf.jobs);
            self.foreign_wal.extend_from_slice(&shelf.foreign_wal);
            let unusable =
                shelf.reach.as_ref().and_then(|reach| UnusableWal::of(&shelf.repository, reach));
            self.blocked_wal.extend(unusable);
            let far = |reach: &Option<Reach>| reach.as_ref().map(|it| (it.timeline, it.lsn));
            if far(&shelf.reach) > far(&self.reach) {
                self.reach.clone_from(&shelf.reach);
            }
            if shelf.problem.is_some() {
                self.unseen.push(shelf.repository.clone());
            }
        }
        let lines = lines_in_order(shelves.iter().map(|shelf| &shelf.lines), written);
        self.backups = in_order(backups.into_values(), &lines);
        self.recovery_window = self.window(self.hole(shelves));
    }

    /// What keeps the log from being replayed from the oldest backup to where the repository that
    /// leads farthest leads. A restore reads one repository, so that one has to have all of it.
    fn hole(&self, shelves: &[Shelf]) -> Option<String> {
        let oldest = self.oldest_backup()?.id;
        let far = |reach: &Reach| (reach.timeline, reach.lsn);
        let end = self.reach.as_ref().map(far)?;
        let has_oldest = |shelf: &&Shelf| {
            shelf.backups.iter().any(|backup| backup.id == oldest && backup.is_complete())
        };
        let ways: Vec<&Reach> =
            shelves.iter().filter(has_oldest).filter_map(|shelf| shelf.reach.as_ref()).collect();
        if ways.iter().any(|reach| reach.hole.is_none() && far(reach) == end) {
            return None;
        }
        let hole = ways.iter().find_map(|reach| reach.hole.as_ref());
        Some(hole.map_or_else(
            || "no repository leads from the one to the other".to_owned(),
            Obstacle::to_string,
        ))
    }
}

/// The backups of a line in one repository, oldest first, with what verification made of them; why it
/// is not known of all of them what that was.
async fn known_backups(line: &Line, repository: &str) -> Result<(Vec<KnownBackup>, Option<Error>)> {
    let (summaries, standings) = join(line.all_backups(), standings(line)).await;
    let known = KnownBackup::of_line(&summaries?, &standings.known, line.id(), repository);
    Ok((known, standings.unread.or(standings.undecided)))
}

/// The archive of a line in one repository, and what is in it.
struct LookedAt {
    archive: WalArchive,
    listing: WalListing,
}

/// `None` if that is not asked for.
async fn wal(line: &Line, depth: Depth) -> Result<Option<LookedAt>> {
    if depth == Depth::Backups {
        return Ok(None);
    }
    let archive = WalArchive::open(line.clone()).await?;
    let listing = list(&archive).await?;
    Ok(Some(LookedAt { archive, listing }))
}
