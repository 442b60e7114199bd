//! Walks along the log from range to range, by footers and indexes alone unless all bytes are to be
//! proven.

use std::collections::VecDeque;

use futures_util::future::join_all;
use seawall_core::{Action, Code, Error, ExitClass, Lsn, Result, hint};
use seawall_pgdata::history::{Ancestry, TimelineSpan};
use seawall_pgdata::wal::{
    DEFAULT_MAX_RECORD_BYTES, LastRecord, Link, RangeChain, RangeIndex, ReaderStart,
    SegmentIndexer, WalFacts,
};

use super::archive::READS_AT_ONCE;
use super::listing::{Listed, RangeCursor};
use super::{LsnRange, WalArchive};
use crate::error;

/// How much is read of each range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only its footer: where it ends, and whether the next one continues it.
    Seams,
    /// Of its index, the events too.
    Events,
    /// Its whole index: what its records say.
    Facts,
    /// All of it: every byte is proven to be what was written.
    Bytes,
}

impl Detail {
    /// How many ranges are read at the same time: bytes one by one, for the sake of memory.
    const fn read_ahead(self) -> usize {
        match self {
            Self::Seams | Self::Events => READS_AT_ONCE,
            Self::Facts => 8,
            Self::Bytes => 1,
        }
    }

    /// Whether a record that crosses ranges is read if these do not hold its bytes.
    const fn reads_crossing_records(self) -> bool {
        match self {
            Self::Events | Self::Facts => true,
            Self::Seams | Self::Bytes => false,
        }
    }
}

/// WAL that is not there, or two ranges that do not continue each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalHole {
    /// What is missing; empty at a seam.
    pub range: LsnRange,
    /// What is wrong.
    pub why: String,
    /// Something is stored there, and it is damaged: what the error of reading it says. Only walks
    /// that pass over damage tell of it ([`LogWalker::passing_damage`]).
    pub damage: Option<String>,
}

impl WalHole {
    /// The hole as an error.
    #[must_use]
    pub fn into_error(self) -> Error {
        let what = if self.range.start == self.range.end {
            format!("the archived WAL does not continue at {}: {}", self.range.start, self.why)
        } else {
            format!("WAL from {} is not archived", self.range)
        };
        Error::new(Code::WalGap, what).with_hint(hint![
            "Run ",
            Action::ListWal,
            " to see what is there; another repository may hold it."
        ])
    }
}

/// The next part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogStep {
    /// A range, or the part of one that continues the log.
    Range {
        /// What is known of it. Its facts begin with those of the record that crosses into it.
        index: Box<RangeIndex>,
        /// That record.
        crossing: Option<LastRecord>,
    },
    /// A break. The log goes on behind it, unless what is stored last is damaged.
    Hole(WalHole),
}

/// Walks along an ancestry. Where two ranges meet, it proves that they are one log and joins the
/// record that crosses.
#[derive(Debug)]
pub struct LogWalker {
    archive: WalArchive,
    ancestry: Ancestry,
    detail: Detail,
    spans: VecDeque<TimelineSpan>,
    cursor: Option<RangeCursor>,
    loaded: VecDeque<(Listed, Result<RangeIndex>)>,
    /// Up to here the log was walked.
    position: Lsn,
    to: Lsn,
    has_begun: bool,
    chain: Option<RangeChain>,
    pending: Option<RangeIndex>,
    passes_damage: bool,
    /// The damage that was passed over since the last range.
    damage: Option<Damaged>,
}

/// A range that cannot be read.
#[derive(Debug)]
struct Damaged {
    start: Lsn,
    why: String,
}

impl WalArchive {
    /// A walk along `ancestry` from the range that holds `from` to the one that holds the byte
    /// before `to`, both whole.
    #[must_use]
    pub fn walk(&self, ancestry: &Ancestry, from: Lsn, to: Lsn, detail: Detail) -> LogWalker {
        let ahead = |span: &TimelineSpan| span.end.is_none_or(|end| end > from);
        LogWalker {
            archive: self.clone(),
            ancestry: ancestry.clone(),
            detail,
            spans: ancestry.spans().filter(ahead).collect(),
            cursor: None,
            loaded: VecDeque::new(),
            position: from,
            to,
            has_begun: false,
            chain: None,
            pending: None,
            passes_damage: false,
            damage: None,
        }
    }
}

impl LogWalker {
    /// The same walk, which takes a range that cannot be read for a hole instead of ending there.
    #[must_use]
    pub const fn passing_damage(mut self) -> Self {
        self.passes_damage = true;
        self
    }

    /// The next step; `None` at the end of what is archived, or at `to`.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn next(&mut self) -> Result<Option<LogStep>> {
        if let Some(index) = self.pending.take() {
            return self.step(index).await.map(Some);
        }
        while let Some(span) = self.spans.front().copied() {
            if self.position >= self.to {
                return Ok(None);
            }
            if span.end.is_some_and(|end| self.position >= end) {
                self.leave_span();
                continue;
            }
            let Some((listed, index)) = self.next_loaded(span).await? else {
                self.leave_span();
                let behind = LsnRange { start: self.position, end: span.end.unwrap_or(self.to) };
                self.archive.refuse_compacted(span.timeline, behind).await?;
                // The last span may go on some day; an ancestor's ended at its switch.
                match span.end {
                    Some(end) => return Ok(Some(self.hole_up_to(end.min(self.to)))),
                    None if self.to < Lsn(u64::MAX) => {
                        return Ok(Some(self.hole_up_to(self.to)));
                    }
                    None => return Ok(self.hole_at_end()),
                }
            };
            let index = match index {
                Ok(index) => self.trim(span, &listed, index).await,
                Err(error) => Err(error),
            };
            let Some(index) = self.unless_damaged(&listed, index)?.flatten() else { continue };
            if index.start > self.position {
                let missing = LsnRange { start: self.position, end: index.start };
                self.archive.refuse_compacted(span.timeline, missing).await?;
                let hole = self.hole_up_to(index.start.min(self.to));
                self.pending = Some(index).filter(|index| index.start < self.to);
                return Ok(Some(hole));
            }
            return self.step(index).await.map(Some);
        }
        Ok(None)
    }

    /// Up to here every record is whole: behind it is the one that is open, or nothing.
    #[must_use]
    pub fn complete_to(&self) -> Lsn {
        let open = self.chain.as_ref().and_then(RangeChain::tail);
        open.map_or(self.position, |tail| tail.lsn)
    }

    fn leave_span(&mut self) {
        self.spans.pop_front();
        self.cursor = None;
        self.loaded.clear();
    }

    fn hole_up_to(&mut self, end: Lsn) -> LogStep {
        let range = LsnRange { start: self.position, end };
        self.position = end;
        self.has_begun = true;
        self.chain = None;
        let damage = self.damage.take().map(|damaged| damaged.why);
        LogStep::Hole(WalHole { range, why: "nothing is archived there".to_owned(), damage })
    }

    /// What is stored last may be damaged: nobody knows how far it reaches.
    fn hole_at_end(&mut self) -> Option<LogStep> {
        let end = self.damage.as_ref().map(|damaged| damaged.start.max(self.position))?;
        Some(self.hole_up_to(end))
    }

    /// Damage is an error or, where it is passed over, `None`.
    fn unless_damaged<T>(&mut self, listed: &Listed, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(read) => Ok(Some(read)),
            Err(error) if self.passes_damage && error.exit_class() == ExitClass::Integrity => {
                let (start, why) = (listed.name.start, error.chain());
                self.damage.get_or_insert(Damaged { start, why });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A record that crosses into `index` cannot be read. What begins behind it is known.
    fn hole_of_record(&mut self, lsn: Lsn, index: RangeIndex, error: &Error) -> LogStep {
        let range = LsnRange { start: lsn, end: index.start };
        self.chain = None;
        self.pending = Some(index);
        let why = "a record cannot be read".to_owned();
        LogStep::Hole(WalHole { range, why, damage: Some(error.chain()) })
    }

    async fn next_loaded(
        &mut self,
        span: TimelineSpan,
    ) -> Result<Option<(Listed, Result<RangeIndex>)>> {
        if self.loaded.is_empty() {
            let mut cursor = match self.cursor.take() {
                Some(cursor) => cursor,
                None => RangeCursor::new(&self.archive, span.timeline, self.position)?,
            };
            let end = span.end.unwrap_or(Lsn(u64::MAX)).min(self.to);
            let mut listed = Vec::new();
            while listed.len() < self.detail.read_ahead()
                && let Some(range) = cursor.next().await?
            {
                if range.name.start >= end {
                    break;
                }
                listed.push(range);
            }
            self.cursor = Some(cursor);
            let archive = &self.archive;
            let detail = self.detail;
            let load = async |listed: Listed| {
                let range = match detail {
                    Detail::Seams => archive.read_footer(&listed).await,
                    Detail::Events => archive.read_events(&listed).await,
                    Detail::Facts => archive.read_index(&listed).await,
                    Detail::Bytes => archive.open_listed(&listed).await.map(|opened| opened.range),
                };
                (listed, range.map(|range| range.index))
            };
            self.loaded = join_all(listed.into_iter().map(load)).await.into();
        }
        Ok(self.loaded.pop_front())
    }

    /// The part of a range that continues the log within the span; `None` if there is none.
    async fn trim(
        &self,
        span: TimelineSpan,
        listed: &Listed,
        index: RangeIndex,
    ) -> Result<Option<RangeIndex>> {
        let from = if self.has_begun { self.position } else { span.begin };
        let lived = LsnRange { start: from, end: span.end.unwrap_or(Lsn(u64::MAX)) };
        let whole = LsnRange { start: index.start, end: index.end };
        match whole.overlap(lived) {
            None => Ok(None),
            Some(part) if part.end <= self.position => Ok(None),
            Some(part) if part == whole => Ok(Some(index)),
            Some(part) => self.archive.index_part(listed, part).await.map(Some),
        }
    }

    async fn step(&mut self, mut index: RangeIndex) -> Result<LogStep> {
        self.has_begun = true;
        self.position = index.end;
        self.damage = None;
        let Some(chain) = &mut self.chain else {
            self.chain = Some(RangeChain::new(&index));
            return Ok(LogStep::Range { index: Box::new(index), crossing: None });
        };
        let link = match chain.push(&index) {
            Ok(link) => link,
            Err(fault) => {
                let seam = LsnRange { start: index.start, end: index.start };
                self.chain = None;
                self.pending = Some(index);
                return Ok(LogStep::Hole(WalHole {
                    range: seam,
                    why: fault.to_string(),
                    damage: None,
                }));
            }
        };
        let mut facts = WalFacts::default();
        let crossing = match link {
            Link::Seamless | Link::Overwritten | Link::Unfinished => None,
            Link::Record(record) => {
                let record = record.record();
                facts.apply(&record);
                Some(LastRecord { lsn: record.lsn, end: record.end })
            }
            Link::ByReference { lsn, end } => {
                if self.detail.reads_crossing_records() {
                    match self.archive.facts_of_record(&self.ancestry, lsn, end).await {
                        Ok(read) => facts = read,
                        Err(error)
                            if self.passes_damage && error.exit_class() == ExitClass::Integrity =>
                        {
                            return Ok(self.hole_of_record(lsn, index, &error));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Some(LastRecord { lsn, end })
            }
        };
        if crossing.is_some() {
            facts.append(std::mem::take(&mut index.facts));
            index.facts = facts;
        }
        Ok(LogStep::Range { index: Box::new(index), crossing })
    }
}

impl WalArchive {
    /// Indexes a part of a range by reading its bytes.
    async fn index_part(&self, listed: &Listed, part: LsnRange) -> Result<RangeIndex> {
        let opened = self.open_listed(listed).await?;
        let whole = &opened.range.index;
        if whole.padding_from.is_some_and(|padding| padding <= part.start) {
            return Ok(filler_index(whole, part));
        }
        let start = ReaderStart {
            major: Some(self.major()),
            timeline: listed.name.timeline,
            lsn: part.start,
            segment_size: self.segment_size(),
            system_id: Some(self.system_id()),
            prev: None,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        };
        let inconsistent = |what: String| error::inconsistent(&listed.path, what);
        let mut indexer =
            SegmentIndexer::new(start).map_err(|fault| inconsistent(fault.to_string()))?;
        indexer.feed(part.of(&opened.bytes, whole.start));
        let index = indexer.finish().map_err(|fault| inconsistent(fault.to_string()))?;
        match index.ended {
            None => Ok(index),
            Some(ended) => Err(inconsistent(format!("at {}, {}", ended.lsn, ended.reason))),
        }
    }
}

/// The index of a part of a range in which nothing is meant to be read.
pub(super) fn filler_index(of: &RangeIndex, part: LsnRange) -> RangeIndex {
    RangeIndex {
        start: part.start,
        end: part.end,
        first_record: None,
        last_record: None,
        head: None,
        tail: None,
        valid_end: part.start,
        padding_from: Some(part.start),
        ended: None,
        facts: WalFacts::default(),
        ..*of
    }
}
