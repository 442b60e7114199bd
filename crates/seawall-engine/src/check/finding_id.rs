use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether a finding may be one that somebody knows of and lives with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// How things are set up: with a reason, it may stay so.
    Choice,
    /// Something that does not work.
    Failure,
}

macro_rules! findings {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $kind:ident;)*) => {
        /// The names of findings. They are stable: configurations and monitors rely on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FindingId { $($(#[$doc])* $id,)* }

        impl FindingId {
            /// Every finding there is.
            pub const ALL: &[Self] = &[$(Self::$id),*];

            /// The name of each.
            pub const NAMES: &[&'static str] = &[$($name),*];

            /// Its name, such as `archive_timeout`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$id => $name,)* }
            }

            const fn kind(self) -> Kind {
                match self { $(Self::$id => Kind::$kind,)* }
            }
        }
    };
}

findings! {
    /// `archive_command` is not the one that is expected.
    ArchiveCommand = "archive_command", Choice;
    /// An archive library takes the place of `archive_command`.
    ArchiveLibrary = "archive_library", Failure;
    /// Archiving is off.
    ArchiveMode = "archive_mode", Failure;
    /// `archive_command` names a program or configuration that is not there.
    ArchiveProgram = "archive_program", Failure;
    /// A quiet server's last commits wait.
    ArchiveTimeout = "archive_timeout", Choice;
    /// The archiver fails.
    Archiver = "archiver", Failure;
    /// The data directory or a tablespace is not the server's, or cannot be read.
    DataDirectory = "data_directory", Failure;
    /// `fsync` is off.
    Fsync = "fsync", Choice;
    /// `full_page_writes` is off.
    FullPageWrites = "full_page_writes", Choice;
    /// Links in the data directory are followed.
    LinksFollowed = "links_followed", Choice;
    /// Links lead out of the data directory to what is in no backup.
    LinksOut = "links_out", Choice;
    /// There is little room for the next backup.
    RepositoryRoom = "repository_room", Failure;
    /// There is no complete backup, or none has the WAL it needs.
    NoBackup = "no_backup", Failure;
    /// There is only one repository.
    OneRepository = "one_repository", Choice;
    /// Settings wait for a restart.
    PendingRestart = "pending_restart", Choice;
    /// The role lacks rights.
    Privileges = "privileges", Failure;
    /// A repository cannot be used.
    Repository = "repository", Failure;
    /// A repository is on the database's own disk.
    SameDisk = "same_disk", Choice;
    /// A newer timeline is archived than the server writes.
    Timelines = "timelines", Failure;
    /// Files that a backup would read cannot be read.
    UnreadableFiles = "unreadable_files", Failure;
    /// WAL does not arrive, or reads back as something else.
    WalArrival = "wal_arrival", Failure;
    /// The disk of `pg_wal` is nearly full.
    WalDisk = "wal_disk", Failure;
    /// There is a hole in the WAL behind the newest backup.
    WalHole = "wal_hole", Failure;
    /// `wal_level` is minimal.
    WalLevel = "wal_level", Failure;
    /// Some of the WAL behind the newest backup was written with `wal_level = minimal`.
    WalMinimal = "wal_minimal", Failure;
    /// Segments wait for the archiver.
    WalWaiting = "wal_waiting", Failure;
}

impl FindingId {
    /// The finding of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|id| id.name() == name)
    }

    /// Whether a configuration may say that it is known and shall stay so. What says that WAL or
    /// backups do not reach a repository cannot be.
    #[must_use]
    pub fn may_be_acknowledged(self) -> bool {
        self.kind() == Kind::Choice
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for FindingId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for FindingId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::of_name(&name).ok_or_else(|| D::Error::custom(format!("{name} is no finding")))
    }
}
