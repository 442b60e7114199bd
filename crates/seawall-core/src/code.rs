use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Retry;

/// What an error means to whoever called the program; the number is the process's exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitClass {
    /// Something did not work.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// No such cluster, backup or target.
    NotFound = 3,
    /// Stored data is damaged, missing or not what it claims to be.
    Integrity = 4,
    /// Refused, because going on could destroy data.
    Refused = 5,
    /// Done, and something was found that a person should look at.
    Findings = 6,
}

macro_rules! codes {
    ($(#[doc = $title:literal] $name:ident = $number:literal, $exit:ident;)*) => {
        /// The stable code of an error. Each has a page, `docs/errors/SW0000.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        #[non_exhaustive]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number in `SW0000`.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The exit status that goes with the code.
            #[must_use]
            pub const fn exit_class(self) -> ExitClass {
                match self { $(Self::$name => ExitClass::$exit,)* }
            }

            /// What all errors of the code have in common, as a sentence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                let title = match self { $(Self::$name => $title,)* };
                title.trim_ascii()
            }
        }
    };
}

codes! {
    /// A defect in Seawall itself.
    Internal = 1, Failed;
    /// The command line cannot be understood.
    Usage = 2, Usage;
    /// The configuration file cannot be read.
    ConfigUnreadable = 3, Usage;
    /// The configuration file has an unknown key or a wrong value.
    ConfigInvalid = 4, Usage;
    /// The command needs a cluster, repository or key that is not configured.
    NotConfigured = 5, Usage;
    /// No cluster of that name.
    NoSuchCluster = 6, NotFound;
    /// Running as a user who cannot do this.
    WrongUser = 7, Usage;
    /// A local file or directory could not be read or written.
    LocalIo = 8, Failed;
    /// The job was interrupted.
    Interrupted = 9, Failed;
    /// The request of a job cannot be understood.
    JobRequestInvalid = 10, Usage;

    /// No connection to PostgreSQL.
    ConnectFailed = 101, Failed;
    /// PostgreSQL refused the login.
    AuthenticationFailed = 102, Failed;
    /// The connection string, service or password file is wrong.
    ConninfoInvalid = 103, Usage;
    /// PostgreSQL answered with an error.
    QueryFailed = 104, Failed;
    /// The connection broke or spoke something else than PostgreSQL.
    ConnectionLost = 105, Failed;
    /// A PostgreSQL major version this Seawall does not know.
    UnknownPostgresVersion = 106, Failed;
    /// The role lacks a privilege.
    PrivilegeMissing = 107, Failed;
    /// A server setting makes backups or archiving impossible.
    SettingUnsuitable = 108, Usage;
    /// TLS was required and could not be set up.
    TlsFailed = 109, Failed;
    /// A connection pooler answers instead of PostgreSQL.
    PoolerInBetween = 110, Usage;

    /// The store could not be reached or failed.
    StoreFailed = 201, Failed;
    /// The store's URL is wrong or of an unsupported kind.
    StoreUrlInvalid = 202, Usage;
    /// The store is full.
    StoreFull = 203, Failed;
    /// The store refused access.
    StoreForbidden = 204, Failed;
    /// An object that must not exist yet exists.
    ObjectExists = 205, Refused;

    /// There is no repository at this place.
    NoRepository = 301, NotFound;
    /// The repository has a format or a required feature this Seawall does not know.
    UnknownFormat = 302, Failed;
    /// The key does not open the repository.
    WrongKey = 303, Usage;
    /// The key file cannot be read or is malformed.
    KeyUnreadable = 304, Usage;
    /// An object is damaged.
    ObjectDamaged = 305, Integrity;
    /// An object that must exist is gone.
    ObjectMissing = 306, Integrity;
    /// A repository is already there.
    RepositoryExists = 307, Refused;
    /// A name in the repository that Seawall did not write.
    UnknownObject = 308, Integrity;
    /// An object is whole, and its content contradicts another.
    ObjectInconsistent = 309, Integrity;
    /// Removing this key would leave the repository without one.
    LastKey = 310, Refused;
    /// A key epoch has begun, and its keys are gone.
    KeyEpochGone = 311, Integrity;
    /// The keys were changed by another program at the same time.
    KeysChanged = 312, Refused;
    /// Others can read or replace a file that opens the repository.
    KeyExposed = 313, Refused;
    /// What is asked for is to be deleted.
    Condemned = 314, Refused;
    /// Another prune of the line is running.
    PruneRunning = 315, Failed;

    /// The cluster's files could not be read.
    ClusterUnreadable = 401, Failed;
    /// PostgreSQL restarted, was promoted or ended the backup session before the backup was done.
    BackupAborted = 402, Failed;
    /// The backup is complete, and pages with bad checksums were found.
    PageErrorsFound = 403, Findings;
    /// `pg_control` is damaged or of an unknown version.
    ControlFileInvalid = 404, Failed;
    /// The data directory belongs to another cluster than the connection.
    ClusterMismatch = 405, Refused;
    /// WAL the backup needs did not reach the repository in time.
    WalNotArrived = 406, Failed;
    /// The shape of the cluster is not supported.
    UnsupportedCluster = 407, Failed;
    /// Another backup of the cluster is running.
    BackupRunning = 408, Failed;
    /// The backup is complete, but for files that changed each time they were read.
    FilesLeftOut = 409, Findings;
    /// Replay would copy files of a database that the backup does not have as they were.
    DatabaseFilesLost = 410, Failed;
    /// The backup is complete, and blocks had changed that no record of the WAL names.
    UnmarkedChanges = 411, Findings;

    /// The file pushed is not a WAL file PostgreSQL archives.
    NotWal = 501, Failed;
    /// The WAL belongs to another cluster.
    WalWrongCluster = 502, Refused;
    /// Other bytes are already archived at the same place.
    WalConflict = 503, Refused;
    /// The WAL file is empty, short or damaged.
    WalDamaged = 504, Failed;
    /// WAL between two positions is missing from the archive.
    WalGap = 505, Integrity;
    /// The WAL asked for is not in the archive and ought to be.
    WalMissing = 506, Failed;
    /// The WAL asked for is proven not to exist.
    WalPastEnd = 507, NotFound;
    /// A timeline history contradicts the archived one.
    HistoryConflict = 508, Refused;
    /// The WAL does not continue the WAL before it.
    WalDiscontinuous = 509, Refused;
    /// `wal_level` was `minimal` for a while: the WAL does not hold what was written then.
    WalMinimal = 510, Integrity;

    /// No such backup.
    NoSuchBackup = 601, NotFound;
    /// The target cannot be reached with what is in the repository.
    TargetUnreachable = 602, NotFound;
    /// The target cannot be understood.
    TargetInvalid = 603, Usage;
    /// The directory to restore into is not empty.
    DirectoryNotEmpty = 604, Refused;
    /// A PostgreSQL server runs in the directory.
    PostmasterRunning = 605, Refused;
    /// The disk has no room for the restore.
    TargetDiskFull = 606, Failed;
    /// The directory holds another interrupted restore, or another command is at work in it.
    OtherRestoreInterrupted = 607, Refused;
    /// PostgreSQL did not start on the restored directory or did not reach the target.
    RestoredServerFailed = 608, Failed;
    /// The timeline is ambiguous; candidates are listed.
    TimelineAmbiguous = 609, Usage;
    /// What was to be done was not confirmed.
    NotConfirmed = 610, Refused;
    /// A server that is to be promoted lacks what is archived, or the archive cannot be asked.
    BehindArchive = 611, Refused;
    /// The directory is not one that was restored to be looked at, so it is not removed.
    NotDiscardable = 612, Refused;
    /// The backup is held, or is the last good one of its line.
    BackupKept = 613, Refused;
    /// Something is not known that decides what is kept, so nothing goes.
    PruneRefused = 614, Refused;

    /// Bytes that should be PostgreSQL's are malformed.
    MalformedPostgresData = 701, Failed;

    /// `check` has findings.
    CheckFindings = 801, Findings;
    /// `verify` found damage.
    VerifyFailed = 802, Integrity;
}

impl Code {
    /// Whether a request that failed so may succeed when it is made again, if no more is known.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self {
            Self::Interrupted
            | Self::BackupAborted
            | Self::DatabaseFilesLost
            | Self::KeysChanged => Retry::Now,
            Self::ConnectFailed
            | Self::ConnectionLost
            | Self::StoreFailed
            | Self::WalNotArrived
            | Self::BackupRunning
            | Self::PruneRunning
            | Self::WalMissing
            | Self::BehindArchive => Retry::Later,
            // What is not known to pass is not tried again.
            _ => Retry::Never,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SW{:04}", self.number())
    }
}

/// Text that is not the code of an error, or of one this Seawall does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidCode(pub String);

impl fmt::Display for InvalidCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not the code of an error this version knows", self.0)
    }
}

impl std::error::Error for InvalidCode {}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.to_string()
    }
}

impl TryFrom<String> for Code {
    type Error = InvalidCode;

    fn try_from(text: String) -> Result<Self, InvalidCode> {
        let found = Self::ALL.iter().find(|code| code.to_string() == text);
        found.copied().ok_or(InvalidCode(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_unique() {
        let numbers: BTreeSet<u16> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
    }

    #[test]
    fn codes_show_as_four_digits() {
        assert_eq!(Code::Internal.to_string(), "SW0001");
    }

    #[test]
    fn titles_are_sentences() {
        assert_eq!(Code::ObjectDamaged.title(), "An object is damaged.");
        for code in Code::ALL {
            let title = code.title();
            assert!(title.ends_with('.') && title == title.trim(), "{code}: {title}");
        }
    }
}
