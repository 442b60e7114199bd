use serde::{Deserialize, Serialize};

use crate::{ClusterName, LocalPath};

/// Something Seawall can be asked to do, named where it helps.
///
/// How it is asked for is for whoever shows it: the command line writes a command with the flags in
/// force, a page has a button. Fields that are `None` are for the person to fill in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Protect a cluster in a repository, which may be a new one.
    Init {
        /// What to call it.
        cluster: Option<ClusterName>,
        /// The repository's URL.
        repository: Option<String>,
    },
    /// Protect a cluster in a repository that is there already, with a key of its own.
    Join,
    /// Prove that protection works; it says what to set in PostgreSQL.
    Check {
        /// Which cluster.
        cluster: Option<ClusterName>,
    },
    /// Take a backup.
    Backup {
        /// Of which cluster.
        cluster: Option<ClusterName>,
    },
    /// Take one that reads and stores everything.
    FullBackup {
        /// Of which cluster.
        cluster: Option<ClusterName>,
    },
    /// Give a server a line of its own.
    Adopt {
        /// Which cluster it is.
        cluster: Option<ClusterName>,
    },
    /// Sizes, the recovery window, running jobs.
    Info,
    /// The backups there are.
    List,
    /// One backup.
    Show {
        /// Its id, or another word for it such as `latest`.
        backup: String,
    },
    /// Keep one backup, whatever the retention.
    Hold {
        /// Its id.
        backup: String,
    },
    /// End what keeps one backup.
    Release {
        /// Its id.
        backup: String,
    },
    /// Say that one backup is to go.
    Delete {
        /// Its id.
        backup: String,
    },
    /// What is kept of a cluster, and why.
    PlanPrune {
        /// Of which cluster.
        cluster: Option<ClusterName>,
    },
    /// Read and authenticate what the repository holds.
    Verify,
    /// What is archived, and what is missing.
    ListWal,
    /// Archive one file of `pg_wal` by hand.
    PushWal {
        /// The file, from where the server runs.
        file: LocalPath,
    },
    /// Archive the last segment of a server that is gone, up to its last whole record.
    PushPartialWal {
        /// Of which cluster.
        cluster: Option<ClusterName>,
    },
    /// What PostgreSQL calls to archive a file.
    ArchiveCommand,
    /// What PostgreSQL calls to get a file.
    RestoreCommand {
        /// Whether it has to name the repository.
        names_repository: bool,
        /// Whether the server is a standby.
        standby: bool,
    },
    /// Bring a cluster back into another directory.
    Restore {
        /// Whether it waits at its target, to be looked at.
        waits: bool,
    },
    /// Let a restored server take writes.
    Promote {
        /// Its data directory.
        directory: Option<LocalPath>,
        /// Whether what is archived may be left out.
        without_archive: bool,
    },
    /// Stop and remove a restored clone.
    Discard {
        /// Its data directory.
        directory: LocalPath,
    },
    /// The keys that open the repository.
    ShowKeys,
    /// Let one more key open the repository.
    AddKey,
    /// Let one more key open the repository, by one that works instead of the one at hand.
    LetKeyIn {
        /// The repository's URL.
        repository: String,
    },
    /// Begin new keys for what is written from then on, opened by another key than the one at hand,
    /// which was added before.
    RotateToKey,
}
