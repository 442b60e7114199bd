//! Restoring onto a directory that holds the cluster, or what is left of it (ADR 16).
//!
//! ```text
//! look, survey → compare, prove what is needed → note, pg_control away → clear → mend → as any restore ends
//! ```
//! Nothing is written before all that differs is known and can be had. What a comparison found is
//! kept with what tells that the file was not touched since; where that cannot be told, it is
//! compared again before it is written to.

mod compare;
mod existing;
mod living;
mod local;
mod mend;
mod patch;
mod plan;
mod prove;
mod run;
mod survey;
mod tablespaces;
mod unarchived;

use serde::{Deserialize, Serialize};

pub(super) use existing::{Existing, look};
pub(super) use prove::ProvenDelta;
pub(super) use survey::Survey;
pub(super) use tablespaces::{look as look_at_tablespaces, surplus};

/// That a restore may go onto what is in its directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with the fields of `delta`")]
pub struct Delta {
    /// Also where that is another cluster's, or cannot be told to be the cluster's.
    pub force: bool,
}

/// What a restore onto an existing directory did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeltaReport {
    /// Bytes of the directory that were read and compared.
    pub compared_bytes: u64,
    /// Bytes as they are stored that were needed of the repository.
    pub fetched_bytes: u64,
    /// Bytes that were written into the cluster's files.
    pub written_bytes: u64,
    /// Files that were written to or made.
    pub written_files: u64,
    /// Files and directories that were removed.
    pub removed: u64,
}
