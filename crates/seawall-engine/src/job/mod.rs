//! A job: one request, events while it goes on, one report. `docs/job.md` is the contract.
//!
//! The command line is one caller, `seawall job` another, which speaks the same over a pipe. What a
//! job starts has ended before [`run`] returns, however it ends: its threads, its unfinished
//! objects, its sessions in PostgreSQL.

mod backup;
mod budget;
mod cancel;
mod cancelled;
mod check;
mod event;
mod priority;
mod program;
mod reading;
mod report;
mod reporter;
mod repositories;
mod request;
mod restore;
mod starting;
mod verify;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{Code, Error, ExitClass, Result, ResultExt, Ulid};
use seawall_pgwire::{Config, Sessions};
use seawall_repo::new_ulid;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::host::Host;
use crate::pace::Crew;
use crate::restore::RestoreReport;
use cancelled::Asked;
use reporter::Reporter;
use repositories::Repositories;
use starting::Starting;

pub use backup::{COMPRESSION_LEVEL, PACK_BYTES};
pub use budget::Budget;
pub use cancel::Cancel;
pub use cancelled::{CameOf, CancelledBackup, CancelledDestination};
pub use event::{Ending, Events, JobEvent, JobFinding};
pub use priority::Priority;
pub use program::{Program, Restoring};
pub use report::{CheckReport, JobReport, PlannedReport, RepositoryOutcome, RestoredReport};
pub use request::{
    BackupVerb, CheckVerb, ConnectionText, JobKey, JobRepository, JobRequest, RestoreVerb,
    StartVerb, TargetVerb, VERSION, Verb, VerifyVerb,
};
pub use starting::Started;

/// What a worker of a backup or restore holds: what it reads, a frame and its compressed form, and
/// parts on their way into the store.
const COPYING_WORKER_BYTES: usize = 24 << 20;

/// What a worker of a backup holds for each repository after the first: a part, and those on their
/// way into the store.
const COPYING_WORKER_BYTES_MORE: usize = 14 << 20;

/// What a backup holds for each repository after the first: lists, maps and the manifest.
const DESTINATION_BYTES_MORE: usize = 20 << 20;

/// A store that does not answer keeps a thread for as long as it likes, and the end of a job is put
/// off by so much at most.
const UNANSWERED: Duration = Duration::from_secs(10);

/// How long the threads of a job may take to end: as long as a disk may take to write out what it was
/// given.
const THREADS_END: Duration = Duration::from_secs(120);

/// What a worker of a verification holds: a segment of WAL as it is stored, and the part of it that
/// is proven.
const VERIFYING_WORKER_BYTES: usize = 32 << 20;

/// Threads that serve sockets and stores beside those that move data.
const SERVICE_THREADS: usize = 2;

/// How a job ended.
#[derive(Debug)]
pub struct JobEnd {
    /// What was done; `None` if nothing was.
    pub report: Option<JobReport>,
    /// How it ended.
    pub ending: Ending,
    /// Why it did not end well, or what was found.
    pub error: Option<Error>,
}

impl JobEnd {
    /// A job that could not be done.
    #[must_use]
    pub fn failed(error: Error) -> Self {
        Self { report: None, ending: ending(&error), error: Some(error) }
    }

    fn done(report: JobReport, has_findings: bool) -> Self {
        let ending = if has_findings { Ending::Findings } else { Ending::Done };
        Self { report: Some(report), ending, error: None }
    }

    fn with_error(report: JobReport, error: Error) -> Self {
        Self { report: Some(report), ..Self::failed(error) }
    }
}

impl From<Result<Self>> for JobEnd {
    fn from(end: Result<Self>) -> Self {
        end.unwrap_or_else(Self::failed)
    }
}

fn ending(error: &Error) -> Ending {
    match (error.code(), error.exit_class()) {
        (Code::Interrupted, _) => Ending::Cancelled,
        // All was read, and some of it is damaged.
        (Code::VerifyFailed, _) | (_, ExitClass::Findings) => Ending::Findings,
        _ => Ending::Failed,
    }
}

/// A job under way.
struct Job<'j> {
    id: Ulid,
    request: &'j JobRequest,
    program: &'j dyn Program,
    events: Arc<dyn Events>,
    reporter: Arc<Reporter>,
    crew: Crew,
    workers: usize,
    /// Those in PostgreSQL.
    sessions: Sessions,
    /// Where a backup is made.
    backed_up: Mutex<Vec<Asked>>,
    /// What it has restored, and perhaps started.
    restored: Mutex<Option<RestoreReport>>,
}

/// Does what is asked, within its budget, until it is done or told to end.
///
/// Blocks, and makes a runtime of its own: nothing of the job outlives the call. The thread that
/// calls keeps the job's priority.
#[must_use]
pub fn run(
    request: &JobRequest,
    program: &dyn Program,
    events: &Arc<dyn Events>,
    cancel: &Cancel,
) -> JobEnd {
    request.priority.take();
    let workers = request.workers();
    let id = request.id.map_or_else(|| new_ulid(Timestamp::now()), Ok);
    let (id, runtime) = match id.and_then(|id| Ok((id, runtime(request.writers())?))) {
        Ok(begun) => begun,
        Err(error) => return JobEnd::failed(error),
    };
    events.event(&JobEvent::Started {
        version: VERSION,
        job: id,
        host: Host::this().name,
        process_id: std::process::id(),
    });
    let job = Job {
        id,
        request,
        program,
        events: Arc::clone(events),
        reporter: Arc::new(Reporter::new(Arc::clone(events))),
        crew: Crew::new(request.rate.clone()),
        workers,
        sessions: Sessions::default(),
        backed_up: Mutex::default(),
        restored: Mutex::default(),
    };
    let end = runtime.block_on(async {
        let end = tokio::select! {
            biased;
            why = cancel.cancelled() => JobEnd::failed(cancelled(&why)),
            end = job.work() => end,
        };
        // What the work was done with has been dropped: its threads have nothing to do any more.
        let threads_ended = timeout(THREADS_END, job.crew.ended()).await.is_ok();
        if !threads_ended {
            tracing::warn!("a thread waits for a disk or a repository that does not answer");
        }
        job.sessions.end().await;
        job.reporter.end();
        match (end.ending, &request.verb) {
            (Ending::Cancelled, Verb::Backup(_)) => job.with_backed_up(end, threads_ended).await,
            _ => job.with_running(end).await,
        }
    });
    runtime.shutdown_timeout(UNANSWERED);
    end
}

/// Files are read and written on threads that may block, and each holds what passes through it:
/// their number bounds the memory. A job may hold one of them for as long as it lasts (a pack that
/// is written) and need another one meanwhile.
fn runtime(writers: usize) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(SERVICE_THREADS).max_blocking_threads(2 * writers + 4);
    builder.enable_all().build().code(Code::Internal, || "cannot start threads".to_owned())
}

fn cancelled(why: &str) -> Error {
    Error::new(Code::Interrupted, why)
        .with_hint("Nothing is half done that counts: run the same command again to go on.")
}

impl JobRequest {
    /// How many objects are written at a time: one for each thread and repository.
    fn writers(&self) -> usize {
        let repositories = match &self.verb {
            Verb::Backup(_) => self.repositories.len().max(1),
            Verb::Restore(_) | Verb::Check(_) | Verb::Verify(_) => 1,
        };
        self.workers() * repositories
    }

    /// How many threads move data.
    fn workers(&self) -> usize {
        match &self.verb {
            Verb::Backup(_) => {
                let more = self.repositories.len().saturating_sub(1);
                let budget = self.budget.without(more * DESTINATION_BYTES_MORE);
                budget.workers(COPYING_WORKER_BYTES + more * COPYING_WORKER_BYTES_MORE)
            }
            Verb::Restore(_) | Verb::Check(_) => self.budget.workers(COPYING_WORKER_BYTES),
            Verb::Verify(_) => self.budget.workers(VERIFYING_WORKER_BYTES),
        }
    }
}

impl Job<'_> {
    async fn work(&self) -> JobEnd {
        match &self.request.verb {
            Verb::Backup(verb) => self.backup(verb).await.into(),
            Verb::Restore(verb) => self.restore(verb).await.into(),
            Verb::Verify(verb) => self.verify(verb).await.into(),
            Verb::Check(verb) => self.check(verb).await.into(),
        }
    }

    /// How the cluster's server is reached.
    fn connection(&self) -> Result<Config> {
        let text = self.request.connection.as_ref();
        let config = self.program.resolve(text.ok_or_else(|| lacks("a connection"))?)?;
        Ok(config.with_sessions(&self.sessions))
    }

    fn note_restored(&self, report: &RestoreReport) {
        let restored = self.restored.lock();
        *restored.unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
    }

    fn restored(&self) -> Option<RestoreReport> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells of a failure that is not what the job ends with.
    fn tell(&self, repository: Option<&str>, error: Error) {
        let repository = repository.map(str::to_owned);
        self.events.event(&JobEvent::Error { repository, error });
    }

    /// Tells of all failures but the last, which the job ends with.
    fn all_but_last(&self, mut failed: Vec<(String, Error)>) -> Option<Error> {
        let (_, last) = failed.pop()?;
        failed.into_iter().for_each(|(repository, error)| self.tell(Some(&repository), error));
        Some(last)
    }
}

fn lacks(what: &str) -> Error {
    Error::new(
        Code::JobRequestInvalid,
        format!("the request has not {what}, and its verb needs it"),
    )
    .with_hint("docs/job.md has every field of a request.")
}
