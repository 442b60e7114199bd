use std::ffi::OsString;
use std::path::PathBuf;

use jiff::Timestamp;
use seawall_core::{BackupId, TimelineId};

use super::{Delta, Target};
use crate::restored::{Asked, Mode, TablespaceMapping, TargetAction};

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
    /// Whether it may go onto what is in the directory; else that has to be empty.
    pub delta: Option<Delta>,
    /// PostgreSQL is started on it then: what the same request restored before, and never started,
    /// is taken as it is.
    pub starts: bool,
}

impl From<&RestoreRequest> for Asked {
    fn from(request: &RestoreRequest) -> Self {
        Self {
            target: request.target_text.clone(),
            backup: request.backup.map(|id| id.0.to_string()),
            timeline: match request.timeline {
                TimelineChoice::Current => None,
                TimelineChoice::Latest => Some("latest".to_owned()),
                TimelineChoice::Id(id) => Some(id.to_string()),
                TimelineChoice::OfBackup(id) => Some(id.0.to_string()),
            },
            mode: request.mode,
            then: request.then,
            tablespaces: request.tablespaces.clone(),
            databases: request.databases.clone(),
            delta: request.delta.is_some(),
        }
    }
}
