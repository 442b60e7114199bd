//! Names of objects (format.md, 2).

use jiff::tz::TimeZone;
use seawall_core::{
    BackupId, ClusterName, Code, Error, LineId, Lsn, Result, TimelineId, Ulid, WalFileName,
    WalSegmentSize,
};
use seawall_store::{ObjectPath, ObjectPrefix};

use crate::envelope::ObjectKind;

/// What an object of the repository is, read from its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectName {
    /// `format/<n>`.
    Format(u32),
    /// `epochs/<epoch>`.
    Epoch(u32),
    /// `keys/<epoch>/<slot>`.
    Key(u32, Ulid),
    /// `removals/<epoch>/<slot>`.
    Removal(u32, Ulid),
    /// An object of one line.
    Line(ClusterName, LineId, LineObject),
}

/// An object below a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineObject {
    /// What the cluster is.
    About,
    /// Frames.
    Pack(Ulid),
    /// Block-map leaves.
    Map(Ulid),
    /// Pages of the files of backups.
    Manifest(Ulid),
    /// A backup's commit, or a tombstone.
    Backup(BackupId, u32),
    /// A fact about a subject.
    Event(Ulid, u32),
    /// A running job's record.
    Pin(Ulid, u32),
    /// A range of WAL within a segment.
    WalHot(WalRangeName),
    /// A compacted range of WAL.
    WalCold(WalColdName),
    /// A timeline's history file.
    History(TimelineId),
    /// A backup history file, by its file name.
    BackupHistory(String),
    /// Names of relations. This program writes none and reads their names alone.
    Names(Ulid),
    /// What exists.
    Head(Ulid),
    /// What is condemned ([`LineObject::CONDEMNED`]), or what was decided of it
    /// ([`LineObject::DECIDED`]).
    Gc(Ulid, u32),
}

impl LineObject {
    /// The number below `gc/<ulid>` of what is condemned.
    pub const CONDEMNED: u32 = 0;
    /// The number below `gc/<ulid>` of what was decided of it.
    pub const DECIDED: u32 = 1;
}

/// The name of a hot WAL range. Names sort as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalRangeName {
    /// The timeline that wrote the bytes.
    pub timeline: TimelineId,
    /// The first LSN of the segment.
    pub segment: Lsn,
    /// The first LSN of the range.
    pub start: Lsn,
    /// After its last byte.
    pub end: Lsn,
}

/// The name of a compacted WAL range. This program writes none and reads their names alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalColdName {
    /// The timeline that wrote the bytes.
    pub timeline: TimelineId,
    /// The first LSN of the range.
    pub start: Lsn,
    /// After its last byte.
    pub end: Lsn,
    /// Tells it from others of the same stretch.
    pub id: Ulid,
}

impl WalColdName {
    /// No compacted range holds more of the log: who looks for a position lists from so far before it.
    pub const MAX_BYTES: u64 = 1 << 32;
}

impl ObjectName {
    /// Reads a path. `None` for a name this format does not have.
    #[must_use]
    pub fn parse(path: &ObjectPath) -> Option<Self> {
        let parts: Vec<&str> = path.components().collect();
        let name = match parts.as_slice() {
            ["format", n] => Self::Format(n.parse().ok()?),
            ["epochs", epoch] => Self::Epoch(epoch.parse().ok()?),
            ["keys", epoch, slot] => Self::Key(epoch.parse().ok()?, ulid(slot)?),
            ["removals", epoch, slot] => Self::Removal(epoch.parse().ok()?, ulid(slot)?),
            ["c", cluster, "i", line, rest @ ..] => {
                Self::Line(cluster.parse().ok()?, line.parse().ok()?, LineObject::parse(rest)?)
            }
            _ => return None,
        };
        // One spelling each: a second one would be a second object for the same thing.
        (name.path().as_ref().ok() == Some(path)).then_some(name)
    }

    /// The path of the object.
    ///
    /// # Errors
    /// [`Code::Internal`] if the store cannot have such a path.
    pub fn path(&self) -> Result<ObjectPath> {
        match self {
            Self::Format(n) => make(format!("format/{n}")),
            Self::Epoch(epoch) => make(format!("epochs/{epoch}")),
            Self::Key(epoch, slot) => make(format!("keys/{epoch}/{slot}")),
            Self::Removal(epoch, slot) => make(format!("removals/{epoch}/{slot}")),
            Self::Line(cluster, line, object) => LinePaths::new(cluster, *line)?.path(object),
        }
    }

    /// The kind its header must state; a backup may also be a tombstone.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Format(_) => ObjectKind::Format,
            Self::Epoch(_) => ObjectKind::Epoch,
            Self::Key(..) => ObjectKind::KeySlot,
            Self::Removal(..) => ObjectKind::Removal,
            Self::Line(_, _, object) => object.kind(),
        }
    }
}

impl LineObject {
    fn parse(parts: &[&str]) -> Option<Self> {
        Some(match parts {
            ["about"] => Self::About,
            ["pack", _, id] => Self::Pack(ulid(id)?),
            ["map", id] => Self::Map(ulid(id)?),
            ["manifest", id] => Self::Manifest(ulid(id)?),
            ["backup", id, n] => Self::Backup(BackupId(ulid(id)?), sequence(n)?),
            ["events", id, n] => Self::Event(ulid(id)?, sequence(n)?),
            ["pin", id, n] => Self::Pin(ulid(id)?, sequence(n)?),
            ["wal", "hot", timeline, segment, range] => {
                Self::WalHot(wal_hot(timeline, segment, range)?)
            }
            ["wal", "cold", timeline, range] => Self::WalCold(wal_cold(timeline, range)?),
            ["history", name] if name.len() == 8 => Self::History(timeline(name)?),
            ["history", name] => backup_history(name)?,
            ["names", id] => Self::Names(ulid(id)?),
            ["head", id] => Self::Head(ulid(id)?),
            ["gc", id, n] => Self::Gc(ulid(id)?, sequence(n)?),
            _ => return None,
        })
    }

    /// The kind its header must state; a backup may also be a tombstone.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::About => ObjectKind::About,
            Self::Pack(_) => ObjectKind::Pack,
            Self::Map(_) => ObjectKind::Map,
            Self::Manifest(_) => ObjectKind::Manifest,
            Self::Backup(..) => ObjectKind::Commit,
            Self::Event(..) => ObjectKind::Event,
            Self::Pin(..) => ObjectKind::Pin,
            Self::WalHot(_) => ObjectKind::WalHot,
            Self::WalCold(_) => ObjectKind::WalCold,
            Self::History(_) | Self::BackupHistory(_) => ObjectKind::History,
            Self::Names(_) => ObjectKind::Names,
            Self::Head(_) => ObjectKind::Head,
            Self::Gc(..) => ObjectKind::Gc,
        }
    }
}

/// Makes the paths of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePaths {
    root: ObjectPath,
}

impl LinePaths {
    /// The paths of a cluster's line.
    ///
    /// # Errors
    /// [`Code::Internal`] if the store cannot have such a path.
    pub fn new(cluster: &ClusterName, line: LineId) -> Result<Self> {
        make(format!("c/{cluster}/i/{line}")).map(|root| Self { root })
    }

    /// Everything of the line.
    #[must_use]
    pub fn all(&self) -> ObjectPrefix {
        ObjectPrefix::below(self.root.clone())
    }

    /// Everything below one directory of the line, such as `backup` or `wal/hot/00000001`.
    ///
    /// # Errors
    /// [`Code::Internal`] if the store cannot have such a path.
    pub fn below(&self, directory: &str) -> Result<ObjectPrefix> {
        make(format!("{}/{directory}", self.root)).map(ObjectPrefix::below)
    }

    /// The path of an object of the line.
    ///
    /// # Errors
    /// [`Code::Internal`] if the store cannot have such a path.
    pub fn path(&self, object: &LineObject) -> Result<ObjectPath> {
        let relative = match object {
            LineObject::About => "about".to_owned(),
            LineObject::Pack(id) => {
                let day = BackupId(*id).created_at().to_zoned(TimeZone::UTC).strftime("%Y%m%d");
                format!("pack/{day}/{id}")
            }
            LineObject::Map(id) => format!("map/{id}"),
            LineObject::Manifest(id) => format!("manifest/{id}"),
            LineObject::Backup(id, generation) => format!("backup/{}/{generation:08}", id.0),
            LineObject::Event(subject, n) => format!("events/{subject}/{n:08}"),
            LineObject::Pin(id, sequence) => format!("pin/{id}/{sequence:08}"),
            LineObject::WalHot(range) => format!(
                "wal/hot/{:08X}/{:016X}/{:016X}-{:016X}",
                range.timeline.0, range.segment.0, range.start.0, range.end.0
            ),
            LineObject::WalCold(range) => format!(
                "wal/cold/{:08X}/{:016X}-{:016X}-{}",
                range.timeline.0, range.start.0, range.end.0, range.id
            ),
            LineObject::History(timeline) => format!("history/{:08X}", timeline.0),
            LineObject::BackupHistory(name) => format!("history/{name}"),
            LineObject::Names(id) => format!("names/{id}"),
            LineObject::Head(id) => format!("head/{id}"),
            LineObject::Gc(id, n) => format!("gc/{id}/{n:08}"),
        };
        make(format!("{}/{relative}", self.root))
    }

    /// The name of an object below its line, as [`LinePaths::named`] reads it.
    ///
    /// # Errors
    /// [`Code::Internal`] if the store cannot have such a path.
    pub fn name(&self, object: &LineObject) -> Result<String> {
        let path = self.path(object)?;
        let name = self.all().strip(&path).map(str::to_owned);
        name.ok_or_else(|| Error::new(Code::Internal, format!("{path} is not below its line")))
    }

    /// The object of a name below the line. `None` for a name this format does not have.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<LineObject> {
        let path = make(format!("{}/{name}", self.root)).ok()?;
        match ObjectName::parse(&path)? {
            ObjectName::Line(_, _, object) => Some(object),
            _ => None,
        }
    }
}

/// All clusters' objects.
///
/// # Errors
/// Never; kept fallible like its siblings.
pub fn clusters() -> Result<ObjectPrefix> {
    make("c".to_owned()).map(ObjectPrefix::below)
}

/// All lines of a cluster.
///
/// # Errors
/// [`Code::Internal`] if the store cannot have such a path.
pub fn lines_of(cluster: &ClusterName) -> Result<ObjectPrefix> {
    make(format!("c/{cluster}/i")).map(ObjectPrefix::below)
}

/// All key slots.
///
/// # Errors
/// Never; kept fallible like its siblings.
pub fn key_slots() -> Result<ObjectPrefix> {
    make("keys".to_owned()).map(ObjectPrefix::below)
}

/// All beginnings of key epochs.
///
/// # Errors
/// Never; kept fallible like its siblings.
pub fn epochs() -> Result<ObjectPrefix> {
    make("epochs".to_owned()).map(ObjectPrefix::below)
}

/// All intentions to delete a key slot.
///
/// # Errors
/// Never; kept fallible like its siblings.
pub fn removals() -> Result<ObjectPrefix> {
    make("removals".to_owned()).map(ObjectPrefix::below)
}

/// All format objects.
///
/// # Errors
/// Never; kept fallible like its siblings.
pub fn formats() -> Result<ObjectPrefix> {
    make("format".to_owned()).map(ObjectPrefix::below)
}

fn make(text: String) -> Result<ObjectPath> {
    ObjectPath::new(text).map_err(|error| {
        Error::new(Code::Internal, "an object name is not a store path").with_source(error)
    })
}

fn ulid(text: &str) -> Option<Ulid> {
    Ulid::from_string(text).ok()
}

fn sequence(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn timeline(text: &str) -> Option<TimelineId> {
    u32::from_str_radix(text, 16).ok().filter(|timeline| *timeline > 0).map(TimelineId)
}

fn lsn(text: &str) -> Option<Lsn> {
    u64::from_str_radix(text, 16).ok().map(Lsn)
}

fn wal_hot(timeline: &str, segment: &str, range: &str) -> Option<WalRangeName> {
    let (start, end) = range.split_once('-')?;
    let (timeline, segment) = (self::timeline(timeline)?, lsn(segment)?);
    let (start, end) = (lsn(start)?, lsn(end)?);
    let name = WalRangeName { timeline, segment, start, end };
    (segment <= start && start < end).then_some(name)
}

fn wal_cold(timeline: &str, range: &str) -> Option<WalColdName> {
    let mut parts = range.splitn(3, '-');
    let (start, end, id) = (lsn(parts.next()?)?, lsn(parts.next()?)?, ulid(parts.next()?)?);
    let name = WalColdName { timeline: self::timeline(timeline)?, start, end, id };
    (start < end && end.bytes_since(start) <= WalColdName::MAX_BYTES).then_some(name)
}

/// Any segment size will do to recognise the name; the line's own is checked when it is written.
fn backup_history(name: &str) -> Option<LineObject> {
    let smallest = WalSegmentSize::new(1 << 20).ok()?;
    match WalFileName::parse(name, smallest)? {
        WalFileName::BackupHistory(..) => Some(LineObject::BackupHistory(name.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_core::{BranchNumber, SystemId};

    fn line(object: LineObject) -> ObjectName {
        let id = LineId { system_id: SystemId(7_300_000_000_000_000_000), branch: BranchNumber(0) };
        ObjectName::Line("main".parse().unwrap(), id, object)
    }

    #[test]
    fn every_name_reads_back() {
        let id = Ulid(0x019A_0000_0000_0000_0000_0000_0000_0001);
        let range = WalRangeName {
            timeline: TimelineId(10),
            segment: Lsn(0x2_0100_0000),
            start: Lsn(0x2_0100_0028),
            end: Lsn(0x2_0200_0000),
        };
        let (timeline, start) = (range.timeline, range.start);
        let cold = WalColdName { timeline, start, end: Lsn(start.0 + (1 << 32)), id };
        let backup_history = "000000010000000000000003.00000028.backup".to_owned();
        for name in [
            ObjectName::Format(1),
            ObjectName::Epoch(3),
            ObjectName::Key(3, id),
            ObjectName::Removal(3, id),
            line(LineObject::About),
            line(LineObject::Pack(id)),
            line(LineObject::Map(id)),
            line(LineObject::Manifest(id)),
            line(LineObject::Backup(BackupId(id), 2)),
            line(LineObject::Event(id, 0)),
            line(LineObject::Pin(id, 7)),
            line(LineObject::WalHot(range)),
            line(LineObject::WalCold(cold)),
            line(LineObject::History(TimelineId(16))),
            line(LineObject::BackupHistory(backup_history)),
            line(LineObject::Names(id)),
            line(LineObject::Head(id)),
            line(LineObject::Gc(id, LineObject::DECIDED)),
        ] {
            let path = name.path().unwrap();
            assert_eq!(ObjectName::parse(&path).as_ref(), Some(&name), "{path}");
            if let ObjectName::Line(cluster, id, object) = &name {
                let paths = LinePaths::new(cluster, *id).unwrap();
                assert_eq!(paths.named(&paths.name(object).unwrap()).as_ref(), Some(object));
            }
        }
    }

    #[test]
    fn names_are_as_the_format_page_shows_them() {
        let range = WalRangeName {
            timeline: TimelineId(10),
            segment: Lsn(0x2_0100_0000),
            start: Lsn(0x2_0100_0028),
            end: Lsn(0x2_0200_0000),
        };
        assert_eq!(
            line(LineObject::WalHot(range)).path().unwrap().as_str(),
            "c/main/i/7300000000000000000-0/wal/hot/0000000A/0000000201000000/0000000201000028-0000000202000000"
        );
        let WalRangeName { timeline, start, end, .. } = range;
        let id = Ulid(0x019A_0000_0000_0000_0000_0000_0000_0001);
        let cold = LineObject::WalCold(WalColdName { timeline, start, end, id });
        assert_eq!(
            line(cold).path().unwrap().as_str(),
            "c/main/i/7300000000000000000-0/wal/cold/0000000A/0000000201000028-0000000202000000-01K80000000000000000000001"
        );
    }

    #[test]
    fn other_names_and_other_spellings_are_not_ours() {
        for text in [
            "format/01",
            "format/x",
            "lock",
            "c/main/i/7-0/backup/01ARZ3NDEKTSV4RRFFQ69G5FAV/1",
            "c/main/i/7-0/backup/01arz3ndektsv4rrffq69g5fav/00000001",
            "c/main/i/7-0/pack/20200101/01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "c/main/i/7-0/wal/hot/0000000a/0000000000000000/0000000000000000-0000000000000008",
            "c/main/i/7-0/wal/hot/0000000A/0000000000000000/0000000000000000",
            "c/main/i/7-0/wal/hot/0000000A/0000000000000000/0000000000000008-0000000000000008",
            "c/main/i/7-0/wal/hot/0000000A/0000000001000000/0000000000000000-0000000000000008",
            "c/main/i/7-0/wal/cold/0000000A/0000000000000000-0000000000000008",
            "c/main/i/7-0/wal/cold/0000000A/0000000000000000-0000000100000001-01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "c/main/i/7-0/history/00000000",
            "c/Main/i/7-0/about",
        ] {
            let path: ObjectPath = text.parse().unwrap();
            assert_eq!(ObjectName::parse(&path), None, "{text}");
        }
    }
}
