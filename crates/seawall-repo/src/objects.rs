use std::collections::BTreeSet;

use seawall_core::{BackupId, Ulid};

use crate::layout::{LineObject, WalRangeName};

/// Objects of a line that come and go: a million of them in a few dozen megabytes, which their names
/// would not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectSet {
    /// Sorted, each once, like those that follow.
    packs: Vec<Ulid>,
    maps: Vec<Ulid>,
    manifests: Vec<Ulid>,
    backups: Vec<(BackupId, u32)>,
    events: Vec<(Ulid, u32)>,
    wal: Vec<WalRangeName>,
}

impl ObjectSet {
    /// Whether an object is of a kind that comes and goes. Others are not held here.
    #[must_use]
    pub const fn holds(object: &LineObject) -> bool {
        match object {
            LineObject::Pack(_)
            | LineObject::Map(_)
            | LineObject::Manifest(_)
            | LineObject::Backup(..)
            | LineObject::Event(..)
            | LineObject::WalHot(_) => true,
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

    /// Whether it is among them.
    #[must_use]
    pub fn contains(&self, object: &LineObject) -> bool {
        match object {
            LineObject::Pack(id) => self.packs.binary_search(id).is_ok(),
            LineObject::Map(id) => self.maps.binary_search(id).is_ok(),
            LineObject::Manifest(id) => self.manifests.binary_search(id).is_ok(),
            LineObject::Backup(id, generation) => {
                self.backups.binary_search(&(*id, *generation)).is_ok()
            }
            LineObject::Event(subject, n) => self.events.binary_search(&(*subject, *n)).is_ok(),
            LineObject::WalHot(name) => self.wal.binary_search(name).is_ok(),
            _ => false,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.packs.len()
            + self.maps.len()
            + self.manifests.len()
            + self.backups.len()
            + self.events.len()
            + self.wal.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in the order in which they may be deleted: what says that something is there
    /// before what it says is there.
    pub fn iter(&self) -> impl Iterator<Item = LineObject> {
        let backups = self.backups.iter().map(|(id, n)| LineObject::Backup(*id, *n));
        let manifests = self.manifests.iter().copied().map(LineObject::Manifest);
        let maps = self.maps.iter().copied().map(LineObject::Map);
        let packs = self.packs.iter().copied().map(LineObject::Pack);
        let wal = self.wal.iter().copied().map(LineObject::WalHot);
        let events = self.events.iter().map(|(subject, n)| LineObject::Event(*subject, *n));
        backups.chain(manifests).chain(maps).chain(packs).chain(wal).chain(events)
    }

    /// The commits among them.
    pub fn backups(&self) -> impl Iterator<Item = (BackupId, u32)> {
        self.backups.iter().copied()
    }

    /// The ranges of WAL among them.
    pub fn wal(&self) -> impl Iterator<Item = WalRangeName> {
        self.wal.iter().copied()
    }

    /// Adds the others.
    pub fn add(&mut self, other: Self) {
        merge(&mut self.packs, other.packs);
        merge(&mut self.maps, other.maps);
        merge(&mut self.manifests, other.manifests);
        merge(&mut self.backups, other.backups);
        merge(&mut self.events, other.events);
        merge(&mut self.wal, other.wal);
    }
}

fn merge<T: Ord>(own: &mut Vec<T>, other: Vec<T>) {
    own.extend(other);
    own.sort_unstable();
    own.dedup();
}

impl Extend<LineObject> for ObjectSet {
    fn extend<I: IntoIterator<Item = LineObject>>(&mut self, objects: I) {
        let mut more = Self::default();
        for object in objects {
            match object {
                LineObject::Pack(id) => more.packs.push(id),
                LineObject::Map(id) => more.maps.push(id),
                LineObject::Manifest(id) => more.manifests.push(id),
                LineObject::Backup(id, generation) => more.backups.push((id, generation)),
                LineObject::Event(subject, n) => more.events.push((subject, n)),
                LineObject::WalHot(name) => more.wal.push(name),
                LineObject::About
                | LineObject::Pin(..)
                | LineObject::WalCold(_)
                | LineObject::History(_)
                | LineObject::BackupHistory(_)
                | LineObject::Names(_)
                | LineObject::Head(_)
                | LineObject::Gc(..) => {}
            }
        }
        self.add(more);
    }
}

impl FromIterator<LineObject> for ObjectSet {
    fn from_iter<I: IntoIterator<Item = LineObject>>(objects: I) -> Self {
        let mut set = Self::default();
        set.extend(objects);
        set
    }
}

/// What backups and pins name: whatever names it, it is needed once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    packs: BTreeSet<Ulid>,
    maps: BTreeSet<Ulid>,
    manifests: BTreeSet<Ulid>,
}

impl Needed {
    /// A pack is needed.
    pub fn pack(&mut self, id: Ulid) {
        self.packs.insert(id);
    }

    /// A map is needed.
    pub fn map(&mut self, id: Ulid) {
        self.maps.insert(id);
    }

    /// A manifest is needed.
    pub fn manifest(&mut self, id: Ulid) {
        self.manifests.insert(id);
    }

    /// Whether an object that holds parts of backups is among them.
    #[must_use]
    pub fn contains(&self, object: &LineObject) -> bool {
        match object {
            LineObject::Pack(id) => self.packs.contains(id),
            LineObject::Map(id) => self.maps.contains(id),
            LineObject::Manifest(id) => self.manifests.contains(id),
            _ => false,
        }
    }
}
