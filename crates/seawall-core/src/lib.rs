//! The words Seawall is written in.
//!
//! Everything here is a value: positions in the write-ahead log, identifiers, sizes, times and
//! errors. Nothing does I/O, nothing is asynchronous, and no other crate of the workspace is used.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod action;
mod code;
mod error;
mod hint;
mod ids;
mod local_path;
mod lsn;
mod pair;
mod pg_time;
mod postgres;
mod printable;
mod progress;
mod rate;
mod rate_meter;
mod retry;
mod secret;
mod shell;
mod times;
mod units;
mod wal_name;

pub use action::Action;
pub use code::{Code, ExitClass, InvalidCode};
pub use error::{Error, Result, ResultExt};
pub use hint::Hint;
pub use ids::{BackupId, BranchNumber, ClusterName, InvalidName, LineId, Ulid};
pub use local_path::LocalPath;
pub use lsn::{InvalidLsn, Lsn};
pub use pair::Key;
pub use pg_time::PgTimestamp;
pub use postgres::{
    BlockNumber, InvalidSegmentSize, Oid, SystemId, TimelineId, WalSegmentSize, Xid,
};
pub use printable::printable;
pub use progress::{NoProgress, Progress, Stage};
pub use rate::{InvalidRateLimit, RateLimit};
pub use rate_meter::RateMeter;
pub use retry::Retry;
pub use secret::Secret;
pub use shell::shell_escaped;
pub use times::{seconds_of, shown_duration, shown_utc};
pub use units::{ByteSize, InvalidByteSize, counted};
pub use wal_name::{WalFileName, WalSegment};
