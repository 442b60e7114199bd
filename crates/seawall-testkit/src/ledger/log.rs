use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use seawall_core::Lsn;

use super::payload;

/// One transaction of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which writer.
    pub writer: u32,
    /// Its how-manyeth transaction, from 1.
    pub seq: u64,
    /// When it was sent, in microseconds since 1970.
    pub sent_us: i64,
    /// A position that its records come after.
    pub lsn_before: Lsn,
    /// What is known since it was acknowledged; `None` while nobody knows.
    pub committed: Option<Committed>,
}

impl Entry {
    pub(super) const fn is_acknowledged(&self) -> bool {
        self.committed.is_some()
    }
}

/// What an acknowledgement tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The transaction's id, with its epoch.
    pub xid: u64,
    /// When the acknowledgement was there, in microseconds since 1970.
    pub acknowledged_us: i64,
    /// A position that its commit record ends at or before; `None` if the server went before it
    /// could be asked.
    pub lsn_after: Option<Lsn>,
}

impl Committed {
    fn is_before(&self, lsn: Lsn) -> bool {
        self.lsn_after.is_some_and(|after| after <= lsn)
    }
}

/// A moment of a running ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The server's insert position.
    pub lsn: Lsn,
    /// The server's clock, in microseconds since 1970.
    pub time_us: i64,
    /// The same, as RFC 3339 in UTC, with `+00:00`: `recovery_target_time` refuses `Z`.
    pub time: String,
    /// For each writer, the last transaction acknowledged before.
    pub acknowledged: Vec<u64>,
    /// For each writer, the transaction that may have been under way.
    pub in_flight: Vec<Option<u64>>,
}

/// How far a restored cluster is meant to reach.
#[derive(Debug, Clone)]
pub enum Bound {
    /// Everything acknowledged.
    Everything,
    /// What was acknowledged before a moment; nothing that began after it.
    Moment(Moment),
    /// Commits up to a time, in microseconds since 1970.
    Time(i64),
    /// Commits up to a position.
    Lsn(Lsn),
    /// Commits up to that of a transaction, as commits follow each other in WAL.
    Xid {
        /// The transaction, with its epoch: one of the ledger's own.
        xid: u64,
        /// Whether it is itself to be there.
        inclusive: bool,
    },
}

/// A row as found in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which writer wrote it.
    pub writer: u32,
    /// In its how-manyeth transaction.
    pub seq: u64,
    /// Under which transaction id, with its epoch.
    pub xid: u64,
    /// What it wrote.
    pub payload: String,
}

impl FromStr for Row {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('|').collect();
        let [writer, seq, xid, payload] = fields.as_slice() else { bail!("not a row: {line}") };
        let (writer, seq, xid) = (writer.parse()?, seq.parse()?, xid.parse()?);
        Ok(Self { writer, seq, xid, payload: (*payload).to_owned() })
    }
}

/// What a successful verification rests on: a test that cares asserts that it is not thin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows found.
    pub present: usize,
    /// Transactions that had to be there, and were.
    pub required: usize,
    /// Transactions that must not be there, and were not.
    pub forbidden: usize,
    /// Transactions under way at the bound, of which either is right.
    pub undecided: usize,
}

/// What a bound says about one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expectation {
    Required,
    Forbidden,
    Either,
}

/// The finished ledger.
#[derive(Debug, Clone)]
pub struct LedgerLog {
    entries: Vec<Entry>,
    payload_bytes: usize,
}

impl LedgerLog {
    pub(super) const fn new(entries: Vec<Entry>, payload_bytes: usize) -> Self {
        Self { entries, payload_bytes }
    }

    /// Every transaction, in order for each writer.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many transactions were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_acknowledged()).count()
    }

    /// Proves that `rows` are each writer's transactions from the first on without a hole, as
    /// they were written, and that they end where `bound` says.
    ///
    /// # Errors
    /// What is wrong, or that the bound requires nothing, which would prove nothing.
    pub fn verify_prefix(&self, rows: &[Row], bound: &Bound) -> Result<Verdict> {
        let found = self.check_rows(rows)?;
        let mut verdict = Verdict { present: rows.len(), ..Verdict::default() };
        let pivot = self.pivot(bound)?;
        for entry in &self.entries {
            let present = found.get(&entry.writer).is_some_and(|last| entry.seq <= *last);
            let expectation = expect(entry, bound, pivot);
            match expectation {
                Expectation::Required if !present => bail!("lost: {entry:?}, bound {bound:?}"),
                Expectation::Forbidden if present => bail!("too much: {entry:?}, bound {bound:?}"),
                Expectation::Required => verdict.required += 1,
                Expectation::Forbidden => verdict.forbidden += 1,
                Expectation::Either => verdict.undecided += 1,
            }
        }
        ensure!(verdict.required > 0, "the bound requires no transaction: {bound:?}");
        Ok(verdict)
    }

    /// The last `seq` of each writer, after checking that there is none missing before it and
    /// that every row is what its writer wrote.
    fn check_rows(&self, rows: &[Row]) -> Result<BTreeMap<u32, u64>> {
        let known: BTreeMap<(u32, u64), &Entry> =
            self.entries.iter().map(|entry| ((entry.writer, entry.seq), entry)).collect();
        let mut sorted: Vec<&Row> = rows.iter().collect();
        sorted.sort_by_key(|row| (row.writer, row.seq));
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for row in sorted {
            let before = last.insert(row.writer, row.seq).unwrap_or(0);
            ensure!(row.seq != before, "twice: writer {} seq {}", row.writer, row.seq);
            ensure!(
                row.seq == before + 1,
                "hole: writer {} has no seq {}, and has {}",
                row.writer,
                before + 1,
                row.seq
            );
            let entry = known.get(&(row.writer, row.seq));
            let entry = entry.with_context(|| format!("never written: {row:?}"))?;
            let written = payload(row.writer, row.seq, self.payload_bytes);
            ensure!(row.payload == written, "altered: {row:?}");
            if let Some(committed) = entry.committed {
                ensure!(committed.xid == row.xid, "another xid than {entry:?}: {row:?}");
            }
        }
        Ok(last)
    }

    /// The transaction that a bound by xid names.
    fn pivot(&self, bound: &Bound) -> Result<Option<(&Entry, Committed)>> {
        let Bound::Xid { xid, .. } = bound else { return Ok(None) };
        let mut committed = self.entries.iter().filter_map(|entry| Some((entry, entry.committed?)));
        let pivot = committed.find(|(_, committed)| committed.xid == *xid);
        pivot.map(Some).with_context(|| format!("xid {xid} is not in the ledger"))
    }
}

fn expect(entry: &Entry, bound: &Bound, pivot: Option<(&Entry, Committed)>) -> Expectation {
    let committed = entry.committed;
    let (required, forbidden) = match bound {
        Bound::Everything => (committed.is_some(), false),
        Bound::Moment(moment) => {
            let writer = usize::try_from(entry.writer).unwrap_or(usize::MAX);
            let last = moment.acknowledged.get(writer).copied().unwrap_or(0);
            (entry.seq <= last, entry.lsn_before >= moment.lsn)
        }
        Bound::Time(time_us) => {
            (committed.is_some_and(|c| c.acknowledged_us <= *time_us), entry.sent_us > *time_us)
        }
        Bound::Lsn(lsn) => (committed.is_some_and(|c| c.is_before(*lsn)), entry.lsn_before >= *lsn),
        Bound::Xid { xid, inclusive } => match (committed, pivot) {
            (Some(c), _) if c.xid == *xid => (*inclusive, !*inclusive),
            (_, Some((pivot, at))) => (
                committed.is_some_and(|c| c.is_before(pivot.lsn_before)),
                at.lsn_after.is_some_and(|after| entry.lsn_before >= after),
            ),
            (_, None) => (false, false),
        },
    };
    match (required, forbidden) {
        (true, _) => Expectation::Required,
        (false, true) => Expectation::Forbidden,
        (false, false) => Expectation::Either,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two writers taking turns; transaction `n` of the ledger has xid 700 + n, runs from
    /// time 10 n to 10 n + 5 and from LSN 100 n to 100 n + 50. The last one was never answered.
    fn log() -> LedgerLog {
        let entry = |n: u64| Entry {
            writer: u32::try_from(n % 2).unwrap(),
            seq: n / 2 + 1,
            sent_us: i64::try_from(n).unwrap() * 10,
            lsn_before: Lsn(n * 100),
            committed: (n < 9).then(|| Committed {
                xid: 700 + n,
                acknowledged_us: i64::try_from(n).unwrap() * 10 + 5,
                lsn_after: Some(Lsn(n * 100 + 50)),
            }),
        };
        LedgerLog::new((0..10).map(entry).collect(), 32)
    }

    fn rows(count: u64) -> Vec<Row> {
        let row = |n: u64| {
            let (writer, seq) = (u32::try_from(n % 2).unwrap(), n / 2 + 1);
            Row { writer, seq, xid: 700 + n, payload: payload(writer, seq, 32) }
        };
        (0..count).map(row).collect()
    }

    fn moment() -> Moment {
        let (acknowledged, in_flight) = (vec![2, 2], vec![Some(3), None]);
        Moment { lsn: Lsn(430), time_us: 43, time: String::new(), acknowledged, in_flight }
    }

    #[test]
    fn the_transactions_up_to_any_kind_of_bound_are_accepted() {
        let (log, four) = (log(), rows(4));
        let expected = Verdict { present: 4, required: 4, forbidden: 5, undecided: 1 };
        for bound in [Bound::Moment(moment()), Bound::Time(42), Bound::Lsn(Lsn(430))] {
            assert_eq!(log.verify_prefix(&four, &bound).unwrap(), expected, "{bound:?}");
        }
        let exact = Verdict { undecided: 0, forbidden: 6, ..expected };
        let last_in = Bound::Xid { xid: 703, inclusive: true };
        assert_eq!(log.verify_prefix(&four, &last_in).unwrap(), exact);
        let first_out = Bound::Xid { xid: 704, inclusive: false };
        assert_eq!(log.verify_prefix(&four, &first_out).unwrap(), exact);
    }

    #[test]
    fn a_commit_under_way_at_the_bound_may_go_either_way() {
        assert!(log().verify_prefix(&rows(5), &Bound::Lsn(Lsn(430))).is_ok());
        assert!(log().verify_prefix(&rows(10), &Bound::Everything).is_ok());
        assert!(log().verify_prefix(&rows(9), &Bound::Everything).is_ok());
    }

    #[test]
    fn a_lost_commit_is_found() {
        for bound in [Bound::Moment(moment()), Bound::Time(42), Bound::Lsn(Lsn(430))] {
            let error = log().verify_prefix(&rows(3), &bound).unwrap_err().to_string();
            assert!(error.starts_with("lost: "), "{error}");
        }
        assert!(log().verify_prefix(&rows(8), &Bound::Everything).is_err());
        assert!(log().verify_prefix(&rows(3), &Bound::Xid { xid: 703, inclusive: true }).is_err());
    }

    #[test]
    fn a_commit_after_the_bound_is_found() {
        for bound in [Bound::Moment(moment()), Bound::Time(42), Bound::Lsn(Lsn(430))] {
            let error = log().verify_prefix(&rows(6), &bound).unwrap_err().to_string();
            assert!(error.starts_with("too much: "), "{error}");
        }
        let excluded = Bound::Xid { xid: 703, inclusive: false };
        assert!(log().verify_prefix(&rows(4), &excluded).is_err());
    }

    #[test]
    fn holes_strangers_and_altered_rows_are_found() {
        let refused = |rows: &[Row]| log().verify_prefix(rows, &Bound::Time(22)).unwrap_err();
        let mut hole = rows(6);
        hole.remove(1);
        assert!(refused(&hole).to_string().starts_with("hole: "));
        let mut stranger = rows(4);
        stranger.push(Row { writer: 9, seq: 1, xid: 1, payload: String::new() });
        assert!(refused(&stranger).to_string().starts_with("never written: "));
        let mut altered = rows(4);
        altered[3].payload.replace_range(..1, "x");
        assert!(refused(&altered).to_string().starts_with("altered: "));
        let mut other_xid = rows(4);
        other_xid[2].xid += 1;
        assert!(refused(&other_xid).to_string().starts_with("another xid"));
        let mut twice = rows(4);
        twice.push(twice[0].clone());
        assert!(refused(&twice).to_string().starts_with("twice: "));
    }

    #[test]
    fn a_bound_that_requires_nothing_proves_nothing() {
        assert!(log().verify_prefix(&[], &Bound::Time(-1)).is_err());
        assert!(log().verify_prefix(&rows(4), &Bound::Xid { xid: 5, inclusive: true }).is_err());
    }
}
