//! Whether a backup that began and has not ended still runs.
//!
//! A process that shares this one's host, boot and namespaces can be looked for. Any other one is
//! known by its records alone: by how long ago, on the clock of the store, it wrote the last.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seawall_core::Result;
use seawall_repo::layout::LineObject;
use seawall_repo::records::Pin;
use seawall_repo::{Attempt, Line};

use crate::host::{Host, Process};

/// A running backup says at least so often that it lives.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(60);

/// Without a sign for so long, a backup counts as dead unless its process is seen.
const SILENCE: SignedDuration = SignedDuration::from_secs(300);

/// What is known of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Its process runs, or it was heard of not long ago.
    Runs,
    /// Its process is gone, or it was silent for long.
    Ended,
}

/// Whether an attempt still runs. `now` is the time of the store's clock, as far as it is known.
///
/// # Errors
/// A store that fails.
pub async fn life_of(line: &Line, attempt: &Attempt, now: Timestamp) -> Result<Life> {
    match process_is_gone(attempt.records.last()) {
        Some(true) => return Ok(Life::Ended),
        Some(false) => return Ok(Life::Runs),
        None => {}
    }
    // The newest record by name: one that cannot be read is a sign of life all the same.
    let pin = line.paths().path(&LineObject::Pin(attempt.id.0, attempt.newest_record))?;
    match line.store().stat(&pin).await {
        Ok(record) if now.duration_since(record.modified) > SILENCE => Ok(Life::Ended),
        // Also where the record is newer than `now`.
        Ok(_) => Ok(Life::Runs),
        Err(error) if error.is_not_found() => Ok(Life::Ended),
        Err(error) => Err(error.into()),
    }
}

fn process_is_gone(record: Option<&Pin>) -> Option<bool> {
    let record = record?;
    let theirs = Host {
        name: record.host.clone(),
        boot_id: record.boot_id.clone(),
        namespaces: record.namespaces.clone(),
    };
    let process = Process { id: record.process_id, started: record.process_started };
    Host::this().process_is_gone(&theirs, process)
}
