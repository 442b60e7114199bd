use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use seawall_core::BackupId;
use seawall_pgwire::Config;
use seawall_repo::Line;

use crate::pace::Crew;

/// What a backup is asked to do.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The id it gets in every repository; no other backup or attempt has it.
    pub id: BackupId,
    /// Where the cluster's server is.
    pub connection: Config,
    /// Where its files are; `None` for where the server says.
    pub data_directory: Option<PathBuf>,
    /// What it leads on from.
    pub parent: ParentChoice,
    /// The user's notes.
    pub annotations: BTreeMap<String, String>,
    /// Worker threads.
    pub jobs: usize,
    /// Bytes of memory it may use.
    pub memory_bytes: usize,
    /// Whose threads they are, and how fast they may read the cluster's files.
    pub crew: Crew,
    /// Let PostgreSQL make its checkpoint at once instead of spreading it.
    pub fast_checkpoint: bool,
    /// How long WAL may take to arrive in a repository without any progress.
    pub wal_timeout: Duration,
    /// How long the others wait for a repository that does not answer before they go on without it.
    /// One alone is waited for as long as it takes.
    pub store_timeout: Duration,
    /// A repository to which WAL goes too is away, and no destination: the archiver is held up.
    pub other_repository_is_away: bool,
    /// The program's name and version, for the manifest.
    pub program: String,
}

/// Which backup another one leads on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// In each repository the newest that is of use; where none is, all is read and stored.
    #[default]
    Newest,
    /// This one, or there is no backup.
    This(BackupId),
    /// None: all is read and stored.
    Nothing,
}

/// A repository that is to get the backup.
#[derive(Debug, Clone)]
pub struct Destination {
    /// What people call the repository.
    pub name: String,
    /// The cluster's line in it.
    pub line: Line,
    /// zstd level of the frames.
    pub compression_level: i32,
    /// A pack is closed when it has so many bytes.
    pub pack_bytes: u64,
}
