//! Resource managers and the operations each has, by major (rmgrlist.h and the `*_xlog.h` and
//! `*desc.c` of 12 to 18).

use std::fmt;

use crate::PgMajor;

/// A resource manager's number (`xl_rmid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rmgr(pub u8);

/// The built-in resource managers' names, by number; the same from 12 to 18.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

impl Rmgr {
    /// Checkpoints, segment switches, restore points, whole pages.
    pub const XLOG: Self = Self(0);
    /// Ends of transactions.
    pub const XACT: Self = Self(1);
    /// Creation and truncation of relation files.
    pub const SMGR: Self = Self(2);
    /// The transaction status log.
    pub const CLOG: Self = Self(3);
    /// Creation and removal of databases.
    pub const DBASE: Self = Self(4);
    /// Creation and removal of tablespaces.
    pub const TBLSPC: Self = Self(5);
    /// Multixacts.
    pub const MULTIXACT: Self = Self(6);
    /// The map of catalogs that have no file number of their own.
    pub const RELMAP: Self = Self(7);
    /// What a standby needs to know of running transactions.
    pub const STANDBY: Self = Self(8);
    /// More heap operations.
    pub const HEAP2: Self = Self(9);
    /// Heap operations.
    pub const HEAP: Self = Self(10);
    /// B-tree indexes.
    pub const BTREE: Self = Self(11);
    /// Hash indexes.
    pub const HASH: Self = Self(12);
    /// GIN indexes.
    pub const GIN: Self = Self(13);
    /// GiST indexes.
    pub const GIST: Self = Self(14);
    /// Sequences.
    pub const SEQ: Self = Self(15);
    /// SP-GiST indexes.
    pub const SPGIST: Self = Self(16);
    /// BRIN indexes.
    pub const BRIN: Self = Self(17);
    /// Commit timestamps.
    pub const COMMIT_TS: Self = Self(18);
    /// Replication origins.
    pub const REPLORIGIN: Self = Self(19);
    /// Extensions' pages.
    pub const GENERIC: Self = Self(20);
    /// Logical decoding messages.
    pub const LOGICALMSG: Self = Self(21);

    /// Whether an extension registered it: 128 and above, from 15.
    #[must_use]
    pub fn is_custom(self, major: PgMajor) -> bool {
        self.0 >= 128 && major >= PgMajor::V15
    }

    /// The built-in name, as `pg_waldump` shows it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }
}

impl fmt::Display for Rmgr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "custom{:03}", self.0),
        }
    }
}

/// The name of an operation, as `pg_waldump` shows it; `None` if the major has no such operation.
///
/// `info` is `xl_info`; its low four bits and the operation's own flag bits do not matter.
#[must_use]
pub fn operation_name(rmgr: Rmgr, info: u8, major: PgMajor) -> Option<&'static str> {
    let operation = info & operation_mask(rmgr);
    match rmgr {
        Rmgr::XLOG => xlog(operation, major),
        Rmgr::XACT => xact(operation, major),
        Rmgr::DBASE => dbase(operation, major),
        Rmgr::HEAP2 => heap2(operation, major),
        Rmgr::HEAP => heap(operation),
        Rmgr::BTREE => btree(operation, major),
        Rmgr::HASH => hash(operation),
        Rmgr::GIN => gin(operation),
        Rmgr::GIST => gist(operation, major),
        Rmgr::SPGIST => spgist(operation),
        Rmgr::BRIN => brin(operation),
        other => small(other, operation, major),
    }
}

/// Whether everything such a record does to relation files is understood: its block references
/// when it is an ordinary operation of a built-in resource manager, and what `WalFacts` decodes
/// when it is special (`XLR_SPECIAL_REL_UPDATE`).
///
/// Records of extensions name their pages, so that the ordinary ones are known too; a special one
/// of an extension never is.
#[must_use]
pub fn is_known(rmgr: Rmgr, info: u8, is_special: bool, major: PgMajor) -> bool {
    if rmgr.is_custom(major) {
        return !is_special;
    }
    let decoded_when_special = matches!(rmgr, Rmgr::XACT | Rmgr::SMGR | Rmgr::DBASE);
    operation_name(rmgr, info, major).is_some() && (!is_special || decoded_when_special)
}

/// The bits of `xl_info` that tell the operation; the rest of the high four are flags.
const fn operation_mask(rmgr: Rmgr) -> u8 {
    match rmgr {
        Rmgr::XACT | Rmgr::HEAP | Rmgr::HEAP2 | Rmgr::BRIN => 0x70,
        _ => 0xF0,
    }
}

fn xlog(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "CHECKPOINT_SHUTDOWN",
        0x10 => "CHECKPOINT_ONLINE",
        0x20 => "NOOP",
        0x30 => "NEXTOID",
        0x40 => "SWITCH",
        0x50 => "BACKUP_END",
        0x60 => "PARAMETER_CHANGE",
        0x70 => "RESTORE_POINT",
        0x80 => "FPW_CHANGE",
        0x90 => "END_OF_RECOVERY",
        0xA0 => "FPI_FOR_HINT",
        0xB0 => "FPI",
        0xD0 => "OVERWRITE_CONTRECORD",
        0xE0 if major >= PgMajor::V17 => "CHECKPOINT_REDO",
        _ => return None,
    })
}

fn xact(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "COMMIT",
        0x10 => "PREPARE",
        0x20 => "ABORT",
        0x30 => "COMMIT_PREPARED",
        0x40 => "ABORT_PREPARED",
        0x50 => "ASSIGNMENT",
        0x60 if major >= PgMajor::V14 => "INVALIDATION",
        _ => return None,
    })
}

fn dbase(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match (operation, major >= PgMajor::V15) {
        (0x00, false) => "CREATE",
        (0x10, false) | (0x20, true) => "DROP",
        (0x00, true) => "CREATE_FILE_COPY",
        (0x10, true) => "CREATE_WAL_LOG",
        _ => return None,
    })
}

fn heap2(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "REWRITE",
        0x10 | 0x20 | 0x30 if major >= PgMajor::V17 => match operation {
            0x10 => "PRUNE_ON_ACCESS",
            0x20 => "PRUNE_VACUUM_SCAN",
            _ => "PRUNE_VACUUM_CLEANUP",
        },
        0x10 if major >= PgMajor::V14 => "PRUNE",
        0x20 if major >= PgMajor::V14 => "VACUUM",
        0x30 if major >= PgMajor::V14 => "FREEZE_PAGE",
        0x10 => "CLEAN",
        0x20 => "FREEZE_PAGE",
        0x30 => "CLEANUP_INFO",
        0x40 => "VISIBLE",
        0x50 => "MULTI_INSERT",
        0x60 => "LOCK_UPDATED",
        0x70 => "NEW_CID",
        _ => return None,
    })
}

fn heap(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "INSERT",
        0x10 => "DELETE",
        0x20 => "UPDATE",
        0x30 => "TRUNCATE",
        0x40 => "HOT_UPDATE",
        0x50 => "HEAP_CONFIRM",
        0x60 => "LOCK",
        0x70 => "INPLACE",
        _ => return None,
    })
}

fn btree(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "INSERT_LEAF",
        0x10 => "INSERT_UPPER",
        0x20 => "INSERT_META",
        0x30 => "SPLIT_L",
        0x40 => "SPLIT_R",
        0x50 if major >= PgMajor::V13 => "INSERT_POST",
        0x60 if major >= PgMajor::V13 => "DEDUP",
        0x70 => "DELETE",
        0x80 => "UNLINK_PAGE",
        0x90 => "UNLINK_PAGE_META",
        0xA0 => "NEWROOT",
        0xB0 => "MARK_PAGE_HALFDEAD",
        0xC0 => "VACUUM",
        0xD0 => "REUSE_PAGE",
        0xE0 => "META_CLEANUP",
        _ => return None,
    })
}

fn hash(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "INIT_META_PAGE",
        0x10 => "INIT_BITMAP_PAGE",
        0x20 => "INSERT",
        0x30 => "ADD_OVFL_PAGE",
        0x40 => "SPLIT_ALLOCATE_PAGE",
        0x50 => "SPLIT_PAGE",
        0x60 => "SPLIT_COMPLETE",
        0x70 => "MOVE_PAGE_CONTENTS",
        0x80 => "SQUEEZE_PAGE",
        0x90 => "DELETE",
        0xA0 => "SPLIT_CLEANUP",
        0xB0 => "UPDATE_META_PAGE",
        0xC0 => "VACUUM_ONE_PAGE",
        _ => return None,
    })
}

fn gin(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x10 => "CREATE_PTREE",
        0x20 => "INSERT",
        0x30 => "SPLIT",
        0x40 => "VACUUM_PAGE",
        0x50 => "DELETE_PAGE",
        0x60 => "UPDATE_META_PAGE",
        0x70 => "INSERT_LISTPAGE",
        0x80 => "DELETE_LISTPAGE",
        0x90 => "VACUUM_DATA_LEAF_PAGE",
        _ => return None,
    })
}

fn gist(operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match operation {
        0x00 => "PAGE_UPDATE",
        0x10 => "DELETE",
        0x20 => "PAGE_REUSE",
        0x30 => "PAGE_SPLIT",
        0x60 => "PAGE_DELETE",
        0x70 if major >= PgMajor::V13 => "ASSIGN_LSN",
        _ => return None,
    })
}

fn spgist(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x10 => "ADD_LEAF",
        0x20 => "MOVE_LEAFS",
        0x30 => "ADD_NODE",
        0x40 => "SPLIT_TUPLE",
        0x50 => "PICKSPLIT",
        0x60 => "VACUUM_LEAF",
        0x70 => "VACUUM_ROOT",
        0x80 => "VACUUM_REDIRECT",
        _ => return None,
    })
}

fn brin(operation: u8) -> Option<&'static str> {
    Some(match operation {
        0x00 => "CREATE_INDEX",
        0x10 => "INSERT",
        0x20 => "UPDATE",
        0x30 => "SAMEPAGE_UPDATE",
        0x40 => "REVMAP_EXTEND",
        0x50 => "DESUMMARIZE",
        _ => return None,
    })
}

/// The resource managers with few operations.
fn small(rmgr: Rmgr, operation: u8, major: PgMajor) -> Option<&'static str> {
    Some(match (rmgr, operation) {
        (Rmgr::SMGR, 0x10) => "CREATE",
        (Rmgr::SMGR, 0x20) => "TRUNCATE",
        (Rmgr::CLOG | Rmgr::COMMIT_TS, 0x00) => "ZEROPAGE",
        (Rmgr::CLOG | Rmgr::COMMIT_TS, 0x10) => "TRUNCATE",
        (Rmgr::COMMIT_TS, 0x20) if major < PgMajor::V14 => "SETTS",
        (Rmgr::TBLSPC, 0x00) => "CREATE",
        (Rmgr::TBLSPC, 0x10) => "DROP",
        (Rmgr::MULTIXACT, 0x00) => "ZERO_OFF_PAGE",
        (Rmgr::MULTIXACT, 0x10) => "ZERO_MEM_PAGE",
        (Rmgr::MULTIXACT, 0x20) => "CREATE_ID",
        (Rmgr::MULTIXACT, 0x30) => "TRUNCATE_ID",
        (Rmgr::RELMAP, 0x00) => "UPDATE",
        (Rmgr::STANDBY, 0x00) => "LOCK",
        (Rmgr::STANDBY, 0x10) => "RUNNING_XACTS",
        (Rmgr::STANDBY, 0x20) => "INVALIDATIONS",
        (Rmgr::SEQ, 0x00) => "LOG",
        (Rmgr::REPLORIGIN, 0x00) => "SET",
        (Rmgr::REPLORIGIN, 0x10) => "DROP",
        (Rmgr::GENERIC, 0x00) => "Generic",
        (Rmgr::LOGICALMSG, 0x00) => "MESSAGE",
        _ => return None,
    })
}
