//! Records that create, cut and remove files: relations, databases, tablespaces
//! (storage_xlog.h, dbcommands_xlog.h, tablespace.h).

use seawall_core::{BlockNumber, Oid};

use super::block_ref::{RelFileLocator, fork_from_number};
use super::operation::PayloadFault;
use super::xlog::{finish, until_nul};
use crate::relation_path::Fork;
use crate::{Cursor, PgMajor};

/// A relation fork's file was created (`xl_smgr_create`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationCreate {
    /// The relation.
    pub locator: RelFileLocator,
    /// The fork.
    pub fork: Fork,
}

/// A relation was cut (`xl_smgr_truncate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationTruncate {
    /// The relation.
    pub locator: RelFileLocator,
    /// The first block of the main fork that is gone.
    pub block: BlockNumber,
    /// Whether the main fork was cut; the maps are cut along with it or alone.
    pub main_fork: bool,
}

/// `SMGR_TRUNCATE_HEAP`.
const TRUNCATE_HEAP: u32 = 0x0001;
/// `SMGR_TRUNCATE_ALL`.
const TRUNCATE_ALL: u32 = 0x0007;

/// A database was created (`xl_dbase_create_rec`; from 15 also
/// `xl_dbase_create_wal_log_rec`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseCreate {
    /// The new database.
    pub database: Oid,
    /// The tablespace its files are in.
    pub tablespace: Oid,
    /// The template whose files were copied: (database, tablespace). `None` if the files
    /// themselves are in the log (`STRATEGY WAL_LOG`).
    pub copied_from: Option<(Oid, Oid)>,
}

/// A database's files were removed (`xl_dbase_drop_rec`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseDrop {
    /// The database.
    pub database: Oid,
    /// The tablespaces its files were removed from.
    pub tablespaces: Vec<Oid>,
}

/// A tablespace was created (`xl_tblspc_create_rec`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TablespaceCreate<'a> {
    /// The tablespace.
    pub tablespace: Oid,
    /// Its directory, in the server's encoding.
    pub path: &'a [u8],
}

impl RelationCreate {
    pub(super) fn read(data: &[u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let locator = RelFileLocator::read(&mut cursor)?;
        let fork = fork_from_number(cursor.u32()?).ok_or(PayloadFault::Value)?;
        finish(&cursor)?;
        Ok(Self { locator, fork })
    }
}

impl RelationTruncate {
    pub(super) fn read(data: &[u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let block = cursor.u32()?;
        let locator = RelFileLocator::read(&mut cursor)?;
        let flags = cursor.u32()?;
        finish(&cursor)?;
        if flags & !TRUNCATE_ALL != 0 {
            return Err(PayloadFault::Value);
        }
        Ok(Self { locator, block, main_fork: flags & TRUNCATE_HEAP != 0 })
    }
}

impl DatabaseCreate {
    pub(super) fn read_file_copy(data: &[u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let (database, tablespace) = (cursor.u32()?, cursor.u32()?);
        let copied_from = Some((cursor.u32()?, cursor.u32()?));
        finish(&cursor)?;
        Ok(Self { database, tablespace, copied_from })
    }

    pub(super) fn read_wal_log(data: &[u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let (database, tablespace) = (cursor.u32()?, cursor.u32()?);
        finish(&cursor)?;
        Ok(Self { database, tablespace, copied_from: None })
    }
}

impl DatabaseDrop {
    /// 12 writes one record per tablespace, later majors one list.
    pub(super) fn read(data: &[u8], major: PgMajor) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let database = cursor.u32()?;
        let count = if major >= PgMajor::V13 { cursor.u32()? } else { 1 };
        let tablespaces =
            read_list(&mut cursor, count)?.into_iter().map(u32::from_le_bytes).collect();
        finish(&cursor)?;
        Ok(Self { database, tablespaces })
    }
}

impl<'a> TablespaceCreate<'a> {
    pub(super) fn read(data: &'a [u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let tablespace = cursor.u32()?;
        let path = until_nul(cursor.rest()).ok_or(PayloadFault::Value)?;
        Ok(Self { tablespace, path })
    }
}

/// Reads the oid of a dropped tablespace (`xl_tblspc_drop_rec`).
pub(super) fn read_tablespace_drop(data: &[u8]) -> Result<Oid, PayloadFault> {
    let mut cursor = Cursor::new(data);
    let tablespace = cursor.u32()?;
    finish(&cursor)?;
    Ok(tablespace)
}

/// Reads `count` items of `N` bytes; nothing is allocated before their bytes are known to be
/// there.
pub(super) fn read_list<const N: usize>(
    cursor: &mut Cursor<'_>,
    count: u32,
) -> Result<Vec<[u8; N]>, PayloadFault> {
    let bytes = (count as usize).checked_mul(N).ok_or(PayloadFault::Value)?;
    let (items, _) = cursor.take(bytes)?.as_chunks::<N>();
    Ok(items.to_vec())
}
