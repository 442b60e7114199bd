//! Where and why reading WAL stopped.

use seawall_core::Lsn;

use super::page::PageFault;
use super::record::RecordFault;

/// The place where no valid record follows.
///
/// That is how every log ends: zeros, or what a recycled segment held before. It is also how
/// damage looks; [`EndOfWal::later_page`] and the caller's own knowledge tell the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfWal {
    /// Where the record that is not there would begin.
    pub lsn: Lsn,
    /// The page or record where the fault was seen; after `lsn` if the record began well.
    pub fault_lsn: Lsn,
    /// What is wrong there.
    pub reason: EndReason,
    /// The first page after the fault whose header is valid in its place. A log that simply ends
    /// has none, except what a crashed server wrote beyond the hole.
    pub later_page: Option<Lsn>,
}

/// Why bytes are not the next record (`ValidXLogRecordHeader`, `ValidXLogRecord`, xlogreader.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// A length of zero: nothing was written here.
    #[error("no record is written here")]
    ZeroLength,
    /// Shorter than a record's header.
    #[error("invalid record length {total_bytes}")]
    ShortLength {
        /// The length found.
        total_bytes: u32,
    },
    /// Longer than the reader accepts.
    #[error("record length {total_bytes} exceeds the limit")]
    TooLong {
        /// The length found.
        total_bytes: u32,
    },
    /// The link to the record before is wrong.
    #[error("the record says its predecessor is at {found}")]
    WrongPrev {
        /// The link found.
        found: Lsn,
        /// Where the record before begins, if known.
        expected: Option<Lsn>,
    },
    /// The checksum is wrong.
    #[error("the record's CRC is wrong")]
    WrongCrc,
    /// The checksum is right and the content is not what this major writes.
    #[error("the record cannot be decoded: {0}")]
    Undecodable(RecordFault),
    /// The page is not one that belongs here.
    #[error("invalid page: {0}")]
    Page(PageFault),
    /// The page does not continue the record that reaches into it, or continues one that does
    /// not.
    #[error("the page continues {found:?} bytes of a record instead of {expected:?}")]
    Continuation {
        /// Bytes of a record that reach into the page; `None` if none do.
        expected: Option<u32>,
        /// Bytes that the page header says.
        found: Option<u32>,
    },
}
