use serde::{Deserialize, Serialize};

use crate::Hint;

/// What a long job is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for PostgreSQL, for example for its checkpoint.
    WaitingForPostgres,
    /// Waiting for WAL to arrive in the repository.
    WaitingForWal,
    /// Reading the database's files.
    Copying,
    /// Reading files that are there, to see what differs from the backup.
    Comparing,
    /// Writing restored files.
    Writing,
    /// Making what was written durable.
    Syncing,
    /// Reading and authenticating the repository.
    Verifying,
    /// Deleting what nobody needs.
    Pruning,
}

/// A job tells a progress display how far it has come. All calls are cheap and never fail.
pub trait Progress: Send + Sync {
    /// The job enters a stage that will handle `total_bytes`, when that is known.
    fn stage(&self, stage: Stage, total_bytes: Option<u64>);
    /// What the stage is about just now, in a few words that replace the ones before.
    fn detail(&self, _what: &str) {}
    /// So many more bytes of the stage are done.
    fn advance(&self, bytes: u64);
    /// Something a person should read now, in one line.
    fn note(&self, message: &Hint);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &Hint) {}
}
