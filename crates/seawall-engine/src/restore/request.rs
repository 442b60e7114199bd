use std::ffi::OsString;
use std::path::PathBuf;

use jiff::Timestamp;
use seawall_core::{BackupId, Code, Error, Result, TimelineId};
use serde::{Deserialize, Serialize};

use super::Target;

/// What the restored cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A copy beside production. It archives nothing, so that it cannot touch production's archive.
    Clone,
    /// The cluster itself: it keeps its archiving and goes on, on a new timeline.
    Primary,
    /// A server that follows the cluster's primary, through whatever is archived and, if
    /// `primary_conninfo` says where, by streaming.
    Standby,
}

impl Mode {
    /// Reads the value of `--as`.
    ///
    /// # Errors
    /// [`Code::Usage`] for another word.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "clone" => Ok(Self::Clone),
            "primary" => Ok(Self::Primary),
            "standby" => Ok(Self::Standby),
            _ => Err(Error::new(
                Code::Usage,
                format!("\"{text}\" is not what a cluster can be restored as"),
            )
            .with_hint("Use `--as clone`, `--as primary` or `--as standby`.")),
        }
    }
}

/// What PostgreSQL does when it has reached the target (`recovery_target_action`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetAction {
    /// It takes writes, on a new timeline.
    #[default]
    Promote,
    /// It waits and can be read.
    Pause,
    /// It shuts down.
    Shutdown,
}

impl TargetAction {
    /// The word PostgreSQL has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Which timeline a restore follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimelineChoice {
    /// The one the line is on now; refused if that is not clear.
    #[default]
    Current,
    /// The one with the highest number.
    Latest,
    /// This one.
    Id(TimelineId),
    /// The one a backup ended on.
    OfBackup(BackupId),
}

/// A tablespace's directory, and the one it is restored to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceMapping {
    /// Where it was when the backup was taken.
    #[serde(with = "super::as_bytes::path")]
    pub old: PathBuf,
    /// Where it goes.
    #[serde(with = "super::as_bytes::path")]
    pub new: PathBuf,
}

/// What a user wants restored.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// How far to go.
    pub target: Target,
    /// The target as it was typed. The same words again resume an interrupted restore, although
    /// `5 minutes ago` is another moment by then.
    pub target_text: String,
    /// When it was asked for: whatever is later lies in the future.
    pub asked_at: Timestamp,
    /// The backup to start from; chosen when absent.
    pub backup: Option<BackupId>,
    /// Which timeline to follow.
    pub timeline: TimelineChoice,
    /// What the result is for.
    pub mode: Mode,
    /// What PostgreSQL does at the target.
    pub then: TargetAction,
    /// The data directory to make; absolute.
    pub into: PathBuf,
    /// Other places for tablespaces.
    pub tablespaces: Vec<TablespaceMapping>,
    /// The databases that are wanted; all if there is none.
    pub databases: Vec<OsString>,
    /// PostgreSQL is started on it then: what the same request restored before, and never started,
    /// is taken as it is.
    pub starts: bool,
}
