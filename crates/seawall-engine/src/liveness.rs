//! Whether a backup that began and has not ended still runs.
//!
//! An attempt is known by its id, and by the host it began on. One that was given up says so, and one
//! of this process is known to go on or not. A process that shares this one's host, boot and namespaces can be looked for. Any other
//! one is known by its records alone: by how long ago, on the clock of the store, it wrote the last.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, Error, Result};
use seawall_repo::records::{Pin, PinRole};
use seawall_repo::{Attempt, Line};

use crate::host::{Host, Process};

/// A running backup says at least so often that it lives.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(60);

/// Without a sign for so long, a backup counts as dead unless its process is seen.
// By number in docs/errors/SW0408.md, docs/job.md and docs/format.md (§10).
pub(crate) const SILENCE: SignedDuration = SignedDuration::from_secs(300);

/// What is known of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Its process runs, or it was heard of not long ago.
    Runs,
    /// It was given up, its process is gone, or it was silent for long.
    Ended,
}

/// Whether an attempt, or whoever else holds a pin, still runs. `now` is the time of the store's clock, as far as it is known.
///
/// # Errors
/// A store that fails.
pub async fn life_of(line: &Line, attempt: &Attempt, now: Timestamp) -> Result<Life> {
    if here().contains(&attempt.id) {
        return Ok(Life::Runs);
    }
    let newest = line.record(attempt, attempt.newest_record).await?;
    if newest.as_ref().is_some_and(|newest| newest.ended_us.is_some()) {
        return Ok(Life::Ended);
    }
    // A process may go on for weeks after one who read in it was told to stop.
    let is_one_of_many = newest.as_ref().is_some_and(|newest| newest.role != PinRole::Writer);
    match newest.as_ref().and_then(process_is_gone) {
        Some(true) => return Ok(Life::Ended),
        Some(false) if !is_one_of_many => return Ok(Life::Runs),
        Some(false) | None => {}
    }
    // One that cannot be read is a sign of life all the same.
    match line.record_written(attempt, attempt.newest_record).await? {
        Some(written) if now.duration_since(written) > SILENCE => Ok(Life::Ended),
        // Also where the record is newer than `now`.
        Some(_) => Ok(Life::Runs),
        None => Ok(Life::Ended),
    }
}

/// The attempts of this process that go on: it may do several jobs, one after or beside the other.
static HERE: Mutex<BTreeSet<BackupId>> = Mutex::new(BTreeSet::new());

/// An attempt of this process that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Running(BackupId);

impl Running {
    /// Begins one.
    ///
    /// # Errors
    /// [`Code::BackupRunning`] if it has begun before.
    pub fn begin(id: BackupId) -> Result<Self> {
        if here().insert(id) {
            return Ok(Self(id));
        }
        Err(Error::new(Code::BackupRunning, format!("backup {} is running in this process", id.0))
            .with_hint("Ask for another one under a new id."))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        here().remove(&self.0);
    }
}

fn here() -> MutexGuard<'static, BTreeSet<BackupId>> {
    HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When the oldest attempt of a line began that still runs, by the clock of the store.
///
/// # Errors
/// A store that fails.
pub(crate) async fn oldest_running(line: &Line, now: Timestamp) -> Result<Option<Timestamp>> {
    let mut oldest: Option<Timestamp> = None;
    for attempt in line.attempts().await? {
        if life_of(line, &attempt, now).await? == Life::Runs
            && let Some(began) = line.record_written(&attempt, attempt.first_record).await?
        {
            oldest = Some(oldest.map_or(began, |oldest| oldest.min(began)));
        }
    }
    Ok(oldest)
}

/// Whether a record is of this process.
pub(crate) fn is_own(record: &Pin) -> bool {
    let (host, process) = (Host::this(), Process::this());
    record.host == host.name
        && record.boot_id == host.boot_id
        && record.namespaces == host.namespaces
        && record.process_id == process.id
        && record.process_started == process.started
}

fn process_is_gone(record: &Pin) -> Option<bool> {
    let theirs = Host {
        name: record.host.clone(),
        boot_id: record.boot_id.clone(),
        namespaces: record.namespaces.clone(),
    };
    let process = Process { id: record.process_id, started: record.process_started };
    Host::this().process_is_gone(&theirs, process)
}
