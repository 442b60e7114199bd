//! The index of one range of WAL, as it is stored beside the range.

use seawall_core::{Lsn, TimelineId, WalSegmentSize};

use super::end::{EndOfWal, EndReason};
use super::facts::WalFacts;
use super::fragment::{HeadFragment, HeadState, TailFragment};
use super::page::PageFault;
use super::reader::{ReaderStart, StartError, WalReader};
use crate::PgMajor;

/// The first record that lies wholly in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstRecord {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where the record before begins.
    pub prev: Lsn,
}

/// The last record that lies wholly in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// Where it begins.
    pub lsn: Lsn,
    /// After its last byte, not aligned.
    pub end: Lsn,
}

/// What is known of one range of WAL without reading it again.
///
/// Facts are those of records that lie wholly in the range. A record that crosses ranges comes
/// from joining [`RangeIndex::tail`] and [`RangeIndex::head`] of neighbours, see
/// [`super::RangeChain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeIndex {
    /// The major that wrote it.
    pub major: PgMajor,
    /// The timeline it was read as; its first pages may be an ancestor's.
    pub timeline: TimelineId,
    /// The cluster's segment size.
    pub segment_size: WalSegmentSize,
    /// Its first byte.
    pub start: Lsn,
    /// After its last byte.
    pub end: Lsn,
    /// The first whole record.
    pub first_record: Option<FirstRecord>,
    /// The last whole record.
    pub last_record: Option<LastRecord>,
    /// The rest of a record that began before.
    pub head: Option<HeadFragment>,
    /// The beginning of a record that ends after.
    pub tail: Option<TailFragment>,
    /// Up to here every byte belongs to a record, an open record or a page header.
    pub valid_end: Lsn,
    /// From here to the end of the segment, or of the log, nothing is meant to be read: after a
    /// segment switch, or where the log ends cleanly. A switch that closes the range leaves the
    /// padding to the ranges that follow; this is the range's end then.
    pub padding_from: Option<Lsn>,
    /// Where no valid record follows, with the reason; `None` after a segment switch.
    pub ended: Option<EndOfWal>,
    /// What the whole records say.
    pub facts: WalFacts,
}

impl RangeIndex {
    /// Whether a record goes on behind the range's end: one that begins in it, or one that all of
    /// it lies in.
    #[must_use]
    pub fn ends_in_a_record(&self) -> bool {
        let within = |head: &HeadFragment| head.state == HeadState::Unfinished;
        self.tail.is_some() || self.head.as_ref().is_some_and(within)
    }
}

/// The range's first page is not a valid one, and the caller did not give the major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoValidPage {
    /// Less than a page header was fed.
    #[error("no WAL page at {lsn}")]
    Missing {
        /// The range's start.
        lsn: Lsn,
    },
    /// The page is faulty, or of a major this version does not know.
    #[error("no valid WAL page at {lsn}: {fault}")]
    Faulty {
        /// The range's start.
        lsn: Lsn,
        /// What is wrong with the page.
        fault: PageFault,
    },
}

/// Indexes one range of WAL: feed its bytes in order, then take the index.
#[derive(Debug)]
pub struct SegmentIndexer {
    start: ReaderStart,
    reader: WalReader,
    first_record: Option<FirstRecord>,
    last_record: Option<LastRecord>,
    facts: WalFacts,
}

impl SegmentIndexer {
    /// An indexer of the range that begins at `start.lsn`.
    ///
    /// # Errors
    /// [`StartError`] for a place no record and no page begins at.
    pub fn new(start: ReaderStart) -> Result<Self, StartError> {
        Ok(Self {
            start,
            reader: WalReader::new(start)?,
            first_record: None,
            last_record: None,
            facts: WalFacts::default(),
        })
    }

    /// Takes the next bytes of the range, in pieces of any size.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(record) = self.reader.next(&mut bytes) {
            if self.first_record.is_none() {
                self.first_record = Some(FirstRecord { lsn: record.lsn, prev: record.header.prev });
            }
            self.last_record = Some(LastRecord { lsn: record.lsn, end: record.end });
            self.facts.apply(&record);
        }
    }

    /// The position of the next byte to be fed.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.reader.position()
    }

    /// The index of what was fed.
    ///
    /// # Errors
    /// [`NoValidPage`] if neither caller nor page told the major.
    pub fn finish(self) -> Result<RangeIndex, NoValidPage> {
        let ended = self.reader.end().copied();
        let lsn = self.start.lsn;
        let major = self.reader.major().ok_or(match ended.map(|end| end.reason) {
            Some(EndReason::Page(fault)) => NoValidPage::Faulty { lsn, fault },
            _ => NoValidPage::Missing { lsn },
        })?;
        let end = self.reader.position();
        let after_switch = self.reader.padding_from();
        let after_end = ended
            .filter(|ended| ended.later_page.is_none() && ended.lsn < end)
            .map(|ended| ended.lsn);
        let valid_end = after_switch.or(ended.map(|ended| ended.lsn)).unwrap_or(end).min(end);
        Ok(RangeIndex {
            major,
            timeline: self.start.timeline,
            segment_size: self.start.segment_size,
            start: self.start.lsn,
            end,
            first_record: self.first_record,
            last_record: self.last_record,
            head: self.reader.head().cloned(),
            tail: self.reader.tail(),
            valid_end,
            padding_from: after_switch.or(after_end),
            ended,
            facts: self.facts,
        })
    }
}
