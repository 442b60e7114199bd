//! Small objects that are only a footer (format.md, 10), and the clear parts of `format` and keys.

use std::collections::BTreeMap;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use seawall_core::{BranchNumber, Lsn, Result, SystemId, TimelineId, Ulid, WalFileName};
use seawall_store::ObjectPath;

use crate::envelope::{ObjectKind, ObjectSealer, Section, WholeObject};
use crate::keys::Keyring;
use crate::manifest::{ManifestInfo, Page};
use crate::map::MapInfo;
use crate::pack::PackInfo;
use crate::{Damage, cbor};

/// A record that is stored as an object of its own.
pub trait Record: Encode<()> + for<'b> Decode<'b, ()> {
    /// The kind of the object.
    const KIND: ObjectKind;

    /// The object's bytes, sealed under `path`.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] without randomness, or if it would not be read again.
    fn seal(&self, keyring: &Keyring, path: &ObjectPath) -> Result<Vec<u8>> {
        let encoded = cbor::encode_readable(self, "record")?;
        let mut out = Vec::new();
        let sealer = ObjectSealer::begin(keyring, Self::KIND, path, &mut out)?;
        sealer.finish(&encoded, &mut out)?;
        Ok(out)
    }

    /// Reads the record out of the object's bytes.
    ///
    /// # Errors
    /// Damage.
    fn open(keyring: &Keyring, path: &ObjectPath, bytes: &[u8]) -> Result<Self> {
        let open = || {
            let object = WholeObject::open(keyring, Self::KIND, path, bytes)?;
            if object.chunks.is_empty() {
                cbor::decode(&object.footer)
            } else {
                Err(Damage::Content("it has parts that its kind does not have".to_owned()))
            }
        };
        open().map_err(|damage: Damage| damage.at(path))
    }
}

/// The clear part of `format/<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct FormatRecord {
    #[n(0)]
    pub version: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub repository: [u8; 16],
    #[n(2)]
    pub created_us: i64,
    #[n(3)]
    pub required_features: Vec<String>,
    #[n(4)]
    pub optional_features: Vec<String>,
}

/// The clear part of `epochs/<n>`: creating it begins the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct EpochRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub repository: [u8; 16],
    #[n(1)]
    pub epoch: u32,
    #[n(2)]
    pub id: ByteArray<16>,
    #[n(3)]
    pub created_us: i64,
}

/// The intention to delete a key slot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Removal {
    /// When it was written, microseconds since 1970.
    #[n(0)]
    pub time_us: i64,
}

impl Record for Removal {
    const KIND: ObjectKind = ObjectKind::Removal;
}

/// The footer of an object with a clear part.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ClearFooter {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub sha256: [u8; 32],
}

/// Makes an object with a clear part.
pub(crate) fn seal_clear(
    keyring: &Keyring,
    kind: ObjectKind,
    path: &ObjectPath,
    clear: &[u8],
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut sealer = ObjectSealer::begin(keyring, kind, path, &mut out)?;
    sealer.clear_chunk(Section::FIRST, clear, &mut out)?;
    let footer = ClearFooter { sha256: crate::envelope::sha256(clear) };
    sealer.finish(&cbor::encode(&footer), &mut out)?;
    Ok(out)
}

/// Opens an object with a clear part and proves that part.
pub(crate) fn open_clear(
    keyring: &Keyring,
    kind: ObjectKind,
    path: &ObjectPath,
    bytes: &[u8],
) -> Result<Vec<u8>> {
    let open = || {
        let object = WholeObject::open(keyring, kind, path, bytes)?;
        let footer: ClearFooter = cbor::decode(&object.footer)?;
        let mut chunks = object.chunks.into_iter();
        match (chunks.next(), chunks.next()) {
            (Some((Section::FIRST, clear)), None)
                if crate::envelope::sha256(&clear) == footer.sha256 =>
            {
                Ok(clear)
            }
            _ => Err(Damage::Content("its clear part is not the one that was written".to_owned())),
        }
    };
    open().map_err(|damage: Damage| damage.at(path))
}

/// What the cluster of a line is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct About {
    /// The name the user gave it.
    #[n(0)]
    pub cluster: String,
    /// What `initdb` gave it.
    #[cbor(n(1), with = "crate::cbor::system_id")]
    pub system_id: SystemId,
    /// Which of the lines with that identifier.
    #[cbor(n(2), with = "crate::cbor::branch")]
    pub branch: BranchNumber,
    /// PostgreSQL's major version.
    #[n(3)]
    pub major: u32,
    /// `CATALOG_VERSION_NO`.
    #[n(4)]
    pub catalog_version: u32,
    /// `PG_CONTROL_VERSION`.
    #[n(5)]
    pub control_version: u32,
    /// Bytes of a page.
    #[n(6)]
    pub block_bytes: u32,
    /// Blocks in a relation's segment file.
    #[n(7)]
    pub relation_segment_blocks: u32,
    /// Bytes of a WAL segment.
    #[n(8)]
    pub wal_segment_bytes: u32,
    /// Bytes of a WAL page.
    #[n(9)]
    pub wal_block_bytes: u32,
    /// 0 when pages carry no checksums.
    #[n(10)]
    pub data_checksum_version: u32,
    /// When the line was made, microseconds since 1970.
    #[n(13)]
    pub created_us: i64,
}

impl Record for About {
    const KIND: ObjectKind = ObjectKind::About;
}

/// A timeline or backup history file, verbatim.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HistoryFile {
    /// Its name in `pg_wal`.
    #[n(0)]
    pub name: String,
    /// What it says.
    #[n(1)]
    pub content: ByteVec,
}

impl HistoryFile {
    /// A file as PostgreSQL has it.
    #[must_use]
    pub fn new(name: WalFileName, content: &[u8]) -> Self {
        Self { name: name.to_string(), content: content.to_vec().into() }
    }
}

impl Record for HistoryFile {
    const KIND: ObjectKind = ObjectKind::History;
}

/// A fact about a backup, or about the line.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Event {
    /// What happened, such as `verified`.
    #[n(0)]
    pub kind: String,
    /// When, microseconds since 1970.
    #[n(1)]
    pub time_us: i64,
    /// On which host it was noticed.
    #[n(2)]
    pub host: String,
    /// The particulars.
    #[n(3)]
    pub details: BTreeMap<String, String>,
    /// The head written just before.
    #[cbor(n(4), with = "crate::cbor::optional_ulid", has_nil)]
    pub head: Option<Ulid>,
}

impl Record for Event {
    const KIND: ObjectKind = ObjectKind::Event;
}

/// Whether a pin's holder adds to the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum PinRole {
    /// It writes packs and maps that nothing names yet.
    #[n(0)]
    Writer,
    /// It reads what must not be deleted meanwhile.
    #[n(1)]
    Reader,
    /// It deletes what nobody needs.
    #[n(2)]
    Collector,
}

/// One record of a running job: what it uses, what it has finished.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pin {
    /// Writer or reader.
    #[n(0)]
    pub role: PinRole,
    /// The host it runs on.
    #[n(1)]
    pub host: String,
    /// That host's boot, so that a process id means something.
    #[n(2)]
    pub boot_id: String,
    /// Its process.
    #[n(3)]
    pub process_id: u32,
    /// When this record was written, microseconds since 1970.
    #[n(4)]
    pub time_us: i64,
    /// What it does, such as `backup`.
    #[n(5)]
    pub purpose: String,
    /// A backup's start.
    #[cbor(n(6), with = "crate::cbor::lsn")]
    pub start_lsn: Lsn,
    /// The timeline of the start.
    #[cbor(n(7), with = "crate::cbor::timeline")]
    pub start_timeline: TimelineId,
    /// Up to where files were copied; the start, until something better is known.
    #[cbor(n(8), with = "crate::cbor::lsn")]
    pub copied_until: Lsn,
    /// Packs finished since the last record.
    #[n(9)]
    pub packs: Vec<PackInfo>,
    /// Maps finished since the last record.
    #[n(10)]
    pub maps: Vec<MapInfo>,
    /// Files finished since the last record; their packs and maps are in this one or before.
    #[n(11)]
    pub files: Page,
    /// Backups it relies on.
    #[cbor(n(12), with = "crate::cbor::ulids")]
    pub backups: Vec<Ulid>,
    /// When its process started, in clock ticks since the boot: numbers of processes come round.
    #[n(13)]
    pub process_started: Option<u64>,
    /// The namespaces in which the numbers of its process and of clock ticks count; `None` where
    /// they are not known.
    #[n(14)]
    pub namespaces: Option<String>,
    /// Manifests finished since the last record.
    #[n(15)]
    pub manifests: Vec<ManifestInfo>,
    /// When it was given up, microseconds since 1970; nobody writes another record then.
    #[n(16)]
    pub ended_us: Option<i64>,
}

impl Record for Pin {
    const KIND: ObjectKind = ObjectKind::Pin;
}

/// Archived WAL without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct WalSpan {
    /// Its first byte.
    #[cbor(n(0), with = "crate::cbor::lsn")]
    pub start: Lsn,
    /// After its last byte.
    #[cbor(n(1), with = "crate::cbor::lsn")]
    pub end: Lsn,
    /// How many objects hold it.
    #[n(2)]
    pub objects: u32,
}

/// The archived WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct WalOfTimeline {
    /// The timeline.
    #[cbor(n(0), with = "crate::cbor::timeline")]
    pub timeline: TimelineId,
    /// Spans in order; something is missing between two of them.
    #[n(1)]
    pub spans: Vec<WalSpan>,
}

/// A ULID and a number: a backup's generation, a subject's event, an epoch's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Numbered {
    /// The ULID.
    #[cbor(n(0), with = "crate::cbor::ulid")]
    pub id: Ulid,
    /// The number.
    #[n(1)]
    pub number: u32,
}

/// What exists, so that something that vanishes is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// When it was written, microseconds since 1970.
    #[n(0)]
    pub time_us: i64,
    /// The numbers of the format objects.
    #[n(1)]
    pub formats: Vec<u32>,
    /// Key slots, with their epochs.
    #[n(2)]
    pub key_slots: Vec<Numbered>,
    /// Backups and tombstones, with their generations.
    #[n(3)]
    pub backups: Vec<Numbered>,
    /// Events, with their numbers.
    #[n(4)]
    pub events: Vec<Numbered>,
    /// Names of history files.
    #[n(5)]
    pub histories: Vec<String>,
    /// Archived WAL.
    #[n(6)]
    pub wal: Vec<WalOfTimeline>,
    /// The heads before.
    #[cbor(n(7), with = "crate::cbor::ulids")]
    pub heads: Vec<Ulid>,
    /// The object that is committed next; empty if none is.
    #[n(8)]
    pub next: String,
    /// `true` if it stands for the heads before, which are deleted then: it lists what remains.
    #[n(9)]
    pub replaces: Option<bool>,
}

impl Record for Head {
    const KIND: ObjectKind = ObjectKind::Head;
}

/// Objects that are to go, if nobody needs them once the grace has passed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Condemnation {
    /// When it was written, microseconds since 1970. What counts is when the store says it was.
    #[n(0)]
    pub time_us: i64,
    /// Their names below the line.
    #[n(1)]
    pub names: Vec<String>,
    /// How long they stay at least, in seconds of the store's clock.
    #[n(2)]
    pub grace_s: u64,
}

impl Record for Condemnation {
    const KIND: ObjectKind = ObjectKind::Gc;
}

/// What was decided of a condemnation when its grace had passed. It is decided once: creating this
/// object decides it, and whoever comes second goes by it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Decision {
    /// When it was written, microseconds since 1970.
    #[n(0)]
    pub time_us: i64,
    /// What stays after all, by names below the line. All else that was condemned is deleted.
    #[n(1)]
    pub spared: Vec<String>,
}

impl Record for Decision {
    const KIND: ObjectKind = ObjectKind::Gc;
}

/// The place of a backup that died: its late commit fails.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tombstone {
    /// When it was written, microseconds since 1970.
    #[n(0)]
    pub time_us: i64,
    /// Why.
    #[n(1)]
    pub reason: String,
}

impl Record for Tombstone {
    const KIND: ObjectKind = ObjectKind::Tombstone;
}
