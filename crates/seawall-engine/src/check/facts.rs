use std::path::PathBuf;

use seawall_core::{ClusterName, Hint, Lsn, TimelineId};

use crate::cluster::{Archiver, MissingRights, Survey};
use crate::survey::ForeignWal;
use crate::wal::Obstacle;

/// What a look at a cluster and its repositories showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The server's version, such as `15.18`.
    pub server_version: String,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// The timeline the server writes; `None` of a standby.
    pub timeline: Option<TimelineId>,
    /// Why the configured data directory is not the server's, or cannot be read.
    pub data_directory_trouble: Option<Trouble>,
    /// What a look at the cluster's files showed, if they are on this machine.
    pub files: Option<Survey>,
    /// What keeps the cluster's files from being read.
    pub files_trouble: Option<Trouble>,
    /// The settings archiving depends on.
    pub settings: Settings,
    /// What `archive_command` ought to be.
    pub expected_archive_command: String,
    /// The first path in `archive_command` that leads nowhere, if the server sees this machine's files.
    pub archive_command_lacks: Option<PathBuf>,
    /// What the role Seawall acts as may not do, and would have to.
    pub missing_rights: MissingRights,
    /// What the archiver says of itself.
    pub archiver: Archiver,
    /// The directory of the WAL, if it is on this machine and can be read.
    pub wal_directory: Option<WalDirectory>,
    /// How fast WAL was written while the check ran, in bytes a second.
    pub wal_bytes_per_s: Option<f64>,
    /// The device the database is on.
    pub data_device: Option<u64>,
    /// The repositories.
    pub repositories: Vec<RepositoryFacts>,
}

/// Settings of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `wal_level`
    pub wal_level: String,
    /// `archive_mode`
    pub archive_mode: String,
    /// `archive_command`; empty if there is none.
    pub archive_command: String,
    /// `archive_library`, since 15; empty if there is none.
    pub archive_library: String,
    /// `archive_timeout`; 0 is never.
    pub archive_timeout_s: u32,
    /// `full_page_writes`
    pub full_page_writes: bool,
    /// `fsync`
    pub fsync: bool,
    /// Settings that were changed and take effect only when the server starts.
    pub pending_restart: Vec<String>,
}

/// `pg_wal` and its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalDirectory {
    /// Bytes of its files.
    pub used_bytes: u64,
    /// Segments that wait for the archiver (`archive_status/*.ready`).
    pub waiting_segments: u64,
    /// Room on its disk.
    pub free_bytes: u64,
    /// The size of its disk.
    pub disk_bytes: u64,
}

/// A repository, as the check saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct RepositoryFacts {
    /// Its name.
    pub name: String,
    /// The device it is on, if that is one of this machine.
    pub device: Option<u64>,
    /// Room on it, where that is told.
    pub free_bytes: Option<u64>,
    /// Why it could not be opened, and what to do.
    pub trouble: Option<Trouble>,
    /// What became of the WAL that was switched.
    pub arrival: Option<Arrival>,
    /// Whether there is a complete backup that has the WAL it needs.
    pub has_backup: bool,
    /// What the newest backup added to the repository, in bytes.
    pub newest_backup_bytes: Option<u64>,
    /// The newest timeline of which something is archived.
    pub newest_timeline: Option<TimelineId>,
    /// WAL that another server archives, as it seems.
    pub foreign_wal: Vec<ForeignWal>,
    /// What keeps archived WAL from being restored with the newest backup.
    pub obstacle: Option<Obstacle>,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What failed and why.
    pub what: String,
    /// What to do.
    pub fix: Hint,
}

/// What became of a WAL segment on its way into a repository.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// It arrived and was read back.
    Proven {
        /// How long it took.
        seconds: f64,
        /// Whether the server's own file was at hand and has the same bytes.
        compared: bool,
    },
    /// It did not arrive in time.
    Missing {
        /// The segment's name.
        segment: String,
        /// Up to where the log is archived.
        archived_until: Option<Lsn>,
        /// How long was waited.
        seconds: u64,
    },
    /// What was read back is something else.
    Different {
        /// The segment's name.
        segment: String,
    },
    /// It could not be read back.
    Unreadable(Trouble),
}
