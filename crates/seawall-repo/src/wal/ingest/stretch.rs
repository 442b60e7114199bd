//! What came of the log: whose bytes they are, and up to where they are WAL.

use seawall_core::{Action, Code, Error, Lsn, Result, SystemId, TimelineId, WalSegment, hint};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::page::{SHORT_HEADER_BYTES, WAL_PAGE_BYTES, header_bytes};
use seawall_pgdata::wal::{
    DEFAULT_MAX_RECORD_BYTES, EndOfWal, HeadState, PageHeader, RangeIndex, ReaderStart,
    SegmentIndexer,
};

use super::SegmentKind;
use crate::wal::LsnRange;

/// How bytes of the log came, and so what their end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// As a segment file.
    File(SegmentKind),
    /// As a stream brings them: more follows.
    Stream,
}

/// Bytes of the log within one segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch<'a> {
    /// The segment, of the timeline they came as.
    pub segment: WalSegment,
    /// The first byte's position.
    pub start: Lsn,
    pub bytes: &'a [u8],
    pub origin: Origin,
    pub system_id: SystemId,
    pub major: PgMajor,
}

/// The part of a stretch that one timeline wrote, up to where it is valid.
#[derive(Debug)]
pub(super) struct TimelinePiece {
    pub timeline: TimelineId,
    pub range: LsnRange,
    pub index: RangeIndex,
}

/// What a stretch holds.
#[derive(Debug)]
pub(super) struct Examined {
    /// In LSN order, adjacent, none empty.
    pub pieces: Vec<TimelinePiece>,
    /// Up to here it is WAL, or filler after a switch.
    pub valid_to: Lsn,
    /// The log seems to end there, and it may be damage instead.
    pub doubt: Option<EndOfWal>,
}

impl<'a> Stretch<'a> {
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> Error {
        let name = self.name();
        let hint = match self.origin {
            Origin::File(SegmentKind::Whole) => {
                "PostgreSQL pushes the segment again until it succeeds; check the disk and pg_wal."
            }
            Origin::File(SegmentKind::Partial) => {
                "Look at the disk that it is on, and go on with the other files."
            }
            Origin::Stream => "Ask the server for it again; check its disk and pg_wal.",
        };
        Error::new(Code::WalDamaged, format!("{name} cannot be archived: {what}")).with_hint(hint)
    }

    /// How people are told of it.
    pub(super) fn name(&self) -> String {
        match self.origin {
            Origin::File(_) => self.segment.to_string(),
            Origin::Stream => {
                format!("WAL from {} of timeline {}", self.range(), self.segment.timeline)
            }
        }
    }

    pub(super) fn range(&self) -> LsnRange {
        LsnRange { start: self.start, end: self.start.saturating_add(self.bytes.len() as u64) }
    }

    /// The bytes in `range`.
    pub(super) fn slice(&self, range: LsnRange) -> &'a [u8] {
        range.of(self.bytes, self.start)
    }

    /// As much of it as ends where a record or a page may begin.
    pub(super) fn readable(mut self) -> Self {
        let end = Lsn(self.range().end.0 / 8 * 8);
        let page = Lsn(end.0 / WAL_PAGE_BYTES * WAL_PAGE_BYTES);
        let in_header = end.bytes_since(page) < header_bytes(page, self.segment.size);
        let end = if in_header { page } else { end }.max(self.start);
        self.bytes = self.slice(LsnRange { start: self.start, end });
        self
    }

    /// Divides it among timelines and reads every record.
    pub(super) fn examine(&self, ancestry: &Ancestry) -> Result<Examined> {
        if ancestry.span(self.segment.timeline).is_some_and(|own| own.begin >= self.range().end) {
            return Err(
                self.damaged(format!("timeline {} begins only behind it", self.segment.timeline))
            );
        }
        let mut pieces: Vec<TimelinePiece> = Vec::new();
        let mut doubt = None;
        let mut valid_to = self.start;
        for span in ancestry.spans() {
            let lived = LsnRange { start: span.begin, end: span.end.unwrap_or(Lsn(u64::MAX)) };
            let Some(range) = self.range().overlap(lived) else { continue };
            let prev = pieces.last().and_then(|piece| piece.index.last_record);
            let prev = prev.map(|record| record.lsn);
            let mut index = self.index(span.timeline, range, prev)?;
            self.check_crossing_switch(&index)?;
            let end = self.valid_end(&index)?;
            if span.end.is_some_and(|switch| switch <= self.range().end) {
                self.check_left_whole(&index, end)?;
            } else if index.ended.is_some() || end < index.end {
                doubt = index.ended.filter(|ended| self.is_doubtful(ended));
                index = self.index(span.timeline, LsnRange { end, ..range }, prev)?;
            }
            valid_to = end;
            if end > range.start {
                let range = LsnRange { end, ..range };
                pieces.push(TimelinePiece { timeline: span.timeline, range, index });
            }
        }
        self.check_page_timelines(ancestry, &pieces)?;
        Ok(Examined { pieces, valid_to, doubt })
    }

    /// Reads the records of a part of it.
    pub(super) fn index(
        &self,
        timeline: TimelineId,
        range: LsnRange,
        prev: Option<Lsn>,
    ) -> Result<RangeIndex> {
        let start = ReaderStart {
            major: Some(self.major),
            timeline,
            lsn: range.start,
            segment_size: self.segment.size,
            system_id: Some(self.system_id),
            prev,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        };
        let mut indexer = SegmentIndexer::new(start).map_err(|error| self.damaged(error))?;
        indexer.feed(self.slice(range));
        indexer.finish().map_err(|error| self.damaged(error))
    }

    /// What an ancestor wrote up to the switch has to be all there: its child goes on from it.
    fn check_left_whole(&self, index: &RangeIndex, valid_end: Lsn) -> Result<()> {
        let open = index.tail.as_ref().filter(|_| !index.end.0.is_multiple_of(WAL_PAGE_BYTES));
        match (index.ended, open) {
            (None, None) => Ok(()),
            (None, Some(tail)) => Err(self.damaged(format!(
                "the switch at {} lies within the record at {}",
                index.end, tail.lsn
            ))),
            (Some(ended), _) => Err(self.damaged(format!(
                "it is valid up to {valid_end}, not up to the switch at {}: {}",
                index.end, ended.reason
            ))),
        }
    }

    /// Whether bytes that look like the end of the log are damage, or may be. PostgreSQL has a
    /// segment archived that is full or switched, so that a whole one does not end before its end
    /// (`XLogWrite`, xlog.c). Whether a timeline left it there is for the caller to know.
    const fn is_doubtful(&self, ended: &EndOfWal) -> bool {
        match self.origin {
            Origin::File(SegmentKind::Whole) | Origin::Stream => true,
            Origin::File(SegmentKind::Partial) => ended.later_page.is_some(),
        }
    }

    /// Up to where it can be stored as a range of its own.
    fn valid_end(&self, index: &RangeIndex) -> Result<Lsn> {
        match (self.origin, index.ended) {
            (Origin::File(_), _) => Ok(whole_records_end(index)),
            // A server sends nothing that it has not written.
            (Origin::Stream, Some(ended)) => {
                Err(self.damaged(format!("at {}, {}", ended.fault_lsn, ended.reason)))
            }
            (Origin::Stream, None) => Ok(open_end(index)),
        }
    }

    /// A switch that began in the segment before leaves this one empty. Of a switch in it the record
    /// itself tells; here only the end of one does, so nothing else may be there.
    fn check_crossing_switch(&self, index: &RangeIndex) -> Result<()> {
        let Some(filler) = index.padding_from.filter(|_| index.last_record.is_none()) else {
            return Ok(());
        };
        let rest = LsnRange { start: filler, end: index.end };
        if self.slice(rest).iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(self
            .damaged(format!("behind the segment switch that ends at {filler} something stands")))
    }

    /// Every page names the timeline that began it. It has to be the one the history names.
    fn check_page_timelines(&self, ancestry: &Ancestry, pieces: &[TimelinePiece]) -> Result<()> {
        for piece in pieces {
            let filler = piece.index.padding_from.unwrap_or(piece.range.end);
            let mut page = Lsn(piece.range.start.0.next_multiple_of(WAL_PAGE_BYTES));
            while page < filler {
                let header =
                    LsnRange { start: page, end: page.saturating_add(SHORT_HEADER_BYTES as u64) };
                let found = PageHeader::parse(self.slice(header))
                    .map_err(|error| self.damaged(error))?
                    .timeline;
                let expected = ancestry.timeline_at(page);
                if found != expected {
                    return Err(self.other_timeline(ancestry, page, found, expected));
                }
                page = page.saturating_add(WAL_PAGE_BYTES);
            }
        }
        Ok(())
    }

    fn other_timeline(
        &self,
        ancestry: &Ancestry,
        page: Lsn,
        found: TimelineId,
        expected: TimelineId,
    ) -> Error {
        let tip = ancestry.tip();
        if ancestry.spans().count() > 1 || tip == TimelineId(1) {
            return self.damaged(format!(
                "the page at {page} is of timeline {found}, and by its history of timeline {expected}"
            ));
        }
        let what = format!(
            "{} holds WAL of timeline {found} too, and the history of timeline {tip} is not archived",
            self.name()
        );
        Error::new(Code::WalDiscontinuous, what).with_hint(hint![
            "Archive the history first: ",
            Action::PushWal { file: format!("pg_wal/{:08X}.history", tip.0).into() },
            "."
        ])
    }
}

/// Where the last record ends that is known to be whole. Everything, unless the log ended.
fn whole_records_end(index: &RangeIndex) -> Lsn {
    if index.ended.is_none() {
        return index.end;
    }
    let head = index.head.as_ref().filter(|head| head.state == HeadState::Complete);
    let record = index.last_record.map(|record| record.end.align_up());
    record.or(head.map(|head| head.end.align_up())).unwrap_or(index.start).min(index.end)
}

/// Everything, unless a record goes on behind: then the last page boundary within it, or where it
/// begins. Whoever has only what follows can read on there.
fn open_end(index: &RangeIndex) -> Lsn {
    if !index.ends_in_a_record() {
        return index.end;
    }
    let page = Lsn(index.end.0 / WAL_PAGE_BYTES * WAL_PAGE_BYTES);
    let begins = index.tail.as_ref().map_or(index.start, |tail| tail.lsn);
    page.max(begins)
}
