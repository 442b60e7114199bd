//! What a plan needs to know of the WAL in a repository, and who answers for it.

use std::ops::ControlFlow;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use seawall_core::{Lsn, Oid, Result, Xid};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{ParameterChange, TablespaceChange, XactEndKind};
use seawall_repo::wal::Ancestries;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPlace {
    /// Its first byte.
    pub lsn: Lsn,
    /// After its last byte, not aligned.
    pub end: Lsn,
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XactFact {
    /// Where its record is.
    pub place: RecordPlace,
    /// The top transaction.
    pub xid: Xid,
    /// When, by the server's clock; not rising with the LSN.
    pub time: Timestamp,
    /// How it ended.
    pub kind: XactEndKind,
    /// The subtransactions that ended with it.
    pub subxids: Vec<Xid>,
    /// The database the session was in, if the record says so.
    pub database: Option<Oid>,
    /// Whether it removed relations' files: dropped, truncated or rewrote them.
    pub drops_relations: bool,
}

/// Something a record says that a target may refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A transaction ended.
    Xact(XactFact),
    /// A restore point was made.
    RestorePoint {
        /// Where its record is.
        place: RecordPlace,
        /// Its name.
        name: String,
        /// When it was made.
        time: Timestamp,
    },
    /// A time that is known without a transaction: a checkpoint's.
    TimeMark {
        /// The record.
        lsn: Lsn,
        /// The time, in whole seconds, rounded down.
        time: Timestamp,
    },
    /// A row of `pg_database` was changed in place. `DROP DATABASE` does so, and it is not alone.
    DatabaseRowChanged {
        /// The record.
        lsn: Lsn,
    },
    /// A database is being created.
    DatabaseCreated {
        /// The record.
        lsn: Lsn,
        /// The transaction, which ends later.
        xid: Xid,
        /// The database.
        database: Oid,
    },
    /// A database's files were removed, and not because it was moved to another tablespace.
    DatabaseDropped {
        /// The record.
        lsn: Lsn,
        /// The transaction, which ends later.
        xid: Xid,
        /// The database.
        database: Oid,
    },
    /// A transaction was prepared, and ends later.
    Prepared {
        /// The record.
        lsn: Lsn,
        /// The transaction.
        xid: Xid,
        /// Its name; bytes that are not UTF-8 are replaced.
        gid: String,
    },
    /// `wal_level` became `minimal`: what follows is not all in the log.
    Minimal {
        /// The record that says so.
        lsn: Lsn,
    },
    /// What stands here is not known.
    Unreadable(UnreadableWal),
}

/// Archived WAL that cannot be read, and that nothing else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableWal {
    /// Its first byte.
    pub start: Lsn,
    /// What is archived next; `start` or more if nothing is, and nobody knows how far it reaches.
    pub end: Lsn,
    /// Which object, and what is wrong with it.
    pub why: String,
}

impl Fact {
    /// Where the record begins.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        match self {
            Self::Xact(xact) => xact.place.lsn,
            Self::RestorePoint { place, .. } => place.lsn,
            Self::TimeMark { lsn, .. }
            | Self::Minimal { lsn }
            | Self::DatabaseRowChanged { lsn }
            | Self::DatabaseCreated { lsn, .. }
            | Self::DatabaseDropped { lsn, .. }
            | Self::Prepared { lsn, .. } => *lsn,
            Self::Unreadable(unreadable) => unreadable.start,
        }
    }

    /// What the server's clock showed: not before the first and not after the second time. `None`
    /// if the record does not tell.
    #[must_use]
    pub fn time(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Self::Xact(xact) => Some((xact.time, xact.time)),
            Self::RestorePoint { time, .. } => Some((*time, *time)),
            Self::TimeMark { time, .. } => {
                Some((*time, *time + SignedDuration::from_micros(999_999)))
            }
            Self::Minimal { .. }
            | Self::DatabaseRowChanged { .. }
            | Self::DatabaseCreated { .. }
            | Self::DatabaseDropped { .. }
            | Self::Prepared { .. }
            | Self::Unreadable(_) => None,
        }
    }
}

/// A stretch of WAL without a hole, along one ancestry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoveredSpan {
    /// The first byte that is stored.
    pub start: Lsn,
    /// Every record before here is stored whole: where the next one would begin, but for a page
    /// header. After a segment switch this is the segment's end.
    pub end: Lsn,
    /// The last whole record; `None` if no record lies wholly in the stretch.
    pub last_record: Option<RecordPlace>,
}

/// What is archived along one ancestry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalCoverage {
    /// The stretches without a hole, in order.
    pub spans: Vec<CoveredSpan>,
    /// The holes in which something is stored that cannot be read.
    pub unreadable: Vec<UnreadableWal>,
}

/// The WAL of one line, as a restore asks for it.
#[async_trait]
pub trait WalSource: Send + Sync {
    /// Every timeline the line has WAL or a history of, each with its ancestors, and whose history is
    /// damaged.
    async fn ancestries(&self) -> Result<Ancestries>;

    /// The stretches of WAL along an ancestry that end after `from`, in order. Neighbours are
    /// joined where records continue across them; what cannot be joined or read is a hole between
    /// two.
    async fn coverage(&self, ancestry: &Ancestry, from: Lsn) -> Result<WalCoverage>;

    /// Hands every fact of records that begin at `from` or later to `sink`, in LSN order along the
    /// ancestry, across holes, until `sink` breaks off.
    async fn facts(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        sink: &mut (dyn for<'f> FnMut(&'f Fact) -> ControlFlow<()> + Send),
    ) -> Result<()>;

    /// What records that lie between `from` and `to` do to tablespaces, in LSN order.
    async fn tablespace_changes(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<TablespaceChange>>;

    /// What records that lie between `from` and `to` say of the server's settings, in LSN order.
    async fn parameter_changes(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<ParameterChange>>;

    /// The first record that begins at `lsn` or later within the stretch that holds `lsn`; `None`
    /// if that stretch has no such record.
    async fn record_at_or_after(
        &self,
        ancestry: &Ancestry,
        lsn: Lsn,
    ) -> Result<Option<RecordPlace>>;

    /// Proves that every byte from `from` to `to` is stored, authentic and continuous, that what
    /// is stored of the last segment behind it is authentic too, since PostgreSQL asks for whole
    /// segments, and that the ancestry's history files are there.
    ///
    /// # Errors
    /// [`seawall_core::Code::WalGap`] for a hole, or damage.
    async fn prove(&self, ancestry: &Ancestry, from: Lsn, to: Lsn) -> Result<()>;
}
