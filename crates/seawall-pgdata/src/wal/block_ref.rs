//! The pages a WAL record names (`XLogRecordBlockHeader`, xlogrecord.h).

use std::fmt;

use seawall_core::{BlockNumber, Oid};

use super::record::RecordFault;
use crate::relation_path::Fork;
use crate::{Cursor, PgMajor, Truncated};

/// `BLCKSZ`: bytes in a page of a relation.
const PAGE_IMAGE_BYTES: u16 = 8192;

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_REL: u8 = 0x80;

const IMAGE_HAS_HOLE: u8 = 0x01;

/// What tells a relation's files from all others: tablespace, database and file number
/// (`RelFileLocator`, relfilelocator.h; `RelFileNode` before 16).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFileLocator {
    /// `spcOid`.
    pub tablespace: Oid,
    /// `dbOid`; 0 for what all databases share.
    pub database: Oid,
    /// `relNumber`, the name of the file.
    pub relation: Oid,
}

impl RelFileLocator {
    /// The three numbers as records carry them.
    pub(super) fn from_bytes(bytes: [u8; 12]) -> Self {
        let [s0, s1, s2, s3, d0, d1, d2, d3, r0, r1, r2, r3] = bytes;
        Self {
            tablespace: u32::from_le_bytes([s0, s1, s2, s3]),
            database: u32::from_le_bytes([d0, d1, d2, d3]),
            relation: u32::from_le_bytes([r0, r1, r2, r3]),
        }
    }

    /// Reads the three numbers.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Truncated> {
        cursor.array().map(Self::from_bytes)
    }
}

impl fmt::Display for RelFileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

impl fmt::Debug for RelFileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The fork of PostgreSQL's number (`ForkNumber`, relpath.h).
pub(super) const fn fork_from_number(number: u32) -> Option<Fork> {
    match number {
        0 => Some(Fork::Main),
        1 => Some(Fork::Fsm),
        2 => Some(Fork::Vm),
        3 => Some(Fork::Init),
        _ => None,
    }
}

/// A page that a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    /// The reference's number within the record, 0 to 32.
    pub id: u8,
    /// Whose page it is.
    pub locator: RelFileLocator,
    /// The fork it is in.
    pub fork: Fork,
    /// Its number within the fork.
    pub block: BlockNumber,
    /// The whole page that the record carries, if it does.
    pub image: Option<BlockImage>,
    /// Replay starts from an empty page (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// Bytes of data that belong to this page.
    pub data_bytes: u16,
}

/// A page image in a record (`XLogRecordBlockImageHeader`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockImage {
    /// Bytes in the record: the page without its hole, compressed or not.
    pub stored_bytes: u16,
    /// Where the page's empty middle begins.
    pub hole_offset: u16,
    /// How long that middle is.
    pub hole_bytes: u16,
    /// Whether the image is compressed, by whatever method.
    pub compressed: bool,
    /// Replay puts the image in place; otherwise it is only for consistency checks.
    pub apply: bool,
}

impl BlockRef {
    /// Payload bytes in the record that belong to this reference.
    pub(super) fn payload_bytes(&self) -> u64 {
        u64::from(self.data_bytes) + self.image.map_or(0, |image| u64::from(image.stored_bytes))
    }

    /// Reads one reference; `id` was read already, `before` is the record's previous one.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        id: u8,
        before: Option<&Self>,
        major: PgMajor,
    ) -> Result<Self, RecordFault> {
        if before.is_some_and(|before| before.id >= id) {
            return Err(RecordFault::BlockOrder);
        }
        let flags = cursor.u8()?;
        let fork = fork_from_number(u32::from(flags & FORK_MASK)).ok_or(RecordFault::Fork)?;
        let data_bytes = cursor.u16()?;
        if (flags & HAS_DATA != 0) != (data_bytes > 0) {
            return Err(RecordFault::BlockData);
        }
        let image =
            if flags & HAS_IMAGE == 0 { None } else { Some(BlockImage::read(cursor, major)?) };
        let locator = if flags & SAME_REL == 0 {
            RelFileLocator::read(cursor)?
        } else {
            before.ok_or(RecordFault::NoRelationToRepeat)?.locator
        };
        let block = cursor.u32()?;
        Ok(Self { id, locator, fork, block, image, will_init: flags & WILL_INIT != 0, data_bytes })
    }
}

impl BlockImage {
    fn read(cursor: &mut Cursor<'_>, major: PgMajor) -> Result<Self, RecordFault> {
        let stored_bytes = cursor.u16()?;
        let hole_offset = cursor.u16()?;
        let info = cursor.u8()?;
        // The bits moved in 15, when LZ4 and Zstandard were added.
        let (apply_bit, compressed_bits) =
            if major >= PgMajor::V15 { (0x02, 0x1C) } else { (0x04, 0x02) };
        if info & !(IMAGE_HAS_HOLE | apply_bit | compressed_bits) != 0 {
            return Err(RecordFault::ImageInfo);
        }
        let compressed = info & compressed_bits != 0;
        let has_hole = info & IMAGE_HAS_HOLE != 0;
        let hole_bytes = match (compressed, has_hole) {
            (true, true) => cursor.u16()?,
            (true, false) => 0,
            (false, _) => {
                PAGE_IMAGE_BYTES.checked_sub(stored_bytes).ok_or(RecordFault::ImageLength)?
            }
        };
        let image = Self {
            stored_bytes,
            hole_offset,
            hole_bytes,
            compressed,
            apply: info & apply_bit != 0,
        };
        if image.is_consistent(has_hole) { Ok(image) } else { Err(RecordFault::ImageLength) }
    }

    /// The cross-checks of `DecodeXLogRecord` (xlogreader.c).
    const fn is_consistent(&self, has_hole: bool) -> bool {
        let hole_fits = if has_hole {
            self.hole_offset != 0 && self.hole_bytes != 0
        } else {
            self.hole_offset == 0 && self.hole_bytes == 0
        };
        let whole = self.stored_bytes == PAGE_IMAGE_BYTES;
        hole_fits
            && (!whole || !(has_hole || self.compressed))
            && self.stored_bytes <= PAGE_IMAGE_BYTES
    }
}
