use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use seawall_core::{BackupId, LineId, Result};
use seawall_repo::{Attempt, Line, READS_AT_ONCE};
use serde::Serialize;

use crate::liveness::{Life, life_of};

/// Whether a job that has not ended goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Its process runs, or it was heard of not long ago.
    Running,
    /// Its process is gone, or it has not been heard of for long.
    Silent,
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Silent => "silent",
        })
    }
}

impl From<Life> for JobState {
    fn from(life: Life) -> Self {
        match life {
            Life::Runs => Self::Running,
            Life::Ended => Self::Silent,
        }
    }
}

/// A job that began and has not ended, as far as a repository knows of it.
#[derive(Debug, Clone, Serialize)]
pub struct KnownJob {
    /// What it does, such as `backup`.
    pub kind: String,
    /// The id of what it makes.
    #[serde(with = "crate::as_text")]
    pub id: BackupId,
    /// Whether it goes on.
    pub state: JobState,
    /// The host it began on.
    pub host: String,
    /// Its process there.
    pub process_id: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it last said that it lives, by its own clock.
    pub heard_of_at: Timestamp,
    /// The repository it writes to.
    pub repository: String,
    /// The line it writes to.
    #[serde(with = "crate::as_text")]
    pub line: LineId,
}

/// The jobs of a line that have not ended, oldest first.
///
/// # Errors
/// A store that fails.
pub(super) async fn known_jobs(
    line: &Line,
    repository: &str,
    now: Timestamp,
) -> Result<Vec<KnownJob>> {
    let attempts = line.attempts().await?.into_iter();
    let jobs = attempts.map(|attempt| job(attempt, line, repository, now));
    let jobs: Vec<Option<KnownJob>> =
        stream::iter(jobs).buffered(READS_AT_ONCE).try_collect().await?;
    Ok(jobs.into_iter().flatten().collect())
}

/// `None` for an attempt of which neither the first nor the newest record can be read.
async fn job(
    attempt: Attempt,
    line: &Line,
    repository: &str,
    now: Timestamp,
) -> Result<Option<KnownJob>> {
    let first = line.record(&attempt, attempt.first_record).await?;
    let newest = line.record(&attempt, attempt.newest_record).await?;
    let Some(last) = newest.or_else(|| first.clone()) else { return Ok(None) };
    let first = first.unwrap_or_else(|| last.clone());
    let Ok(heard_of_at) = Timestamp::from_microsecond(last.time_us) else { return Ok(None) };
    Ok(Some(KnownJob {
        kind: first.purpose,
        id: attempt.id,
        state: life_of(line, &attempt, now).await?.into(),
        host: first.host,
        process_id: first.process_id,
        started_at: attempt.id.created_at(),
        heard_of_at,
        repository: repository.to_owned(),
        line: line.id(),
    }))
}
