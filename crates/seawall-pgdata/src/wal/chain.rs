//! Proves that indexed ranges of WAL are one log.

use seawall_core::{Lsn, TimelineId, WalSegmentSize};

use super::fragment::{FragmentBytes, HeadFragment, HeadState, TailFragment};
use super::segment_index::RangeIndex;
use super::stitch::{Stitch, StitchFault, StitchedRecord, join_heads, stitch};
use crate::PgMajor;

/// What lies on the seam between a chain of ranges and the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Nothing of the chain: a record ends at the seam, padding goes on, or the seam belongs to
    /// the record that the chain begins in ([`RangeChain::head`]).
    Seamless,
    /// A record that became whole.
    Record(Box<StitchedRecord>),
    /// A record that the server gave up.
    Overwritten,
    /// A record that ends in the range and has to be read again; see [`Stitch::ByReference`].
    ByReference {
        /// Where it begins.
        lsn: Lsn,
        /// After its last byte, not aligned.
        end: Lsn,
    },
    /// The range lies wholly inside a record that goes on.
    Unfinished,
}

/// Proves that adjacent ranges are one log, and joins the records that cross from one to the
/// next, without reading the ranges again.
#[derive(Debug, Clone)]
pub struct RangeChain {
    major: PgMajor,
    segment_size: WalSegmentSize,
    timeline: TimelineId,
    end: Lsn,
    /// Where the log ended before the chain does.
    ended_at: Option<Lsn>,
    /// The end of the segment whose rest is padding.
    padding_until: Option<Lsn>,
    /// The record that the chain begins in, joined from as many ranges as it crosses.
    head: Option<HeadFragment>,
    /// The record that is open at the end, joined likewise.
    tail: Option<TailFragment>,
    /// The last whole record, of whichever range.
    last_record: Option<Lsn>,
}

impl RangeChain {
    /// A chain of one range.
    #[must_use]
    pub fn new(first: &RangeIndex) -> Self {
        Self {
            major: first.major,
            segment_size: first.segment_size,
            timeline: first.timeline,
            end: first.end,
            ended_at: first.ended.map(|ended| ended.lsn),
            padding_until: padding_until(first),
            head: first.head.clone(),
            tail: first.tail.clone(),
            last_record: first.last_record.map(|record| record.lsn),
        }
    }

    /// The end of the last range.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// The rest of the record that the chain begins in.
    #[must_use]
    pub const fn head(&self) -> Option<&HeadFragment> {
        self.head.as_ref()
    }

    /// The record that is open at the end.
    #[must_use]
    pub const fn tail(&self) -> Option<&TailFragment> {
        self.tail.as_ref()
    }

    /// Appends the next range. What [`Link`] yields comes before the range's own facts.
    ///
    /// # Errors
    /// [`StitchFault`] if the range does not continue the chain; the chain stays as it was.
    pub fn push(&mut self, next: &RangeIndex) -> Result<Link, StitchFault> {
        self.check_place(next)?;
        if next.start == next.end {
            return Ok(Link::Seamless);
        }
        if self.padding_until.is_some_and(|until| next.start < until) {
            return self.push_padding(next);
        }
        if let Some(head) = self.unfinished_head() {
            let joined = join_heads(head, next.head.as_ref().unwrap_or(&no_head(next)))?;
            *self = Self { head: Some(joined), ..Self::new(next) };
            return Ok(Link::Seamless);
        }
        let (link, crossing) = self.link(next)?;
        let before = crossing.or(self.last_record);
        if let (Some(first), Some(expected)) = (next.first_record, before)
            && first.prev != expected
        {
            return Err(StitchFault::WrongPrev { expected, found: first.prev });
        }
        let (link, tail) = match link {
            Crossing::Open(tail) => (Link::Unfinished, Some(tail)),
            Crossing::Closed(link) => (link, next.tail.clone()),
        };
        *self = Self {
            last_record: next.last_record.map(|record| record.lsn).or(before),
            tail,
            head: self.head.take(),
            ..Self::new(next)
        };
        Ok(link)
    }

    /// The head, as long as the chain lies wholly inside one record.
    fn unfinished_head(&self) -> Option<&HeadFragment> {
        self.head.as_ref().filter(|head| head.state == HeadState::Unfinished)
    }

    /// Within padding nothing is meant to be read, and nothing may be.
    fn push_padding(&mut self, next: &RangeIndex) -> Result<Link, StitchFault> {
        let is_empty = next.last_record.is_none() && next.head.is_none() && next.tail.is_none();
        if !is_empty || self.padding_until.is_some_and(|until| next.end > until) {
            return Err(StitchFault::RecordsInPadding { start: next.start });
        }
        self.padding_until = self.padding_until.filter(|until| next.end < *until);
        self.end = next.end;
        Ok(Link::Seamless)
    }

    fn check_place(&self, next: &RangeIndex) -> Result<(), StitchFault> {
        if self.end != next.start {
            return Err(StitchFault::NotAdjacent { end: self.end, start: next.start });
        }
        let same_log = self.major == next.major
            && self.segment_size == next.segment_size
            && self.timeline <= next.timeline;
        if !same_log {
            return Err(StitchFault::OtherLog);
        }
        self.ended_at.map_or(Ok(()), |lsn| Err(StitchFault::EndedBefore { lsn }))
    }

    /// What lies on the seam, and where the record that crosses it begins if it is whole now.
    fn link(&self, next: &RangeIndex) -> Result<(Crossing, Option<Lsn>), StitchFault> {
        let closed = |link| Ok((Crossing::Closed(link), None));
        let (tail, head) = match (&self.tail, &next.head) {
            (None, None) => return closed(Link::Seamless),
            (Some(tail), Some(head)) => (tail, head),
            (tail, head) => {
                return Err(StitchFault::Remaining {
                    expected: tail.as_ref().and_then(TailFragment::open_bytes),
                    found: head.as_ref().map(|head| head.remaining_bytes),
                });
            }
        };
        match stitch(tail, head, next.major) {
            Stitch::Record(record) => {
                let found = record.record().header.prev;
                if let Some(expected) = self.last_record.filter(|expected| *expected != found) {
                    return Err(StitchFault::WrongPrev { expected, found });
                }
                check_crossing_switch(&record, next)?;
                Ok((Crossing::Closed(Link::Record(Box::new(record))), Some(tail.lsn)))
            }
            Stitch::Overwritten => closed(Link::Overwritten),
            Stitch::ByReference { lsn, end } => {
                Ok((Crossing::Closed(Link::ByReference { lsn, end }), Some(lsn)))
            }
            Stitch::NeedMore(tail) => Ok((Crossing::Open(tail), None)),
            Stitch::Mismatch(fault) => Err(fault),
        }
    }
}

/// A segment switch that crosses into a segment leaves the rest of it empty, and nothing else does.
fn check_crossing_switch(record: &StitchedRecord, next: &RangeIndex) -> Result<(), StitchFault> {
    let record = record.record();
    let rest = record.end.align_up();
    let is_empty = next.padding_from == Some(rest);
    match (record.header.is_wal_switch(), is_empty) {
        (true, false) if rest < next.end => Err(StitchFault::RecordsInPadding { start: rest }),
        (false, true) if next.first_record.is_none() => Err(StitchFault::EndedBefore { lsn: rest }),
        _ => Ok(()),
    }
}

/// Whether the record on the seam goes on behind the range.
enum Crossing {
    Open(TailFragment),
    Closed(Link),
}

/// What a range begins with that does not continue a record.
const fn no_head(range: &RangeIndex) -> HeadFragment {
    HeadFragment {
        lsn: range.start,
        end: range.start,
        remaining_bytes: 0,
        bytes: FragmentBytes::Verbatim(Vec::new()),
        state: HeadState::Complete,
    }
}

/// The end of the segment that a switch left, if the range ends before it.
fn padding_until(range: &RangeIndex) -> Option<Lsn> {
    let segment_bytes = range.segment_size.bytes();
    let switched = range.ended.is_none() && range.padding_from.is_some();
    (switched && !range.end.0.is_multiple_of(segment_bytes))
        .then(|| Lsn(range.end.0.next_multiple_of(segment_bytes)))
}
