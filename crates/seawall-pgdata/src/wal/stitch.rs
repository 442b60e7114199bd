//! Joins the cut-off ends of neighbouring ranges, in whatever order they are at hand.

use seawall_core::Lsn;

use super::block_ref::BlockRef;
use super::fragment::{FragmentBytes, HeadFragment, HeadState, TailFragment};
use super::record::{self, RECORD_HEADER_BYTES, Record, RecordExtras, RecordFault, RecordHeader};
use crate::PgMajor;

/// What became of a record that crosses from one range into the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stitch {
    /// It is whole, its CRC is right.
    Record(StitchedRecord),
    /// The server gave it up after a crash and wrote on at the end of the head fragment.
    Overwritten,
    /// It is longer than both ranges: join this with the head fragment of the next.
    NeedMore(TailFragment),
    /// It ends here and its bytes are too many to be kept with the index: read it again from
    /// `lsn` up to `end`.
    ByReference {
        /// Where it begins.
        lsn: Lsn,
        /// After its last byte, not aligned.
        end: Lsn,
    },
    /// The two do not belong together.
    Mismatch(StitchFault),
}

/// Why two ranges do not continue each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StitchFault {
    /// The second does not begin where the first ends.
    #[error("the ranges are not adjacent: one ends at {end}, the other begins at {start}")]
    NotAdjacent {
        /// End of the first.
        end: Lsn,
        /// Start of the second.
        start: Lsn,
    },
    /// They are of different majors or segment sizes, or the timeline goes back.
    #[error("the ranges belong to different logs")]
    OtherLog,
    /// One side is cut off in a record and the other is not, or by another number of bytes.
    #[error("{expected:?} bytes of a record are missing, {found:?} follow")]
    Remaining {
        /// Bytes that the first range leaves open.
        expected: Option<u32>,
        /// Bytes that the second range begins with.
        found: Option<u32>,
    },
    /// The joined bytes have a wrong CRC.
    #[error("the joined record's CRC is wrong")]
    WrongCrc,
    /// The joined bytes are not a record of this major.
    #[error("the joined record cannot be decoded: {0}")]
    Undecodable(RecordFault),
    /// The second range's records do not link to the first's.
    #[error("the record before is at {expected}, and the next one says {found}")]
    WrongPrev {
        /// The last record before the seam.
        expected: Lsn,
        /// What the first record after it says.
        found: Lsn,
    },
    /// A range inside a segment's padding holds something.
    #[error("the segment is padding, and something stands at {start}")]
    RecordsInPadding {
        /// Start of the range.
        start: Lsn,
    },
    /// The log ended in the first range, and goes on in the second.
    #[error("the log ended at {lsn}, before the range does")]
    EndedBefore {
        /// Where it ended.
        lsn: Lsn,
    },
}

/// A record that was joined from two or more ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StitchedRecord {
    major: PgMajor,
    lsn: Lsn,
    end: Lsn,
    header: RecordHeader,
    extras: RecordExtras,
    bytes: Vec<u8>,
    blocks: Vec<BlockRef>,
}

impl StitchedRecord {
    /// The record, to be applied like any other, between the two ranges' own.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        let place = (self.lsn, self.end);
        record::assemble(place, self.major, self.header, self.extras, &self.bytes, &self.blocks)
    }

    fn decode(
        tail: &TailFragment,
        end: Lsn,
        bytes: Vec<u8>,
        major: PgMajor,
    ) -> Result<Self, StitchFault> {
        let header = bytes
            .first_chunk::<RECORD_HEADER_BYTES>()
            .map(RecordHeader::parse)
            .ok_or(StitchFault::WrongCrc)?;
        if header.total_bytes as usize != bytes.len() || !record::crc_matches(&bytes, &header) {
            return Err(StitchFault::WrongCrc);
        }
        let mut blocks = Vec::new();
        let extras =
            record::decode_headers(&bytes, major, &mut blocks).map_err(StitchFault::Undecodable)?;
        Ok(Self { major, lsn: tail.lsn, end, header, extras, bytes, blocks })
    }
}

/// Joins the end of one range with the beginning of the next.
#[must_use]
pub fn stitch(tail: &TailFragment, head: &HeadFragment, major: PgMajor) -> Stitch {
    if tail.end != head.lsn {
        let fault = StitchFault::NotAdjacent { end: tail.end, start: head.lsn };
        return Stitch::Mismatch(fault);
    }
    let overwritten_at_once = head.state == HeadState::Overwritten && head.remaining_bytes == 0;
    let expected = tail.open_bytes();
    if !overwritten_at_once && expected != Some(head.remaining_bytes) {
        let found = Some(head.remaining_bytes);
        return Stitch::Mismatch(StitchFault::Remaining { expected, found });
    }
    let mut bytes = tail.bytes.clone();
    bytes.append_fragment(&head.bytes);
    match (head.state, bytes) {
        (HeadState::Overwritten, _) => Stitch::Overwritten,
        (HeadState::Unfinished, bytes) => {
            Stitch::NeedMore(TailFragment { bytes, end: head.end, ..tail.clone() })
        }
        (HeadState::Complete, FragmentBytes::ByReference { .. }) => {
            Stitch::ByReference { lsn: tail.lsn, end: head.end }
        }
        (HeadState::Complete, FragmentBytes::Verbatim(bytes)) => {
            StitchedRecord::decode(tail, head.end, bytes, major)
                .map_or_else(Stitch::Mismatch, Stitch::Record)
        }
    }
}

/// Joins the beginnings of two adjacent ranges of which the first lies wholly inside one record.
///
/// # Errors
/// [`StitchFault`] if the second does not go on where the first breaks off.
pub fn join_heads(
    first: &HeadFragment,
    second: &HeadFragment,
) -> Result<HeadFragment, StitchFault> {
    if first.end != second.lsn {
        return Err(StitchFault::NotAdjacent { end: first.end, start: second.lsn });
    }
    let have = u32::try_from(first.bytes.len_bytes()).unwrap_or(u32::MAX);
    let expected = first.remaining_bytes.checked_sub(have).filter(|left| *left > 0);
    let overwritten_at_once = second.state == HeadState::Overwritten && second.remaining_bytes == 0;
    let found = Some(second.remaining_bytes);
    if first.state != HeadState::Unfinished || (!overwritten_at_once && expected != found) {
        return Err(StitchFault::Remaining { expected, found });
    }
    let mut bytes = first.bytes.clone();
    bytes.append_fragment(&second.bytes);
    Ok(HeadFragment { end: second.end, bytes, state: second.state, ..*first })
}
