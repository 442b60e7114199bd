//! Finds ranges by their names.

use std::collections::VecDeque;

use seawall_core::{Lsn, Result, TimelineId, WalSegment};
use seawall_store::{ObjectPath, ObjectPrefix};

use super::range::{WalRange, read_events, read_index, read_range};
use super::{LsnRange, WalArchive};
use crate::error;
use crate::layout::{LineObject, ObjectName, WalRangeName};

/// How many names are asked for at a time.
const PAGE_NAMES: usize = 1000;

/// A range, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: WalRangeName,
    pub path: ObjectPath,
    pub size_bytes: u64,
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
        let paths = archive.line().paths();
        let segment = archive.segment_at(timeline, from).start();
        let prefix = paths.below(&format!("wal/hot/{:08X}", timeline.0))?;
        // A segment's own name sorts just before the names below it.
        let before = prefix.join(&format!("{:016X}", segment.0));
        let next_page = before.map_or(NextPage::First, NextPage::After);
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
            let page = store.list(&self.prefix, after, PAGE_NAMES).await?;
            self.next_page = page.next.map_or(NextPage::None, NextPage::After);
            for object in page.objects {
                let Some(ObjectName::Line(_, _, LineObject::WalHot(name))) =
                    ObjectName::parse(&object.path)
                else {
                    continue;
                };
                self.check(name, &object.path)?;
                let (path, size_bytes) = (object.path, object.size_bytes);
                self.page.push_back(Listed { name, path, size_bytes });
            }
        }
        Ok(self.page.pop_front())
    }

    /// A name that is in another order than the log would be passed over, so it is an error.
    fn check(&self, name: WalRangeName, path: &ObjectPath) -> Result<()> {
        let segment = self.archive.segment_at(name.timeline, name.start).start();
        if segment == name.segment {
            Ok(())
        } else {
            Err(error::inconsistent(
                path,
                "the range does not lie in the segment it is named after",
            ))
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
        self.memory().range_ends.insert(listed.name, range.end());
        Ok(range)
    }

    /// What a range holds; its footer is read once.
    pub(super) async fn extent(&self, listed: &Listed) -> Result<LsnRange> {
        let start = listed.name.start;
        let known = self.memory().range_ends.get(&listed.name).copied();
        let end = match known {
            Some(end) => end,
            None => self.read_footer(listed).await?.end(),
        };
        Ok(LsnRange { start, end })
    }
}
