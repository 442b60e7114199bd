//! A WAL archive in a temporary directory, and artificial WAL to fill it with.

#![allow(dead_code, reason = "each test file uses its own part")]

#[path = "../../../seawall-pgdata/tests/wal_support/mod.rs"]
pub mod wal;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use seawall_core::{
    BranchNumber, LineId, Lsn, Result, SystemId, TimelineId, WalFileName, WalSegment,
};
use seawall_pgdata::PgMajor;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::records::About;
use seawall_repo::wal::{SegmentKind, StretchStored, WalArchive};
use seawall_repo::{CreateOptions, Line, Repository};
use seawall_store::{OpenOptions, Store, open_or_create};
use wal::{SEGMENT_SIZE, SYSTEM_ID, WalWriter};

pub const SEGMENT_BYTES: u64 = SEGMENT_SIZE.bytes();
pub const T1: TimelineId = TimelineId(1);
pub const T2: TimelineId = TimelineId(2);
pub const END: Lsn = Lsn(u64::MAX);

/// What a cluster must be for its WAL to be [`WalWriter`]'s.
pub fn about(system_id: SystemId, major: PgMajor) -> About {
    About {
        cluster: "main".to_owned(),
        system_id,
        branch: BranchNumber(0),
        major: major.number(),
        catalog_version: major.catalog_version(),
        control_version: major.control_version(),
        block_bytes: 8192,
        relation_segment_blocks: 131_072,
        wal_segment_bytes: SEGMENT_SIZE.into(),
        wal_block_bytes: 8192,
        data_checksum_version: 1,
        created_us: 0,
    }
}

/// A repository with one line.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub archive: WalArchive,
    pub unlock: Unlock,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::of(SYSTEM_ID, PgMajor::V15).await
    }

    pub async fn of(system_id: SystemId, major: PgMajor) -> Self {
        Self::with_store(system_id, major, |store| store).await
    }

    /// The store is decorated before the archive sees it.
    pub async fn with_store(
        system_id: SystemId,
        major: PgMajor,
        decorate: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let store = decorate(open_or_create(&url, &OpenOptions::default()).await.unwrap());
        let unlock = Unlock::KeyFile(KeyFile::generate().unwrap());
        let now: Timestamp = "2026-01-02T02:00:00Z".parse().unwrap();
        let options = CreateOptions { unlock: &unlock, label: "first", now };
        let repository = Repository::create(store, &options).await.unwrap();
        let id = LineId { system_id, branch: BranchNumber(0) };
        let line = repository.line(&"main".parse().unwrap(), id).unwrap();
        line.create(&about(system_id, major)).await.unwrap();
        let archive = WalArchive::open(line).await.unwrap();
        Self { directory, archive, unlock }
    }

    /// The same archive as another process sees it, which remembers nothing.
    pub async fn reopened(&self) -> WalArchive {
        let line: Line = self.archive.line().clone();
        WalArchive::open(line).await.unwrap()
    }

    /// The same archive behind another store, as a new process sees it.
    pub async fn with_other_store(&self, store: Arc<dyn Store>) -> Result<WalArchive> {
        let repository = Repository::open(store, &self.unlock).await?;
        let line = self.archive.line();
        WalArchive::open(repository.line(line.cluster(), line.id())?).await
    }

    pub async fn push(&self, name: &str, bytes: &[u8]) -> Result<StretchStored> {
        push(&self.archive, name, bytes).await
    }

    /// Stores every segment of the writer, the last one as far as it goes.
    pub async fn push_all(&self, log: &WalWriter) {
        for (name, bytes) in named(log) {
            self.push(&name, &bytes).await.unwrap();
        }
    }

    pub async fn push_history(&self, timeline: u32, text: &str) {
        let name = WalFileName::TimelineHistory(TimelineId(timeline));
        self.archive.store_history(name, text.as_bytes()).await.unwrap();
    }

    /// The files below the line's `wal` directory.
    pub fn objects(&self) -> Vec<PathBuf> {
        files_below(&self.directory.path().join("c/main/i"))
            .into_iter()
            .filter(|path| path.components().any(|part| part.as_os_str() == "wal"))
            .collect()
    }
}

pub async fn push(archive: &WalArchive, name: &str, bytes: &[u8]) -> Result<StretchStored> {
    let (segment, kind) = match WalFileName::parse(name, SEGMENT_SIZE) {
        Some(WalFileName::Segment(segment)) => (segment, SegmentKind::Whole),
        Some(WalFileName::Partial(segment)) => (segment, SegmentKind::Partial),
        other => panic!("{other:?}"),
    };
    archive.store_segment(segment, kind, bytes).await
}

pub fn files_below(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The segments a writer filled, the last one padded with zeros.
pub fn segments(log: &WalWriter) -> Vec<(WalSegment, Vec<u8>)> {
    let first = WalSegment::containing(log.timeline, log.start, SEGMENT_SIZE);
    log.bytes
        .chunks(SEGMENT_BYTES as usize)
        .zip(first.number..)
        .map(|(chunk, number)| {
            let mut bytes = chunk.to_vec();
            bytes.resize(SEGMENT_BYTES as usize, 0);
            (WalSegment { number, ..first }, bytes)
        })
        .collect()
}

/// The segment with that number, padded.
pub fn segment(log: &WalWriter, number: u64) -> Vec<u8> {
    segments(log).into_iter().find(|(segment, _)| segment.number == number).unwrap().1
}

/// Files as the archive is given them: name and bytes. The last one is partial unless it is full.
pub fn named(log: &WalWriter) -> BTreeMap<String, Vec<u8>> {
    let name = |segment: WalSegment| match segment.end() <= log.position() {
        true => segment.to_string(),
        false => format!("{segment}.partial"),
    };
    segments(log).into_iter().map(|(segment, bytes)| (name(segment), bytes)).collect()
}

pub fn file_name(timeline: u32, number: u64) -> String {
    WalSegment { timeline: TimelineId(timeline), number, size: SEGMENT_SIZE }.to_string()
}

/// Records the tests write.
pub trait Records {
    /// A commit; returns where its record begins.
    fn commit(&mut self, xid: u32) -> Lsn;
    /// A logical message of so many bytes.
    fn message(&mut self, bytes: usize) -> Lsn;
    /// An insert into a block of relation 1663/5/`relation`.
    fn insert(&mut self, relation: u32, block: u32) -> Lsn;
    /// A named restore point.
    fn restore_point(&mut self, name: &str) -> Lsn;
    /// Messages and commits until the position is past `lsn`.
    fn fill_past(&mut self, lsn: Lsn);
}

impl Records for WalWriter {
    fn commit(&mut self, xid: u32) -> Lsn {
        self.append(1, 0, xid, &(i64::from(xid) * 1_000_000).to_le_bytes())
    }

    fn message(&mut self, bytes: usize) -> Lsn {
        let noise: Vec<u8> = (0..bytes as u64)
            .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect();
        self.append(21, 0, 0, &noise)
    }

    fn insert(&mut self, relation: u32, block: u32) -> Lsn {
        let mut body = vec![0, 0, 0, 0];
        for number in [1663, 5, relation, block] {
            body.extend(u32::to_le_bytes(number));
        }
        body.extend([255, 3, 1, 0, 0]);
        self.append_body(10, 0, 700, &body)
    }

    fn restore_point(&mut self, name: &str) -> Lsn {
        let mut data = 5_000_000i64.to_le_bytes().to_vec();
        data.extend(name.as_bytes());
        data.resize(8 + 64, 0);
        self.append(0, 0x70, 0, &data)
    }

    fn fill_past(&mut self, lsn: Lsn) {
        let mut xid = 1000;
        while self.position() <= lsn {
            self.message(3000);
            self.commit(xid);
            xid += 1;
        }
    }
}

/// A log that leaves another one where that one ends now, as timeline 2.
pub fn fork(log: &WalWriter) -> (WalWriter, Lsn) {
    let mut child = WalWriter::new(log.major, 1);
    child.start = log.start;
    child.timeline = T2;
    child.prev = log.prev;
    child.bytes = log.bytes.clone();
    child.bytes.resize(child.bytes.len().next_multiple_of(8), 0);
    let switch = child.position();
    (child, switch)
}

/// The history file of timeline 2.
pub fn history_of_2(switch: Lsn) -> String {
    format!("1\t{switch}\tno recovery target specified\n")
}

/// Overwrites what lies behind the last record, up to the segment's end, with an old segment's
/// content, as a recycled file has it.
pub fn with_recycled_tail(bytes: &mut [u8], valid: usize) {
    let mut old = WalWriter::new(PgMajor::V15, 1);
    old.fill_past(Lsn(2 * SEGMENT_BYTES));
    let end = bytes.len();
    bytes[valid..].copy_from_slice(&old.bytes[valid..end]);
}
