use jiff::Timestamp;
use seawall_core::{ClusterName, Error, Hint, LocalPath, Stage, Ulid};
use serde::Serialize;

use super::JobReport;
use crate::check::Severity;
use crate::restored::RestorePlan;

/// What a job tells while it goes on: `docs/job.md` has every field.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// The first: who tells.
    Started {
        /// [`VERSION`](super::VERSION).
        version: u32,
        /// The job's id.
        #[serde(with = "crate::as_text")]
        job: Ulid,
        /// The host it runs on.
        host: String,
        /// Its process there.
        process_id: u32,
    },
    /// It enters a stage.
    Stage {
        /// Which.
        stage: Stage,
        /// How many bytes the stage will handle, if that is known.
        total_bytes: Option<u64>,
    },
    /// How far the stage is, now and then.
    Progress {
        /// Bytes done.
        done_bytes: u64,
        /// As in `Stage`.
        total_bytes: Option<u64>,
        /// Bytes a second, lately.
        bytes_per_s: u64,
    },
    /// What the stage waits for, in a few words; it replaces what was said before.
    Waiting {
        /// For what.
        waits_for: String,
    },
    /// Something a person should read.
    Note {
        /// What.
        note: Hint,
    },
    /// What a restore will do, before anything is written.
    Plan {
        /// The plan.
        plan: Box<RestorePlan>,
        /// The moment that was asked for, if it was one.
        target_time: Option<Timestamp>,
        /// Whether an interrupted restore is gone on with.
        is_resumed: bool,
    },
    /// PostgreSQL is started on what was restored.
    Starting {
        /// Its port.
        port: u16,
        /// Where it logs.
        log_file: LocalPath,
    },
    /// Something was found that a person should look at.
    Finding(JobFinding),
    /// Something failed. The last one is why the job ends, if it ends with one.
    Error {
        /// The repository it is about, if it is about one.
        repository: Option<String>,
        /// What, why, its code, what to do.
        error: Error,
    },
    /// What was done.
    Report {
        /// The report of the verb.
        report: JobReport,
    },
    /// The last.
    End {
        /// How it ended.
        outcome: Ending,
    },
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Done.
    Done,
    /// Done, and something was found that a person should look at.
    Findings,
    /// It failed.
    Failed,
    /// It was told to end.
    Cancelled,
}

/// Something that was found.
#[derive(Debug, Serialize)]
pub struct JobFinding {
    /// The name of the kind of finding, or the code of the error.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// The repository it is about, if it is about one.
    pub repository: Option<String>,
    /// The cluster it is about, if it is about one.
    pub cluster: Option<ClusterName>,
    /// The object, file or page it is about, if it is about one.
    pub about: Option<String>,
    /// What is the matter.
    pub what: String,
    /// What helps.
    pub fix: Option<Hint>,
}

/// Who is told. Calls are short and do not fail: whoever waits in one keeps the job waiting.
pub trait Events: Send + Sync {
    /// Takes an event.
    fn event(&self, event: &JobEvent);
}
