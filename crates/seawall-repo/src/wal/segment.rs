//! Gives segments back.

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::{Action, Code, Error, Lsn, Result, WalSegment, hint};
use seawall_pgdata::history::{Ancestry, TimelineSpan};
use seawall_pgdata::wal::page::{LONG_HEADER_BYTES, WAL_PAGE_BYTES, header_bytes};
use seawall_pgdata::wal::{Event, HeadFragment, PageContext, PageHeader, TablespaceChange};
use seawall_store::ObjectPath;

use super::listing::{Listed, RangeCursor};
use super::range::{OpenedRange, open_range};
use super::{Detail, LogStep, LsnRange, WalArchive};

/// How many ranges of a segment are read at the same time. A second's worth is small, and a whole
/// segment is one.
const RANGES_AT_ONCE: usize = 8;

/// A segment put together from the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRead {
    /// As many bytes as a segment has; zeros from [`SegmentRead::covered_to`] on.
    pub bytes: Vec<u8>,
    /// Up to here the archive holds the segment.
    pub covered_to: Lsn,
    /// The tablespaces that are made and dropped by records that end in it: replay makes them in
    /// directories that others may use.
    pub tablespaces: Vec<TablespaceChange>,
}

/// A segment while it is put together.
struct Assembly {
    segment: WalSegment,
    bytes: Vec<u8>,
    missing: Vec<LsnRange>,
    /// Filler has no page headers.
    filler_from: Lsn,
}

impl WalArchive {
    /// Puts a segment together: of each timeline in `path`, oldest first, what it wrote of it.
    /// `None` if the archive holds nothing of it. Everything that is returned is authentic, and its
    /// page headers belong where they are.
    ///
    /// # Errors
    /// [`Code::WalGap`] if WAL is archived behind a hole, [`Code::WalConflict`] if archived ranges
    /// contradict each other, damage, or a store that fails.
    pub async fn read_segment(
        &self,
        segment: WalSegment,
        path: &[TimelineSpan],
    ) -> Result<Option<SegmentRead>> {
        let whole = LsnRange { start: segment.start(), end: segment.end() };
        let mut assembly = Assembly {
            segment,
            bytes: vec![0; usize::try_from(segment.size.bytes()).unwrap_or_default()],
            missing: vec![whole],
            filler_from: segment.end(),
        };
        let parts = self.parts_of(segment, path).await?;
        let reads: Vec<_> =
            parts.iter().map(|(_, listed)| self.open_listed(listed).boxed()).collect();
        let mut reads = stream::iter(reads).buffered(RANGES_AT_ONCE);
        let (mut tablespaces, mut may_cross) = (Vec::new(), false);
        for (wanted, listed) in &parts {
            let Some(opened) = reads.try_next().await? else { break };
            assembly.add(listed, &opened, *wanted)?;
            let head = opened.range.index.head.as_ref();
            may_cross |= head.is_some_and(HeadFragment::may_end_tablespace_creation);
            let events = opened.range.index.facts.events.into_iter();
            tablespaces.extend(events.filter_map(|event| tablespace_change(&event, *wanted)));
        }
        if may_cross {
            tablespaces = self.tablespaces_across(whole, path).await?;
        }
        self.refuse_compacted_of(&assembly, path).await?;
        let covered_to = assembly.missing.first().map_or(whole.end, |hole| hole.start);
        if let Some(hole) = assembly.missing.first().filter(|hole| hole.end < whole.end) {
            return Err(hole_in(segment, *hole));
        }
        if covered_to == whole.start {
            return Ok(None);
        }
        self.check_pages(&assembly, covered_to)?;
        Ok(Some(SegmentRead { bytes: assembly.bytes, covered_to, tablespaces }))
    }

    /// What [`SegmentRead::tablespaces`] tells where a record that crosses into a range may be of
    /// that kind: it is read with the ranges before it.
    async fn tablespaces_across(
        &self,
        segment: LsnRange,
        path: &[TimelineSpan],
    ) -> Result<Vec<TablespaceChange>> {
        let Some(own) = path.last() else { return Ok(Vec::new()) };
        let ancestry = self.ancestry(own.timeline).await?;
        let before = Lsn(segment.start.0.saturating_sub(1));
        let walk = self.walk(&ancestry, before, segment.end, Detail::Events);
        let mut walk = walk.passing_damage();
        let mut tablespaces = Vec::new();
        while let Some(step) = walk.next().await? {
            let LogStep::Range { index, .. } = step else { continue };
            let events = index.facts.events.into_iter();
            tablespaces.extend(events.filter_map(|event| tablespace_change(&event, segment)));
        }
        Ok(tablespaces)
    }

    /// The ranges a segment is put together from, each with what is wanted of its timeline.
    async fn parts_of(
        &self,
        segment: WalSegment,
        path: &[TimelineSpan],
    ) -> Result<Vec<(LsnRange, Listed)>> {
        let whole = LsnRange { start: segment.start(), end: segment.end() };
        let mut parts = Vec::new();
        for span in path {
            let lived = LsnRange { start: span.begin, end: span.end.unwrap_or(Lsn(u64::MAX)) };
            let Some(wanted) = whole.overlap(lived) else { continue };
            let ranges = self.ranges_in(WalSegment { timeline: span.timeline, ..segment }).await?;
            let of_use =
                ranges.into_iter().filter(|listed| listed.range().overlap(wanted).is_some());
            parts.extend(of_use.map(|listed| (wanted, listed)));
        }
        Ok(parts)
    }

    /// What is missing may be compacted.
    async fn refuse_compacted_of(&self, assembly: &Assembly, path: &[TimelineSpan]) -> Result<()> {
        for span in path {
            let lived = LsnRange { start: span.begin, end: span.end.unwrap_or(Lsn(u64::MAX)) };
            for missing in assembly.missing.iter().filter_map(|missing| missing.overlap(lived)) {
                self.refuse_compacted(span.timeline, missing).await?;
            }
        }
        Ok(())
    }

    /// The objects that are read when PostgreSQL asks for the segments that hold the log from `from`
    /// to `to` along `ancestry`. What is missing is not among them.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn objects_of(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<ObjectPath>> {
        let last_byte = Lsn(to.0.saturating_sub(1));
        let asked = LsnRange {
            start: self.segment_at(ancestry.tip(), from).start(),
            end: self.segment_at(ancestry.tip(), last_byte).end(),
        };
        let mut objects = Vec::new();
        for span in ancestry.spans() {
            let lived = LsnRange { start: span.begin, end: span.end.unwrap_or(Lsn(u64::MAX)) };
            let Some(wanted) = asked.overlap(lived) else { continue };
            let mut cursor = RangeCursor::new(self, span.timeline, wanted.start)?;
            while let Some(listed) = cursor.next().await?
                && listed.name.start < wanted.end
            {
                if listed.range().overlap(wanted).is_some() {
                    objects.push(listed.path);
                }
            }
        }
        Ok(objects)
    }

    /// The object of a range: its log, which may not have compressed, an index and a footer.
    pub(super) async fn read_listed(&self, listed: &Listed) -> Result<Bytes> {
        let limit_bytes = 2 * self.segment_size().bytes() + (64 << 20);
        self.line().repository().read_whole(&listed.path, limit_bytes).await
    }

    /// Reads a whole range.
    pub(super) async fn open_listed(&self, listed: &Listed) -> Result<OpenedRange> {
        let object = self.read_listed(listed).await?;
        let opened = open_range(self.line().keyring(), &listed.path, listed.name, &object)
            .map_err(|damage| damage.at(&listed.path))?;
        let range = self.accept(listed, opened.range)?;
        Ok(OpenedRange { range, bytes: opened.bytes })
    }

    fn check_pages(&self, assembly: &Assembly, covered_to: Lsn) -> Result<()> {
        let mut context = PageContext {
            major: Some(self.major()),
            timeline: assembly.segment.timeline,
            earliest_timeline: seawall_core::TimelineId(1),
            address: assembly.segment.start(),
            segment_size: self.segment_size(),
            system_id: Some(self.system_id()),
        };
        let filler_from = assembly.filler_from.min(covered_to);
        for page in assembly.bytes.chunks(usize::try_from(WAL_PAGE_BYTES).unwrap_or(usize::MAX)) {
            let written =
                context.address.saturating_add(header_bytes(context.address, self.segment_size()));
            if written > filler_from {
                break;
            }
            let broken = |why: String| {
                let what = format!("the archived WAL of {} is wrong: {why}", assembly.segment);
                Error::new(Code::ObjectInconsistent, what).with_hint(hint![
                    "Run ",
                    Action::Verify,
                    " to learn which backups are affected."
                ])
            };
            let header = PageHeader::parse(page.get(..LONG_HEADER_BYTES).unwrap_or_default())
                .map_err(|fault| broken(fault.to_string()))?;
            header
                .check(&context)
                .map_err(|fault| broken(format!("at {}, {fault}", context.address)))?;
            context.earliest_timeline = header.timeline;
            context.address = context.address.saturating_add(WAL_PAGE_BYTES);
        }
        Ok(())
    }
}

impl Assembly {
    /// Takes the wanted bytes of a range. Bytes that are there already have to be the same.
    fn add(&mut self, listed: &Listed, opened: &OpenedRange, wanted: LsnRange) -> Result<()> {
        let range = LsnRange { start: opened.range.start(), end: opened.range.end() };
        let Some(part) = range.overlap(wanted) else { return Ok(()) };
        let filler_from = opened.range.index.padding_from.unwrap_or(part.end);
        let from = part.of(&opened.bytes, range.start);
        let at = usize::try_from(part.start.bytes_since(self.segment.start())).unwrap_or_default();
        let Some(to) = self.bytes.get_mut(at..at + from.len()) else { return Ok(()) };
        let mut overlaps = vec![part];
        self.missing.iter().for_each(|missing| missing.subtract_from(&mut overlaps));
        for both in overlaps {
            let wal = LsnRange { start: both.start, end: both.end.min(filler_from) };
            if wal.of(to, part.start) != wal.of(from, part.start) {
                return Err(contradiction(listed, both));
            }
        }
        to.copy_from_slice(from);
        part.subtract_from(&mut self.missing);
        if filler_from < part.end {
            self.filler_from = self.filler_from.min(filler_from);
        }
        Ok(())
    }
}

fn tablespace_change(event: &Event, range: LsnRange) -> Option<TablespaceChange> {
    let ends_here = range.start < event.end_lsn && event.end_lsn <= range.end;
    TablespaceChange::of(event).filter(|_| ends_here)
}

fn hole_in(segment: WalSegment, hole: LsnRange) -> Error {
    Error::new(Code::WalGap, format!("WAL from {hole} of segment {segment} is not archived"))
        .with_hint(hint![
            "Run ",
            Action::ListWal,
            " to see what is there; another repository may hold it."
        ])
}

fn contradiction(listed: &Listed, both: LsnRange) -> Error {
    Error::new(
        Code::WalConflict,
        format!("object {} contradicts another one about the WAL from {both}", listed.path),
    )
    .with_hint(
        "Two servers wrote this timeline at the same time; another repository may tell which one is yours.",
    )
}
