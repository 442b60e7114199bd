//! What a restore decided to do, as the restored directory keeps it. `restore/plan` decides it.

use jiff::Timestamp;
use seawall_core::{ClusterName, Hint, LineId, Lsn, Oid, TimelineId, Ulid, Xid, printable};
use seawall_repo::manifest::Database;
use serde::{Deserialize, Serialize};

use super::{Mode, Onto, TargetAction};

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

/// What is archived of a timeline beside the one that is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// The timeline.
    pub timeline: TimelineId,
    /// From here on it is another past than the one followed.
    pub after: Lsn,
    /// Commits from there on.
    pub commits: u64,
    /// Some of its WAL cannot be read, so there may be more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub perhaps_more: bool,
    /// The last of them.
    pub last_commit: Option<CommitPlace>,
}

impl LeftBehind {
    /// Whether there is anything to lose.
    #[must_use]
    pub const fn has_commits(&self) -> bool {
        self.commits > 0 || self.perhaps_more
    }
}

/// A database as it was when a backup began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDatabase {
    /// Its number, which is the name of its directories, and which never changes.
    pub oid: Oid,
    /// What it was called, as it is shown.
    pub name: String,
}

impl From<&Database> for NamedDatabase {
    fn from(database: &Database) -> Self {
        Self { oid: database.oid, name: printable(&String::from_utf8_lossy(&database.name)) }
    }
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removed {
    /// Relations were dropped, truncated or rewritten.
    Relations,
    /// A database was dropped.
    Database,
}

/// A transaction that removed files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// What it removed.
    pub removed: Removed,
    /// The transaction.
    pub xid: Xid,
    /// The record that removes: the commit, or that of the database's removal.
    pub lsn: Lsn,
    /// When it committed, by the server's clock; `None` where that is not within what was looked at.
    pub time: Option<Timestamp>,
    /// The database that was dropped, or in which relations were.
    pub database: Option<Oid>,
    /// What that was called when the backup began; bytes that are not UTF-8 are replaced.
    pub database_name: Option<String>,
    /// The target to give to `--before`: nothing of it has happened there.
    pub before: String,
}

/// The removals nearest to where replay stops.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removals {
    /// Those that are kept, the last one first.
    pub kept: Vec<Removal>,
    /// Where the first record lies that was looked at.
    pub looked_from: Lsn,
    /// Those that are left out, the first one first.
    pub left_out: Vec<Removal>,
    /// Up to here there is no other one that is left out.
    pub looked_to: Lsn,
    /// Nothing is archived behind that.
    pub reached_end: bool,
}

/// A setting that a restored server gets otherwise than it was backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSetting {
    /// Its name.
    pub name: String,
    /// Its value, not quoted.
    pub value: String,
    /// What the backup's configuration says, if it says something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Why it is changed.
    pub why: String,
}

/// The settings of which a server that replays WAL must not have less than the one that wrote it.
/// From 14 on it pauses if it can be read by then; else, and before 14, it shuts down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredParameters {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
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
    /// What is there already, if the restore goes onto it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onto: Option<Onto>,
    /// What a person should know before agreeing.
    pub warnings: Vec<Hint>,
}
