//! Reads records from the bytes of a write-ahead log, in whatever pieces they arrive.

use seawall_core::{Lsn, SystemId, TimelineId, WalSegmentSize};

use super::block_ref::BlockRef;
use super::end::{EndOfWal, EndReason};
use super::fragment::{FragmentBytes, HeadFragment, HeadState, TailFragment};
use super::page::{self, LONG_HEADER_BYTES, PageContext, PageHeader, WAL_PAGE_BYTES};
use super::record::{self, RECORD_HEADER_BYTES, Record, RecordExtras, RecordHeader};
use crate::PgMajor;

/// The longest record that is read unless the caller says otherwise: 1 GiB. The server itself
/// writes at most 1020 MiB (`XLogRecordMaxSize`, 16) or what one allocation holds (before).
pub const DEFAULT_MAX_RECORD_BYTES: u32 = 1 << 30;

/// Memory kept from one record to the next.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// Where a reader begins, and what is known of the log there.
#[derive(Debug, Clone, Copy)]
pub struct ReaderStart {
    /// The major. Needed to start inside a page; at a page's start the page tells it.
    pub major: Option<PgMajor>,
    /// The timeline that is read. Pages of its ancestors may come first.
    pub timeline: TimelineId,
    /// The first byte: a page's start, or where a record begins or the one before ends.
    pub lsn: Lsn,
    /// The cluster's segment size.
    pub segment_size: WalSegmentSize,
    /// The cluster, if pages of another one are to be refused.
    pub system_id: Option<SystemId>,
    /// Where the record before `lsn` begins, if known; the first record is checked against it.
    pub prev: Option<Lsn>,
    /// Longer records are not read; see [`DEFAULT_MAX_RECORD_BYTES`].
    pub max_record_bytes: u32,
}

impl ReaderStart {
    /// A start where nothing but the place is known.
    #[must_use]
    pub const fn at(timeline: TimelineId, lsn: Lsn, segment_size: WalSegmentSize) -> Self {
        Self {
            major: None,
            timeline,
            lsn,
            segment_size,
            system_id: None,
            prev: None,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        }
    }
}

/// A reader cannot begin at the place asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Inside a page, and the major is not given.
    #[error("the PostgreSQL major must be known to read WAL from inside a page, at {0}")]
    MajorUnknown(Lsn),
    /// In the middle of a page header.
    #[error("{0} lies inside a WAL page header")]
    InsidePageHeader(Lsn),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was read; the first page tells how it begins.
    FirstPage,
    /// In the rest of a record that began before the start.
    Head { remaining_bytes: u32 },
    /// Between records or in one.
    Records,
    /// After a segment switch, up to the segment's end.
    Padding,
    /// No valid record follows.
    Ended,
}

/// Reads records from WAL bytes that are fed in LSN order, page headers included.
///
/// Memory is bounded: only a record that crosses pages or pieces is copied, and the copy grows
/// with the bytes that are really there.
#[derive(Debug)]
pub struct WalReader {
    start: ReaderStart,
    major: Option<PgMajor>,
    page_timeline: TimelineId,
    /// Position of the next byte.
    lsn: Lsn,
    phase: Phase,
    /// A page header that arrives in pieces.
    page_header: Vec<u8>,
    /// The record that crosses pages or pieces; empty between records.
    partial: Vec<u8>,
    partial_lsn: Lsn,
    partial_total_bytes: Option<u32>,
    /// The first page that continues it, once there is one.
    partial_second_page: Option<Lsn>,
    /// The last call returned `partial`, which is to be cleared.
    partial_is_done: bool,
    blocks: Vec<BlockRef>,
    last_record: Option<Lsn>,
    head: Option<HeadFragment>,
    padding_from: Option<Lsn>,
    end: Option<EndOfWal>,
}

/// A record that was found whole: in the input, or (`None`) in the reader's buffer.
type WholeRecord<'a> = (Option<&'a [u8]>, Lsn, RecordHeader, RecordExtras);

/// What one piece of a page yielded: bytes used, and a record if one became whole.
enum Taken<'a> {
    Used(usize),
    Whole { used: usize, in_place: Option<&'a [u8]>, lsn: Lsn, header: RecordHeader },
    End(EndReason),
}

impl WalReader {
    /// A reader for the bytes from `start.lsn` on.
    ///
    /// # Errors
    /// [`StartError`] for a place no record and no page begins at.
    pub fn new(start: ReaderStart) -> Result<Self, StartError> {
        let offset = start.lsn.0 % WAL_PAGE_BYTES;
        if offset != 0 && offset < page::header_bytes(start.lsn, start.segment_size) {
            return Err(StartError::InsidePageHeader(start.lsn));
        }
        if offset != 0 && start.major.is_none() {
            return Err(StartError::MajorUnknown(start.lsn));
        }
        Ok(Self {
            start,
            major: start.major,
            page_timeline: TimelineId(1),
            lsn: start.lsn,
            phase: if offset == 0 { Phase::FirstPage } else { Phase::Records },
            page_header: Vec::new(),
            partial: Vec::new(),
            partial_lsn: start.lsn,
            partial_total_bytes: None,
            partial_second_page: None,
            partial_is_done: false,
            blocks: Vec::new(),
            last_record: start.prev,
            head: None,
            padding_from: None,
            end: None,
        })
    }

    /// Reads on in `input`, which is advanced past the bytes used, up to the next whole record.
    /// `None` means that all of `input` was used.
    ///
    /// After the end of the log ([`WalReader::end`]) bytes are still taken, for
    /// [`EndOfWal::later_page`], and no record comes any more.
    pub fn next<'r, 'a: 'r>(&'r mut self, input: &mut &'a [u8]) -> Option<Record<'r>> {
        self.forget_returned_record();
        let (in_place, lsn, header, extras) = self.find_record(input)?;
        let place = (lsn, self.lsn);
        let bytes = in_place.unwrap_or(&self.partial);
        let major = self.major?;
        Some(record::assemble(place, major, header, extras, bytes, &self.blocks))
    }

    /// The major, once given or read from a page.
    #[must_use]
    pub const fn major(&self) -> Option<PgMajor> {
        self.major
    }

    /// Position of the next byte to be fed.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.lsn
    }

    /// The rest of a record that began before the start, as far as it was read.
    #[must_use]
    pub const fn head(&self) -> Option<&HeadFragment> {
        self.head.as_ref()
    }

    /// The record that the bytes fed so far break off in.
    #[must_use]
    pub fn tail(&self) -> Option<TailFragment> {
        let open = !self.partial.is_empty() && !self.partial_is_done;
        open.then(|| TailFragment {
            lsn: self.partial_lsn,
            end: self.lsn,
            total_bytes: self.partial_total_bytes,
            bytes: FragmentBytes::keep(&self.partial),
        })
    }

    /// Where the log ended, if it did.
    #[must_use]
    pub const fn end(&self) -> Option<&EndOfWal> {
        self.end.as_ref()
    }

    /// The end of the segment switch that the position is behind, within its segment.
    #[must_use]
    pub const fn padding_from(&self) -> Option<Lsn> {
        self.padding_from
    }

    fn forget_returned_record(&mut self) {
        if self.partial_is_done {
            self.drop_partial();
        }
    }

    fn drop_partial(&mut self) {
        self.partial.clear();
        self.partial.shrink_to(KEPT_BUFFER_BYTES);
        self.partial_total_bytes = None;
        self.partial_second_page = None;
        self.partial_is_done = false;
    }

    /// Up to the next record whose CRC and headers are right.
    fn find_record<'a>(&mut self, input: &mut &'a [u8]) -> Option<WholeRecord<'a>> {
        while !input.is_empty() {
            let offset = self.lsn.0 % WAL_PAGE_BYTES;
            if offset < LONG_HEADER_BYTES as u64 && offset < self.page_header_bytes() {
                self.read_page_header(input);
                continue;
            }
            let rest_of_page = usize::try_from(WAL_PAGE_BYTES - offset).unwrap_or(usize::MAX);
            let (body, _) = input.split_at(rest_of_page.min(input.len()));
            let piece = match self.phase {
                Phase::Records => self.read_in_records(body),
                Phase::Head { remaining_bytes } => self.read_in_head(body, remaining_bytes),
                Phase::FirstPage | Phase::Padding | Phase::Ended => Taken::Used(body.len()),
            };
            match piece {
                Taken::Used(used) => self.advance(input, used),
                Taken::End(reason) => self.end_record(reason),
                Taken::Whole { used, in_place, lsn, header } => {
                    self.advance(input, used);
                    let accepted = self.accept(in_place, lsn, header);
                    if accepted.is_some() {
                        return accepted;
                    }
                }
            }
        }
        None
    }

    fn advance(&mut self, input: &mut &[u8], used: usize) {
        *input = input.get(used..).unwrap_or_default();
        self.lsn = self.lsn.saturating_add(used as u64);
    }

    /// Header bytes of the page at the position; padding is not read as pages.
    fn page_header_bytes(&mut self) -> u64 {
        if self.phase == Phase::Padding {
            if !self.lsn.0.is_multiple_of(self.start.segment_size.bytes()) {
                return 0;
            }
            self.phase = Phase::Records;
            self.padding_from = None;
        }
        page::header_bytes(self.lsn, self.start.segment_size)
    }

    fn read_page_header(&mut self, input: &mut &[u8]) {
        let have = self.page_header.len();
        let page_lsn = Lsn(self.lsn.0 - have as u64);
        let want = usize::try_from(page::header_bytes(page_lsn, self.start.segment_size))
            .unwrap_or(LONG_HEADER_BYTES);
        let (taken, _) = input.split_at(want.saturating_sub(have).min(input.len()));
        self.page_header.extend_from_slice(taken);
        self.advance(input, taken.len());
        if self.page_header.len() < want {
            return;
        }
        let header = PageHeader::parse(&self.page_header);
        self.page_header.clear();
        if let Ok(header) = header {
            self.enter_page(&header, page_lsn);
        }
    }

    fn enter_page(&mut self, header: &PageHeader, page_lsn: Lsn) {
        let checked = header.check(&PageContext {
            major: self.major,
            timeline: self.start.timeline,
            earliest_timeline: self.page_timeline,
            address: page_lsn,
            segment_size: self.start.segment_size,
            system_id: self.start.system_id,
        });
        if let (Phase::Ended, Some(end)) = (self.phase, &mut self.end) {
            if checked.is_ok() && end.later_page.is_none() {
                end.later_page = Some(page_lsn);
            }
            return;
        }
        match checked {
            Err(fault) => self.end_at(page_lsn, EndReason::Page(fault)),
            Ok(major) => {
                self.major = Some(major);
                self.page_timeline = header.timeline;
                self.continue_over_page(header, page_lsn);
            }
        }
    }

    /// Decides what the page begins with: the rest of the open record, or a record.
    fn continue_over_page(&mut self, header: &PageHeader, page_lsn: Lsn) {
        let found = header.continuation_bytes();
        if header.overwrites_continuation() && found.is_none() {
            return self.overwrite(page_lsn);
        }
        let expected = match self.phase {
            Phase::FirstPage => {
                self.begin_head(found, page_lsn);
                found.filter(|bytes| *bytes > 0)
            }
            Phase::Head { remaining_bytes } => Some(remaining_bytes),
            _ if self.partial.is_empty() => None,
            _ => self.partial_total_bytes.map(|total| {
                total.saturating_sub(u32::try_from(self.partial.len()).unwrap_or(u32::MAX))
            }),
        };
        if found != expected {
            self.end_at(page_lsn, EndReason::Continuation { expected, found });
        } else if !self.partial.is_empty() && self.partial_second_page.is_none() {
            self.partial_second_page = Some(page_lsn);
        }
    }

    fn begin_head(&mut self, found: Option<u32>, page_lsn: Lsn) {
        let remaining_bytes = found.unwrap_or(0);
        if remaining_bytes == 0 {
            self.phase = Phase::Records;
            return;
        }
        self.phase = Phase::Head { remaining_bytes };
        self.head = Some(HeadFragment {
            lsn: page_lsn,
            end: self.lsn,
            remaining_bytes,
            bytes: FragmentBytes::Verbatim(Vec::new()),
            state: HeadState::Unfinished,
        });
    }

    /// The record that reaches into this page was given up; the page begins with a new one.
    fn overwrite(&mut self, page_lsn: Lsn) {
        match self.phase {
            Phase::FirstPage => {
                self.head = Some(HeadFragment {
                    lsn: page_lsn,
                    end: page_lsn,
                    remaining_bytes: 0,
                    bytes: FragmentBytes::Verbatim(Vec::new()),
                    state: HeadState::Overwritten,
                });
            }
            Phase::Head { .. } => {
                if let Some(head) = &mut self.head {
                    head.end = page_lsn;
                    head.state = HeadState::Overwritten;
                }
            }
            Phase::Records | Phase::Padding | Phase::Ended => self.drop_partial(),
        }
        self.phase = Phase::Records;
    }

    fn read_in_head<'a>(&mut self, body: &'a [u8], remaining_bytes: u32) -> Taken<'a> {
        let used = body.len().min(remaining_bytes as usize);
        let left = remaining_bytes - u32::try_from(used).unwrap_or(remaining_bytes);
        self.phase = if left == 0 { Phase::Records } else { Phase::Head { remaining_bytes: left } };
        if let Some(head) = &mut self.head {
            head.bytes.append(body.get(..used).unwrap_or_default());
            head.end = self.lsn.saturating_add(used as u64);
            head.state = if left == 0 { HeadState::Complete } else { HeadState::Unfinished };
        }
        Taken::Used(used)
    }

    fn read_in_records<'a>(&mut self, body: &'a [u8]) -> Taken<'a> {
        if self.partial.is_empty() {
            let padding = self.lsn.align_up().bytes_since(self.lsn);
            if padding > 0 {
                return Taken::Used(body.len().min(usize::try_from(padding).unwrap_or(0)));
            }
            if let Some(fixed) = body.first_chunk::<RECORD_HEADER_BYTES>() {
                let header = RecordHeader::parse(fixed);
                if let Err(reason) = self.check_header(&header, self.lsn) {
                    return Taken::End(reason);
                }
                let used = header.total_bytes as usize;
                if let Some(whole) = body.get(..used) {
                    return Taken::Whole { used, in_place: Some(whole), lsn: self.lsn, header };
                }
            }
            self.partial_lsn = self.lsn;
        }
        self.read_partial(body)
    }

    /// Adds to the record that crosses pages or pieces: its length, its header, its rest.
    fn read_partial<'a>(&mut self, body: &'a [u8]) -> Taken<'a> {
        let have = self.partial.len();
        let want = match self.partial_total_bytes {
            None => 4,
            Some(_) if have < RECORD_HEADER_BYTES => RECORD_HEADER_BYTES,
            Some(total) => total as usize,
        };
        let (taken, _) = body.split_at(want.saturating_sub(have).min(body.len()));
        self.partial.extend_from_slice(taken);
        let used = taken.len();
        if self.partial.len() < want {
            return Taken::Used(used);
        }
        if let (None, Some(length)) = (self.partial_total_bytes, self.partial.first_chunk::<4>()) {
            let total_bytes = u32::from_le_bytes(*length);
            self.partial_total_bytes = Some(total_bytes);
            return match self.check_length(total_bytes) {
                Ok(()) => Taken::Used(used),
                Err(reason) => Taken::End(reason),
            };
        }
        let Some(fixed) = self.partial.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Taken::Used(used);
        };
        let header = RecordHeader::parse(fixed);
        if have < RECORD_HEADER_BYTES
            && let Err(reason) = self.check_header(&header, self.partial_lsn)
        {
            return Taken::End(reason);
        }
        if self.partial.len() < header.total_bytes as usize {
            return Taken::Used(used);
        }
        Taken::Whole { used, in_place: None, lsn: self.partial_lsn, header }
    }

    fn check_length(&self, total_bytes: u32) -> Result<(), EndReason> {
        match total_bytes {
            0 => Err(EndReason::ZeroLength),
            1..24 => Err(EndReason::ShortLength { total_bytes }),
            _ if total_bytes > self.start.max_record_bytes => {
                Err(EndReason::TooLong { total_bytes })
            }
            _ => Ok(()),
        }
    }

    fn check_header(&self, header: &RecordHeader, lsn: Lsn) -> Result<(), EndReason> {
        self.check_length(header.total_bytes)?;
        let linked = self.last_record.map_or(header.prev < lsn, |last| header.prev == last);
        if linked {
            Ok(())
        } else {
            Err(EndReason::WrongPrev { found: header.prev, expected: self.last_record })
        }
    }

    /// Checks CRC and headers of a whole record and moves on behind it.
    fn accept<'a>(
        &mut self,
        in_place: Option<&'a [u8]>,
        lsn: Lsn,
        header: RecordHeader,
    ) -> Option<WholeRecord<'a>> {
        let bytes = in_place.unwrap_or(&self.partial);
        let major = self.major?;
        let decoded = if record::crc_matches(bytes, &header) {
            record::decode_headers(bytes, major, &mut self.blocks).map_err(EndReason::Undecodable)
        } else {
            Err(EndReason::WrongCrc)
        };
        match decoded {
            Err(reason) => {
                self.finish_with(lsn, lsn, reason);
                None
            }
            Ok(extras) => {
                self.partial_is_done = in_place.is_none();
                self.last_record = Some(lsn);
                if header.is_wal_switch() {
                    self.begin_padding();
                }
                Some((in_place, lsn, header, extras))
            }
        }
    }

    fn begin_padding(&mut self) {
        if !self.lsn.align_up().0.is_multiple_of(self.start.segment_size.bytes()) {
            self.phase = Phase::Padding;
            self.padding_from = Some(self.lsn.align_up());
        }
    }

    /// Ends the log because of the header of the record at hand.
    fn end_record(&mut self, reason: EndReason) {
        let lsn = if self.partial.is_empty() { self.lsn } else { self.partial_lsn };
        if reason == EndReason::ZeroLength && self.is_behind_crossing_switch(lsn) {
            self.drop_partial();
            self.phase = Phase::Padding;
            self.padding_from = Some(lsn);
            return;
        }
        self.finish_with(lsn, lsn, reason);
    }

    /// Whether nothing but the end of a segment switch that began in the segment before precedes
    /// `lsn` in its segment. A switch that crosses leaves the whole next segment empty
    /// (`ReserveXLogSwitch`, xlog.c).
    fn is_behind_crossing_switch(&self, lsn: Lsn) -> bool {
        self.last_record == self.start.prev
            && self.head.as_ref().is_some_and(|head| {
                head.lsn.0.is_multiple_of(self.start.segment_size.bytes())
                    && head.end.align_up() == lsn
                    && head.may_end_switch()
            })
    }

    /// Ends the log because of what stands at `fault_lsn`; an open record never was one.
    fn end_at(&mut self, fault_lsn: Lsn, reason: EndReason) {
        let lsn = if self.partial.is_empty() { fault_lsn } else { self.partial_lsn };
        self.finish_with(lsn, fault_lsn, reason);
    }

    fn finish_with(&mut self, lsn: Lsn, fault_lsn: Lsn, reason: EndReason) {
        let later_page = self.partial_second_page.filter(|page| *page > fault_lsn);
        self.drop_partial();
        if self.end.is_none() {
            self.end = Some(EndOfWal { lsn, fault_lsn, reason, later_page });
        }
        self.phase = Phase::Ended;
    }
}
