//! Golden WAL of every major, and a writer of artificial WAL.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod waldump;

use std::fs;
use std::path::{Path, PathBuf};

use seawall_core::{Lsn, SystemId, TimelineId, WalFileName, WalSegment, WalSegmentSize};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::page::{WAL_PAGE_BYTES, header_bytes};
use seawall_pgdata::wal::{Operation, ReaderStart, Record, WalReader};

pub const SEGMENT_SIZE: WalSegmentSize = match WalSegmentSize::new(1 << 20) {
    Ok(size) => size,
    Err(_) => panic!("1 MiB is a segment size"),
};

/// The golden WAL of one major: see `golden/wal/make.sh`.
pub struct Golden {
    pub major: PgMajor,
    directory: PathBuf,
    pub segments: Vec<(WalSegment, Vec<u8>)>,
}

impl Golden {
    pub fn of(major: PgMajor) -> Self {
        let directory =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/wal/{major}"));
        let mut segments = Vec::new();
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if let Some(WalFileName::Segment(segment)) = WalFileName::parse(name, SEGMENT_SIZE) {
                segments.push((segment, decompress(&path)));
            }
        }
        segments.sort_by_key(|(segment, _)| (segment.timeline, segment.number));
        Self { major, directory, segments }
    }

    /// The bytes of the first timeline's segments, which are adjacent.
    pub fn first_timeline(&self) -> (Lsn, Vec<u8>) {
        let first = &self.segments[0].0;
        let of_first = self.segments.iter().filter(|(s, _)| s.timeline == first.timeline);
        (first.start(), of_first.flat_map(|(_, bytes)| bytes.iter().copied()).collect())
    }

    /// A text file beside the segments.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap()
    }

    pub fn compressed_text(&self, name: &str) -> String {
        String::from_utf8(decompress(&self.directory.join(name))).unwrap()
    }
}

fn decompress(path: &Path) -> Vec<u8> {
    zstd::stream::decode_all(fs::File::open(path).unwrap()).unwrap()
}

pub fn start_at(timeline: u32, lsn: Lsn) -> ReaderStart {
    ReaderStart::at(TimelineId(timeline), lsn, SEGMENT_SIZE)
}

/// Everything a record says, comparable and printable.
pub fn describe(record: &Record<'_>) -> String {
    format!(
        "{} {} {:?} {:?} {:?} {:?} {:?}",
        record.lsn,
        record.end,
        record.header,
        record.blocks,
        record.origin,
        record.toplevel_xid,
        Operation::of(record),
    )
}

/// Feeds pieces and describes every record.
pub fn read_all<'a>(
    reader: &mut WalReader,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<String> {
    let mut records = Vec::new();
    for mut piece in pieces {
        while let Some(record) = reader.next(&mut piece) {
            records.push(describe(&record));
        }
        assert!(piece.is_empty(), "all input is used");
    }
    records
}

/// Writes WAL as a server would, records of any content.
pub struct WalWriter {
    pub major: PgMajor,
    pub timeline: TimelineId,
    pub start: Lsn,
    pub bytes: Vec<u8>,
    pub prev: Lsn,
    overwrite_next_page: bool,
}

impl WalWriter {
    /// Begins at a segment's start.
    pub fn new(major: PgMajor, segment: u64) -> Self {
        Self {
            major,
            timeline: TimelineId(1),
            start: Lsn(segment * SEGMENT_SIZE.bytes()),
            bytes: Vec::new(),
            prev: Lsn(segment * SEGMENT_SIZE.bytes() - 64),
            overwrite_next_page: false,
        }
    }

    pub fn position(&self) -> Lsn {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// Appends a record with nothing but main data; returns where it begins.
    pub fn append(&mut self, rmgr: u8, info: u8, xid: u32, main_data: &[u8]) -> Lsn {
        let mut body = Vec::new();
        match u8::try_from(main_data.len()) {
            Ok(0) => {}
            Ok(length) => body.extend([255, length]),
            Err(_) => {
                body.push(254);
                body.extend(u32::try_from(main_data.len()).unwrap().to_le_bytes());
            }
        }
        body.extend(main_data);
        self.append_body(rmgr, info, xid, &body)
    }

    /// Appends a record of headers and data as given.
    pub fn append_body(&mut self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> Lsn {
        let record = self.record(rmgr, info, xid, body);
        let lsn = self.begin_record();
        self.put(&record, record.len());
        self.prev = lsn;
        lsn
    }

    /// Appends the first `count` bytes of a record, as a server does that crashes then, and goes
    /// on with the next page as it does after its restart. Returns where the record begins.
    pub fn append_torn(&mut self, main_data: &[u8], count: usize) -> Lsn {
        let mut body = vec![254];
        body.extend(u32::try_from(main_data.len()).unwrap().to_le_bytes());
        body.extend(main_data);
        let record = self.record(21, 0, 0, &body);
        let lsn = self.begin_record();
        self.put(&record, count);
        assert!(self.position().0.is_multiple_of(WAL_PAGE_BYTES), "torn at {}", self.position());
        self.overwrite_next_page = true;
        lsn
    }

    /// Bytes of records that fit on the page from here on.
    pub fn left_on_page(&self) -> usize {
        usize::try_from(WAL_PAGE_BYTES - self.position().align_up().0 % WAL_PAGE_BYTES).unwrap()
    }

    /// Appends a segment switch and the padding after it.
    pub fn switch(&mut self) -> Lsn {
        let lsn = self.append(0, 0x40, 0, &[]);
        let size = usize::try_from(SEGMENT_SIZE.bytes()).unwrap();
        self.bytes.resize(self.bytes.len().next_multiple_of(size), 0);
        lsn
    }

    fn record(&self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> Vec<u8> {
        let total = u32::try_from(24 + body.len()).unwrap();
        let mut record = Vec::new();
        record.extend(total.to_le_bytes());
        record.extend(xid.to_le_bytes());
        record.extend(self.prev.0.to_le_bytes());
        record.extend([info, rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        record
    }

    /// Aligns, and enters a page if the position is at its start.
    fn begin_record(&mut self) -> Lsn {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        if self.position().0.is_multiple_of(WAL_PAGE_BYTES) {
            self.page_header(None);
        }
        self.position()
    }

    /// Writes the first `count` bytes of a record, with page headers that announce all of it.
    fn put(&mut self, record: &[u8], count: usize) {
        let mut written = 0;
        while written < count {
            if self.position().0.is_multiple_of(WAL_PAGE_BYTES) {
                self.page_header(Some(u32::try_from(record.len() - written).unwrap()));
            }
            let left =
                usize::try_from(WAL_PAGE_BYTES - self.position().0 % WAL_PAGE_BYTES).unwrap();
            let now = left.min(count - written);
            self.bytes.extend(&record[written..written + now]);
            written += now;
        }
    }

    fn page_header(&mut self, remaining: Option<u32>) {
        let lsn = self.position();
        let long = lsn.0.is_multiple_of(SEGMENT_SIZE.bytes());
        let overwrites = std::mem::take(&mut self.overwrite_next_page);
        let info = u16::from(remaining.is_some())
            | if long { 2 } else { 0 }
            | 4
            | if overwrites { 8 } else { 0 };
        self.bytes.extend(self.major.wal_page_magic().to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(self.timeline.0.to_le_bytes());
        self.bytes.extend(lsn.0.to_le_bytes());
        self.bytes.extend(remaining.unwrap_or(0).to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(SYSTEM_ID.0.to_le_bytes());
            self.bytes.extend(u32::from(SEGMENT_SIZE).to_le_bytes());
            self.bytes.extend(8192u32.to_le_bytes());
        }
        assert_eq!(self.position().0, lsn.0 + header_bytes(lsn, SEGMENT_SIZE));
    }
}

pub const SYSTEM_ID: SystemId = SystemId(7_000_000_000_000_000_001);
