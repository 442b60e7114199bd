//! What fuzz targets and the maker of their seeds share.

use arbitrary::Arbitrary;
use seawall_core::{LineId, Lsn, TimelineId, Ulid, WalSegmentSize};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::ReaderStart;
use seawall_repo::envelope::{ObjectKind, ObjectSealer};
use seawall_repo::keys::{EpochKeys, Keyring, Secret};
use seawall_repo::layout::{LineObject, LinePaths, WalRangeName};
use seawall_store::ObjectPath;

/// Golden WAL is cut into segments of this size.
pub const SEGMENT_SIZE: WalSegmentSize = match WalSegmentSize::new(1 << 20) {
    Ok(size) => size,
    Err(_) => panic!("1 MiB is a segment size"),
};

/// Keys that anybody knows, and that stay the same from run to run.
pub fn keyring() -> Keyring {
    let secret = |byte| Secret::new([byte; 32]);
    let keys = EpochKeys { metadata: secret(1), hash: secret(2), data: secret(3) };
    Keyring::new([4; 16], 0, keys)
}

/// The path of an object of some line.
pub fn path(object: &LineObject) -> ObjectPath {
    let line: LineId = "7000000000000000001-0".parse().expect("a line");
    let paths = LinePaths::new(&"main".parse().expect("a name"), line).expect("paths");
    paths.path(object).expect("a path")
}

/// Where objects are that are not about WAL.
pub fn map_path() -> ObjectPath {
    path(&LineObject::Map(Ulid(7)))
}

/// Seals an object of one footer, which need not make sense.
pub fn seal_footer(kind: ObjectKind, path: &ObjectPath, footer: &[u8]) -> Vec<u8> {
    let mut object = Vec::new();
    let sealer = ObjectSealer::begin(&keyring(), kind, path, &mut object).expect("begins");
    sealer.finish(footer, &mut object).expect("ends");
    object
}

/// The name of a range of so many bytes that begins at `start`.
pub fn range_name(start: Lsn, length_bytes: usize) -> WalRangeName {
    let segment = Lsn(start.0 - start.0 % SEGMENT_SIZE.bytes());
    let end = start.saturating_add(length_bytes as u64);
    WalRangeName { timeline: TimelineId(1), segment, start, end }
}

/// Some major.
pub fn major(number: u8) -> PgMajor {
    PgMajor::ALL[usize::from(number) % PgMajor::ALL.len()]
}

/// A reader of timeline 1 from a place on.
pub fn start_at(lsn: Lsn, major: Option<PgMajor>) -> ReaderStart {
    ReaderStart { major, ..ReaderStart::at(TimelineId(1), lsn, SEGMENT_SIZE) }
}

/// A record of WAL whose CRC will be right, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseRecord {
    pub rmgr: u8,
    pub info: u8,
    pub xid: u32,
    pub body: Vec<u8>,
}

impl LooseRecord {
    /// Reads records one after the other: resource manager, info, xid, length, body.
    pub fn read_all(mut input: &[u8]) -> Vec<Self> {
        let mut records = Vec::new();
        while let Some((&[rmgr, info, a, b, c, d, low, high], rest)) = input.split_first_chunk() {
            let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
            let (body, rest) = rest.split_at(length);
            let xid = u32::from_le_bytes([a, b, c, d]);
            records.push(Self { rmgr, info, xid, body: body.to_vec() });
            input = rest;
        }
        records
    }

    /// Appends what [`LooseRecord::read_all`] reads.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend([self.rmgr, self.info]);
        out.extend(self.xid.to_le_bytes());
        let length = u16::try_from(self.body.len()).expect("a short body");
        out.extend(length.to_le_bytes());
        out.extend(&self.body);
    }
}

/// The plaintexts of a range of WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeParts {
    /// The LSN it begins at.
    pub start: u32,
    pub footer: Vec<u8>,
    pub index: Vec<u8>,
    pub body: Vec<u8>,
}

impl RangeParts {
    /// Reads the start, the lengths of footer and index, and the parts.
    pub fn read(input: &[u8]) -> Option<Self> {
        let (start, rest) = input.split_first_chunk()?;
        let (footer_bytes, rest) = rest.split_first_chunk()?;
        let (index_bytes, rest) = rest.split_first_chunk()?;
        let length = |bytes: &[u8; 2]| usize::from(u16::from_le_bytes(*bytes));
        let (footer, rest) = rest.split_at_checked(length(footer_bytes))?;
        let (index, body) = rest.split_at_checked(length(index_bytes))?;
        let start = u32::from_le_bytes(*start);
        Some(Self { start, footer: footer.to_vec(), index: index.to_vec(), body: body.to_vec() })
    }

    /// What [`RangeParts::read`] reads.
    pub fn bytes(&self) -> Vec<u8> {
        let length = |part: &[u8]| u16::try_from(part.len()).expect("a short part").to_le_bytes();
        let mut bytes = self.start.to_le_bytes().to_vec();
        bytes.extend(length(&self.footer));
        bytes.extend(length(&self.index));
        for part in [&self.footer, &self.index, &self.body] {
            bytes.extend(part);
        }
        bytes
    }
}

/// Something done to a file that someone without keys can do.
#[derive(Debug, Clone, Arbitrary)]
pub enum Damage {
    Flip { at: u16, bits: u8 },
    Cut { at: u16 },
    Remove { at: u16, count: u8 },
    Insert { at: u16, bytes: Vec<u8> },
    Repeat { at: u16, count: u8 },
}

impl Damage {
    /// Does it.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) % (bytes.len() + 1);
        match self {
            Self::Flip { at, bits } => {
                let at = place(*at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Cut { at } => bytes.truncate(place(*at)),
            Self::Remove { at, count } => {
                let at = place(*at);
                let end = (at + usize::from(*count)).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Insert { at, bytes: more } => {
                let at = place(*at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Repeat { at, count } => {
                let at = place(*at);
                let end = (at + usize::from(*count)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

/// Makes the unkeyed checksums of an object right again (format.md, 3), as whoever changes it on
/// purpose would, so that only encryption stands in the way.
pub fn repair_checksums(object: &mut [u8]) {
    if let Some(header) = object.first_chunk_mut::<64>() {
        let crc = crc32c::crc32c(&header[..60]).to_le_bytes();
        header[60..].copy_from_slice(&crc);
    }
    let length = object.len() as u64;
    if let Some(trailer) = object.last_chunk_mut::<32>() {
        trailer[..8].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&trailer[..24]).to_le_bytes();
        trailer[24..28].copy_from_slice(&crc);
    }
    let mut rest = object.get_mut(64..).unwrap_or_default();
    while let Some((prefix, body)) = rest.split_first_chunk_mut::<16>() {
        let claimed = u32::from_le_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]);
        let Some((body, after)) = body.split_at_mut_checked(claimed as usize) else { return };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&prefix[..12]), body).to_le_bytes();
        prefix[12..].copy_from_slice(&crc);
        rest = after;
    }
}
