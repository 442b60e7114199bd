//! Databases that were made by copying files while the backup ran.
//!
//! `CREATE DATABASE` (up to 14; from 15 with `STRATEGY FILE_COPY`) and `ALTER DATABASE … SET
//! TABLESPACE` copy a database's files, and the log says no more than that. Replay drops what the
//! backup has of the copy and copies again (`dbase_redo`, dbcommands.c), from the directory of the
//! other database as it is at that point of replay. That is as it was if the backup's files, to which
//! all records before have been applied, hold nothing newer and are all there: if the other database
//! was neither written to nor dropped nor moved between the copy and the end of the backup.

use std::collections::{BTreeMap, BTreeSet};

use seawall_core::{Code, Error, Oid, Result, printable};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{
    ChangedBlocks, DatabaseCreate, DatabaseDirectory, DatabaseDrop, Event, EventKind,
    RelFileLocator,
};
use seawall_repo::manifest::Database;
use seawall_repo::wal::{FactsPart, LsnRange, WalArchive};

use crate::backup::again;

/// How many databases an error names.
const NAMED: usize = 10;

/// The databases that a restore of the backup would not have as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LostDatabases(BTreeMap<Oid, Lost>);

/// How a database was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    /// The database whose files were copied; itself if it was moved.
    template: Oid,
    spoiled: Spoiled,
}

/// What became of the files that were copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoiled {
    /// They were removed: the database was dropped, or moved to another tablespace.
    Removed,
    /// They were written to.
    Changed,
    /// The log does not tell whether they were written to.
    Unknown,
}

/// Looks through the backup's own WAL, which is whole, for copies of files that replay gets wrong.
///
/// # Errors
/// Damage, a hole, or a store that fails.
pub(super) async fn lost_databases(
    archive: &WalArchive,
    ancestry: &Ancestry,
    window: LsnRange,
) -> Result<LostDatabases> {
    let mut copies = FileCopies::default();
    let mut parts = archive.facts(ancestry, window.start, window.end);
    while let Some(part) = parts.next().await? {
        let (range, facts) = match part {
            FactsPart::Facts { range, facts, .. } => (range, facts),
            FactsPart::Hole(hole) => return Err(hole.into_error()),
        };
        copies.changed(&facts.changes);
        for event in &facts.events {
            // The map of a part does not tell what came before the copy and what after.
            if let Some(copy) = copies.feed(event) {
                let after = LsnRange { start: event.lsn, end: range.end };
                copy.changed(&archive.exact_changes(ancestry, after).await?);
            }
        }
    }
    Ok(copies.lost())
}

/// Whether a database was made or moved by copying files. Most backups see none.
pub(super) const fn is_file_copy(event: &Event) -> bool {
    matches!(event.kind, EventKind::DatabaseCreated(DatabaseCreate { copied_from: Some(_), .. }))
}

/// A copy of a database's directory.
#[derive(Debug)]
struct FileCopy {
    made: DatabaseDirectory,
    template: DatabaseDirectory,
    origin: Origin,
    spoiled: Option<Spoiled>,
    /// Nobody misses it.
    is_dropped: bool,
}

/// Where replay has the files from that it copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The backup.
    Backup,
    /// The log: the database was made while the backup ran, with all its content in the log.
    Log,
    /// An earlier copy, by its place among all, which replay makes anew whatever the backup has.
    Copy(usize),
}

/// The copies there were, in LSN order.
#[derive(Debug, Default)]
struct FileCopies {
    copies: Vec<FileCopy>,
    logged: BTreeSet<DatabaseDirectory>,
}

impl FileCopies {
    /// Takes the next event, and returns the copy if it is one.
    fn feed(&mut self, event: &Event) -> Option<&mut FileCopy> {
        match &event.kind {
            EventKind::DatabaseCreated(create) => self.created(create),
            EventKind::DatabaseDropped(drop) => {
                self.dropped(drop);
                None
            }
            _ => None,
        }
    }

    fn created(&mut self, create: &DatabaseCreate) -> Option<&mut FileCopy> {
        let DatabaseCreate { database, tablespace, copied_from } = *create;
        let made = DatabaseDirectory { tablespace, database };
        let Some((database, tablespace)) = copied_from else {
            self.logged.insert(made);
            return None;
        };
        let template = DatabaseDirectory { tablespace, database };
        let earlier = self.copies.iter().rposition(|copy| copy.made == template);
        let origin = match earlier {
            Some(earlier) => Origin::Copy(earlier),
            None if self.logged.contains(&template) => Origin::Log,
            None => Origin::Backup,
        };
        self.copies.push(FileCopy { made, template, origin, spoiled: None, is_dropped: false });
        self.copies.last_mut()
    }

    fn dropped(&mut self, drop: &DatabaseDrop) {
        let is_dropped = |directory: DatabaseDirectory| {
            directory.database == drop.database && drop.tablespaces.contains(&directory.tablespace)
        };
        for copy in &mut self.copies {
            copy.is_dropped |= is_dropped(copy.made);
            // What is in the log is made by replay, and is not missing.
            if copy.origin == Origin::Backup && is_dropped(copy.template) {
                copy.spoiled.get_or_insert(Spoiled::Removed);
            }
        }
    }

    /// Takes what was changed later than all copies so far.
    fn changed(&mut self, changes: &ChangedBlocks) {
        self.copies.iter_mut().for_each(|copy| copy.changed(changes));
    }

    fn lost(&self) -> LostDatabases {
        let mut lost = BTreeMap::new();
        // What each copy comes from in the end, if that is spoiled.
        let mut roots: Vec<Option<Lost>> = Vec::new();
        for copy in &self.copies {
            let root = match copy.origin {
                Origin::Copy(earlier) => roots.get(earlier).copied().flatten(),
                Origin::Backup | Origin::Log => {
                    copy.spoiled.map(|spoiled| Lost { template: copy.template.database, spoiled })
                }
            };
            roots.push(root);
            if let Some(root) = root.filter(|_| !copy.is_dropped) {
                lost.entry(copy.made.database).or_insert(root);
            }
        }
        LostDatabases(lost)
    }
}

impl FileCopy {
    /// Takes what was changed after it was made.
    fn changed(&mut self, changes: &ChangedBlocks) {
        let in_template = |locator: RelFileLocator| {
            (locator.tablespace, locator.database)
                == (self.template.tablespace, self.template.database)
        };
        if changes.relations().any(|(locator, ..)| in_template(locator)) {
            self.spoiled.get_or_insert(Spoiled::Changed);
        } else if changes.broken().is_some() {
            self.spoiled.get_or_insert(Spoiled::Unknown);
        }
    }
}

impl LostDatabases {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why the backup is not published. `known` are names of databases.
    pub fn error(&self, known: &[Database]) -> Error {
        let shown = |oid: Oid| match known.iter().find(|database| database.oid == oid) {
            Some(database) => {
                let name = printable(&String::from_utf8_lossy(&database.name));
                format!("database \"{name}\" (OID {oid})")
            }
            None => format!("the database with OID {oid}"),
        };
        let told = |(oid, lost): (&Oid, &Lost)| lost.told(*oid, shown);
        let mut all: Vec<String> = self.0.iter().take(NAMED).map(told).collect();
        if let Some(more) = self.0.len().checked_sub(NAMED).filter(|more| *more > 0) {
            all.push(format!("and {more} more"));
        }
        let what = format!(
            "a restore of this backup would lose what it ought to have: {}",
            all.join("; ")
        );
        Error::new(Code::DatabaseFilesLost, what).with_hint(again())
    }
}

impl Lost {
    fn told(self, oid: Oid, shown: impl Fn(Oid) -> String) -> String {
        let (database, template) = (shown(oid), shown(self.template));
        if oid == self.template {
            return format!("{database} was moved to another tablespace while the backup ran");
        }
        let then = match self.spoiled {
            Spoiled::Removed => "was dropped or moved",
            Spoiled::Changed => "was written to",
            Spoiled::Unknown => "may have been written to",
        };
        format!(
            "{database} was copied from the files of {template}, which {then} before the backup ended"
        )
    }
}

#[cfg(test)]
mod tests {
    use seawall_core::Lsn;
    use seawall_pgdata::relation_path::Fork;
    use seawall_pgdata::wal::BrokenReason;

    use super::*;

    const PLACE: Oid = 1663;
    const OTHER: Oid = 16_390;

    fn event(kind: EventKind) -> Event {
        Event { lsn: Lsn(100), end_lsn: Lsn(150), xid: 7, kind }
    }

    fn copy(from: (Oid, Oid), to: (Oid, Oid)) -> Event {
        let (database, tablespace) = to;
        let create = DatabaseCreate { database, tablespace, copied_from: Some(from) };
        event(EventKind::DatabaseCreated(create))
    }

    fn logged(database: Oid) -> Event {
        let create = DatabaseCreate { database, tablespace: PLACE, copied_from: None };
        event(EventKind::DatabaseCreated(create))
    }

    fn dropped(database: Oid, tablespace: Oid) -> Event {
        let drop = DatabaseDrop { database, tablespaces: vec![tablespace] };
        event(EventKind::DatabaseDropped(drop))
    }

    fn change_of(database: Oid) -> ChangedBlocks {
        let mut changes = ChangedBlocks::new();
        let locator = RelFileLocator { tablespace: PLACE, database, relation: 1259 };
        changes.mark(locator, Fork::Main, 3);
        changes
    }

    /// What is lost after some events and a change of databases, with what they were copied from.
    fn lost(events: &[Event], changed: &[Oid]) -> Vec<(Oid, Oid)> {
        let mut copies = FileCopies::default();
        for event in events {
            copies.feed(event);
        }
        changed.iter().for_each(|database| copies.changed(&change_of(*database)));
        copies.lost().0.iter().map(|(oid, lost)| (*oid, lost.template)).collect()
    }

    #[test]
    fn a_copy_is_lost_with_the_files_it_was_made_of() {
        let made = copy((5, PLACE), (20, PLACE));
        assert_eq!(lost(std::slice::from_ref(&made), &[4, 20]), []);
        assert_eq!(lost(std::slice::from_ref(&made), &[5]), [(20, 5)]);
        assert_eq!(lost(&[made.clone(), dropped(5, PLACE)], &[]), [(20, 5)]);
        assert_eq!(lost(&[made.clone(), dropped(5, OTHER)], &[]), [], "not these files");
        assert_eq!(lost(&[made.clone(), dropped(5, PLACE), dropped(20, PLACE)], &[]), []);
        let again = copy((20, PLACE), (30, PLACE));
        let both = [made, again, dropped(20, PLACE), dropped(5, PLACE)];
        assert_eq!(lost(&both, &[]), [(30, 5)], "a copy of a copy");
    }

    #[test]
    fn what_replay_makes_itself_may_be_dropped() {
        let from_copy =
            [copy((1, PLACE), (20, PLACE)), copy((20, PLACE), (30, PLACE)), dropped(20, PLACE)];
        assert_eq!(lost(&from_copy, &[20]), []);
        let from_log = [logged(20), copy((20, PLACE), (30, PLACE)), dropped(20, PLACE)];
        assert_eq!(lost(&from_log, &[]), []);
        // A file that has grown since is longer than the log makes it.
        assert_eq!(lost(&from_log[..2], &[20]), [(30, 20)]);
    }

    #[test]
    fn a_database_that_is_moved_is_lost_even_if_it_is_moved_back() {
        let there = [copy((20, PLACE), (20, OTHER)), dropped(20, PLACE)];
        assert_eq!(lost(&there, &[]), [(20, 20)]);
        let back = [copy((20, OTHER), (20, PLACE)), dropped(20, OTHER)];
        assert_eq!(lost(&[there, back].concat(), &[]), [(20, 20)]);
    }

    #[test]
    fn a_map_that_is_broken_tells_nothing_of_a_template() {
        let mut copies = FileCopies::default();
        copies.feed(&copy((5, PLACE), (20, PLACE)));
        let mut broken = ChangedBlocks::new();
        broken.break_at(Lsn(200), BrokenReason::MinimalWal);
        copies.changed(&broken);
        let names = [Database { oid: 20, name: b"shop".to_vec().into() }];
        let error = copies.lost().error(&names);
        assert_eq!(error.code(), Code::DatabaseFilesLost);
        let told = "database \"shop\" (OID 20) was copied from the files of the database with OID 5, which may have been written to";
        assert!(error.message().contains(told), "{}", error.message());
    }
}
