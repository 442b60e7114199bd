use std::collections::BTreeMap;
use std::fmt;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use seawall_core::{BranchNumber, Lsn, Oid, Result, SystemId, TimelineId, Ulid};
use seawall_store::ObjectPath;

use crate::envelope::{ChunkWalk, ObjectKind, kind_of};
use crate::error;
use crate::hash::ObjectHash;
use crate::keys::Keyring;
use crate::map::MapInfo;
use crate::records::Record;

/// How much of the cluster a backup read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum BackupKind {
    /// Everything.
    #[n(0)]
    Full,
    /// What changed since another backup.
    #[n(1)]
    Incremental,
}

/// How the cluster's files were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum BackupSource {
    /// Beside the database.
    #[n(0)]
    Files,
    /// Over SQL.
    #[n(1)]
    Sql,
    /// Over the replication protocol.
    #[n(2)]
    Stream,
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        })
    }
}

impl fmt::Display for BackupSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "files",
            Self::Sql => "sql",
            Self::Stream => "stream",
        })
    }
}

/// In place of a setting's name: another configuration file includes the file.
pub const INCLUDED: &str = "include";

/// A configuration file outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ExternalFile {
    /// The setting that names it, such as `hba_file`, or [`INCLUDED`].
    #[n(0)]
    pub setting: String,
    /// Where it was.
    #[n(1)]
    pub path: ByteVec,
    /// What it says.
    #[n(2)]
    pub content: ByteVec,
}

/// A path that was left out of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LeftOut {
    /// The path, relative to the data directory.
    #[n(0)]
    pub path: ByteVec,
    /// Why.
    #[n(1)]
    pub reason: String,
}

/// A page whose checksum or header was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PageError {
    /// The file, relative to the data directory.
    #[n(0)]
    pub path: ByteVec,
    /// The block within the file.
    #[n(1)]
    pub block: u32,
    /// What is wrong.
    #[n(2)]
    pub reason: String,
}

/// What an incremental backup met in blocks that WAL does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum IncidentKind {
    /// It changed since the parent began. All of the file was read anew.
    #[n(0)]
    Unmarked,
    /// It is damaged on the server. The backup has it as the parent has it.
    #[n(1)]
    Damaged,
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unmarked => "it changed, and no record of the WAL names it",
            Self::Damaged => "it is damaged on the server; the backup has it as it was before",
        })
    }
}

/// A block that WAL does not name and that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Incident {
    /// The file, relative to the data directory.
    #[n(0)]
    pub path: ByteVec,
    /// The block within the file.
    #[n(1)]
    pub block: u32,
    /// What is with it.
    #[n(2)]
    pub kind: IncidentKind,
}

/// The incidents of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Incidents {
    /// How many blocks had changed.
    #[n(0)]
    pub unmarked: u64,
    /// How many are damaged.
    #[n(1)]
    pub damaged: u64,
    /// The first thousand of both.
    #[n(2)]
    pub listed: Vec<Incident>,
}

impl Incidents {
    const LISTED: usize = 1000;

    /// Adds one.
    pub fn add(&mut self, incident: Incident) {
        match incident.kind {
            IncidentKind::Unmarked => self.unmarked += 1,
            IncidentKind::Damaged => self.damaged += 1,
        }
        if self.listed.len() < Self::LISTED {
            self.listed.push(incident);
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.unmarked.saturating_add(self.damaged)
    }
}

/// A share of the blocks that WAL does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AuditShare {
    /// Which of the shares it was, from 0 on; the next backup takes the next one.
    #[n(0)]
    pub turn: u64,
    /// How many shares there are.
    #[n(1)]
    pub shares: u64,
    /// How many blocks were looked at.
    #[n(2)]
    pub blocks: u64,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Database {
    /// Its number (`pg_database.oid`).
    #[n(0)]
    pub oid: Oid,
    /// Its name, in whatever encoding.
    #[n(1)]
    pub name: ByteVec,
}

/// What a backup is: all of its commit but where its files are listed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BackupInfo {
    /// The backup's id.
    #[cbor(n(0), with = "crate::cbor::ulid")]
    pub id: Ulid,
    /// 0 when written by the backup itself.
    #[n(1)]
    pub generation: u32,
    /// Full or incremental.
    #[n(2)]
    pub kind: BackupKind,
    /// How the files were read.
    #[n(3)]
    pub source: BackupSource,
    /// The cluster's name.
    #[n(4)]
    pub cluster: String,
    /// The cluster's system identifier.
    #[cbor(n(5), with = "crate::cbor::system_id")]
    pub system_id: SystemId,
    /// The line's branch.
    #[cbor(n(6), with = "crate::cbor::branch")]
    pub branch: BranchNumber,
    /// PostgreSQL's major version.
    #[n(7)]
    pub major: u32,
    /// Where replay must begin.
    #[cbor(n(8), with = "crate::cbor::lsn")]
    pub start_lsn: Lsn,
    /// The timeline of the start.
    #[cbor(n(9), with = "crate::cbor::timeline")]
    pub start_timeline: TimelineId,
    /// Where the cluster is consistent.
    #[cbor(n(10), with = "crate::cbor::lsn")]
    pub stop_lsn: Lsn,
    /// The timeline of the stop.
    #[cbor(n(11), with = "crate::cbor::timeline")]
    pub stop_timeline: TimelineId,
    /// When it began, microseconds since 1970.
    #[n(12)]
    pub started_us: i64,
    /// When it was done.
    #[n(13)]
    pub finished_us: i64,
    /// Whether it was taken from a standby.
    #[n(14)]
    pub from_standby: bool,
    /// The `backup_label`, byte for byte.
    #[n(15)]
    pub backup_label: ByteVec,
    /// The `tablespace_map`, byte for byte; empty without tablespaces.
    #[n(16)]
    pub tablespace_map: ByteVec,
    /// `pg_control` with its checkpoint position made impossible.
    #[n(17)]
    pub pg_control: ByteVec,
    /// Configuration files outside the data directory.
    #[n(18)]
    pub external_files: Vec<ExternalFile>,
    /// What was left out.
    #[n(19)]
    pub left_out: Vec<LeftOut>,
    /// Pages with errors, the first thousand.
    #[n(20)]
    pub page_errors: Vec<PageError>,
    /// How many pages have errors.
    #[n(21)]
    pub page_error_count: u64,
    /// Features a reader must know.
    #[n(25)]
    pub required_features: Vec<String>,
    /// Bytes of all files.
    #[n(26)]
    pub cluster_bytes: u64,
    /// Bytes read from the cluster.
    #[n(27)]
    pub read_bytes: u64,
    /// Bytes added to the repository.
    #[n(28)]
    pub stored_bytes: u64,
    /// Number of files.
    #[n(29)]
    pub files: u64,
    /// The backup or attempt this one built on.
    #[cbor(n(30), with = "crate::cbor::optional_ulid", has_nil)]
    pub parent: Option<Ulid>,
    /// The user's notes.
    #[n(31)]
    pub annotations: BTreeMap<String, String>,
    /// The head written just before.
    #[cbor(n(32), with = "crate::cbor::optional_ulid", has_nil)]
    pub head: Option<Ulid>,
    /// The program that made it.
    #[n(33)]
    pub program: String,
    /// Whether pages carry checksums.
    #[n(34)]
    pub data_checksums: bool,
    /// The cluster's WAL segment size in bytes.
    #[n(35)]
    pub wal_segment_bytes: u32,
    /// Blocks in a relation's segment file.
    #[n(36)]
    pub relation_segment_blocks: u32,
    /// The databases there were when the backup began, by number.
    #[n(37)]
    pub databases: Option<Vec<Database>>,
    /// What was met in blocks that WAL does not name, if anything was.
    #[n(39)]
    pub incidents: Option<Incidents>,
    /// What an incremental backup looked at though it had not changed.
    #[n(40)]
    pub audit: Option<AuditShare>,
}

/// What makes a backup: it is there once this small object is. All that it names is durable before.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Commit {
    /// What the backup is.
    #[n(0)]
    pub info: BackupInfo,
    /// Where its files are listed, and what holds their bytes.
    #[n(1)]
    pub parts: Parts,
}

impl Record for Commit {
    const KIND: ObjectKind = ObjectKind::Commit;
}

/// What an object is that lies at a commit's place: a commit, or a tombstone. It is not proven.
///
/// # Errors
/// [`seawall_core::Code::UnknownFormat`] for a backup of the format before.
pub(crate) fn kind_at_commit(
    keyring: &Keyring,
    path: &ObjectPath,
    bytes: &[u8],
) -> Result<ObjectKind> {
    const TOMBSTONE: u8 = ObjectKind::Tombstone as u8;
    const MANIFEST: u8 = ObjectKind::Manifest as u8;
    match kind_of(bytes) {
        Ok(TOMBSTONE) => Ok(ObjectKind::Tombstone),
        Ok(MANIFEST) => Err(match ChunkWalk::begin(keyring, ObjectKind::Manifest, path, bytes) {
            Ok(_) => error::of_the_format_before(path),
            Err(damage) => damage.at(path),
        }),
        // Whoever opens it tells what is wrong.
        Ok(_) | Err(_) => Ok(ObjectKind::Commit),
    }
}

/// All objects a backup needs, whichever backup wrote them, and the pages of its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Parts {
    /// Pages of entries, in path order.
    #[n(22)]
    pub pages: Vec<PageAddress>,
    /// Pages of the lists of packs.
    #[n(23)]
    pub pack_pages: Vec<PackPageAddress>,
    /// The map objects.
    #[n(24)]
    pub maps: Vec<MapInfo>,
    /// The manifests the pages are in, by index.
    #[n(38)]
    pub manifests: Vec<ManifestInfo>,
}

/// Where a page of entries is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PageAddress {
    /// The path of the first entry.
    #[n(0)]
    pub first_path: ByteVec,
    /// Which of the commit's manifests it is in.
    #[n(1)]
    pub manifest: u32,
    /// Its number in that manifest.
    #[n(2)]
    pub counter: u32,
    /// Offset of the chunk.
    #[n(3)]
    pub offset: u64,
    /// Length of the chunk, its prefix included.
    #[n(4)]
    pub length: u32,
    /// How many entries it holds.
    #[n(5)]
    pub entries: u32,
    /// Object hash of its plaintext.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub hash: ObjectHash,
}

/// Where a page of a list of packs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PackPageAddress {
    /// Which of the commit's manifests it is in.
    #[n(0)]
    pub manifest: u32,
    /// Its number in that manifest.
    #[n(1)]
    pub counter: u32,
    /// Offset of the chunk.
    #[n(2)]
    pub offset: u64,
    /// Length of the chunk, its prefix included.
    #[n(3)]
    pub length: u32,
    /// How many packs it names.
    #[n(4)]
    pub packs: u32,
}

/// What a commit says of a manifest it names pages of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ManifestInfo {
    /// The manifest's id.
    #[cbor(n(0), with = "crate::cbor::ulid")]
    pub id: Ulid,
    /// The object's length in bytes.
    #[n(1)]
    pub length_bytes: u64,
    /// Object hash of its footer's plaintext.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub footer_hash: ObjectHash,
}
