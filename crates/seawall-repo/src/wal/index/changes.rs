//! The map of changed blocks.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use seawall_core::{BlockNumber, Lsn};
use seawall_pgdata::Truncated;
use seawall_pgdata::relation_path::Fork;
use seawall_pgdata::wal::{
    BlockSet, BrokenReason, ChangedBlocks, DatabaseDirectory, PayloadFault, RelFileLocator,
    RelationChanges, Rmgr,
};

use super::wrong;
use crate::{Damage, varint};

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct ChangesBody {
    #[n(0)]
    relations: ByteVec,
    #[n(1)]
    new_databases: Vec<(u32, u32)>,
    #[n(2)]
    broken: Option<BrokenRow>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct BrokenRow {
    #[cbor(n(0), with = "crate::cbor::lsn")]
    lsn: Lsn,
    /// 0 unknown record, 1 minimal WAL, 2 to 4 undecodable: truncated, bytes left, wrong value.
    #[n(1)]
    kind: u8,
    #[n(2)]
    rmgr: u8,
    #[n(3)]
    info: u8,
    /// Truncated: offset and bytes needed. Bytes left: how many.
    #[n(4)]
    numbers: (u64, u64),
}

impl ChangesBody {
    pub(super) fn of(changes: &ChangedBlocks) -> Self {
        let mut relations = Vec::new();
        for (locator, fork, relation) in changes.relations() {
            put_relation(&mut relations, locator, fork, relation);
        }
        Self {
            relations: relations.into(),
            new_databases: changes
                .new_databases()
                .map(|directory| (directory.tablespace, directory.database))
                .collect(),
            broken: changes.broken().map(|broken| BrokenRow::of(broken.lsn, broken.reason)),
        }
    }

    pub(super) fn map(&self) -> Result<ChangedBlocks, Damage> {
        let mut changes = ChangedBlocks::new();
        if !self.new_databases.is_sorted_by(|a, b| a < b) {
            return Err(wrong("order of databases"));
        }
        for (tablespace, database) in &self.new_databases {
            let (tablespace, database) = (*tablespace, *database);
            changes.renew_database(DatabaseDirectory { tablespace, database });
        }
        let mut rest: &[u8] = &self.relations;
        let mut before = None;
        while !rest.is_empty() {
            let (locator, fork, relation) =
                take_relation(&mut rest).ok_or_else(|| wrong("relation"))?;
            if before.is_some_and(|before| before >= (locator, fork)) {
                return Err(wrong("order of relations"));
            }
            before = Some((locator, fork));
            changes.add_relation(locator, fork, &relation);
        }
        if let Some(broken) = &self.broken {
            let reason = broken.reason().ok_or_else(|| wrong("reason"))?;
            changes.break_at(broken.lsn, reason);
        }
        Ok(changes)
    }
}

fn put_relation(out: &mut Vec<u8>, locator: RelFileLocator, fork: Fork, changes: &RelationChanges) {
    for number in [locator.tablespace, locator.database, locator.relation] {
        varint::put(out, u64::from(number));
    }
    varint::put(out, if fork == Fork::Main { 0 } else { 3 });
    varint::put(out, changes.limit.map_or(0, |limit| u64::from(limit) + 1));
    varint::put(out, changes.blocks.len());
    let mut expected = 0;
    for block in changes.blocks.iter() {
        varint::put(out, u64::from(block) - expected);
        expected = u64::from(block) + 1;
    }
}

fn take_relation(rest: &mut &[u8]) -> Option<(RelFileLocator, Fork, RelationChanges)> {
    let mut number = || u32::try_from(varint::take(rest)?).ok();
    let locator =
        RelFileLocator { tablespace: number()?, database: number()?, relation: number()? };
    let fork = match number()? {
        0 => Fork::Main,
        3 => Fork::Init,
        _ => return None,
    };
    let limit = match varint::take(rest)? {
        0 => None,
        limit => Some(BlockNumber::try_from(limit - 1).ok()?),
    };
    let count = varint::take(rest)?;
    let mut blocks = BlockSet::new();
    let mut expected = 0u64;
    for _ in 0..count {
        let block = BlockNumber::try_from(expected.checked_add(varint::take(rest)?)?).ok()?;
        blocks.insert(block);
        expected = u64::from(block) + 1;
    }
    (count > 0 || limit.is_some()).then_some((locator, fork, RelationChanges { limit, blocks }))
}

impl BrokenRow {
    fn of(lsn: Lsn, reason: BrokenReason) -> Self {
        let row = |kind, rmgr: Rmgr, info, numbers| Self { lsn, kind, rmgr: rmgr.0, info, numbers };
        match reason {
            BrokenReason::UnknownRecord { rmgr, info } => row(0, rmgr, info, (0, 0)),
            BrokenReason::MinimalWal => row(1, Rmgr::XLOG, 0, (0, 0)),
            BrokenReason::Undecodable { rmgr, info, fault } => match fault {
                PayloadFault::Truncated(Truncated { offset, need }) => {
                    row(2, rmgr, info, (offset as u64, need as u64))
                }
                PayloadFault::BytesLeft { left } => row(3, rmgr, info, (left as u64, 0)),
                PayloadFault::Value => row(4, rmgr, info, (0, 0)),
            },
        }
    }

    fn reason(&self) -> Option<BrokenReason> {
        let (rmgr, info) = (Rmgr(self.rmgr), self.info);
        let first = usize::try_from(self.numbers.0).ok()?;
        let second = usize::try_from(self.numbers.1).ok()?;
        let fault = match self.kind {
            0 => return Some(BrokenReason::UnknownRecord { rmgr, info }),
            1 => return Some(BrokenReason::MinimalWal),
            2 => PayloadFault::Truncated(Truncated { offset: first, need: second }),
            3 => PayloadFault::BytesLeft { left: first },
            4 => PayloadFault::Value,
            _ => return None,
        };
        Some(BrokenReason::Undecodable { rmgr, info, fault })
    }
}
