//! What is known of a line. Small: thousands of backups and a million objects of WAL are a few megabytes.

use jiff::Timestamp;
use seawall_core::{BackupId, Lsn, TimelineId, Ulid, WalSegmentSize};
use seawall_pgdata::history::Ancestry;

use super::Unknown;
use crate::wal::LsnRange;

/// What is known of a line in one repository.
#[derive(Debug, Clone)]
pub struct LineFacts {
    /// The time, by the clock of the store.
    pub now: Timestamp,
    /// The cluster's.
    pub segment_size: WalSegmentSize,
    /// Every timeline of which something is archived, with its ancestors.
    pub timelines: Vec<Ancestry>,
    /// The backups whose commits can be read.
    pub backups: Vec<BackupFacts>,
    /// Those whose commits cannot.
    pub unread: Vec<UnreadBackup>,
    /// Jobs that have not ended.
    pub pins: Vec<PinFacts>,
    /// The archived WAL, by timeline.
    pub wal: Vec<TimelineWal>,
    /// What else could not be learned.
    pub unknown: Vec<Unknown>,
}

/// What is known of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFacts {
    /// Its id.
    pub id: BackupId,
    /// Where in the log it is.
    pub span: BackupSpan,
    /// When its commit was written, by the clock of the store.
    pub written: Timestamp,
    /// Whether pages of it have errors.
    pub has_page_errors: bool,
    /// Whether blocks had changed that WAL does not name: what it did not look at may be older.
    pub is_doubted: bool,
    /// Whether the last verification found something of it gone or spoilt.
    pub is_damaged: bool,
    /// Whether the last verification read all of it and found it whole.
    pub is_verified: bool,
    /// Whether somebody holds it.
    pub is_held: bool,
    /// Whether somebody asked for it to go.
    pub delete_asked: bool,
    /// Bytes the repository grew by when it was made.
    pub stored_bytes: u64,
}

/// Where a backup is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSpan {
    /// The timeline of the start.
    pub start_timeline: TimelineId,
    /// Where replay begins.
    pub start: Lsn,
    /// The timeline of the stop.
    pub stop_timeline: TimelineId,
    /// Where the cluster is consistent.
    pub stop: Lsn,
}

impl BackupFacts {
    /// Whether it may take another one's place.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        !self.has_page_errors && !self.is_damaged && !self.is_doubted
    }

    /// Whether it is to go on request. Of two people the one who keeps is right.
    #[must_use]
    pub const fn is_asked_to_go(&self) -> bool {
        self.delete_asked && !self.is_held
    }
}

/// A backup whose commit cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadBackup {
    /// Its id.
    pub id: BackupId,
    /// Why it cannot be read.
    pub why: String,
    /// Whether somebody holds it.
    pub is_held: bool,
    /// Whether somebody asked for it to go.
    pub delete_asked: bool,
}

impl UnreadBackup {
    /// As [`BackupFacts::is_asked_to_go`].
    #[must_use]
    pub const fn is_asked_to_go(&self) -> bool {
        self.delete_asked && !self.is_held
    }
}

/// A job that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinFacts {
    /// Its id.
    pub id: Ulid,
    /// Whether it goes on: one that is dead keeps nothing.
    pub lives: bool,
    /// From where on it needs the log, if it does.
    pub from: Option<(TimelineId, Lsn)>,
    /// The backups it uses.
    pub backups: Vec<BackupId>,
}

/// The archived WAL of one timeline, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineWal {
    /// The timeline that wrote it.
    pub timeline: TimelineId,
    /// What is there.
    pub spans: WalSpans,
    /// When the newest object of it was written, by the clock of the store.
    pub written: Timestamp,
    /// How many objects hold it.
    pub objects: u64,
    /// Their bytes in the store.
    pub stored_bytes: u64,
}

/// Stretches of the log, sorted, of which no two touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalSpans(Vec<LsnRange>);

impl WalSpans {
    /// Of ranges in any order.
    #[must_use]
    pub fn of(ranges: Vec<LsnRange>) -> Self {
        Self(LsnRange::joined(ranges))
    }

    /// Adds what the next name says, in the order of names: what touches is one stretch.
    pub fn add(&mut self, range: LsnRange) {
        match self.0.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.0.push(range),
        }
    }

    /// Them.
    #[must_use]
    pub fn ranges(&self) -> &[LsnRange] {
        &self.0
    }
}
