//! The index of a range: what its whole records say (format.md, 9).

mod changes;
mod commits;
mod events;

use minicbor::{Decode, Encode};
use seawall_core::{Lsn, PgTimestamp};
use seawall_pgdata::wal::{Event, RestorePoint, TimeMark, WalFacts};

use crate::{Damage, cbor};
use changes::ChangesBody;
use commits::CommitColumns;
use events::EventRow;

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct IndexBody {
    #[n(0)]
    commits: CommitColumns,
    #[n(1)]
    restore_points: Vec<RestorePointRow>,
    #[n(2)]
    time_marks: Vec<TimeMarkRow>,
    #[n(3)]
    changes: ChangesBody,
    #[n(4)]
    events: Vec<EventRow>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct RestorePointRow {
    #[cbor(n(0), with = "crate::cbor::lsn")]
    lsn: Lsn,
    #[cbor(n(1), with = "crate::cbor::lsn")]
    end: Lsn,
    #[n(2)]
    time: i64,
    #[n(3)]
    name: String,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct TimeMarkRow {
    #[cbor(n(0), with = "crate::cbor::lsn")]
    lsn: Lsn,
    #[n(1)]
    time: i64,
}

/// The LSNs a range's rows may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The range's first byte.
    pub start: Lsn,
    /// After its last byte.
    pub end: Lsn,
}

impl Bounds {
    fn check(self, lsn: Lsn, end: Lsn) -> Result<(), Damage> {
        if self.start <= lsn && lsn < end && end <= self.end { Ok(()) } else { Err(wrong("LSN")) }
    }
}

/// The content of the index chunk.
pub(super) fn encode(facts: &WalFacts, bounds: Bounds) -> Vec<u8> {
    cbor::encode(&IndexBody {
        commits: CommitColumns::of(&facts.commits, bounds.start),
        restore_points: facts
            .restore_points
            .iter()
            .map(|point| RestorePointRow {
                lsn: point.lsn,
                end: point.end_lsn,
                time: point.time.0,
                name: point.name.clone(),
            })
            .collect(),
        time_marks: facts
            .time_marks
            .iter()
            .map(|mark| TimeMarkRow { lsn: mark.lsn, time: mark.time.0 })
            .collect(),
        changes: ChangesBody::of(&facts.changes),
        events: facts.events.iter().map(EventRow::of).collect(),
    })
}

/// Reads an index chunk. Everything in it has to make sense.
pub(super) fn decode(bytes: &[u8], bounds: Bounds) -> Result<WalFacts, Damage> {
    let body: IndexBody = cbor::decode(bytes)?;
    let restore_point = |row: RestorePointRow| {
        bounds.check(row.lsn, row.end)?;
        let time = PgTimestamp(row.time);
        Ok(RestorePoint { lsn: row.lsn, end_lsn: row.end, name: row.name, time })
    };
    let time_mark = |row: TimeMarkRow| {
        bounds.check(row.lsn, row.lsn.saturating_add(1))?;
        Ok(TimeMark { lsn: row.lsn, time: PgTimestamp(row.time) })
    };
    Ok(WalFacts {
        commits: body.commits.rows(bounds)?,
        restore_points: body
            .restore_points
            .into_iter()
            .map(restore_point)
            .collect::<Result<_, Damage>>()?,
        time_marks: body.time_marks.into_iter().map(time_mark).collect::<Result<_, Damage>>()?,
        changes: body.changes.map()?,
        events: events(body.events, bounds)?,
    })
}

/// Reads of an index chunk only what a person may look for.
pub(super) fn decode_events(bytes: &[u8], bounds: Bounds) -> Result<Vec<Event>, Damage> {
    let body: IndexBody = cbor::decode(bytes)?;
    events(body.events, bounds)
}

fn events(rows: Vec<EventRow>, bounds: Bounds) -> Result<Vec<Event>, Damage> {
    rows.into_iter().map(|row| row.event(bounds)).collect()
}

/// The index is authentic and cannot be read.
fn wrong(what: &str) -> Damage {
    Damage::Content(format!("the index of a WAL range has an impossible {what}"))
}
