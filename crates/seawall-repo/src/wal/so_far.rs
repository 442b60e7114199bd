//! What the log says up to a position, carried along from range to range (format.md, 9).

use seawall_core::{Lsn, PgTimestamp};
use seawall_pgdata::wal::{RangeIndex, WalFacts};

/// The newest commit of a stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCommit {
    /// Where its record begins.
    pub lsn: Lsn,
    /// After its record's last byte, not aligned.
    pub end_lsn: Lsn,
    /// When, by the server's clock.
    pub time: PgTimestamp,
}

/// What the log says from [`LogSoFar::since`] up to the end of a range, as it was archived when
/// the range was stored. Whoever wants to know that much need not read what lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSoFar {
    /// From here on.
    pub since: Lsn,
    /// The newest record from which on `wal_level` is `minimal`
    /// ([`begins_minimal_wal`](seawall_pgdata::wal::EventKind::begins_minimal_wal)).
    pub minimal_from: Option<Lsn>,
    /// The newest commit.
    pub last_commit: Option<LastCommit>,
}

impl LogSoFar {
    /// Of one range alone.
    #[must_use]
    pub fn of(index: &RangeIndex) -> Self {
        let empty = Self { since: index.start, minimal_from: None, last_commit: None };
        empty.and(&index.facts)
    }

    /// Goes on through a range that continues the log; `crossing` is what the record says that
    /// crosses into it.
    #[must_use]
    pub fn continued(self, crossing: &WalFacts, index: &RangeIndex) -> Self {
        self.and(crossing).and(&index.facts)
    }

    /// With what later records say.
    #[must_use]
    pub fn and(mut self, later: &WalFacts) -> Self {
        let minimal = later.events.iter().rev().find(|event| event.kind.begins_minimal_wal());
        self.minimal_from = minimal.map(|event| event.lsn).or(self.minimal_from);
        let commit = later.commits.iter().rev().find(|commit| commit.kind.is_commit());
        let commit = commit.map(|commit| LastCommit {
            lsn: commit.lsn,
            end_lsn: commit.end_lsn,
            time: commit.time,
        });
        self.last_commit = commit.or(self.last_commit);
        self
    }
}
