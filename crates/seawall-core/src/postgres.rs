//! PostgreSQL's own numbers, each in its own type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A PostgreSQL object identifier.
pub type Oid = u32;

/// A transaction id as it stands in WAL records: 32 bits, wrapping.
pub type Xid = u32;

/// The number of an 8 KiB page within a relation fork, counted across its 1 GiB segments.
pub type BlockNumber = u32;

/// A timeline: one branch of a cluster's write-ahead log. Counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number `initdb` gives a cluster and every copy of it carries (`pg_control`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<SystemId> for String {
    fn from(id: SystemId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SystemId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// The size of a WAL segment file: a power of two from 1 MiB to 1 GiB, fixed at `initdb`
/// (`IsValidWalSegSize`, xlog_internal.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct WalSegmentSize(u32);

/// The number is not a WAL segment size PostgreSQL allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSegmentSize(pub u32);

impl fmt::Display for InvalidSegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes is not a WAL segment size (a power of two, 1 MiB to 1 GiB)", self.0)
    }
}

impl std::error::Error for InvalidSegmentSize {}

impl WalSegmentSize {
    /// What `initdb` chooses unless told otherwise.
    pub const DEFAULT: Self = Self(16 * 1024 * 1024);

    /// Checks and wraps a size in bytes.
    ///
    /// # Errors
    /// [`InvalidSegmentSize`] if PostgreSQL would not accept it either.
    pub const fn new(bytes: u32) -> Result<Self, InvalidSegmentSize> {
        if bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30 {
            Ok(Self(bytes))
        } else {
            Err(InvalidSegmentSize(bytes))
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// How many segments share one value of the middle part of a segment's file name.
    #[must_use]
    pub const fn segments_per_log_id(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl TryFrom<u32> for WalSegmentSize {
    type Error = InvalidSegmentSize;

    fn try_from(bytes: u32) -> Result<Self, InvalidSegmentSize> {
        Self::new(bytes)
    }
}

impl From<WalSegmentSize> for u32 {
    fn from(size: WalSegmentSize) -> Self {
        size.0
    }
}
