use std::fs;
use std::io;
use std::path::Path;

use seawall_core::{ClusterName, Code, Error, LineId, Lsn, Result, Ulid};
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;
use serde::{Deserialize, Serialize};

use crate::durable;

use super::{Asked, DirectoryIdentity, Mode, PathSpan, RestorePlan};

/// The version this program writes.
const VERSION: u32 = 1;

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreProgress {
    /// Files are missing, `pg_control` among them, so that PostgreSQL cannot start.
    InProgress,
    /// All files are there; `pg_control` comes right after this is written.
    Complete,
    /// It is being removed: `pg_control` is gone.
    Discarding,
}

/// The note a restore keeps in the data directory, `seawall.restore`.
///
/// It lets the same command go on after an interruption, and it tells `seawall wal fetch` which WAL
/// there must be: short of [`RestoreState::wal_end`], along [`RestoreState::path`], nothing is "not
/// found". What a fetch keeps between calls belongs under [`RestoreState::restore_id`], so that
/// nothing of an earlier restore is served to a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreState {
    /// The version of this file's format.
    pub version: u32,
    /// Tells this restore from every other.
    #[serde(with = "crate::as_text")]
    pub restore_id: Ulid,
    /// How far it has come.
    pub progress: RestoreProgress,
    /// What was asked for.
    pub asked: Asked,
    /// What was decided.
    pub plan: RestorePlan,
    /// The directory that it is, which no copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryIdentity>,
}

impl RestoreState {
    /// The state of a restore that begins.
    #[must_use]
    pub const fn new(restore_id: Ulid, asked: Asked, plan: RestorePlan) -> Self {
        let progress = RestoreProgress::InProgress;
        Self { version: VERSION, restore_id, progress, asked, plan, directory: None }
    }

    /// The cluster that is restored.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.plan.cluster
    }

    /// The line it is restored from.
    #[must_use]
    pub const fn line(&self) -> LineId {
        self.plan.line
    }

    /// What the result is for.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.plan.mode
    }

    /// The timelines on the way to the target, oldest first; the last has no end.
    #[must_use]
    pub fn path(&self) -> &[PathSpan] {
        &self.plan.path
    }

    /// WAL was proven to exist from the backup's start up to here.
    #[must_use]
    pub const fn wal_end(&self) -> Lsn {
        self.plan.wal_end
    }

    /// Reads the state of a data directory; `None` if it was not restored by Seawall.
    ///
    /// # Errors
    /// [`Code::LocalIo`] if there is one and it cannot be read or is of an unknown version.
    pub fn read(data_directory: &Path) -> Result<Option<Self>> {
        let path = data_directory.join(RESTORE_STATE_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(durable::local(error, "reading", &path)),
        };
        let state: Self =
            serde_json::from_slice(&bytes).map_err(|error| unusable(&path).with_source(error))?;
        if state.version == VERSION { Ok(Some(state)) } else { Err(unusable(&path)) }
    }

    /// Forgets that a data directory was restored: it is a cluster of its own from now on.
    ///
    /// # Errors
    /// [`Code::LocalIo`] if the file cannot be removed.
    pub fn retire(data_directory: &Path) -> Result<()> {
        let path = data_directory.join(RESTORE_STATE_FILE);
        match fs::remove_file(&path) {
            Ok(()) => durable::sync_directory(data_directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(durable::local(error, "removing", &path)),
        }
    }

    /// The same state, with all files there.
    pub(crate) fn completed(&self) -> Self {
        Self { progress: RestoreProgress::Complete, ..self.clone() }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| {
            Error::new(Code::Internal, "the restore state is not JSON").with_source(error)
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Writes the state; durable when it returns.
    pub(crate) fn write(&self, data_directory: &Path, mode: u32) -> Result<()> {
        durable::publish(&data_directory.join(RESTORE_STATE_FILE), &self.to_bytes()?, mode)
    }
}

fn unusable(path: &Path) -> Error {
    Error::new(
        Code::LocalIo,
        format!("{} is not a restore state this program knows", path.display()),
    )
    .with_hint("Use the Seawall that began the restore, or restore into another directory.")
}
