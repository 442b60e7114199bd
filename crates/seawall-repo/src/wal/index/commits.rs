//! Ends of transactions, column by column: neighbouring rows are alike, and columns compress well.

use minicbor::{Decode, Encode};
use seawall_core::{Lsn, PgTimestamp, Xid};
use seawall_pgdata::wal::{CommitRow, XactEndKind};

use super::{Bounds, wrong};
use crate::{Damage, varint};

#[derive(Debug, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct CommitColumns {
    /// Distance from the row before, the first from the range's start.
    #[cbor(n(0), with = "minicbor::bytes")]
    lsns: Vec<u8>,
    /// End of the record minus its start.
    #[cbor(n(1), with = "minicbor::bytes")]
    lengths: Vec<u8>,
    /// Signed distance from the row before.
    #[cbor(n(2), with = "minicbor::bytes")]
    xids: Vec<u8>,
    /// Signed distance from the row before.
    #[cbor(n(3), with = "minicbor::bytes")]
    times: Vec<u8>,
    #[cbor(n(4), with = "minicbor::bytes")]
    kinds: Vec<u8>,
    #[cbor(n(5), with = "minicbor::bytes")]
    subxid_counts: Vec<u8>,
    /// Signed distance from the one before, the first from the row's transaction.
    #[cbor(n(6), with = "minicbor::bytes")]
    subxids: Vec<u8>,
    #[cbor(n(7), with = "minicbor::bytes")]
    drops: Vec<u8>,
    /// One more than the database, 0 if it is not known.
    #[cbor(n(8), with = "minicbor::bytes")]
    databases: Vec<u8>,
}

impl CommitColumns {
    pub(super) fn of(rows: &[CommitRow], start: Lsn) -> Self {
        let mut columns = Self::default();
        let (mut lsn, mut xid, mut time) = (start, 0, 0);
        for row in rows {
            varint::put(&mut columns.lsns, row.lsn.bytes_since(lsn));
            varint::put(&mut columns.lengths, row.end_lsn.bytes_since(row.lsn));
            varint::put_signed(&mut columns.xids, distance(xid, row.xid));
            varint::put_signed(&mut columns.times, row.time.0.wrapping_sub(time));
            varint::put(&mut columns.kinds, row.kind as u64);
            varint::put(&mut columns.subxid_counts, row.subxids.len() as u64);
            let mut before = row.xid;
            for subxid in &row.subxids {
                varint::put_signed(&mut columns.subxids, distance(before, *subxid));
                before = *subxid;
            }
            varint::put(&mut columns.drops, u64::from(row.drops_relations));
            varint::put(&mut columns.databases, row.database.map_or(0, |oid| u64::from(oid) + 1));
            (lsn, xid, time) = (row.lsn, row.xid, row.time.0);
        }
        columns
    }

    pub(super) fn rows(&self, bounds: Bounds) -> Result<Vec<CommitRow>, Damage> {
        let mut reader = Reader::new(self);
        let mut rows = Vec::new();
        let (mut lsn, mut xid, mut time) = (bounds.start, 0, 0);
        while !reader.lsns.is_empty() {
            let row = reader.row(lsn, xid, time).ok_or_else(|| wrong("commit"))?;
            bounds.check(row.lsn, row.end_lsn)?;
            (lsn, xid, time) = (row.lsn, row.xid, row.time.0);
            rows.push(row);
        }
        if reader.is_used_up() { Ok(rows) } else { Err(wrong("number of commits")) }
    }
}

struct Reader<'a> {
    lsns: &'a [u8],
    lengths: &'a [u8],
    xids: &'a [u8],
    times: &'a [u8],
    kinds: &'a [u8],
    subxid_counts: &'a [u8],
    subxids: &'a [u8],
    drops: &'a [u8],
    databases: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(columns: &'a CommitColumns) -> Self {
        Self {
            lsns: &columns.lsns,
            lengths: &columns.lengths,
            xids: &columns.xids,
            times: &columns.times,
            kinds: &columns.kinds,
            subxid_counts: &columns.subxid_counts,
            subxids: &columns.subxids,
            drops: &columns.drops,
            databases: &columns.databases,
        }
    }

    fn row(&mut self, lsn: Lsn, xid: Xid, time: i64) -> Option<CommitRow> {
        let lsn = lsn.checked_add(varint::take(&mut self.lsns)?)?;
        let end_lsn = lsn.checked_add(varint::take(&mut self.lengths)?)?;
        let xid = at_distance(xid, varint::take_signed(&mut self.xids)?)?;
        let time = time.wrapping_add(varint::take_signed(&mut self.times)?);
        let kind = kind(varint::take(&mut self.kinds)?)?;
        let mut subxids = Vec::new();
        let mut before = xid;
        for _ in 0..varint::take(&mut self.subxid_counts)? {
            before = at_distance(before, varint::take_signed(&mut self.subxids)?)?;
            subxids.push(before);
        }
        let drops_relations = match varint::take(&mut self.drops)? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let database = match varint::take(&mut self.databases)? {
            0 => None,
            known => Some(u32::try_from(known - 1).ok()?),
        };
        let time = PgTimestamp(time);
        Some(CommitRow { lsn, end_lsn, xid, time, kind, database, subxids, drops_relations })
    }

    const fn is_used_up(&self) -> bool {
        self.lengths.is_empty()
            && self.xids.is_empty()
            && self.times.is_empty()
            && self.kinds.is_empty()
            && self.subxid_counts.is_empty()
            && self.subxids.is_empty()
            && self.drops.is_empty()
            && self.databases.is_empty()
    }
}

fn distance(from: Xid, to: Xid) -> i64 {
    i64::from(to) - i64::from(from)
}

fn at_distance(from: Xid, distance: i64) -> Option<Xid> {
    u32::try_from(i64::from(from).checked_add(distance)?).ok()
}

const fn kind(number: u64) -> Option<XactEndKind> {
    Some(match number {
        0 => XactEndKind::Commit,
        1 => XactEndKind::Abort,
        2 => XactEndKind::CommitPrepared,
        3 => XactEndKind::AbortPrepared,
        _ => return None,
    })
}
