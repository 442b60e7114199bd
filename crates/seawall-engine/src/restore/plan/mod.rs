//! Plans: what a restore will do, decided before anything is written.
//!
//! Nothing here reads or writes. [`choose_timeline`] and [`Planner`] take what is known of a line
//! as data; a [`Resolver`] is fed the WAL's facts in LSN order.

mod databases;
mod lost;
mod planner;
mod removals;
mod resolver;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
#[cfg(test)]
mod timeline_tests;

use jiff::Timestamp;
use seawall_core::{BackupId, ClusterName, Hint, LineId, Lsn, TimelineId, Ulid, Xid};
use seawall_pgdata::history::Ancestry;
use seawall_repo::manifest::BackupInfo;
use serde::{Deserialize, Serialize};

pub use databases::{
    FIRST_NORMAL_OID, NamedDatabase, databases_left_out, quoted, warning_of_invalid_pages,
    warnings_of,
};
pub use lost::warning_of_lost;
pub(in crate::restore) use planner::record_position;
pub use planner::{Decision, PlanInput, Planner};
pub use removals::{Removal, Removals, Removed};
pub(in crate::restore) use removals::{RemovalLog, TOLD};
pub use resolver::Resolver;
pub(in crate::restore) use text::shown;
pub use timeline::{Branch, Chosen, LeftBehind, choose_timeline};

use super::{Mode, PlannedSetting, RequiredParameters, TargetAction};
use crate::verify::FoundDamaged;

/// A backup, as far as planning is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFacts {
    /// Its id.
    pub id: BackupId,
    /// Which manifest of it.
    pub generation: u32,
    /// Where replay must begin.
    pub start_lsn: Lsn,
    /// The timeline of the start.
    pub start_timeline: TimelineId,
    /// Where it is consistent.
    pub stop_lsn: Lsn,
    /// The timeline of the stop.
    pub stop_timeline: TimelineId,
    /// When it was done, by the clock of the host that made it.
    pub finished_at: Timestamp,
    /// How many pages had errors when it was taken.
    pub page_errors: u64,
    /// What the last verification found gone or spoilt.
    pub found_damaged: Option<FoundDamaged>,
    /// Bytes of all its files.
    pub cluster_bytes: u64,
}

impl From<&BackupInfo> for BackupFacts {
    fn from(info: &BackupInfo) -> Self {
        Self {
            id: BackupId(info.id),
            generation: info.generation,
            start_lsn: info.start_lsn,
            start_timeline: info.start_timeline,
            stop_lsn: info.stop_lsn,
            stop_timeline: info.stop_timeline,
            finished_at: Timestamp::from_microsecond(info.finished_us).unwrap_or_default(),
            page_errors: info.page_error_count,
            found_damaged: None,
            cluster_bytes: info.cluster_bytes,
        }
    }
}

/// A transaction's end, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPlace {
    /// The transaction.
    pub xid: Xid,
    /// Where its commit record begins.
    pub lsn: Lsn,
    /// When it committed, by the server's clock.
    pub time: Timestamp,
}

/// Where replay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Stop {
    /// As soon as the cluster is consistent (`recovery_target = 'immediate'`).
    Consistent {
        /// Where it is.
        lsn: Lsn,
    },
    /// Before the first record that begins at `lsn` or later. Such a record is proven to exist, so
    /// the target can be exclusive.
    Before {
        /// The position.
        lsn: Lsn,
    },
    /// After the record that begins at `lsn`. No later one is proven, so the target has to be
    /// inclusive: an exclusive one would not be reached.
    After {
        /// Where the last record wanted begins.
        lsn: Lsn,
        /// After its last byte, aligned: where the next record would begin.
        end: Lsn,
    },
}

impl Stop {
    /// Everything that ends here or before is kept, nothing that begins here or later.
    #[must_use]
    pub const fn kept_until(self) -> Lsn {
        match self {
            Self::Consistent { lsn } | Self::Before { lsn } => lsn,
            Self::After { end, .. } => end,
        }
    }

    /// A position on the timeline that PostgreSQL is on when it stops.
    #[must_use]
    pub const fn position(self) -> Lsn {
        match self {
            Self::Consistent { lsn } | Self::Before { lsn } | Self::After { lsn, .. } => lsn,
        }
    }
}

/// The part of the log one timeline contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSpan {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it left its parent; `0/0` for the first.
    pub begin: Lsn,
    /// Where its child left it; absent for the one that is restored to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Lsn>,
}

/// The timelines on the way to `tip`, oldest first; the last has no end.
#[must_use]
pub fn path_to(ancestry: &Ancestry, tip: TimelineId) -> Vec<PathSpan> {
    ancestry
        .spans()
        .filter(|span| span.timeline <= tip)
        .map(|span| PathSpan {
            timeline: span.timeline,
            begin: span.begin,
            end: span.end.filter(|_| span.timeline != tip),
        })
        .collect()
}

/// The backup a plan starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedBackup {
    /// Its id, as people see it.
    pub id: String,
    /// Its whole id.
    #[serde(with = "crate::as_text")]
    pub ulid: Ulid,
    /// Which manifest of it.
    pub generation: u32,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where the cluster is consistent.
    pub stop_lsn: Lsn,
    /// The timeline it ended on.
    pub timeline: TimelineId,
    /// When it was done.
    pub finished_at: Timestamp,
    /// Bytes of all its files.
    pub cluster_bytes: u64,
    /// That a verification found it damaged, what, and what else there is; also among the warnings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_damaged: Option<String>,
}

impl From<&BackupFacts> for PlannedBackup {
    fn from(backup: &BackupFacts) -> Self {
        Self {
            id: backup.id.to_string(),
            ulid: backup.id.0,
            generation: backup.generation,
            start_lsn: backup.start_lsn,
            stop_lsn: backup.stop_lsn,
            timeline: backup.stop_timeline,
            finished_at: backup.finished_at,
            cluster_bytes: backup.cluster_bytes,
            found_damaged: None,
        }
    }
}

/// A server that goes on while a restore of it is planned, and how much of what it wrote is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivingServer {
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where its next record will begin.
    pub written_to: Lsn,
    /// Where what is archived on the plan's way ends.
    pub archived_to: Lsn,
    /// Whether there are records between the two: the plan knows nothing of them.
    pub is_ahead: bool,
}

/// What a restore will do. The state file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its line.
    #[serde(with = "crate::as_text")]
    pub line: LineId,
    /// What the result is for.
    pub mode: Mode,
    /// The target, in words.
    pub target: String,
    /// The backup it starts from.
    pub backup: PlannedBackup,
    /// The timeline that is recovered to (`recovery_target_timeline`).
    pub timeline: TimelineId,
    /// The way there.
    pub path: Vec<PathSpan>,
    /// Where replay stops.
    pub stop: Stop,
    /// WAL is needed from the backup's start up to here.
    pub wal_end: Lsn,
    /// The last transaction that is kept, if one committed since the backup began.
    pub last_commit_kept: Option<CommitPlace>,
    /// The first transaction that is left out, if one is archived.
    pub first_commit_left_out: Option<CommitPlace>,
    /// What is dropped just before replay stops, and just after.
    #[serde(default)]
    pub removals: Removals,
    /// What is archived of other timelines that went another way before replay stops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<LeftBehind>,
    /// When it was asked for, by this machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// The server, if it ran when the plan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<LivingServer>,
    /// What PostgreSQL does then.
    pub then: TargetAction,
    /// Databases that get no content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out_databases: Vec<NamedDatabase>,
    /// Pages that recovery cannot find are passed over (`ignore_invalid_pages`): a database that is
    /// left out has some.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignores_invalid_pages: bool,
    /// What the server needs at least to replay the log.
    #[serde(default)]
    pub required: RequiredParameters,
    /// Settings that the server gets otherwise than they were backed up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<PlannedSetting>,
    /// What a person should know before agreeing.
    pub warnings: Vec<Hint>,
}
