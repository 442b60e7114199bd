//! Records a person may look for.

use minicbor::data::Int;
use minicbor::{Decode, Encode};
use seawall_core::{Lsn, Oid, PgTimestamp, TimelineId};
use seawall_pgdata::wal::{
    DatabaseCreate, DatabaseDrop, EndOfRecovery, Event, EventKind, ParameterChange, RelFileLocator,
    WalLevel,
};

use super::{Bounds, wrong};
use crate::Damage;

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(super) struct EventRow {
    #[cbor(n(0), with = "crate::cbor::lsn")]
    lsn: Lsn,
    #[cbor(n(1), with = "crate::cbor::lsn")]
    end: Lsn,
    #[n(2)]
    xid: u32,
    #[n(3)]
    kind: u8,
    #[n(4)]
    numbers: Vec<Int>,
    #[cbor(n(5), with = "crate::cbor::text_or_bytes")]
    text: Vec<u8>,
}

const DATABASE_CREATED: u8 = 1;
const DATABASE_DROPPED: u8 = 2;
const DATABASE_ROW_CHANGED: u8 = 3;
const RELATION_TRUNCATED: u8 = 4;
const TABLESPACE_CREATED: u8 = 5;
const TABLESPACE_DROPPED: u8 = 6;
const PARAMETER_CHANGE: u8 = 7;
const END_OF_RECOVERY: u8 = 8;
const TIMELINE_SWITCH: u8 = 9;
const PREPARED: u8 = 10;
const RECORD_OVERWRITTEN: u8 = 11;

impl EventRow {
    pub(super) fn of(event: &Event) -> Self {
        let mut text = Vec::new();
        let (kind, numbers) = match &event.kind {
            EventKind::DatabaseCreated(create) => {
                let (database, tablespace) = create.copied_from.unzip();
                let numbers = [create.database, create.tablespace];
                (DATABASE_CREATED, ints(numbers.into_iter().chain(database).chain(tablespace)))
            }
            EventKind::DatabaseDropped(drop) => (
                DATABASE_DROPPED,
                ints([drop.database].into_iter().chain(drop.tablespaces.iter().copied())),
            ),
            EventKind::DatabaseRowChangedInPlace => (DATABASE_ROW_CHANGED, Vec::new()),
            EventKind::RelationTruncated { locator, block } => (
                RELATION_TRUNCATED,
                ints([locator.tablespace, locator.database, locator.relation, *block]),
            ),
            EventKind::TablespaceCreated { tablespace, path } => {
                text.clone_from(path);
                (TABLESPACE_CREATED, ints([*tablespace]))
            }
            EventKind::TablespaceDropped { tablespace } => {
                (TABLESPACE_DROPPED, ints([*tablespace]))
            }
            EventKind::ParameterChange(change) => (PARAMETER_CHANGE, parameter_numbers(change)),
            EventKind::EndOfRecovery(end) => (END_OF_RECOVERY, recovery_numbers(end)),
            EventKind::TimelineSwitch { timeline, previous_timeline } => {
                (TIMELINE_SWITCH, ints([timeline.0, previous_timeline.0]))
            }
            EventKind::Prepared { xid, gid } => {
                text = gid.clone().into_bytes();
                (PREPARED, ints([*xid]))
            }
            EventKind::RecordOverwritten { lsn } => (RECORD_OVERWRITTEN, vec![Int::from(lsn.0)]),
        };
        let (lsn, end, xid) = (event.lsn, event.end_lsn, event.xid);
        Self { lsn, end, xid, kind, numbers, text }
    }

    pub(super) fn event(self, bounds: Bounds) -> Result<Event, Damage> {
        bounds.check(self.lsn, self.end)?;
        let (lsn, end_lsn, xid) = (self.lsn, self.end, self.xid);
        let kind = self.event_kind().ok_or_else(|| wrong("event"))?;
        Ok(Event { lsn, end_lsn, xid, kind })
    }

    fn event_kind(self) -> Option<EventKind> {
        let mut numbers = Numbers(self.numbers.into_iter());
        let kind = match self.kind {
            DATABASE_CREATED => {
                let (database, tablespace) = (numbers.u32()?, numbers.u32()?);
                let copied_from = match numbers.oids()?.as_slice() {
                    [] => None,
                    [database, tablespace] => Some((*database, *tablespace)),
                    _ => return None,
                };
                EventKind::DatabaseCreated(DatabaseCreate { database, tablespace, copied_from })
            }
            DATABASE_DROPPED => {
                let (database, tablespaces) = (numbers.u32()?, numbers.oids()?);
                EventKind::DatabaseDropped(DatabaseDrop { database, tablespaces })
            }
            DATABASE_ROW_CHANGED => EventKind::DatabaseRowChangedInPlace,
            RELATION_TRUNCATED => EventKind::RelationTruncated {
                locator: RelFileLocator {
                    tablespace: numbers.u32()?,
                    database: numbers.u32()?,
                    relation: numbers.u32()?,
                },
                block: numbers.u32()?,
            },
            TABLESPACE_CREATED => {
                EventKind::TablespaceCreated { tablespace: numbers.u32()?, path: self.text }
            }
            TABLESPACE_DROPPED => EventKind::TablespaceDropped { tablespace: numbers.u32()? },
            PARAMETER_CHANGE => EventKind::ParameterChange(numbers.parameter_change()?),
            END_OF_RECOVERY => EventKind::EndOfRecovery(numbers.end_of_recovery()?),
            TIMELINE_SWITCH => EventKind::TimelineSwitch {
                timeline: TimelineId(numbers.u32()?),
                previous_timeline: TimelineId(numbers.u32()?),
            },
            PREPARED => {
                EventKind::Prepared { xid: numbers.u32()?, gid: String::from_utf8(self.text).ok()? }
            }
            RECORD_OVERWRITTEN => EventKind::RecordOverwritten { lsn: Lsn(numbers.u64()?) },
            _ => return None,
        };
        numbers.0.next().is_none().then_some(kind)
    }
}

fn ints(numbers: impl IntoIterator<Item = u32>) -> Vec<Int> {
    numbers.into_iter().map(Int::from).collect()
}

fn parameter_numbers(change: &ParameterChange) -> Vec<Int> {
    ints([
        change.max_connections,
        change.max_worker_processes,
        change.max_wal_senders,
        change.max_prepared_transactions,
        change.max_locks_per_transaction,
        change.wal_level as u32,
        u32::from(change.wal_log_hints),
        u32::from(change.track_commit_timestamp),
    ])
}

fn recovery_numbers(end: &EndOfRecovery) -> Vec<Int> {
    let mut numbers = vec![Int::from(end.time.0)];
    let wal_level = end.wal_level.map_or(0, |level| level as u32 + 1);
    numbers.extend(ints([end.timeline.0, end.previous_timeline.0, wal_level]));
    numbers
}

/// An event's numbers, read one after another.
struct Numbers(std::vec::IntoIter<Int>);

impl Numbers {
    fn u64(&mut self) -> Option<u64> {
        u64::try_from(self.0.next()?).ok()
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.0.next()?).ok()
    }

    fn oids(&mut self) -> Option<Vec<Oid>> {
        self.0.by_ref().map(|number| u32::try_from(number).ok()).collect()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u32()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn parameter_change(&mut self) -> Option<ParameterChange> {
        Some(ParameterChange {
            max_connections: self.u32()?,
            max_worker_processes: self.u32()?,
            max_wal_senders: self.u32()?,
            max_prepared_transactions: self.u32()?,
            max_locks_per_transaction: self.u32()?,
            wal_level: wal_level(self.u32()?)?,
            wal_log_hints: self.flag()?,
            track_commit_timestamp: self.flag()?,
        })
    }

    fn end_of_recovery(&mut self) -> Option<EndOfRecovery> {
        Some(EndOfRecovery {
            time: PgTimestamp(i64::try_from(self.0.next()?).ok()?),
            timeline: TimelineId(self.u32()?),
            previous_timeline: TimelineId(self.u32()?),
            wal_level: match self.u32()? {
                0 => None,
                level => Some(wal_level(level - 1)?),
            },
        })
    }
}

const fn wal_level(number: u32) -> Option<WalLevel> {
    Some(match number {
        0 => WalLevel::Minimal,
        1 => WalLevel::Replica,
        2 => WalLevel::Logical,
        _ => return None,
    })
}
