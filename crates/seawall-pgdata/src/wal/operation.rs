//! What a record does, as far as Seawall acts on it.

use seawall_core::Oid;

use super::record::Record;
use super::rmgr::{self, Rmgr};
use super::storage::{
    self, DatabaseCreate, DatabaseDrop, RelationCreate, RelationTruncate, TablespaceCreate,
};
use super::xact::{XactEnd, XactEndKind, XactPrepare};
use super::xlog::{
    self, Checkpoint, EndOfRecovery, OverwrittenRecord, ParameterChange, RestorePointBody, WalLevel,
};
use crate::{PgMajor, Truncated};

/// A record's own data, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// The point an online checkpoint's replay begins at (17+).
    CheckpointRedo(WalLevel),
    /// Settings changed at a start of the server.
    ParameterChange(ParameterChange),
    /// A named restore point.
    RestorePoint(RestorePointBody<'a>),
    /// The server left recovery.
    EndOfRecovery(EndOfRecovery),
    /// A record was given up after a crash.
    Overwritten(OverwrittenRecord),
    /// A transaction ended.
    XactEnd(XactEnd<'a>),
    /// A transaction was prepared.
    XactPrepare(XactPrepare<'a>),
    /// A relation fork was created.
    RelationCreate(RelationCreate),
    /// A relation was cut.
    RelationTruncate(RelationTruncate),
    /// A database was created.
    DatabaseCreate(DatabaseCreate),
    /// A database was removed.
    DatabaseDrop(DatabaseDrop),
    /// A tablespace was created.
    TablespaceCreate(TablespaceCreate<'a>),
    /// A tablespace was removed.
    TablespaceDrop(Oid),
    /// A row was changed in place, outside any transaction.
    HeapInplace,
    /// A known record of which only the block references matter.
    Other,
    /// Not an operation this major is known to have, or a special one that is not understood.
    Unknown,
}

/// A record of a known kind whose data is not what its major writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadFault {
    /// It ends too early.
    #[error("the record's data is {0}")]
    Truncated(#[from] Truncated),
    /// It goes on after what is known.
    #[error("{left} bytes of the record's data are not understood")]
    BytesLeft {
        /// How many.
        left: usize,
    },
    /// It holds a value that cannot be.
    #[error("the record's data holds an invalid value")]
    Value,
}

impl<'a> Operation<'a> {
    /// Decodes what a record does.
    ///
    /// # Errors
    /// [`PayloadFault`] if the record is of a known kind and its data is not.
    pub fn of(record: &Record<'a>) -> Result<Self, PayloadFault> {
        let header = &record.header;
        let (data, major) = (record.main_data, record.major);
        if !rmgr::is_known(header.rmgr, header.rmgr_info(), header.is_special(), major) {
            return Ok(Self::Unknown);
        }
        match header.rmgr {
            Rmgr::XLOG => Self::of_xlog(header.rmgr_info(), data, major),
            Rmgr::XACT => Self::of_xact(record),
            Rmgr::SMGR if header.rmgr_info() == 0x10 => {
                RelationCreate::read(data).map(Self::RelationCreate)
            }
            Rmgr::SMGR => RelationTruncate::read(data).map(Self::RelationTruncate),
            Rmgr::DBASE => Self::of_dbase(header.rmgr_info(), data, major),
            Rmgr::TBLSPC if header.rmgr_info() == 0x00 => {
                TablespaceCreate::read(data).map(Self::TablespaceCreate)
            }
            Rmgr::TBLSPC => storage::read_tablespace_drop(data).map(Self::TablespaceDrop),
            Rmgr::HEAP if header.rmgr_info() == 0x70 => Ok(Self::HeapInplace),
            _ => Ok(Self::Other),
        }
    }

    fn of_xlog(info: u8, data: &'a [u8], major: PgMajor) -> Result<Self, PayloadFault> {
        match info {
            0x00 | 0x10 => Checkpoint::read(data, info == 0x00, major).map(Self::Checkpoint),
            0x60 => ParameterChange::read(data).map(Self::ParameterChange),
            0x70 => RestorePointBody::read(data).map(Self::RestorePoint),
            0x90 => EndOfRecovery::read(data, major).map(Self::EndOfRecovery),
            0xD0 => OverwrittenRecord::read(data).map(Self::Overwritten),
            0xE0 => xlog::read_checkpoint_redo(data).map(Self::CheckpointRedo),
            _ => Ok(Self::Other),
        }
    }

    fn of_xact(record: &Record<'a>) -> Result<Self, PayloadFault> {
        let (info, xid) = (record.header.rmgr_info(), record.header.xid);
        let kind = match info & 0x70 {
            0x00 => XactEndKind::Commit,
            0x20 => XactEndKind::Abort,
            0x30 => XactEndKind::CommitPrepared,
            0x40 => XactEndKind::AbortPrepared,
            0x10 => {
                return XactPrepare::read(record.main_data, record.major).map(Self::XactPrepare);
            }
            _ => return Ok(Self::Other),
        };
        XactEnd::read(record.main_data, kind, info, xid, record.major).map(Self::XactEnd)
    }

    /// The numbers moved in 15, when `STRATEGY` was added.
    fn of_dbase(info: u8, data: &'a [u8], major: PgMajor) -> Result<Self, PayloadFault> {
        let drop = if major >= PgMajor::V15 { 0x20 } else { 0x10 };
        match info {
            0x00 => DatabaseCreate::read_file_copy(data).map(Self::DatabaseCreate),
            _ if info == drop => DatabaseDrop::read(data, major).map(Self::DatabaseDrop),
            _ => DatabaseCreate::read_wal_log(data).map(Self::DatabaseCreate),
        }
    }

    /// `wal_level` as the record states it.
    #[must_use]
    pub const fn wal_level(&self) -> Option<WalLevel> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.wal_level,
            Self::CheckpointRedo(wal_level) => Some(*wal_level),
            Self::ParameterChange(change) => Some(change.wal_level),
            Self::EndOfRecovery(end) => end.wal_level,
            _ => None,
        }
    }
}
