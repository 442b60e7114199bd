//! Which blocks of which relations a stretch of WAL changes.
//!
//! The rules are those of PostgreSQL's own summariser (walsummarizer.c and blkreftable.c, 17),
//! with two differences. Visibility maps are left out: records that clear their bits do not name
//! their pages, so that no map can tell what changed in them. And what is not understood breaks
//! the map instead of passing unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use seawall_core::{BlockNumber, Lsn, Oid};

use super::block_ref::RelFileLocator;
use super::block_set::BlockSet;
use super::operation::{Operation, PayloadFault};
use super::record::Record;
use super::rmgr::Rmgr;
use super::xlog::WalLevel;
use crate::relation_path::Fork;

/// The directory of one database in one tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseDirectory {
    /// The tablespace.
    pub tablespace: Oid,
    /// The database.
    pub database: Oid,
}

/// What happened to one relation fork.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelationChanges {
    /// The shortest the fork ever was: what stood at this block and above before is gone, and
    /// what stands there now is new, marked or not. `None` if it was not cut or created.
    pub limit: Option<BlockNumber>,
    /// The blocks that were changed and not cut off afterwards.
    pub blocks: BlockSet,
}

impl RelationChanges {
    /// Whether any of `blocks` may differ from before.
    #[must_use]
    pub fn touches(&self, blocks: Range<BlockNumber>) -> bool {
        !blocks.is_empty()
            && (self.limit.is_some_and(|limit| limit < blocks.end)
                || self.blocks.intersects(blocks))
    }

    /// Which of `blocks` may differ from before, counted from the first of them.
    #[must_use]
    pub fn within(&self, blocks: Range<BlockNumber>) -> BlockSet {
        let mut changed = self.blocks.within(blocks.clone());
        if let Some(limit) = self.limit.filter(|limit| *limit < blocks.end) {
            changed.insert_range(limit.saturating_sub(blocks.start)..blocks.end - blocks.start);
        }
        changed
    }

    fn truncate(&mut self, limit: BlockNumber) {
        self.blocks.truncate(limit);
        self.limit = Some(self.limit.map_or(limit, |before| before.min(limit)));
    }

    fn merge_after(&mut self, later: &Self) {
        if let Some(limit) = later.limit {
            self.truncate(limit);
        }
        self.blocks.insert_all(&later.blocks);
    }
}

/// What a map says of one relation fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationState<'a> {
    /// No block changed.
    Untouched,
    /// Some did.
    Changed(&'a RelationChanges),
    /// Its database was created or removed: nothing of before is there.
    DatabaseIsNew,
}

/// Why a map must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenReason {
    /// A record whose effect on files is not known.
    #[error("unknown record: {rmgr}, info {info:02X}")]
    UnknownRecord {
        /// Its resource manager.
        rmgr: Rmgr,
        /// Its `xl_info`.
        info: u8,
    },
    /// A record of a known kind with unexpected content.
    #[error("undecodable record: {rmgr}, info {info:02X}: {fault}")]
    Undecodable {
        /// Its resource manager.
        rmgr: Rmgr,
        /// Its `xl_info`.
        info: u8,
        /// What is wrong with it.
        fault: PayloadFault,
    },
    /// The server ran with `wal_level = minimal`, which leaves changes out of the log.
    #[error("the server ran with wal_level = minimal")]
    MinimalWal,
}

/// Where and why a map broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenMap {
    /// The record that broke it.
    pub lsn: Lsn,
    /// What is wrong with it.
    pub reason: BrokenReason,
}

/// The blocks that a stretch of WAL changes, in main and init forks.
///
/// Free space and visibility maps are not in it, nor are files that are not relations: those
/// have to be copied whole.
///
/// Records are applied in LSN order; maps of adjacent stretches are joined by
/// [`ChangedBlocks::merge_after`], and the result is equal to the map of both in one go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedBlocks {
    /// Never a relation in one of `new_databases`.
    relations: BTreeMap<(RelFileLocator, Fork), RelationChanges>,
    new_databases: BTreeSet<DatabaseDirectory>,
    broken: Option<BrokenMap>,
}

impl ChangedBlocks {
    /// The map of no WAL at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what one record changes, later than everything before.
    pub fn apply(&mut self, record: &Record<'_>) {
        self.apply_operation(record, &Operation::of(record));
    }

    /// [`ChangedBlocks::apply`] for a record that is decoded already.
    pub fn apply_operation(
        &mut self,
        record: &Record<'_>,
        operation: &Result<Operation<'_>, PayloadFault>,
    ) {
        for block in record.blocks {
            self.mark(block.locator, block.fork, block.block);
        }
        match operation {
            Ok(Operation::Other | Operation::HeapInplace) => {}
            Ok(Operation::Unknown) => {
                let (rmgr, info) = (record.header.rmgr, record.header.info);
                self.break_at(record.lsn, BrokenReason::UnknownRecord { rmgr, info });
            }
            Ok(operation) => self.apply_effect(record.lsn, operation),
            Err(fault) => {
                let (rmgr, info, fault) = (record.header.rmgr, record.header.info, *fault);
                self.break_at(record.lsn, BrokenReason::Undecodable { rmgr, info, fault });
            }
        }
    }

    /// What an operation does to files beyond its block references.
    fn apply_effect(&mut self, lsn: Lsn, operation: &Operation<'_>) {
        if operation.wal_level() == Some(WalLevel::Minimal) {
            self.break_at(lsn, BrokenReason::MinimalWal);
        }
        match operation {
            Operation::XactEnd(end) => {
                for locator in &end.dropped_relations {
                    self.truncate(*locator, Fork::Main, 0);
                    self.truncate(*locator, Fork::Init, 0);
                }
            }
            Operation::RelationCreate(create) => self.truncate(create.locator, create.fork, 0),
            Operation::RelationTruncate(cut) if cut.main_fork => {
                self.truncate(cut.locator, Fork::Main, cut.block);
            }
            Operation::DatabaseCreate(create) => {
                let (tablespace, database) = (create.tablespace, create.database);
                self.renew_database(DatabaseDirectory { tablespace, database });
            }
            Operation::DatabaseDrop(drop) => {
                let database = drop.database;
                for &tablespace in &drop.tablespaces {
                    self.renew_database(DatabaseDirectory { tablespace, database });
                }
            }
            _ => {}
        }
    }

    /// Marks one block as changed. Forks that are copied whole are passed over.
    pub fn mark(&mut self, locator: RelFileLocator, fork: Fork, block: BlockNumber) {
        if let Some(changes) = self.changes_of(locator, fork) {
            changes.blocks.insert(block);
        }
    }

    /// Notes that the fork was cut to `limit` blocks, or created (0): marks from there on go.
    pub fn truncate(&mut self, locator: RelFileLocator, fork: Fork, limit: BlockNumber) {
        if let Some(changes) = self.changes_of(locator, fork) {
            changes.truncate(limit);
        }
    }

    /// Notes that everything in a database's directory is new or gone.
    pub fn renew_database(&mut self, directory: DatabaseDirectory) {
        self.new_databases.insert(directory);
        self.relations.retain(|(locator, _), _| directory_of(*locator) != directory);
    }

    /// Notes that the map must not be used; the earliest reason stays.
    pub fn break_at(&mut self, lsn: Lsn, reason: BrokenReason) {
        self.broken.get_or_insert(BrokenMap { lsn, reason });
    }

    /// Adds the whole of one fork's changes, after what is there. For rebuilding a stored map.
    pub fn add_relation(&mut self, locator: RelFileLocator, fork: Fork, changes: &RelationChanges) {
        if let Some(known) = self.changes_of(locator, fork) {
            known.merge_after(changes);
        }
    }

    /// Joins the map of the WAL that follows.
    pub fn merge_after(&mut self, later: &Self) {
        for directory in &later.new_databases {
            self.renew_database(*directory);
        }
        for ((locator, fork), changes) in &later.relations {
            self.add_relation(*locator, *fork, changes);
        }
        if let Some(broken) = later.broken {
            self.break_at(broken.lsn, broken.reason);
        }
    }

    /// Where to note changes of a fork; nowhere if the fork is copied whole anyway.
    fn changes_of(&mut self, locator: RelFileLocator, fork: Fork) -> Option<&mut RelationChanges> {
        let is_mapped = matches!(fork, Fork::Main | Fork::Init);
        let in_new_database =
            !self.new_databases.is_empty() && self.new_databases.contains(&directory_of(locator));
        (is_mapped && !in_new_database).then(|| self.relations.entry((locator, fork)).or_default())
    }

    /// What happened to one relation fork. Only main and init forks are mapped.
    #[must_use]
    pub fn relation_state(&self, locator: RelFileLocator, fork: Fork) -> RelationState<'_> {
        if self.new_databases.contains(&directory_of(locator)) {
            return RelationState::DatabaseIsNew;
        }
        self.relations
            .get(&(locator, fork))
            .map_or(RelationState::Untouched, RelationState::Changed)
    }

    /// Whether any of `blocks` of a main or init fork may differ from before.
    #[must_use]
    pub fn touches(&self, locator: RelFileLocator, fork: Fork, blocks: Range<BlockNumber>) -> bool {
        match self.relation_state(locator, fork) {
            RelationState::Untouched => false,
            RelationState::Changed(changes) => changes.touches(blocks),
            RelationState::DatabaseIsNew => !blocks.is_empty(),
        }
    }

    /// Where and why the map broke. A broken map must not be used to leave blocks out.
    #[must_use]
    pub const fn broken(&self) -> Option<BrokenMap> {
        self.broken
    }

    /// Every changed fork, sorted by tablespace, database, relation and fork.
    pub fn relations(
        &self,
    ) -> impl ExactSizeIterator<Item = (RelFileLocator, Fork, &RelationChanges)> + '_ {
        self.relations.iter().map(|((locator, fork), changes)| (*locator, *fork, changes))
    }

    /// Every database directory that is new or gone, sorted.
    pub fn new_databases(&self) -> impl ExactSizeIterator<Item = DatabaseDirectory> + '_ {
        self.new_databases.iter().copied()
    }

    /// Whether nothing changed that the map covers, and it is whole.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.new_databases.is_empty() && self.broken.is_none()
    }
}

const fn directory_of(locator: RelFileLocator) -> DatabaseDirectory {
    DatabaseDirectory { tablespace: locator.tablespace, database: locator.database }
}
