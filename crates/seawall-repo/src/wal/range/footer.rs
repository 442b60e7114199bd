//! The footer of a range.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use seawall_core::{Lsn, PgTimestamp, SystemId, TimelineId, WalSegmentSize};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::page::WAL_PAGE_BYTES;
use seawall_pgdata::wal::{
    FirstRecord, FragmentBytes, HeadFragment, HeadState, LastRecord, RangeIndex, TailFragment,
    WalFacts,
};

use super::{CHUNK_BYTES, WalRange};
use crate::hash::BlockHash;
use crate::layout::WalRangeName;
use crate::wal::so_far::{LastCommit, LogSoFar};
use crate::{Damage, varint};

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct FooterBody {
    #[cbor(n(0), with = "crate::cbor::timeline")]
    timeline: TimelineId,
    #[cbor(n(1), with = "crate::cbor::lsn")]
    start: Lsn,
    #[cbor(n(2), with = "crate::cbor::lsn")]
    end: Lsn,
    #[n(3)]
    segment_bytes: u32,
    #[cbor(n(4), with = "crate::cbor::system_id")]
    system_id: SystemId,
    #[n(5)]
    major: u32,
    #[n(6)]
    index_at: (u64, u32),
    #[n(7)]
    chunk_lengths: ByteVec,
    #[n(8)]
    page_hashes: ByteVec,
    #[n(9)]
    head: Option<HeadBody>,
    #[n(10)]
    tail: Option<TailBody>,
    #[n(11)]
    first_record: Option<(u64, u64)>,
    #[n(12)]
    last_record: Option<(u64, u64)>,
    #[n(14)]
    padding_from: Option<u64>,
    #[n(15)]
    so_far: SoFarBody,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct SoFarBody {
    #[cbor(n(0), with = "crate::cbor::lsn")]
    since: Lsn,
    #[n(1)]
    minimal_from: Option<u64>,
    #[n(2)]
    last_commit: Option<(u64, u64, i64)>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct HeadBody {
    #[n(0)]
    remaining: u32,
    #[n(1)]
    bytes: Option<ByteVec>,
    #[n(2)]
    length: u64,
    #[n(3)]
    state: u8,
    #[cbor(n(4), with = "crate::cbor::lsn")]
    end: Lsn,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct TailBody {
    #[cbor(n(0), with = "crate::cbor::lsn")]
    lsn: Lsn,
    #[n(1)]
    bytes: Option<ByteVec>,
    #[n(2)]
    length: u64,
    #[n(3)]
    total: Option<u32>,
}

impl FooterBody {
    pub(super) fn of(range: &WalRange) -> Self {
        let index = &range.index;
        let mut chunk_lengths = Vec::new();
        for length in &range.chunk_lengths {
            varint::put(&mut chunk_lengths, u64::from(*length));
        }
        Self {
            timeline: index.timeline,
            start: index.start,
            end: index.end,
            segment_bytes: index.segment_size.into(),
            system_id: range.system_id,
            major: index.major.number(),
            index_at: range.index_at,
            chunk_lengths: chunk_lengths.into(),
            page_hashes: range.page_hashes.as_flattened().to_vec().into(),
            head: index.head.as_ref().map(HeadBody::of),
            tail: index.tail.as_ref().map(TailBody::of),
            first_record: index.first_record.map(|record| (record.lsn.0, record.prev.0)),
            last_record: index.last_record.map(|record| (record.lsn.0, record.end.0)),
            padding_from: index.padding_from.map(|lsn| lsn.0),
            so_far: SoFarBody::of(&range.so_far),
        }
    }

    /// The range that `name` promises, with an index that has no facts yet.
    pub(super) fn range(self, name: WalRangeName) -> Result<WalRange, Damage> {
        let segment_size =
            WalSegmentSize::new(self.segment_bytes).map_err(|error| wrong(&error.to_string()))?;
        let major = PgMajor::from_number(self.major)
            .filter(|major| major.number() == self.major)
            .ok_or_else(|| wrong("it is of an unknown major"))?;
        let (start, end) = (self.start, self.end);
        let named = (self.timeline, start, end) == (name.timeline, name.start, name.end);
        let in_segment = start.0 - start.0 % segment_size.bytes() == name.segment.0
            && end > start
            && end.bytes_since(name.segment) <= segment_size.bytes();
        if !named || !in_segment {
            return Err(wrong("it is another range than its name says"));
        }
        let within = |lsn: u64| start.0 <= lsn && lsn <= end.0;
        let records_fit = self.first_record.is_none_or(|(lsn, _)| within(lsn))
            && self.last_record.is_none_or(|(lsn, record_end)| within(lsn) && within(record_end))
            && self.first_record.is_some() == self.last_record.is_some()
            && self.padding_from.is_none_or(within);
        if !records_fit {
            return Err(wrong("its records are elsewhere"));
        }
        let padding_from = self.padding_from.map(Lsn);
        let index = RangeIndex {
            major,
            timeline: self.timeline,
            segment_size,
            start,
            end,
            first_record: self
                .first_record
                .map(|(lsn, prev)| FirstRecord { lsn: Lsn(lsn), prev: Lsn(prev) }),
            last_record: self
                .last_record
                .map(|(lsn, end)| LastRecord { lsn: Lsn(lsn), end: Lsn(end) }),
            head: self.head.map(|head| head.fragment(start, end)).transpose()?,
            tail: self.tail.map(|tail| tail.fragment(start, end)).transpose()?,
            valid_end: padding_from.unwrap_or(end),
            padding_from,
            ended: None,
            facts: WalFacts::default(),
        };
        Ok(WalRange {
            system_id: self.system_id,
            page_hashes: page_hashes(&self.page_hashes, start, end)?,
            so_far: self.so_far.read(start, end)?,
            chunk_lengths: chunk_lengths(&self.chunk_lengths, end.bytes_since(start))?,
            index_at: self.index_at,
            index,
        })
    }
}

impl SoFarBody {
    fn of(so_far: &LogSoFar) -> Self {
        let commit = |commit: LastCommit| (commit.lsn.0, commit.end_lsn.0, commit.time.0);
        Self {
            since: so_far.since,
            minimal_from: so_far.minimal_from.map(|lsn| lsn.0),
            last_commit: so_far.last_commit.map(commit),
        }
    }

    fn read(self, start: Lsn, end: Lsn) -> Result<LogSoFar, Damage> {
        let since = self.since;
        let within = |lsn: u64| since.0 <= lsn && lsn < end.0;
        let sound = since <= start
            && self.minimal_from.is_none_or(within)
            && self
                .last_commit
                .is_none_or(|(lsn, last, _)| within(lsn) && lsn < last && last <= end.0);
        if !sound {
            return Err(wrong("what the log says up to its end lies elsewhere"));
        }
        let commit = |(lsn, end_lsn, time)| LastCommit {
            lsn: Lsn(lsn),
            end_lsn: Lsn(end_lsn),
            time: PgTimestamp(time),
        };
        Ok(LogSoFar {
            since,
            minimal_from: self.minimal_from.map(Lsn),
            last_commit: self.last_commit.map(commit),
        })
    }
}

impl HeadBody {
    fn of(head: &HeadFragment) -> Self {
        Self {
            remaining: head.remaining_bytes,
            bytes: verbatim(&head.bytes),
            length: head.bytes.len_bytes(),
            state: match head.state {
                HeadState::Complete => 0,
                HeadState::Unfinished => 1,
                HeadState::Overwritten => 2,
            },
            end: head.end,
        }
    }

    fn fragment(self, start: Lsn, end: Lsn) -> Result<HeadFragment, Damage> {
        let state = match self.state {
            0 => HeadState::Complete,
            1 => HeadState::Unfinished,
            2 => HeadState::Overwritten,
            _ => return Err(wrong("its head is in an unknown state")),
        };
        if self.end < start || self.end > end {
            return Err(wrong("its head ends elsewhere"));
        }
        Ok(HeadFragment {
            lsn: start,
            end: self.end,
            remaining_bytes: self.remaining,
            bytes: fragment_bytes(self.bytes, self.length)?,
            state,
        })
    }
}

impl TailBody {
    fn of(tail: &TailFragment) -> Self {
        Self {
            lsn: tail.lsn,
            bytes: verbatim(&tail.bytes),
            length: tail.bytes.len_bytes(),
            total: tail.total_bytes,
        }
    }

    fn fragment(self, start: Lsn, end: Lsn) -> Result<TailFragment, Damage> {
        if self.lsn < start || self.lsn >= end {
            return Err(wrong("its tail begins elsewhere"));
        }
        let bytes = fragment_bytes(self.bytes, self.length)?;
        Ok(TailFragment { lsn: self.lsn, end, total_bytes: self.total, bytes })
    }
}

fn verbatim(bytes: &FragmentBytes) -> Option<ByteVec> {
    match bytes {
        FragmentBytes::Verbatim(bytes) => Some(bytes.clone().into()),
        FragmentBytes::ByReference { .. } => None,
    }
}

fn fragment_bytes(bytes: Option<ByteVec>, length: u64) -> Result<FragmentBytes, Damage> {
    match bytes {
        None => Ok(FragmentBytes::ByReference { len_bytes: length }),
        Some(bytes) if bytes.len() as u64 == length => Ok(FragmentBytes::Verbatim(bytes.into())),
        Some(_) => Err(wrong("a fragment has another length")),
    }
}

fn page_hashes(bytes: &[u8], start: Lsn, end: Lsn) -> Result<Vec<BlockHash>, Damage> {
    let pages = end.0.div_ceil(WAL_PAGE_BYTES) - start.0 / WAL_PAGE_BYTES;
    let (hashes, rest) = bytes.as_chunks::<8>();
    if rest.is_empty() && hashes.len() as u64 == pages {
        Ok(hashes.to_vec())
    } else {
        Err(wrong("it has not one hash for each page"))
    }
}

fn chunk_lengths(mut bytes: &[u8], range_bytes: u64) -> Result<Vec<u32>, Damage> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let length = varint::take(&mut bytes).and_then(|length| u32::try_from(length).ok());
        lengths.push(length.ok_or_else(|| wrong("a chunk's length cannot be"))?);
    }
    if lengths.len() as u64 == range_bytes.div_ceil(CHUNK_BYTES as u64) {
        Ok(lengths)
    } else {
        Err(wrong("it has another number of chunks"))
    }
}

/// The footer is authentic and contradicts itself or its name.
pub(super) fn wrong(what: &str) -> Damage {
    Damage::Content(format!("the footer of a WAL range is wrong: {what}"))
}
