//! One WAL record (`XLogRecord`, xlogrecord.h).

use seawall_core::{Lsn, Xid};

use super::block_ref::BlockRef;
use super::rmgr::Rmgr;
use crate::{Cursor, PgMajor, Truncated};

/// `SizeOfXLogRecord`: bytes in the fixed header of a record.
pub const RECORD_HEADER_BYTES: usize = 24;

/// Where the CRC stands; it covers everything after the header, then the header up to here.
const CRC_OFFSET: usize = 20;

/// `XLR_SPECIAL_REL_UPDATE`: the record changes relation files beyond its block references.
const SPECIAL_REL_UPDATE: u8 = 0x01;
/// `XLR_RMGR_INFO_MASK`: the bits of `xl_info` that belong to the resource manager.
const RMGR_INFO_MASK: u8 = 0xF0;

const XLOG_SWITCH: u8 = 0x40;
const XLOG_BACKUP_END: u8 = 0x50;

const MAX_BLOCK_ID: u8 = 32;
const BLOCK_ID_DATA_SHORT: u8 = 255;
const BLOCK_ID_DATA_LONG: u8 = 254;
const BLOCK_ID_ORIGIN: u8 = 253;
const BLOCK_ID_TOPLEVEL_XID: u8 = 252;

/// The fixed header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// `xl_tot_len`: bytes of the whole record, without page headers.
    pub total_bytes: u32,
    /// `xl_xid`: the transaction, 0 if none.
    pub xid: Xid,
    /// `xl_prev`: where the record before begins.
    pub prev: Lsn,
    /// `xl_info`: all eight flag bits.
    pub info: u8,
    /// `xl_rmid`: the resource manager.
    pub rmgr: Rmgr,
    /// `xl_crc`.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads the fixed header; checks nothing.
    #[must_use]
    pub fn parse(bytes: &[u8; RECORD_HEADER_BYTES]) -> Self {
        let [l0, l1, l2, l3, x0, x1, x2, x3, rest @ ..] = *bytes;
        let [p0, p1, p2, p3, p4, p5, p6, p7, info, rmgr, _, _, c0, c1, c2, c3] = rest;
        Self {
            total_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
            xid: u32::from_le_bytes([x0, x1, x2, x3]),
            prev: Lsn(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            rmgr: Rmgr(rmgr),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// The bits of `xl_info` that the resource manager defines: operation and its flags.
    #[must_use]
    pub const fn rmgr_info(&self) -> u8 {
        self.info & RMGR_INFO_MASK
    }

    /// Whether this is a segment switch, after which the segment is padding (`XLOG_SWITCH`).
    #[must_use]
    pub fn is_wal_switch(&self) -> bool {
        is_wal_switch(self.rmgr, self.info)
    }

    /// Whether the record says that it changes relation files beyond its block references
    /// (`XLR_SPECIAL_REL_UPDATE`).
    #[must_use]
    pub const fn is_special(&self) -> bool {
        self.info & SPECIAL_REL_UPDATE != 0
    }
}

/// Whether a record of that resource manager and info is a segment switch.
pub(super) fn is_wal_switch(rmgr: Rmgr, info: u8) -> bool {
    rmgr == Rmgr::XLOG && info & RMGR_INFO_MASK == XLOG_SWITCH
}

/// A whole record whose CRC is right, decoded. Borrows from the reader and its input.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The major that wrote it.
    pub major: PgMajor,
    /// Where it begins.
    pub lsn: Lsn,
    /// The position just after its last byte, not aligned. `pg_waldump` and `pg_lsn` values of
    /// PostgreSQL show [`Lsn::align_up`] of it.
    pub end: Lsn,
    /// The fixed header.
    pub header: RecordHeader,
    /// The pages it names, in order.
    pub blocks: &'a [BlockRef],
    /// The replication origin, if one was set.
    pub origin: Option<u16>,
    /// The top transaction, logged once per subtransaction under `wal_level = logical` (14+).
    pub toplevel_xid: Option<Xid>,
    /// The resource manager's own data.
    pub main_data: &'a [u8],
    /// All bytes of the record, without page headers.
    pub bytes: &'a [u8],
}

impl Record<'_> {
    /// Bytes of page images in the record.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        let images = self.blocks.iter().filter_map(|block| block.image);
        images.map(|image| u64::from(image.stored_bytes)).sum()
    }

    /// The start LSN of the backup that ends with this record (`XLOG_BACKUP_END`); `None` if it is
    /// another record.
    #[must_use]
    pub fn ended_backup(&self) -> Option<Lsn> {
        if self.header.rmgr != Rmgr::XLOG || self.header.rmgr_info() != XLOG_BACKUP_END {
            return None;
        }
        <[u8; 8]>::try_from(self.main_data).ok().map(|bytes| Lsn(u64::from_le_bytes(bytes)))
    }
}

/// Why bytes whose CRC is right are not a record this version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A header reaches past the end of the record.
    #[error("the record's headers are {0}")]
    Truncated(#[from] Truncated),
    /// The lengths in the headers do not add up to the record's.
    #[error("the record's lengths do not add up")]
    Length,
    /// Block references are not in rising order.
    #[error("block references are out of order")]
    BlockOrder,
    /// A fork number that does not exist.
    #[error("a block reference names an unknown fork")]
    Fork,
    /// A block reference's data flag and length contradict each other.
    #[error("a block reference's data flag contradicts its length")]
    BlockData,
    /// A block reference repeats the relation of one before, and there is none.
    #[error("a block reference repeats a relation that is not there")]
    NoRelationToRepeat,
    /// Page image flags that the major does not define.
    #[error("a page image has unknown flags")]
    ImageInfo,
    /// A page image's hole and length contradict each other.
    #[error("a page image's hole contradicts its length")]
    ImageLength,
    /// A header kind that the major does not define.
    #[error("unknown header {id} in the record")]
    HeaderKind {
        /// The kind.
        id: u8,
    },
}

/// What the headers after the fixed one say, apart from block references.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RecordExtras {
    pub(super) origin: Option<u16>,
    pub(super) toplevel_xid: Option<Xid>,
    pub(super) main_data_bytes: usize,
}

/// Whether the CRC-32C of a whole record is right.
#[must_use]
pub(super) fn crc_matches(bytes: &[u8], header: &RecordHeader) -> bool {
    let (Some(fixed), Some(rest)) = (bytes.get(..CRC_OFFSET), bytes.get(RECORD_HEADER_BYTES..))
    else {
        return false;
    };
    crc32c::crc32c_append(crc32c::crc32c(rest), fixed) == header.crc
}

/// Decodes the headers after the fixed one (`DecodeXLogRecord`, xlogreader.c) into `blocks`.
pub(super) fn decode_headers(
    bytes: &[u8],
    major: PgMajor,
    blocks: &mut Vec<BlockRef>,
) -> Result<RecordExtras, RecordFault> {
    blocks.clear();
    let mut extras = RecordExtras::default();
    let mut cursor = Cursor::new(bytes);
    cursor.take(RECORD_HEADER_BYTES)?;
    let mut payload_bytes = 0u64;
    while cursor.rest().len() as u64 > payload_bytes {
        match cursor.u8()? {
            id @ 0..=MAX_BLOCK_ID => {
                let block = BlockRef::read(&mut cursor, id, blocks.last(), major)?;
                payload_bytes += block.payload_bytes();
                blocks.push(block);
            }
            BLOCK_ID_ORIGIN => extras.origin = Some(cursor.u16()?),
            BLOCK_ID_TOPLEVEL_XID if major >= PgMajor::V14 => {
                extras.toplevel_xid = Some(cursor.u32()?);
            }
            id @ (BLOCK_ID_DATA_SHORT | BLOCK_ID_DATA_LONG) => {
                // Main data is the last header by definition; its bytes close the record.
                let short = id == BLOCK_ID_DATA_SHORT;
                let length = if short { u32::from(cursor.u8()?) } else { cursor.u32()? };
                extras.main_data_bytes = length as usize;
                payload_bytes += u64::from(length);
                break;
            }
            id => return Err(RecordFault::HeaderKind { id }),
        }
    }
    if cursor.rest().len() as u64 == payload_bytes { Ok(extras) } else { Err(RecordFault::Length) }
}

/// Puts a checked record together.
pub(super) fn assemble<'a>(
    (lsn, end): (Lsn, Lsn),
    major: PgMajor,
    header: RecordHeader,
    extras: RecordExtras,
    bytes: &'a [u8],
    blocks: &'a [BlockRef],
) -> Record<'a> {
    let main_data_at = bytes.len().saturating_sub(extras.main_data_bytes);
    Record {
        major,
        lsn,
        end,
        header,
        blocks,
        origin: extras.origin,
        toplevel_xid: extras.toplevel_xid,
        main_data: bytes.get(main_data_at..).unwrap_or_default(),
        bytes,
    }
}
