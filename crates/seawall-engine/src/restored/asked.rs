//! What a restore was asked for, as the restored directory keeps it.

use std::ffi::OsString;
use std::path::PathBuf;

use seawall_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};

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

/// A tablespace's directory, and the one it is restored to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceMapping {
    /// Where it was when the backup was taken.
    #[serde(with = "crate::as_bytes::path")]
    pub old: PathBuf,
    /// Where it goes.
    #[serde(with = "crate::as_bytes::path")]
    pub new: PathBuf,
}

/// What was asked for, in words that the same command repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The target as it was typed.
    pub target: String,
    /// The backup that was chosen by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// The timeline that was chosen by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<String>,
    /// What the result is for.
    pub mode: Mode,
    /// What PostgreSQL does at the target.
    pub then: TargetAction,
    /// Other places for tablespaces.
    pub tablespaces: Vec<TablespaceMapping>,
    /// The databases that were wanted; all if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::as_bytes::names")]
    pub databases: Vec<OsString>,
    /// Whether it may go onto what was there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delta: bool,
}
