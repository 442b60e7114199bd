//! The verb backup: into every repository of the request.

use jiff::Timestamp;
use seawall_core::{Action, BackupId, Code, Error, LocalPath, Result, counted, hint};
use seawall_repo::new_ulid;

use super::{
    BackupVerb, Job, JobEnd, JobEvent, JobFinding, JobReport, JobRepository, RepositoryOutcome,
    lacks,
};
use crate::backup::{self, BackupReport, BackupRequest};
use crate::check::Severity;
use crate::lines::current_line;

/// The zstd level new data is compressed with unless the request says otherwise.
pub const COMPRESSION_LEVEL: i32 = 1;

/// A pack is closed when it has so many bytes, unless the request says otherwise.
pub const PACK_BYTES: u64 = 64 << 20;

impl Job<'_> {
    pub(super) async fn backup(&self, verb: &BackupVerb) -> Result<JobEnd> {
        self.refuse_while_one_is_away().await?;
        let (mut repositories, mut failed) = (Vec::new(), Vec::new());
        for (number, repository) in self.request.repositories.iter().enumerate() {
            // The job's own id is that of its first backup.
            let id = if number == 0 { self.id } else { new_ulid(Timestamp::now())? };
            let name = repository.name.clone();
            let report = match self.back_up_into(repository, BackupId(id), verb).await {
                Ok(report) => Some(report),
                Err(error) => {
                    failed.push((name.clone(), self.program.explain(repository, error)));
                    None
                }
            };
            repositories.push(RepositoryOutcome { name, report });
        }
        Ok(self.end_of_backup(repositories, failed))
    }

    async fn back_up_into(
        &self,
        repository: &JobRepository,
        id: BackupId,
        verb: &BackupVerb,
    ) -> Result<BackupReport> {
        let cluster = self.request.cluster.as_ref().ok_or_else(|| lacks("a cluster"))?;
        let opened = self.program.open(repository).await?;
        let line = current_line(&opened, cluster).await?;
        let request = BackupRequest {
            id,
            connection: self.connection()?,
            data_directory: self.request.data_directory.clone().map(|LocalPath(path)| path),
            annotations: verb.annotations.clone(),
            jobs: self.workers,
            compression_level: repository.compression_level.unwrap_or(COMPRESSION_LEVEL),
            pack_bytes: repository.pack_bytes.unwrap_or(PACK_BYTES),
            crew: self.crew.clone(),
            fast_checkpoint: !verb.spread_checkpoint,
            wal_timeout: verb.wal_timeout(),
            program: concat!("seawall ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let report = backup::run(&line, &request, self.reporter.as_ref()).await?;
        self.tell_findings(repository, &report);
        Ok(report)
    }

    /// WAL counts as archived when all repositories have it. While one of several is away, what a
    /// backup needs comes into none of them, and hours of copying would end with waiting for it.
    ///
    /// # Errors
    /// Why the last of them cannot be opened; what is the matter with the others is told.
    async fn refuse_while_one_is_away(&self) -> Result<()> {
        if self.request.repositories.is_empty() {
            return Err(lacks("a repository"));
        }
        if self.request.repositories.len() < 2 {
            return Ok(());
        }
        let mut failed = Vec::new();
        for repository in &self.request.repositories {
            if let Err(error) = self.program.open(repository).await {
                let name = repository.name.clone();
                let error = error.context(format!("repository {name} cannot be used, and no WAL is archived until it can: no backup was begun"));
                failed.push((name, error));
            }
        }
        let Some(last) = self.all_but_last(failed) else { return Ok(()) };
        let why = last.hint().cloned().unwrap_or_default();
        Err(last.with_hint(hint![
            why,
            " If it stays away: take it out of `repositories` in the configuration, so that archiving into the others resumes, and run this again. What is archived meanwhile it will lack: it needs a backup of its own when it is back."
        ]))
    }

    fn tell_findings(&self, repository: &JobRepository, report: &BackupReport) {
        let tell = |id: Code, about: String, what: &str| {
            self.events.event(&JobEvent::Finding(JobFinding {
                id: id.to_string(),
                severity: Severity::Critical,
                repository: Some(repository.name.clone()),
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
        for file in &report.left_out {
            let path = String::from_utf8_lossy(&file.path).into_owned();
            tell(Code::FilesLeftOut, path, &file.reason);
        }
    }

    fn end_of_backup(
        &self,
        repositories: Vec<RepositoryOutcome<BackupReport>>,
        failed: Vec<(String, Error)>,
    ) -> JobEnd {
        let done = || repositories.iter().filter_map(|outcome| outcome.report.as_ref());
        let bad_pages: u64 = done().map(|report| report.page_error_count).sum();
        let left_out: usize = done().map(|report| report.left_out.len()).sum();
        let has_any = done().next().is_some();
        let (report, has_failed) = (JobReport::Backup { repositories }, !failed.is_empty());
        if !has_any {
            return match self.all_but_last(failed) {
                Some(last) => JobEnd::with_error(report, last),
                None => JobEnd::done(report, false),
            };
        }
        failed.into_iter().for_each(|(name, error)| self.tell(Some(&name), error));
        if bad_pages > 0 {
            JobEnd::with_error(report, damaged_pages(bad_pages))
        } else if left_out > 0 {
            JobEnd::with_error(report, files_left_out(left_out))
        } else {
            JobEnd::done(report, has_failed)
        }
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

fn files_left_out(count: usize) -> Error {
    let what = format!("the backup is complete, but for {}", counted(count as u64, "file"));
    Error::new(Code::FilesLeftOut, what).with_hint(
        "They are not PostgreSQL's, and something writes them all the time: let it write outside the data directory.",
    )
}
