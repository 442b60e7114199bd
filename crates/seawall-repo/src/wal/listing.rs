//! Finds ranges by their names.

use std::collections::VecDeque;

use futures_util::future::try_join;
use jiff::Timestamp;
use seawall_core::{Code, Error, Lsn, Result, TimelineId, WalSegment, WalSegmentSize};
use seawall_store::{ListPage, ObjectInfo, ObjectPath, ObjectPrefix};

use super::range::{WalRange, read_events, read_index, read_range};
use super::{LsnRange, WalArchive};
use crate::layout::{LineObject, ObjectName, WalColdName, WalRangeName};
use crate::{Line, error};

/// How many names are asked for at a time.
pub(super) const PAGE_NAMES: usize = 1000;

/// A range, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: WalRangeName,
    pub path: ObjectPath,
    pub size_bytes: u64,
    /// When it was written, by the clock of the store.
    pub written: Timestamp,
}

/// A compacted range, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedCold {
    pub range: LsnRange,
    pub path: ObjectPath,
    pub size_bytes: u64,
    /// When it was written, by the clock of the store.
    pub written: Timestamp,
}

impl Listed {
    /// What it holds.
    pub const fn range(&self) -> LsnRange {
        LsnRange { start: self.name.start, end: self.name.end }
    }

    /// A name that is in another order than the log would be passed over, so it is an error.
    pub fn prove_place(&self, segment_size: WalSegmentSize) -> Result<()> {
        let name = self.name;
        let segment = WalSegment::containing(name.timeline, name.start, segment_size);
        if segment.start() == name.segment && name.end <= segment.end() {
            return Ok(());
        }
        let what = "the range does not lie in the segment it is named after";
        Err(error::inconsistent(&self.path, what))
    }

    /// `None` for a name that is no range's, which `verify` tells of.
    fn of(object: ObjectInfo) -> Result<Option<Self>> {
        let ObjectInfo { path, size_bytes, modified: written } = object;
        match ObjectName::parse(&path) {
            Some(ObjectName::Line(_, _, LineObject::WalHot(name))) => {
                Ok(Some(Self { name, path, size_bytes, written }))
            }
            _ if is_of_the_format_before(&path) => Err(format_before(&path)),
            _ => Ok(None),
        }
    }
}

/// Ranges were named after their starts alone: what they hold, a listing did not tell.
fn is_of_the_format_before(path: &ObjectPath) -> bool {
    let name = path.file_name();
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn format_before(path: &ObjectPath) -> Error {
    let what = format!(
        "{path} is WAL of a repository format from before the first release, which this program does not read"
    );
    Error::new(Code::UnknownFormat, what)
        .with_hint("Make a new repository with this program, and take a backup into it.")
}

/// The ranges that a page of names tells of.
pub(super) fn ranges_of(page: ListPage) -> Result<Vec<Listed>> {
    page.objects.into_iter().filter_map(|object| Listed::of(object).transpose()).collect()
}

/// Where the ranges of a timeline are.
pub(super) fn below_timeline(line: &Line, timeline: TimelineId) -> Result<ObjectPrefix> {
    line.paths().below(&format!("wal/hot/{:08X}", timeline.0))
}

/// Names of ranges that begin in a segment from `lsn` on come after this one. The segment that `lsn`
/// lies in is named after its own first position.
pub(super) fn just_before(prefix: &ObjectPrefix, lsn: Lsn) -> Option<ObjectPath> {
    prefix.join(&format!("{:016X}", lsn.0)).ok()
}

/// Ranges of one timeline, by segment and start, page after page.
#[derive(Debug)]
pub(super) struct RangeCursor {
    archive: WalArchive,
    prefix: ObjectPrefix,
    next_page: NextPage,
    page: VecDeque<Listed>,
}

/// What is listed next.
#[derive(Debug)]
enum NextPage {
    First,
    After(ObjectPath),
    None,
}

impl RangeCursor {
    /// Begins at the segment that holds `from`.
    pub fn new(archive: &WalArchive, timeline: TimelineId, from: Lsn) -> Result<Self> {
        let segment = archive.segment_at(timeline, from).start();
        let prefix = below_timeline(archive.line(), timeline)?;
        let next_page = just_before(&prefix, segment).map_or(NextPage::First, NextPage::After);
        Ok(Self { archive: archive.clone(), prefix, next_page, page: VecDeque::new() })
    }

    /// The ranges of one segment only.
    fn of_segment(archive: &WalArchive, segment: WalSegment) -> Result<Self> {
        let (timeline, start) = (segment.timeline.0, segment.start().0);
        let below = format!("wal/hot/{timeline:08X}/{start:016X}");
        let prefix = archive.line().paths().below(&below)?;
        let next_page = NextPage::First;
        Ok(Self { archive: archive.clone(), prefix, next_page, page: VecDeque::new() })
    }

    /// The next range; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Listed>> {
        while self.page.is_empty() {
            let after = match &self.next_page {
                NextPage::First => None,
                NextPage::After(path) => Some(path),
                NextPage::None => return Ok(None),
            };
            let store = self.archive.line().store();
            let mut page = store.list(&self.prefix, after, PAGE_NAMES).await?;
            self.next_page = page.next.take().map_or(NextPage::None, NextPage::After);
            for listed in ranges_of(page)? {
                listed.prove_place(self.archive.segment_size())?;
                self.page.push_back(listed);
            }
        }
        Ok(self.page.pop_front())
    }
}

/// The compacted ranges of a timeline that hold some of `wanted`, in the order of their starts.
pub(super) async fn cold_ranges(
    line: &Line,
    timeline: TimelineId,
    wanted: LsnRange,
) -> Result<Vec<ListedCold>> {
    let prefix = line.paths().below(&format!("wal/cold/{:08X}", timeline.0))?;
    let from = Lsn(wanted.start.0.saturating_sub(WalColdName::MAX_BYTES));
    let mut after = just_before(&prefix, from);
    let mut found = Vec::new();
    loop {
        let page = line.store().list(&prefix, after.as_ref(), PAGE_NAMES).await?;
        for ObjectInfo { path, size_bytes, modified: written } in page.objects {
            let Some(ObjectName::Line(_, _, LineObject::WalCold(name))) = ObjectName::parse(&path)
            else {
                continue;
            };
            if name.start >= wanted.end {
                return Ok(found);
            }
            let range = LsnRange { start: name.start, end: name.end };
            if range.overlap(wanted).is_some() {
                found.push(ListedCold { range, path, size_bytes, written });
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

impl WalArchive {
    /// The ranges of one segment.
    pub(super) async fn ranges_in(&self, segment: WalSegment) -> Result<Vec<Listed>> {
        let mut cursor = RangeCursor::of_segment(self, segment)?;
        let mut listed = Vec::new();
        while let Some(range) = cursor.next().await? {
            listed.push(range);
        }
        Ok(listed)
    }

    /// The ranges of one segment, where none of `wanted` is compacted: those bytes are needed.
    pub(super) async fn ranges_to_read(
        &self,
        segment: WalSegment,
        wanted: LsnRange,
    ) -> Result<Vec<Listed>> {
        let compacted = self.refuse_compacted(segment.timeline, wanted);
        try_join(self.ranges_in(segment), compacted).await.map(|(ranges, ())| ranges)
    }

    /// Refuses bytes that only a compacted range may hold.
    pub(super) async fn refuse_compacted(
        &self,
        timeline: TimelineId,
        wanted: LsnRange,
    ) -> Result<()> {
        match cold_ranges(self.line(), timeline, wanted).await?.first() {
            None => Ok(()),
            Some(cold) => Err(compacted(cold)),
        }
    }

    /// Reads the footer of a range.
    pub(super) async fn read_footer(&self, listed: &Listed) -> Result<WalRange> {
        let line = self.line();
        let range = read_range(line.store(), line.keyring(), &listed.path, listed.name).await?;
        self.accept(listed, range)
    }

    /// Reads the footer and the index of a range.
    pub(super) async fn read_index(&self, listed: &Listed) -> Result<WalRange> {
        let line = self.line();
        let range = read_index(line.store(), line.keyring(), &listed.path, listed.name).await?;
        self.accept(listed, range)
    }

    /// Reads the footer of a range, and of its index the events.
    pub(super) async fn read_events(&self, listed: &Listed) -> Result<WalRange> {
        let line = self.line();
        let range = read_events(line.store(), line.keyring(), &listed.path, listed.name).await?;
        self.accept(listed, range)
    }

    /// A range has to be of the line it is in.
    pub(super) fn accept(&self, listed: &Listed, range: WalRange) -> Result<WalRange> {
        let same = range.system_id == self.system_id()
            && range.index.major == self.major()
            && range.index.segment_size == self.segment_size();
        if !same {
            return Err(error::inconsistent(&listed.path, "it is WAL of another cluster"));
        }
        Ok(range)
    }
}

fn compacted(cold: &ListedCold) -> Error {
    let what =
        format!("{} is compacted WAL, and this program does not know how to read it", cold.path);
    Error::new(Code::UnknownFormat, what).with_hint("Use a newer Seawall with this repository.")
}
