//! What names alone tell: which WAL is archived, and what is missing between.
//!
//! A listing gives a thousand names a call, and an archive may have a million. Where there is more
//! than a page, the newest head tells about where the rest lies, and its parts are listed at once.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use seawall_core::{ExitClass, Lsn, Result, TimelineId, WalSegment, WalSegmentSize};
use seawall_store::{ObjectPath, ObjectPrefix};

use super::LsnRange;
use super::listing::{PAGE_NAMES, below_timeline, cold_ranges, just_before, ranges_of};
use crate::condemned::Condemnations;
use crate::layout::LineObject;
use crate::records::{Head, WalOfTimeline, WalSpan};
use crate::{Line, error};

/// How many parts of a listing run at the same time.
const PARTS_AT_ONCE: usize = 16;

/// The archived WAL of one timeline, by names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Sorted and disjoint; between two of them something is missing.
    pub spans: Vec<WalSpan>,
    /// How many bytes the objects have in the store.
    pub stored_bytes: u64,
    /// When the newest of them was written, by the clock of the store.
    pub written: Option<Timestamp>,
}

impl Names {
    /// Adds an object, or several, that do not begin before those that are there.
    fn add(&mut self, span: WalSpan) {
        match self.spans.last_mut() {
            Some(last) if span.start <= last.end => {
                last.end = last.end.max(span.end);
                last.objects += span.objects;
            }
            _ => self.spans.push(span),
        }
    }

    fn append(&mut self, later: Self) {
        later.spans.into_iter().for_each(|span| self.add(span));
        self.stored_bytes += later.stored_bytes;
        self.written = self.written.max(later.written);
    }

    /// Of both, wherever they begin.
    fn merged(mut self, other: Self) -> Self {
        if other.spans.is_empty() {
            return self;
        }
        let mut spans = [std::mem::take(&mut self.spans), other.spans].concat();
        spans.sort_by_key(|span| span.start);
        spans.into_iter().for_each(|span| self.add(span));
        self.stored_bytes += other.stored_bytes;
        self.written = self.written.max(other.written);
        self
    }
}

/// Where names are listed: the WAL of one line.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalNames<'a> {
    pub line: &'a Line,
    pub segment_size: WalSegmentSize,
    /// Ranges that are not counted.
    pub without: Option<&'a Condemnations>,
}

/// The WAL that a line has, by names, without what is condemned; none if there is no such line.
pub(crate) async fn wal_of(line: &Line, condemned: &Condemnations) -> Result<Vec<WalOfTimeline>> {
    let Some(about) = line.about().await? else { return Ok(Vec::new()) };
    let segment_size = WalSegmentSize::new(about.wal_segment_bytes).map_err(|what| {
        let path = line.paths().path(&LineObject::About);
        path.map_or_else(|error| error, |path| error::inconsistent(&path, what))
    })?;
    let names = WalNames { line, segment_size, without: Some(condemned) };
    let mut all = Vec::new();
    for timeline in timelines_with_wal(line).await? {
        let Names { spans, .. } = names.from(timeline, Lsn::INVALID).await?;
        all.push(WalOfTimeline { timeline, spans });
    }
    Ok(all)
}

/// The timelines that have WAL, in order.
pub(super) async fn timelines_with_wal(line: &Line) -> Result<BTreeSet<TimelineId>> {
    let (hot, cold) = (line.paths().below("wal/hot")?, line.paths().below("wal/cold")?);
    let (hot, cold) =
        try_join(line.store().list_children(&hot), line.store().list_children(&cold)).await?;
    let timeline = |name: String| {
        let number = u32::from_str_radix(&name, 16).ok().filter(|number| *number > 0)?;
        (format!("{number:08X}") == name).then_some(TimelineId(number))
    };
    Ok(hot.into_iter().chain(cold).filter_map(timeline).collect())
}

impl WalNames<'_> {
    /// What is archived of a timeline from the segment on that holds `from`.
    pub async fn from(self, timeline: TimelineId, from: Lsn) -> Result<Names> {
        let from = WalSegment::containing(timeline, from, self.segment_size).start();
        let (hot, cold) = try_join(self.hot(timeline, from), self.cold(timeline, from)).await?;
        Ok(hot.merged(cold))
    }

    async fn cold(self, timeline: TimelineId, from: Lsn) -> Result<Names> {
        let wanted = LsnRange { start: from, end: Lsn(u64::MAX) };
        let mut names = Names::default();
        for cold in cold_ranges(self.line, timeline, wanted).await? {
            names.add(WalSpan { start: cold.range.start, end: cold.range.end, objects: 1 });
            names.stored_bytes += cold.size_bytes;
            names.written = names.written.max(Some(cold.written));
        }
        Ok(names)
    }

    async fn hot(self, timeline: TimelineId, from: Lsn) -> Result<Names> {
        let prefix = below_timeline(self.line, timeline)?;
        let after = just_before(&prefix, from);
        let whole = Part { names: self, prefix, after, until: None };
        let (mut names, next) = whole.page().await?;
        let Some(next) = next else { return Ok(names) };
        let reached = names.spans.last().map_or(from, |span| span.end);
        let splits = splits(self.line, timeline, reached).await?;
        let parts = Part { after: Some(next), ..whole }.divided(&splits);
        let parts: Vec<_> = parts.into_iter().map(|part| part.list().boxed()).collect();
        let mut parts = stream::iter(parts).buffered(PARTS_AT_ONCE);
        while let Some(part) = parts.try_next().await? {
            names.append(part);
        }
        Ok(names)
    }
}

/// A part of a timeline's names.
#[derive(Debug, Clone)]
struct Part<'a> {
    names: WalNames<'a>,
    prefix: ObjectPrefix,
    after: Option<ObjectPath>,
    /// The first segment that is not in it.
    until: Option<Lsn>,
}

impl Part<'_> {
    /// The names up to each split, and those from the last one on.
    fn divided(self, splits: &[Lsn]) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut rest = self;
        for split in splits {
            let Some(after) = just_before(&rest.prefix, *split) else { continue };
            if rest.after.as_ref().is_some_and(|begin| *begin >= after) {
                continue;
            }
            parts.push(Self { until: Some(*split), ..rest.clone() });
            rest.after = Some(after);
        }
        parts.push(rest);
        parts
    }

    async fn list(mut self) -> Result<Names> {
        let mut names = Names::default();
        loop {
            let (page, next) = self.page().await?;
            names.append(page);
            if next.is_none() {
                return Ok(names);
            }
            self.after = next;
        }
    }

    /// The next page, and after which name it goes on.
    async fn page(&self) -> Result<(Names, Option<ObjectPath>)> {
        let store = self.names.line.store();
        let mut page = store.list(&self.prefix, self.after.as_ref(), PAGE_NAMES).await?;
        let next = page.next.take();
        let mut names = Names::default();
        for listed in ranges_of(page)? {
            listed.prove_place(self.names.segment_size)?;
            if self.until.is_some_and(|until| listed.name.segment >= until) {
                return Ok((names, None));
            }
            let object = LineObject::WalHot(listed.name);
            if self.names.without.is_some_and(|condemned| condemned.contains(&object)) {
                continue;
            }
            names.add(WalSpan { start: listed.name.start, end: listed.name.end, objects: 1 });
            names.stored_bytes += listed.size_bytes;
            names.written = names.written.max(Some(listed.written));
        }
        Ok((names, next))
    }
}

/// Where to divide a listing of all that the line has, so that each part has about a page of names:
/// paths in no order that need not exist. A hint, as the newest head knows it.
///
/// # Errors
/// A store that fails.
pub async fn listing_splits(line: &Line) -> Result<Vec<ObjectPath>> {
    let mut splits = Vec::new();
    for wal in known_wal(line).await? {
        let prefix = below_timeline(line, wal.timeline)?;
        let positions = wal.spans.into_iter().flat_map(pages_of);
        splits.extend(positions.filter_map(|position| just_before(&prefix, position)));
    }
    Ok(splits)
}

/// Where to divide the names behind `from`, so that each part has about a page of them. A hint: any
/// answer leads to the same names.
async fn splits(line: &Line, timeline: TimelineId, from: Lsn) -> Result<Vec<Lsn>> {
    let of_timeline = known_wal(line).await?.into_iter().filter(|wal| wal.timeline == timeline);
    let spans = of_timeline.flat_map(|wal| wal.spans);
    Ok(spans.flat_map(pages_of).filter(|split| *split > from).collect())
}

/// The WAL there was when the newest head was written.
async fn known_wal(line: &Line) -> Result<Vec<WalOfTimeline>> {
    let Some(newest) = line.heads().await?.pop() else { return Ok(Vec::new()) };
    let path = line.paths().path(&LineObject::Head(newest))?;
    match line.repository().read_record::<Head>(&path).await {
        Ok(head) => Ok(head.wal),
        // `verify` tells of it.
        Err(error) if error.exit_class() == ExitClass::Integrity => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The positions in a span that have about a page of names between them.
fn pages_of(span: WalSpan) -> impl Iterator<Item = Lsn> {
    let pages = u64::from(span.objects).div_ceil(PAGE_NAMES as u64).max(1);
    let page_bytes = span.end.bytes_since(span.start) / pages;
    (0..pages).map(move |page| span.start.saturating_add(page * page_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64, objects: u32) -> WalSpan {
        WalSpan { start: Lsn(start), end: Lsn(end), objects }
    }

    fn names(spans: &[WalSpan]) -> Names {
        let mut names = Names::default();
        spans.iter().for_each(|span| names.add(*span));
        names
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one_span() {
        let spans = [span(0, 10, 1), span(5, 8, 1), span(10, 20, 1), span(21, 30, 1)];
        assert_eq!(names(&spans).spans, [span(0, 20, 3), span(21, 30, 1)]);
        let cold = names(&[span(15, 25, 1)]);
        assert_eq!(names(&spans).merged(cold).spans, [span(0, 30, 5)]);
    }

    #[test]
    fn a_long_span_is_divided_into_pages() {
        let splits: Vec<u64> = pages_of(span(1000, 5000, 3500)).map(|lsn| lsn.0).collect();
        assert_eq!(splits, [1000, 2000, 3000, 4000]);
        assert_eq!(pages_of(span(7, 9, 0)).map(|lsn| lsn.0).collect::<Vec<_>>(), [7]);
    }
}
