//! Ends of transactions (`xl_xact_commit`, `xl_xact_abort`, `xl_xact_prepare`; xact.h).

use seawall_core::{Lsn, Oid, PgTimestamp, Xid};

use super::block_ref::RelFileLocator;
use super::operation::PayloadFault;
use super::storage::read_list;
use super::xlog::{finish, until_nul};
use crate::{Cursor, PgMajor};

/// `XLOG_XACT_HAS_INFO`, in `xl_info`: the optional parts are announced by a flag word.
const HAS_INFO: u8 = 0x80;

const HAS_DBINFO: u32 = 1 << 0;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELFILELOCATORS: u32 = 1 << 2;
const HAS_INVALS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_AE_LOCKS: u32 = 1 << 6;
const HAS_GID: u32 = 1 << 7;
/// From 15.
const HAS_DROPPED_STATS: u32 = 1 << 8;
/// `XACT_COMPLETION_*`: how the server finishes; they announce no part.
const COMPLETION_FLAGS: u32 = 0b111 << 29;

/// `sizeof(SharedInvalidationMessage)`.
const INVALIDATION_BYTES: usize = 16;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum XactEndKind {
    /// `COMMIT`.
    Commit = 0,
    /// `ROLLBACK`.
    Abort = 1,
    /// `COMMIT PREPARED`.
    CommitPrepared = 2,
    /// `ROLLBACK PREPARED`.
    AbortPrepared = 3,
}

impl XactEndKind {
    /// Whether the transaction's changes stay.
    #[must_use]
    pub const fn is_commit(self) -> bool {
        matches!(self, Self::Commit | Self::CommitPrepared)
    }
}

/// The record that ends a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XactEnd<'a> {
    /// How it ended.
    pub kind: XactEndKind,
    /// The top transaction that ended; of a prepared one its own, not the record's.
    pub xid: Xid,
    /// When, by the server's clock.
    pub time: PgTimestamp,
    /// The flag word `xinfo`, 0 if there is none.
    pub xinfo: u32,
    /// The database the session was in, if the record says so.
    pub database: Option<Oid>,
    /// The subtransactions that ended with it.
    pub subxids: Vec<Xid>,
    /// The relations whose files are removed.
    pub dropped_relations: Vec<RelFileLocator>,
    /// The prepared transaction's name.
    pub gid: Option<&'a [u8]>,
    /// Where the transaction comes from when it was replicated.
    pub origin: Option<XactOrigin>,
}

/// Where a replicated transaction was committed first (`xl_xact_origin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XactOrigin {
    /// The commit's position there.
    pub lsn: Lsn,
    /// The commit's time there.
    pub time: PgTimestamp,
}

/// The record of `PREPARE TRANSACTION`: the head of the two-phase state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XactPrepare<'a> {
    /// The transaction.
    pub xid: Xid,
    /// The database it ran in.
    pub database: Oid,
    /// When it was prepared.
    pub time: PgTimestamp,
    /// Its name.
    pub gid: &'a [u8],
}

impl<'a> XactEnd<'a> {
    /// Reads the body of a commit or abort record. All of it has to be understood.
    ///
    /// `info` is `xl_info`, `record_xid` is `xl_xid`.
    ///
    /// # Errors
    /// [`PayloadFault`] if it is not one that `major` writes.
    pub fn read(
        data: &'a [u8],
        kind: XactEndKind,
        info: u8,
        record_xid: Xid,
        major: PgMajor,
    ) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let time = PgTimestamp(cursor.i64()?);
        let xinfo = if info & HAS_INFO == 0 { 0 } else { cursor.u32()? };
        if xinfo & !known_flags(kind, major) != 0 {
            return Err(PayloadFault::Value);
        }
        let has = |flag: u32| xinfo & flag != 0;
        let mut end = Self {
            kind,
            xid: record_xid,
            time,
            xinfo,
            database: None,
            subxids: Vec::new(),
            dropped_relations: Vec::new(),
            gid: None,
            origin: None,
        };
        if has(HAS_DBINFO) {
            end.database = Some(cursor.u32()?);
            cursor.take(4)?;
        }
        if has(HAS_SUBXACTS) {
            let count = cursor.u32()?;
            end.subxids =
                read_list(&mut cursor, count)?.into_iter().map(u32::from_le_bytes).collect();
        }
        if has(HAS_RELFILELOCATORS) {
            let count = cursor.u32()?;
            end.dropped_relations = read_list(&mut cursor, count)?
                .into_iter()
                .map(RelFileLocator::from_bytes)
                .collect();
        }
        if has(HAS_DROPPED_STATS) {
            skip_list(&mut cursor, dropped_stats_bytes(major))?;
        }
        if has(HAS_INVALS) {
            skip_list(&mut cursor, INVALIDATION_BYTES)?;
        }
        end.read_closing_parts(&mut cursor)?;
        finish(&cursor)?;
        Ok(end)
    }

    /// Prepared transaction, its name, and origin, in this order.
    fn read_closing_parts(&mut self, cursor: &mut Cursor<'a>) -> Result<(), PayloadFault> {
        if self.xinfo & HAS_TWOPHASE != 0 {
            self.xid = cursor.u32()?;
        }
        if self.xinfo & HAS_GID != 0 {
            let gid = until_nul(cursor.rest()).ok_or(PayloadFault::Value)?;
            cursor.take(gid.len() + 1)?;
            self.gid = Some(gid);
        }
        if self.xinfo & HAS_ORIGIN != 0 {
            let (lsn, time) = (Lsn(cursor.u64()?), PgTimestamp(cursor.i64()?));
            self.origin = Some(XactOrigin { lsn, time });
        }
        Ok(())
    }
}

impl<'a> XactPrepare<'a> {
    /// Reads the fixed head and the name; the rest is the state to restore.
    pub(super) fn read(data: &'a [u8], major: PgMajor) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        cursor.take(8)?;
        let (xid, database) = (cursor.u32()?, cursor.u32()?);
        let time = PgTimestamp(cursor.i64()?);
        // Owner and list lengths; 15 added the lengths of two lists of dropped statistics.
        cursor.take(if major >= PgMajor::V15 { 28 } else { 20 })?;
        cursor.take(2)?;
        let gid_bytes = usize::from(cursor.u16()?);
        cursor.take(16)?;
        let gid = until_nul(cursor.take(gid_bytes)?).ok_or(PayloadFault::Value)?;
        Ok(Self { xid, database, time, gid })
    }
}

fn known_flags(kind: XactEndKind, major: PgMajor) -> u32 {
    let parts = HAS_DBINFO
        | HAS_SUBXACTS
        | HAS_RELFILELOCATORS
        | HAS_TWOPHASE
        | HAS_ORIGIN
        | HAS_AE_LOCKS
        | HAS_GID
        | COMPLETION_FLAGS;
    let invalidations = if kind.is_commit() { HAS_INVALS } else { 0 };
    let dropped_stats = if major >= PgMajor::V15 { HAS_DROPPED_STATS } else { 0 };
    parts | invalidations | dropped_stats
}

/// `sizeof(xl_xact_stats_item)`: 18 made the object id 64 bits wide.
fn dropped_stats_bytes(major: PgMajor) -> usize {
    if major >= PgMajor::V18 { 16 } else { 12 }
}

fn skip_list(cursor: &mut Cursor<'_>, item_bytes: usize) -> Result<(), PayloadFault> {
    let count = cursor.u32()? as usize;
    cursor.take(count.checked_mul(item_bytes).ok_or(PayloadFault::Value)?)?;
    Ok(())
}
