//! What a stretch of WAL is remembered for: ends of transactions, restore points, events, and
//! the blocks it changes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use seawall_core::{BlockNumber, Lsn, Oid, PgTimestamp, TimelineId, Xid};

use super::block_ref::RelFileLocator;
use super::changes::ChangedBlocks;
use super::operation::Operation;
use super::record::Record;
use super::storage::{DatabaseCreate, DatabaseDrop};
use super::xact::{XactEnd, XactEndKind};
use super::xlog::{EndOfRecovery, ParameterChange, WalLevel};

/// The end of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRow {
    /// Where its record begins.
    pub lsn: Lsn,
    /// After its record's last byte, not aligned.
    pub end_lsn: Lsn,
    /// The top transaction.
    pub xid: Xid,
    /// When, by the server's clock; not rising with the LSN.
    pub time: PgTimestamp,
    /// How it ended.
    pub kind: XactEndKind,
    /// The database the session was in, if the record says so.
    pub database: Option<Oid>,
    /// The subtransactions that ended with it.
    pub subxids: Vec<Xid>,
    /// Whether relations' files are removed: `DROP TABLE`, `TRUNCATE`, a rewrite.
    pub drops_relations: bool,
}

/// A named restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Where its record begins.
    pub lsn: Lsn,
    /// After its record's last byte, not aligned.
    pub end_lsn: Lsn,
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// When it was made.
    pub time: PgTimestamp,
}

/// A time that is known for a position without a transaction: a checkpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeMark {
    /// The checkpoint record.
    pub lsn: Lsn,
    /// When the checkpoint began, in whole seconds.
    pub time: PgTimestamp,
}

/// A record a person may look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it begins.
    pub lsn: Lsn,
    /// After its last byte, not aligned.
    pub end_lsn: Lsn,
    /// The transaction, 0 if none.
    pub xid: Xid,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A database was created.
    DatabaseCreated(DatabaseCreate),
    /// A database's files were removed.
    DatabaseDropped(DatabaseDrop),
    /// A row of `pg_database` was changed in place. `DROP DATABASE` does so just before it
    /// removes the files: this record is the last point at which the database is whole.
    DatabaseRowChangedInPlace,
    /// A relation was cut to `block` blocks outside of a commit.
    RelationTruncated {
        /// The relation.
        locator: RelFileLocator,
        /// The first block that is gone.
        block: BlockNumber,
    },
    /// A tablespace was created.
    TablespaceCreated {
        /// The tablespace.
        tablespace: Oid,
        /// Its directory: bytes, which have no encoding. Empty for one in place.
        path: Vec<u8>,
    },
    /// A tablespace was removed.
    TablespaceDropped {
        /// The tablespace.
        tablespace: Oid,
    },
    /// The server was started with other settings.
    ParameterChange(ParameterChange),
    /// The server left recovery without a checkpoint.
    EndOfRecovery(EndOfRecovery),
    /// A checkpoint begins a new timeline.
    TimelineSwitch {
        /// The timeline from here on.
        timeline: TimelineId,
        /// The timeline it forked off from.
        previous_timeline: TimelineId,
    },
    /// A transaction was prepared.
    Prepared {
        /// The transaction.
        xid: Xid,
        /// Its name; bytes that are not UTF-8 are replaced.
        gid: String,
    },
    /// A record was given up after a crash.
    RecordOverwritten {
        /// Where the record that was given up begins.
        lsn: Lsn,
    },
}

impl EventKind {
    /// Whether from here on changes may be missing in the log: a server that ran with
    /// `wal_level = minimal` did not log what it wrote into relations of the same transaction
    /// (`RelationNeedsWAL`, rel.h), and recovery must not cross it (`CheckRequiredParameterValues`,
    /// xlogrecovery.c).
    #[must_use]
    pub fn begins_minimal_wal(&self) -> bool {
        match self {
            Self::ParameterChange(change) => change.wal_level == WalLevel::Minimal,
            Self::EndOfRecovery(end) => end.wal_level == Some(WalLevel::Minimal),
            Self::DatabaseCreated(_)
            | Self::DatabaseDropped(_)
            | Self::DatabaseRowChangedInPlace
            | Self::RelationTruncated { .. }
            | Self::TablespaceCreated { .. }
            | Self::TablespaceDropped { .. }
            | Self::TimelineSwitch { .. }
            | Self::Prepared { .. }
            | Self::RecordOverwritten { .. } => false,
        }
    }
}

/// A record that makes a tablespace, or removes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceChange {
    /// The tablespace.
    pub tablespace: Oid,
    /// Where the record begins.
    pub lsn: Lsn,
    /// The directory that it is made in, by replay the same as at first; empty for one in place.
    /// `None` if the tablespace is removed.
    pub created_in: Option<PathBuf>,
}

impl TablespaceChange {
    /// What an event says of tablespaces.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let (tablespace, created_in) = match &event.kind {
            EventKind::TablespaceCreated { tablespace, path } => {
                (*tablespace, Some(PathBuf::from(OsStr::from_bytes(path))))
            }
            EventKind::TablespaceDropped { tablespace } => (*tablespace, None),
            _ => return None,
        };
        Some(Self { tablespace, lsn: event.lsn, created_in })
    }
}

/// `pg_database`, which all databases share (`DatabaseRelationId`, pg_database.h).
const PG_DATABASE: RelFileLocator = RelFileLocator {
    tablespace: crate::relation_path::GLOBAL_TABLESPACE,
    database: 0,
    relation: 1262,
};

/// Everything a stretch of WAL is remembered for, in LSN order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalFacts {
    /// Ends of transactions.
    pub commits: Vec<CommitRow>,
    /// Restore points.
    pub restore_points: Vec<RestorePoint>,
    /// Times of checkpoints.
    pub time_marks: Vec<TimeMark>,
    /// Other records of note.
    pub events: Vec<Event>,
    /// The blocks that changed.
    pub changes: ChangedBlocks,
}

impl WalFacts {
    /// Adds what one record says, later than everything before.
    pub fn apply(&mut self, record: &Record<'_>) {
        let operation = Operation::of(record);
        self.changes.apply_operation(record, &operation);
        if let Ok(operation) = operation {
            self.note(record, operation);
        }
    }

    /// Adds what the WAL that follows says.
    pub fn append(&mut self, later: Self) {
        self.commits.extend(later.commits);
        self.restore_points.extend(later.restore_points);
        self.time_marks.extend(later.time_marks);
        self.events.extend(later.events);
        self.changes.merge_after(&later.changes);
    }

    fn note(&mut self, record: &Record<'_>, operation: Operation<'_>) {
        let kind = match operation {
            Operation::XactEnd(end) => return self.commits.push(commit_row(record, end)),
            Operation::RestorePoint(point) => {
                return self.restore_points.push(RestorePoint {
                    lsn: record.lsn,
                    end_lsn: record.end,
                    name: lossy(point.name),
                    time: point.time,
                });
            }
            Operation::Checkpoint(checkpoint) => {
                self.time_marks.push(TimeMark { lsn: record.lsn, time: checkpoint.time });
                let (timeline, previous_timeline) =
                    (checkpoint.timeline, checkpoint.previous_timeline);
                if timeline == previous_timeline {
                    return;
                }
                EventKind::TimelineSwitch { timeline, previous_timeline }
            }
            other => match event_kind(record, other) {
                Some(kind) => kind,
                None => return,
            },
        };
        let (lsn, end_lsn, xid) = (record.lsn, record.end, record.header.xid);
        self.events.push(Event { lsn, end_lsn, xid, kind });
    }
}

fn event_kind(record: &Record<'_>, operation: Operation<'_>) -> Option<EventKind> {
    Some(match operation {
        Operation::DatabaseCreate(create) => EventKind::DatabaseCreated(create),
        Operation::DatabaseDrop(drop) => EventKind::DatabaseDropped(drop),
        Operation::RelationTruncate(cut) if cut.main_fork => {
            EventKind::RelationTruncated { locator: cut.locator, block: cut.block }
        }
        Operation::TablespaceCreate(create) => EventKind::TablespaceCreated {
            tablespace: create.tablespace,
            path: create.path.to_vec(),
        },
        Operation::TablespaceDrop(tablespace) => EventKind::TablespaceDropped { tablespace },
        Operation::ParameterChange(change) => EventKind::ParameterChange(change),
        Operation::EndOfRecovery(end) => EventKind::EndOfRecovery(end),
        Operation::XactPrepare(prepare) => {
            EventKind::Prepared { xid: prepare.xid, gid: lossy(prepare.gid) }
        }
        Operation::Overwritten(overwritten) => {
            EventKind::RecordOverwritten { lsn: overwritten.lsn }
        }
        Operation::HeapInplace if changes_pg_database(record) => {
            EventKind::DatabaseRowChangedInPlace
        }
        _ => return None,
    })
}

fn changes_pg_database(record: &Record<'_>) -> bool {
    record.blocks.iter().any(|block| block.locator == PG_DATABASE)
}

fn commit_row(record: &Record<'_>, end: XactEnd<'_>) -> CommitRow {
    CommitRow {
        lsn: record.lsn,
        end_lsn: record.end,
        xid: end.xid,
        time: end.time,
        kind: end.kind,
        database: end.database,
        drops_relations: !end.dropped_relations.is_empty(),
        subxids: end.subxids,
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
