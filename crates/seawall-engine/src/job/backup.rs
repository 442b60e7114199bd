//! The verb backup: one backup into every repository of the request.

use std::sync::PoisonError;
use std::time::Duration;

use seawall_core::{
    Action, BackupId, ClusterName, Code, Error, Key, LocalPath, Progress as _, Result, counted,
    hint,
};
use seawall_repo::manifest::{IncidentKind, Incidents};

use super::cancelled::Asked;
use super::{BackupVerb, Job, JobEnd, JobEvent, JobFinding, JobReport, JobRepository, lacks};
use crate::backup::{
    self, BackupReport, BackupRequest, Destination, DestinationReport, ParentChoice,
};
use crate::check::Severity;
use crate::lines::current_line;
use crate::named_twice::named_twice;
use crate::survey::{Choices, find_backup};

/// The zstd level new data is compressed with unless the request says otherwise.
pub const COMPRESSION_LEVEL: i32 = 1;

/// A pack is closed when it has so many bytes, unless the request says otherwise.
pub const PACK_BYTES: u64 = 64 << 20;

/// Of several repositories each may take at least so long to do one thing.
const STORE_PATIENCE_MIN: Duration = Duration::from_secs(60);

impl Job<'_> {
    pub(super) async fn backup(&self, verb: &BackupVerb) -> Result<JobEnd> {
        let (destinations, away) = self.destinations().await?;
        let request = BackupRequest {
            id: BackupId(self.id),
            connection: self.connection()?,
            data_directory: self.request.data_directory.clone().map(|LocalPath(path)| path),
            parent: self.parent(verb, &destinations).await?,
            annotations: verb.annotations.clone(),
            jobs: self.workers,
            memory_bytes: self.request.budget.memory(),
            crew: self.crew.clone(),
            fast_checkpoint: !verb.spread_checkpoint,
            wal_timeout: verb.wal_timeout(),
            store_timeout: verb.wal_timeout().max(STORE_PATIENCE_MIN),
            other_repository_is_away: !away.is_empty(),
            program: concat!("seawall ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        self.note_backup(&destinations, &away);
        let made = backup::run(&destinations, &request, self.reporter.as_ref()).await;
        let mut report = made.map_err(|error| self.explain_one_of(&destinations, error))?;
        report.destinations = report.destinations.into_iter().map(|it| self.told(it)).collect();
        report.destinations.extend(away);
        self.tell_findings(&report);
        Ok(end_of_backup(report))
    }

    /// The backup to lead on from.
    async fn parent(
        &self,
        verb: &BackupVerb,
        destinations: &[Destination],
    ) -> Result<ParentChoice> {
        let word = match (&verb.parent, verb.full) {
            (None, false) => return Ok(ParentChoice::Newest),
            (None, true) => return Ok(ParentChoice::Nothing),
            (Some(word), false) => word,
            (Some(_), true) => {
                let what = "a full backup leads on from none, and a parent is named";
                return Err(Error::new(Code::JobRequestInvalid, what));
            }
        };
        let opened = |it: &Destination| (it.name.clone(), it.line.repository().clone());
        let opened: Vec<_> = destinations.iter().map(opened).collect();
        let choices = Choices::look(&opened, self.request.cluster.as_ref()).await;
        let found = find_backup(word, choices.backups)?;
        found.notes().for_each(|note| self.reporter.note(&note.into()));
        Ok(ParentChoice::This(found.backup.id))
    }

    /// The cluster's line in each repository that can be used, and why the others cannot.
    ///
    /// # Errors
    /// Why the last of them cannot be used, when none can; what is the matter with the others is
    /// told. [`Code::ConfigInvalid`] where two of them are one: a backup would be in it twice.
    async fn destinations(&self) -> Result<(Vec<Destination>, Vec<DestinationReport>)> {
        let cluster = self.request.cluster.as_ref().ok_or_else(|| lacks("a cluster"))?;
        let repositories = &self.request.repositories;
        let (mut destinations, mut away) = (Vec::new(), Vec::new());
        for repository in repositories {
            match self.destination(repository, cluster).await {
                Ok(destination) => {
                    refuse_second_name(&destinations, &destination)?;
                    destinations.push(destination);
                }
                Err(error) if repositories.len() == 1 => return Err(error),
                Err(error) => {
                    let name = repository.name.clone();
                    away.push((name.clone(), error.context(format!("repository {name}"))));
                }
            }
        }
        if destinations.is_empty() {
            return Err(self.all_but_last(away).unwrap_or_else(|| lacks("a repository")));
        }
        let told = |(name, error)| self.told(DestinationReport { name, outcome: Err(error) });
        Ok((destinations, away.into_iter().map(told).collect()))
    }

    /// Notes what is asked when the backup is cancelled, in the order of the request.
    fn note_backup(&self, destinations: &[Destination], away: &[DestinationReport]) {
        let asked =
            self.request.repositories.iter().filter_map(|JobRepository { name, .. }| {
                let begun = destinations.iter().find(|it| it.name == *name);
                let failed = away.iter().find(|it| it.name == *name);
                let line = match (begun, failed.map(|it| &it.outcome)) {
                    (Some(begun), _) => Ok(begun.line.clone()),
                    (None, Some(Err(error))) => Err(Error::new(error.code(), error.chain())),
                    (None, Some(Ok(_)) | None) => return None,
                };
                Some(Asked { name: name.clone(), line })
            });
        self.backed_up.lock().unwrap_or_else(PoisonError::into_inner).extend(asked);
    }

    /// Tells why a destination failed. The report has the gist of it.
    fn told(&self, report: DestinationReport) -> DestinationReport {
        let DestinationReport { name, outcome } = report;
        let outcome = outcome.map_err(|error| {
            let repository = self.request.repositories.iter().find(|it| it.name == name);
            let gist = Error::new(error.code(), error.chain());
            self.tell(
                Some(&name),
                match repository {
                    Some(repository) => self.program.explain(repository, error),
                    None => error,
                },
            );
            gist
        });
        DestinationReport { name, outcome }
    }

    async fn destination(
        &self,
        repository: &JobRepository,
        cluster: &ClusterName,
    ) -> Result<Destination> {
        let line = async { current_line(&self.program.open(repository).await?, cluster).await };
        let explain = |error| self.program.explain(repository, error);
        Ok(Destination {
            name: repository.name.clone(),
            line: line.await.map_err(explain)?,
            compression_level: repository.compression_level.unwrap_or(COMPRESSION_LEVEL),
            pack_bytes: repository.pack_bytes.unwrap_or(PACK_BYTES),
        })
    }

    /// Adds what the program knows of the repository that an error is about.
    fn explain_one_of(&self, destinations: &[Destination], error: Error) -> Error {
        let told = error.pairs().get(&Key::Repository);
        let is_its = |it: &&Destination| told == Some(&it.line.store().url().to_string());
        let name = destinations.iter().find(is_its).map(|it| &it.name);
        match self.request.repositories.iter().find(|it| Some(&it.name) == name) {
            Some(repository) => self.program.explain(repository, error),
            None => error,
        }
    }

    fn tell_findings(&self, report: &BackupReport) {
        let tell = |id: Code, about: String, what: &str| {
            self.events.event(&JobEvent::Finding(JobFinding {
                id: id.to_string(),
                severity: Severity::Critical,
                repository: None,
                cluster: self.request.cluster.clone(),
                about: Some(about),
                what: what.to_owned(),
                fix: None,
            }));
        };
        for page in &report.page_errors {
            let path = String::from_utf8_lossy(&page.path);
            tell(Code::PageErrorsFound, format!("{path}, block {}", page.block), &page.reason);
        }
        for incident in &report.incidents.listed {
            let path = String::from_utf8_lossy(&incident.path);
            let code = match incident.kind {
                IncidentKind::Unmarked => Code::UnmarkedChanges,
                IncidentKind::Damaged => Code::PageErrorsFound,
            };
            tell(code, format!("{path}, block {}", incident.block), &incident.kind.to_string());
        }
        for file in &report.left_out {
            let path = String::from_utf8_lossy(&file.path).into_owned();
            tell(Code::FilesLeftOut, path, &file.reason);
        }
    }
}

fn refuse_second_name(before: &[Destination], destination: &Destination) -> Result<()> {
    let before = before.iter().map(|it| (it.name.as_str(), it.line.repository()));
    named_twice(before, &destination.name, destination.line.repository()).map_or(Ok(()), Err)
}

fn end_of_backup(report: BackupReport) -> JobEnd {
    let (bad_pages, left_out) = (report.page_error_count, report.left_out.len());
    let Incidents { unmarked, damaged, .. } = report.incidents;
    let has_failed = report.destinations.iter().any(|it| it.outcome.is_err());
    let report = JobReport::Backup(Box::new(report));
    if bad_pages > 0 {
        JobEnd::with_error(report, damaged_pages(bad_pages))
    } else if unmarked > 0 {
        JobEnd::with_error(report, unmarked_changes(unmarked))
    } else if damaged > 0 {
        JobEnd::with_error(report, damaged_beside(damaged))
    } else if left_out > 0 {
        JobEnd::with_error(report, files_left_out(left_out))
    } else {
        JobEnd::done(report, has_failed)
    }
}

fn damaged_pages(count: u64) -> Error {
    let what =
        format!("the backup is complete, and the database has {}", counted(count, "damaged page"));
    Error::new(Code::PageErrorsFound, what).with_hint(hint![
        Action::Show { backup: "latest".to_owned() },
        " lists them; keep older backups until they are mended."
    ])
}

fn damaged_beside(count: u64) -> Error {
    let pages = counted(count, "page");
    let what = format!(
        "the backup is complete and has {pages} as they were before; on the server they are damaged"
    );
    Error::new(Code::PageErrorsFound, what).with_hint(
        "Look after the server's disk and memory. A restore of this backup has the pages whole.",
    )
}

fn unmarked_changes(count: u64) -> Error {
    let blocks = counted(count, "block");
    let what =
        format!("the backup is complete, and {blocks} had changed though WAL does not say so");
    Error::new(Code::UnmarkedChanges, what).with_hint(hint![
        "Their files were taken whole. Others may have changed alike: ",
        Action::FullBackup { cluster: None },
        " takes everything."
    ])
}

fn files_left_out(count: usize) -> Error {
    let what = format!("the backup is complete, but for {}", counted(count as u64, "file"));
    Error::new(Code::FilesLeftOut, what).with_hint(
        "They are not PostgreSQL's, and something writes them all the time: let it write outside the data directory.",
    )
}
