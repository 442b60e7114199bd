//! Drops beside the target: who restores because of one wants it undone, and no later than that.
//!
//! The WAL's index tells which transactions removed relations' files when they committed: `DROP`,
//! `TRUNCATE`, and what writes a relation anew (`VACUUM FULL`, `CLUSTER`, `REINDEX`, `REFRESH
//! MATERIALIZED VIEW`, some `ALTER TABLE`). It does not tell these apart, nor the relations. Temporary
//! relations are not among them (`smgrGetPendingDeletes`, storage.c), and rows that were deleted are
//! not either. A database's files are removed before the transaction commits.

use std::collections::VecDeque;
use std::fmt;

use seawall_core::{ByteSize, Lsn, Oid, Xid, printable};
use seawall_repo::manifest::Database;

use crate::restore::{Fact, XactFact};
use crate::restored::{Removal, Removals, Removed};

/// How many are told on each side of a target.
pub(in crate::restore) const TOLD: usize = 3;

/// Notices removals among the log's facts, which come in LSN order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::restore) struct RemovalLog {
    found: VecDeque<Removal>,
    /// The last changes in place of a row of `pg_database`: since the last checkpoint, between that
    /// and the one before, and before that.
    row_changes: [Option<Lsn>; 3],
    /// Databases that transactions create that have not ended.
    creating: Vec<(Xid, Oid)>,
}

impl RemovalLog {
    /// The same log, which goes on from here without what it has found.
    pub(in crate::restore) fn emptied(&self) -> Self {
        Self { found: VecDeque::new(), ..self.clone() }
    }

    /// Takes the next fact.
    pub(in crate::restore) fn feed(&mut self, fact: &Fact) {
        match fact {
            Fact::Xact(xact) => {
                self.creating.retain(|(xid, _)| *xid != xact.xid);
                if xact.kind.is_commit() {
                    self.note_commit(xact);
                }
            }
            Fact::DatabaseCreated { xid, database, .. } => self.creating.push((*xid, *database)),
            Fact::DatabaseRowChanged { lsn } => self.row_changes[0] = Some(*lsn),
            Fact::TimeMark { .. } => {
                self.row_changes = [None, self.row_changes[0], self.row_changes[1]];
            }
            Fact::DatabaseDropped { lsn, xid, database } => {
                self.note_database(*lsn, *xid, *database);
            }
            Fact::RestorePoint { .. }
            | Fact::Prepared { .. }
            | Fact::Minimal { .. }
            | Fact::Unreadable(_) => {}
        }
    }

    /// Whether so many were found, and all of them have committed.
    pub(in crate::restore) fn has_committed(&self, count: usize) -> bool {
        self.found.len() >= count && self.found.iter().all(|found| found.time.is_some())
    }

    /// Forgets all but the last ones.
    pub(in crate::restore) fn keep_last(&mut self) {
        while self.found.len() > TOLD {
            self.found.pop_front();
        }
    }

    /// What was found, in order.
    pub(in crate::restore) fn found(&self) -> impl DoubleEndedIterator<Item = &Removal> {
        self.found.iter()
    }

    fn note_commit(&mut self, xact: &XactFact) {
        for dropped in self.found.iter_mut().filter(|found| found.xid == xact.xid) {
            dropped.time.get_or_insert(xact.time);
        }
        if xact.drops_relations {
            self.found.push_back(Removal {
                removed: Removed::Relations,
                xid: xact.xid,
                lsn: xact.place.lsn,
                time: Some(xact.time),
                database: xact.database,
                database_name: None,
                before: format!("xid:{}", xact.xid),
            });
        }
    }

    /// `DROP DATABASE` marks the row of the database as invalid in place, makes a checkpoint, and
    /// removes the files (dropdb, dbcommands.c; minor versions before August 2023 do not mark it).
    /// From the mark on nobody can connect to it, whatever becomes of the transaction. Another
    /// checkpoint may have been under way.
    ///
    /// `CREATE DATABASE` that fails removes what it had made (`createdb_failure_callback`): nobody has
    /// lost that.
    fn note_database(&mut self, lsn: Lsn, xid: Xid, database: Oid) {
        if self.creating.contains(&(xid, database)) {
            return;
        }
        let is_same = |found: &Removal| {
            found.removed == Removed::Database
                && (found.xid, found.database) == (xid, Some(database))
        };
        // 12 writes a record for each tablespace.
        if self.found.iter().any(is_same) {
            return;
        }
        let marked = self.row_changes[1].or(self.row_changes[2]);
        self.found.push_back(Removal {
            removed: Removed::Database,
            xid,
            lsn,
            time: None,
            database: Some(database),
            database_name: None,
            before: format!("lsn:{}", marked.unwrap_or(lsn)),
        });
    }
}

impl Removal {
    /// Whether it is a database of which only a part of the removal lies before `cut`: it is in the
    /// catalogue then, and of no use.
    fn is_half_done(&self, cut: Lsn) -> bool {
        self.removed == Removed::Database && (self.time.is_none() || self.lsn >= cut) && {
            let begins = self.before.strip_prefix("lsn:").and_then(|lsn| lsn.parse().ok());
            begins.is_some_and(|begins: Lsn| begins < cut)
        }
    }
}

impl Removals {
    /// Tells what databases were called when the backup began.
    pub(in crate::restore) fn name_databases(&mut self, known: &[Database]) {
        for removal in self.kept.iter_mut().chain(&mut self.left_out) {
            let known = known.iter().find(|known| Some(known.oid) == removal.database);
            removal.database_name =
                known.map(|known| printable(&String::from_utf8_lossy(&known.name)));
        }
    }

    /// What a person should know who takes `cut` for the target.
    pub(in crate::restore) fn warnings(&self, cut: Lsn) -> Vec<String> {
        let both = self.kept.iter().chain(&self.left_out);
        let half_done = both.filter(|removal| removal.is_half_done(cut));
        half_done
            .map(|removal| {
                format!(
                    "The target lies within the removal of {}: it is still listed there, and nobody can connect to it. `--before {}` stops while it is whole.",
                    removal.in_database(),
                    removal.before
                )
            })
            .collect()
    }
}

impl Removal {
    fn in_database(&self) -> String {
        match (&self.database_name, self.database) {
            (Some(name), Some(oid)) => format!("database {} (OID {oid})", super::quoted(name)),
            (None, Some(oid)) => format!("the database with OID {oid}"),
            (_, None) => "a database".to_owned(),
        }
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}", self.xid)?;
        if let Some(time) = self.time {
            write!(f, " of {}", time.strftime("%Y-%m-%d %H:%M:%S%.fZ"))?;
        }
        let database = self.in_database();
        match self.removed {
            Removed::Relations => write!(
                f,
                " (LSN {}) dropped, truncated or rewrote relations in {database}",
                self.lsn
            ),
            Removed::Database => write!(f, " (LSN {}) dropped {database}", self.lsn),
        }
    }
}

/// What the plan says of drops, a line each, without what it is called.
pub(super) fn kept_lines(removals: &Removals) -> Vec<String> {
    if removals.kept.is_empty() {
        return vec![format!("none since LSN {}", removals.looked_from)];
    }
    let line = |removal: &Removal| format!("{removal}: `--before {}` undoes it", removal.before);
    removals.kept.iter().map(line).collect()
}

/// The same of those that are undone; `cut` is where replay stops.
pub(super) fn undone_lines(removals: &Removals, cut: Lsn) -> Vec<String> {
    if !removals.left_out.is_empty() {
        return removals.left_out.iter().map(ToString::to_string).collect();
    }
    vec![if removals.reached_end {
        "none: what is archived after the target has none".to_owned()
    } else {
        let looked = ByteSize(removals.looked_to.bytes_since(cut));
        format!("none in the {looked} of WAL after the target, up to LSN {}", removals.looked_to)
    }]
}

#[cfg(test)]
mod tests {
    use seawall_pgdata::wal::XactEndKind;

    use super::*;
    use crate::restore::RecordPlace;
    use jiff::Timestamp;

    const DROP: Lsn = Lsn(1000);

    fn row_change(lsn: u64) -> Fact {
        Fact::DatabaseRowChanged { lsn: Lsn(lsn) }
    }

    fn checkpoint(lsn: u64) -> Fact {
        Fact::TimeMark { lsn: Lsn(lsn), time: Timestamp::UNIX_EPOCH }
    }

    fn dropped() -> Fact {
        Fact::DatabaseDropped { lsn: DROP, xid: 7, database: 16_384 }
    }

    fn end(kind: XactEndKind, drops_relations: bool) -> Fact {
        Fact::Xact(XactFact {
            place: RecordPlace { lsn: Lsn(2000), end: Lsn(2061) },
            xid: 7,
            time: Timestamp::UNIX_EPOCH,
            kind,
            subxids: Vec::new(),
            database: Some(5),
            drops_relations,
        })
    }

    fn found(facts: &[Fact]) -> Vec<Removal> {
        let mut log = RemovalLog::default();
        facts.iter().for_each(|fact| log.feed(fact));
        log.found().cloned().collect()
    }

    /// VACUUM changes rows of `pg_database` in place too, at any time.
    #[test]
    fn a_database_is_whole_until_it_was_marked_before_the_checkpoint_of_its_drop() {
        for (facts, before) in [
            (vec![row_change(10), checkpoint(20), dropped()], "lsn:0/A"),
            (vec![row_change(10), checkpoint(20), row_change(30), dropped()], "lsn:0/A"),
            (vec![row_change(10), checkpoint(20), checkpoint(30), dropped()], "lsn:0/A"),
            // An old minor version does not mark it.
            (vec![row_change(30), dropped()], "lsn:0/3E8"),
            (vec![checkpoint(20), dropped()], "lsn:0/3E8"),
            (
                vec![row_change(10), checkpoint(20), checkpoint(30), checkpoint(40), dropped()],
                "lsn:0/3E8",
            ),
        ] {
            let [removal] = &found(&facts)[..] else { panic!("{facts:?}") };
            assert_eq!(removal.before, before, "{facts:?}");
        }
    }

    #[test]
    fn what_is_rolled_back_removes_nothing_and_two_records_are_one_drop() {
        assert_eq!(found(&[end(XactEndKind::Abort, true)]), []);
        assert_eq!(found(&[end(XactEndKind::Commit, false)]), []);
        let [removal] = &found(&[dropped(), dropped(), end(XactEndKind::Commit, false)])[..] else {
            panic!("one drop");
        };
        assert_eq!(
            (removal.removed, removal.time),
            (Removed::Database, Some(Timestamp::UNIX_EPOCH))
        );
    }

    #[test]
    fn a_database_whose_creation_fails_is_not_removed() {
        let created = Fact::DatabaseCreated { lsn: Lsn(900), xid: 7, database: 16_384 };
        assert_eq!(found(&[created.clone(), dropped(), end(XactEndKind::Abort, false)]), []);
        let later = [created, end(XactEndKind::Commit, false), dropped()];
        assert_eq!(found(&later).len(), 1, "that creation has ended");
    }

    #[test]
    fn a_target_within_the_removal_of_a_database_is_warned_of() {
        let whole = [row_change(10), checkpoint(20), dropped(), end(XactEndKind::Commit, false)];
        let told = |kept: &[Fact], left_out: Vec<Removal>, cut: u64| {
            let removals = Removals { kept: found(kept), left_out, ..Removals::default() };
            removals.warnings(Lsn(cut))
        };
        assert_eq!(told(&whole, Vec::new(), 3000), [""; 0], "it is gone altogether");
        assert_eq!(told(&[], found(&whole), 10), [""; 0], "it is there");
        let half = told(&whole[..3], Vec::new(), 1500);
        assert!(
            half[0].contains("OID 16384: ") && half[0].contains("`--before lsn:0/A`"),
            "{half:?}"
        );
        assert_eq!(told(&[], found(&whole), 500).len(), 1, "it is marked");
    }
}
