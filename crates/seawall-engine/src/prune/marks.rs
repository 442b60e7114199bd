//! What is needed: a pure account of what a look at a line found.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seawall_core::{BackupId, Lsn, TimelineId, Ulid, WalSegment, WalSegmentSize};
use seawall_repo::Needed;
use seawall_repo::layout::{LineObject, WalRangeName};
use seawall_repo::manifest::BackupInfo;
use seawall_repo::wal::LsnRange;

/// WAL that something needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalNeed {
    /// The timelines up to this one may have it.
    timeline: TimelineId,
    range: LsnRange,
}

impl WalNeed {
    /// What a backup is nothing without: from the segment of its start, whose first page PostgreSQL
    /// reads, up to its stop.
    pub fn of(info: &BackupInfo) -> Self {
        let size = WalSegmentSize::new(info.wal_segment_bytes);
        let segment = size
            .map(|size| WalSegment::containing(info.start_timeline, info.start_lsn, size).start());
        let start = segment.unwrap_or(Lsn::INVALID);
        let timeline = info.start_timeline.max(info.stop_timeline);
        Self { timeline, range: LsnRange { start, end: info.stop_lsn } }
    }

    /// All that a restore from the backup may read: nobody knows how far it goes.
    pub fn onwards(info: &BackupInfo) -> Self {
        let LsnRange { start, .. } = Self::of(info).range;
        Self { timeline: TimelineId(u32::MAX), range: LsnRange { start, end: Lsn(u64::MAX) } }
    }

    fn needs(&self, name: &WalRangeName) -> bool {
        let range = LsnRange { start: name.start, end: name.end };
        name.timeline <= self.timeline && self.range.overlap(range).is_some()
    }
}

/// What commits need that are there.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub parts: Needed,
    pub wal: Vec<WalNeed>,
    pub backups: BTreeSet<BackupId>,
}

/// What goes and what stays.
#[derive(Debug)]
pub(super) struct Marks {
    /// The backups that go: neither pinned nor held.
    pub going: BTreeSet<BackupId>,
    /// What a pin relies on.
    pub pinned: BTreeSet<BackupId>,
    /// The newest generation of each backup that is there; tombstones too.
    pub newest: BTreeMap<BackupId, u32>,
    pub tombstones: BTreeSet<BackupId>,
    /// Writers that are not fenced, dead or alive.
    pub attempts: BTreeSet<BackupId>,
    /// What the backups that stay need, and what pins list.
    pub kept: Needs,
    /// The WAL that goes.
    pub wal: BTreeMap<TimelineId, Vec<LsnRange>>,
    /// What the store says was written since may be listed by nobody yet.
    pub horizon: Timestamp,
}

impl Marks {
    /// Whether nobody needs an object that was written then.
    pub fn is_garbage(&self, object: &LineObject, written: Timestamp) -> bool {
        let is_old = written < self.horizon;
        match object {
            LineObject::Pack(_)
            | LineObject::Map(_)
            | LineObject::Manifest(_)
            | LineObject::Event(..) => is_old && self.goes(object),
            _ => self.goes(object),
        }
    }

    /// Whether what was condemned is needed after all; `there` is what commits need that do not
    /// stay, and that nobody has decided to delete.
    pub fn is_spared(&self, object: &LineObject, there: &Needs) -> bool {
        let is_needed_there = match object {
            LineObject::Event(subject, _) => there.backups.contains(&BackupId(*subject)),
            LineObject::WalHot(name) => there.wal.iter().any(|need| need.needs(name)),
            _ => there.parts.contains(object),
        };
        is_needed_there || !self.goes(object)
    }

    /// Whether a backup has a commit.
    pub fn has_commit(&self, id: BackupId) -> bool {
        self.newest.contains_key(&id) && !self.tombstones.contains(&id)
    }

    /// Whether a commit stays: the newest of a backup that does not go, or that a pin relies on.
    pub fn stays(&self, id: BackupId, generation: u32) -> bool {
        self.pinned.contains(&id)
            || (self.newest.get(&id) == Some(&generation) && !self.going.contains(&id))
    }

    fn goes(&self, object: &LineObject) -> bool {
        match object {
            LineObject::Pack(_) | LineObject::Map(_) | LineObject::Manifest(_) => {
                !self.kept.parts.contains(object)
            }
            LineObject::Backup(id, generation) => {
                !self.tombstones.contains(id) && !self.stays(*id, *generation)
            }
            // Those of the line itself tell its history.
            LineObject::Event(Ulid(0), _) => false,
            LineObject::Event(subject, _) => {
                let subject = BackupId(*subject);
                let is_known = self.has_commit(subject) && !self.going.contains(&subject);
                !is_known && !self.attempts.contains(&subject)
            }
            LineObject::WalHot(name) => {
                let range = LsnRange { start: name.start, end: name.end };
                let goes = self.wal.get(&name.timeline).into_iter().flatten();
                let mut goes = goes.filter(|going| going.overlap(range) == Some(range));
                goes.next().is_some() && !self.kept.wal.iter().any(|need| need.needs(name))
            }
            LineObject::About
            | LineObject::Pin(..)
            | LineObject::WalCold(_)
            | LineObject::History(_)
            | LineObject::BackupHistory(_)
            | LineObject::Names(_)
            | LineObject::Head(_)
            | LineObject::Gc(..) => false,
        }
    }
}
