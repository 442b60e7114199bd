//! The verb restore: plan, agree, prove, write, start.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use seawall_core::{BackupId, Code, Error, LocalPath, Result, SystemId, TimelineId, hint};
use seawall_repo::Line;
use seawall_repo::wal::WalArchive;
use tokio::time::sleep;

use super::{
    Ending, Job, JobEnd, JobEvent, JobReport, PlannedReport, Repositories, RestoreVerb,
    RestoredReport, Restoring, Starting, TargetVerb,
};
use crate::cluster::PostmasterFile;
use crate::restore::{
    PlannedRestore, Point, RestoreOptions, RestoreRequest, Target, TimelineChoice, find_programs,
    plan_restore,
};
use crate::survey::{Archiving, BackupState};
use crate::whereabouts::Whereabouts;

/// What the target is when none is given.
const LATEST: &str = "latest";

/// A server writes `postmaster.pid` within so many looks after it was begun, if it comes so far.
const NOTE_LOOKS: u32 = 30;

/// Between two of these looks.
const NOTE_LOOK: Duration = Duration::from_millis(100);

impl Job<'_> {
    pub(super) async fn restore(&self, verb: &RestoreVerb) -> Result<JobEnd> {
        let restoring = self.program.restoring()?;
        let mut repositories = self.open_all().await;
        let Origin { line, wal, backup } = self.origin(&mut repositories, verb).await?;
        let request = self.restore_request(verb, backup, &mut repositories).await?;
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
            let delta = proven.delta();
            let planned = PlannedReport { plan, bytes, content_is_proven, delta };
            proven.end().await;
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
    pub(super) async fn with_running(&self, mut end: JobEnd) -> JobEnd {
        let Some(restore) = self.restored() else { return end };
        let Some(error) = end.error.take() else { return end };
        let mut running = PostmasterFile::read(&restore.data_directory);
        // One that was begun when the job was told to end has not written its note yet.
        for _ in 0..NOTE_LOOKS {
            if running.is_some() || end.ending != Ending::Cancelled {
                break;
            }
            sleep(NOTE_LOOK).await;
            running = PostmasterFile::read(&restore.data_directory);
        }
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

    async fn restore_request(
        &self,
        verb: &RestoreVerb,
        backup: Option<BackupId>,
        repositories: &mut Repositories<'_>,
    ) -> Result<RestoreRequest> {
        let asked_at = Timestamp::now();
        let (target, target_text) = verb.target(asked_at)?;
        let timeline = match verb.timeline.as_deref() {
            None => TimelineChoice::Current,
            Some("latest") => TimelineChoice::Latest,
            Some(text) => match text.parse::<u32>() {
                Ok(number) => TimelineChoice::Id(TimelineId(number)),
                Err(_) => {
                    let meant = self.backup_meant(repositories, text).await?;
                    TimelineChoice::OfBackup(meant.ok_or_else(no_repository)?.backup.id)
                }
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
            delta: verb.delta,
            starts: verb.start.is_some(),
        })
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

    /// The cluster's line in the first repository that has it, and can be read. Why others cannot is
    /// told.
    async fn origin(
        &self,
        repositories: &mut Repositories<'_>,
        verb: &RestoreVerb,
    ) -> Result<Origin> {
        let (lines, backup) = match &verb.backup {
            Some(word) => self.lines_of_backup(repositories, word).await?,
            None => (self.lines_that_are_written(repositories).await, None),
        };
        let mut failures = repositories.take_all_failures();
        for (name, line) in lines {
            match WalArchive::open(line.clone()).await {
                Ok(wal) => {
                    self.tell_passed_over(&name, failures);
                    return Ok(Origin { line, wal, backup });
                }
                Err(error) => failures.push((name, error)),
            }
        }
        Err(self.all_but_last(failures).unwrap_or_else(no_repository))
    }

    /// The line that has the backup, in every repository that has it: those first in which it is
    /// whole. It may be one that is not written any more.
    async fn lines_of_backup(
        &self,
        repositories: &mut Repositories<'_>,
        word: &str,
    ) -> Result<(Vec<(String, Line)>, Option<BackupId>)> {
        let Some(found) = self.backup_meant(repositories, word).await? else {
            return Ok((Vec::new(), None));
        };
        let mut copies = found.backup.what;
        copies.sort_by_key(|copy| copy.state != BackupState::Complete);
        let lines = copies.into_iter().map(|copy| (copy.repository, copy.line));
        Ok((lines.collect(), Some(found.backup.id)))
    }

    async fn lines_that_are_written(
        &self,
        repositories: &mut Repositories<'_>,
    ) -> Vec<(String, Line)> {
        let opened = repositories.clones().into_iter().map(|(name, opened)| (name, Ok(opened)));
        let cluster = self.request.cluster.as_ref();
        let found = Whereabouts::of_written(opened.collect(), cluster).await;
        repositories.take_failures(found.failures);
        found.lines
    }

    /// What a repository has that could not be asked is not known.
    fn tell_passed_over(&self, used: &str, failures: Vec<(String, Error)>) {
        if failures.is_empty() {
            return;
        }
        let tell = |note: String| self.events.event(&JobEvent::Note { note: note.into() });
        for (name, error) in failures {
            tell(format!("repository {name} is passed over: {}", error.chain()));
        }
        tell(format!("restoring from repository {used}"));
    }
}

/// Where a restore starts.
struct Origin {
    line: Line,
    wal: WalArchive,
    /// The backup that was asked for.
    backup: Option<BackupId>,
}

fn no_repository() -> Error {
    Error::new(Code::NotConfigured, "there is no repository to restore from")
        .with_hint("Name one: `--repo URL --key FILE`, or `--kit FILE`.")
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
