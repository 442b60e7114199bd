//! The verb restore: plan, agree, prove, write, start.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use seawall_core::{
    BackupId, Code, Error, LocalPath, Progress, Result, SystemId, TimelineId, hint,
};
use seawall_repo::wal::WalArchive;
use seawall_repo::{Line, Repository};

use super::{
    Job, JobEnd, JobEvent, JobReport, PlannedReport, RestoreVerb, RestoredReport, Restoring,
    Starting, TargetVerb,
};
use crate::cluster::PostmasterFile;
use crate::restore::{
    PlannedRestore, Point, RestoreOptions, RestoreRequest, Target, TimelineChoice, find_programs,
    plan_restore,
};
use crate::survey::{Archiving, candidates, find_backup};
use crate::whereabouts::Whereabouts;

/// What the target is when none is given.
const LATEST: &str = "latest";

impl Job<'_> {
    pub(super) async fn restore(&self, verb: &RestoreVerb) -> Result<JobEnd> {
        let restoring = self.program.restoring()?;
        let (line, wal) = self.line_to_restore(verb).await?;
        let request = self.restore_request(verb, &line).await?;
        let mut planned = plan_restore(&line, &wal, &request).await?;
        self.tell_of_living_server(&line, &wal, &mut planned).await?;
        let starting = self.starting(verb, restoring, &planned)?;
        let plan = planned.plan().clone();
        self.events.event(&JobEvent::Plan {
            plan: Box::new(plan.clone()),
            target_time: request.target.time(),
            is_resumed: planned.is_resumed(),
        });
        restoring.agree(&planned)?;
        let options = self.restore_options(verb, restoring, &line)?;
        let proven = planned.prove(&wal, &options).await?;
        if verb.dry_run {
            let (bytes, content_is_proven) = (proven.bytes(), proven.content_is_proven());
            let planned = PlannedReport { plan, bytes, content_is_proven };
            return Ok(JobEnd::done(JobReport::Plan(Box::new(planned)), false));
        }
        restoring.begin_writing(&request.into)?;
        let restore = proven.run().await?;
        // From here on there may be a server that runs, whatever becomes of the job.
        self.note_restored(&restore);
        let started = match starting {
            Some(starting) => Some(starting.start(restoring, &restore, &self.events).await?),
            None => None,
        };
        let restored = RestoredReport { restore, started };
        Ok(JobEnd::done(JobReport::Restore(Box::new(restored)), false))
    }

    /// The end of a job that had restored something before it failed: nobody is left with a server
    /// that runs and was not told of.
    pub(super) fn with_running(&self, mut end: JobEnd) -> JobEnd {
        let Some(restore) = self.restored() else { return end };
        let Some(error) = end.error.take() else { return end };
        let running = PostmasterFile::read(&restore.data_directory);
        end.error = Some(match running.zip(self.program.restoring().ok()) {
            Some((running, restoring)) => {
                with_running(&error, running.port, &restoring.stop_command(&restore))
            }
            None => error,
        });
        let restored = RestoredReport { restore, started: None };
        end.report = Some(JobReport::Restore(Box::new(restored)));
        end
    }

    async fn restore_request(&self, verb: &RestoreVerb, line: &Line) -> Result<RestoreRequest> {
        let asked_at = Timestamp::now();
        let (target, target_text) = verb.target(asked_at)?;
        let backup = match &verb.backup {
            Some(text) => Some(self.backup_in(line, text).await?),
            None => None,
        };
        let timeline = match verb.timeline.as_deref() {
            None => TimelineChoice::Current,
            Some("latest") => TimelineChoice::Latest,
            Some(text) => match text.parse::<u32>() {
                Ok(number) => TimelineChoice::Id(TimelineId(number)),
                Err(_) => TimelineChoice::OfBackup(self.backup_in(line, text).await?),
            },
        };
        let LocalPath(into) = verb.into.clone();
        Ok(RestoreRequest {
            target,
            target_text,
            asked_at,
            backup,
            timeline,
            mode: verb.mode,
            then: verb.then,
            into,
            tablespaces: verb.tablespaces.clone(),
            databases: verb.databases.clone(),
            starts: verb.start.is_some(),
        })
    }

    async fn backup_in(&self, line: &Line, text: &str) -> Result<BackupId> {
        let candidates = candidates(line.repository(), Some(line.cluster())).await?;
        let found = find_backup(text, candidates)?;
        found.notes().for_each(|note| self.reporter.note(&note.into()));
        Ok(found.backup.id)
    }

    /// A restore takes hours: what the start needs is looked for before.
    fn starting(
        &self,
        verb: &RestoreVerb,
        restoring: &dyn Restoring,
        planned: &PlannedRestore,
    ) -> Result<Option<Starting>> {
        let Some(start) = &verb.start else { return Ok(None) };
        find_programs(planned.major()?)?;
        let login = restoring.login(self.request.connection.as_ref(), start.role.as_deref())?;
        let (mode, port) = (planned.plan().mode, planned.configured_port());
        Starting::prove(start, mode, login, port).map(Some)
    }

    fn restore_options(
        &self,
        verb: &RestoreVerb,
        restoring: &dyn Restoring,
        line: &Line,
    ) -> Result<RestoreOptions> {
        Ok(RestoreOptions {
            jobs: self.workers,
            memory_bytes: self.request.budget.memory(),
            crew: self.crew.clone(),
            proves_first: verb.prove,
            restore_command: restoring.restore_command(line.cluster())?,
            progress: self.reporter.clone(),
        })
    }

    /// Tells the plan of the server that is restored, where that runs and can be asked.
    async fn tell_of_living_server(
        &self,
        line: &Line,
        wal: &WalArchive,
        planned: &mut PlannedRestore,
    ) -> Result<()> {
        let primary = self.living_primary(line.id().system_id).await;
        match primary.and_then(|primary| Some((primary.timeline?, primary.insert_lsn))) {
            Some((timeline, written_to)) => {
                planned.tell_of_living_server(wal, timeline, written_to).await
            }
            None => Ok(()),
        }
    }

    async fn living_primary(&self, own: SystemId) -> Option<Archiving> {
        self.request.connection.as_ref()?;
        let asked = async { Archiving::ask(&self.connection()?).await };
        match asked.await {
            Ok(answer) => Some(answer).filter(|answer| answer.is_primary_of(own)),
            Err(error) => {
                let told = format!("the server to be restored was asked: {}", error.chain());
                self.events.event(&JobEvent::Note { note: told.into() });
                None
            }
        }
    }

    /// The cluster's line in the first repository that has it, and can be read.
    async fn line_to_restore(&self, verb: &RestoreVerb) -> Result<(Line, WalArchive)> {
        let mut found = match &verb.backup {
            // A backup may be in a line that is not written any more.
            Some(backup) => self.lines_of_backup(backup).await,
            None => {
                let mut opened = Vec::new();
                for repository in &self.request.repositories {
                    opened.push((repository.name.clone(), self.program.open(repository).await));
                }
                Whereabouts::of_written(opened, self.request.cluster.as_ref()).await
            }
        };
        for (name, line) in found.lines {
            match WalArchive::open(line.clone()).await {
                Ok(wal) => {
                    if !found.failures.is_empty() {
                        let note = format!("restoring from repository {name}").into();
                        self.events.event(&JobEvent::Note { note });
                    }
                    return Ok((line, wal));
                }
                Err(error) => found.failures.push((name, error)),
            }
        }
        Err(self.all_but_last(found.failures).unwrap_or_else(|| {
            Error::new(Code::NotConfigured, "there is no repository to restore from")
                .with_hint("Name one: `--repo URL --key FILE`, or `--kit FILE`.")
        }))
    }

    /// The line that has the backup, in the first repository that has it.
    async fn lines_of_backup(&self, backup: &str) -> Whereabouts {
        let mut found = Whereabouts::default();
        for repository in &self.request.repositories {
            let name = repository.name.clone();
            let look = async {
                let opened = self.program.open(repository).await?;
                self.line_of_backup(&opened, backup).await
            };
            match look.await {
                Ok(line) => {
                    found.lines.push((name, line));
                    break;
                }
                Err(error) => found.failures.push((name, error)),
            }
        }
        found
    }

    async fn line_of_backup(&self, repository: &Repository, backup: &str) -> Result<Line> {
        let candidates = candidates(repository, self.request.cluster.as_ref()).await?;
        let found = find_backup(backup, candidates)?;
        repository.line(&found.backup.cluster, found.backup.what)
    }
}

impl RestoreVerb {
    /// The target, and the words for it that the same request repeats.
    fn target(&self, now: Timestamp) -> Result<(Target, String)> {
        let point = |text: &str| Point::parse(text, &TimeZone::system(), now);
        Ok(match &self.target {
            TargetVerb::To(text) => (Target::To(point(text)?), format!("to {text}")),
            TargetVerb::Before(text) => (Target::Before(point(text)?), format!("before {text}")),
            TargetVerb::BackupOnly => (Target::BackupOnly, "backup-only".to_owned()),
            TargetVerb::Latest => (Target::Latest, LATEST.to_owned()),
        })
    }
}

fn with_running(error: &Error, port: u16, stop: &str) -> Error {
    let what = format!("{}\nthe restored server still runs, on port {port}", error.chain());
    let why = error.hint().map(|hint| hint![hint.clone(), " "]).unwrap_or_default();
    Error::new(error.code(), what).with_hint(hint![why, format!("To stop it: `{stop}`.")])
}
