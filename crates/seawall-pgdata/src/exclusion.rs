//! What a backup leaves out, by path.
//!
//! The lists are those of `BASE_BACKUP` (basebackup.c, 12–18) with a few additions of our own,
//! each said below. Where PostgreSQL matches a name at any depth though it only ever writes it in
//! one place, only that place is left out here: when in doubt, a file is kept.

use std::collections::BTreeSet;

use seawall_core::Oid;

use crate::PgMajor;
use crate::relation_path::{Fork, RelationName, tablespace_version_directory};

/// Our own note of a restore going on, in the root of PGDATA. It is not part of the cluster.
pub const RESTORE_STATE_FILE: &str = "seawall.restore";

/// Our own note that a running server may be promoted without its archive, in the root of PGDATA.
pub const PROMOTION_NOTE_FILE: &str = "seawall.promote";

/// Whether a file or directory belongs in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does. What a directory holds is judged path by path.
    Keep,
    /// The directory does, empty: the server wants it to be there.
    SkipContents(Reason),
    /// It does not.
    Skip(Reason),
}

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The server clears or rebuilds it when it starts.
    RebuiltAtStart,
    /// A file the server was about to rename or remove.
    Temporary,
    /// It describes the running server process, not the data.
    ServerProcess,
    /// Replication slots: a restored server must not hold back WAL for another's standbys.
    ReplicationSlots,
    /// WAL comes from the archive.
    Wal,
    /// It belongs to another backup than this one.
    OtherBackup,
    /// In a tablespace's directory, yet not this cluster's: another major's, or a stranger's.
    ForeignToTablespace,
}

/// Directories at the root that are kept empty.
const EMPTIED_DIRECTORIES: [(&str, Reason); 7] = [
    ("pg_dynshmem", Reason::RebuiltAtStart),
    ("pg_notify", Reason::RebuiltAtStart),
    ("pg_replslot", Reason::ReplicationSlots),
    ("pg_serial", Reason::RebuiltAtStart),
    ("pg_snapshots", Reason::RebuiltAtStart),
    ("pg_stat_tmp", Reason::RebuiltAtStart),
    ("pg_subtrans", Reason::RebuiltAtStart),
];

/// Files at the root that are left out. Of these PostgreSQL's own list lacks `current_logfiles`,
/// the `.old` files and our own.
const ROOT_FILES: [(&str, Reason); 12] = [
    ("backup_label", Reason::OtherBackup),
    ("backup_label.old", Reason::OtherBackup),
    ("backup_manifest", Reason::OtherBackup),
    ("current_logfiles", Reason::ServerProcess),
    ("current_logfiles.tmp", Reason::Temporary),
    ("postgresql.auto.conf.tmp", Reason::Temporary),
    ("postmaster.opts", Reason::ServerProcess),
    ("postmaster.pid", Reason::ServerProcess),
    ("tablespace_map", Reason::OtherBackup),
    ("tablespace_map.old", Reason::OtherBackup),
    (RESTORE_STATE_FILE, Reason::OtherBackup),
    (PROMOTION_NOTE_FILE, Reason::ServerProcess),
];

/// Says whether the file or directory at `path` belongs in a backup.
///
/// `path` is relative to PGDATA, with `/` between its parts and tablespaces below `pg_tblspc/<oid>`
/// whether that is a link or not; a link to a directory counts as one. Parents are judged on their own: ask for each level on the way
/// down. Unlogged and temporary relations are not decided here; see [`UnloggedRelations`] and
/// [`crate::relation_path::RelationPath::Temporary`].
#[must_use]
pub fn verdict(path: impl AsRef<[u8]>, is_dir: bool, major: PgMajor) -> Verdict {
    let path = path.as_ref();
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = parts.last().copied().unwrap_or_default();
    if name.starts_with(b"pgsql_tmp") {
        return Verdict::Skip(Reason::Temporary);
    }
    if name.starts_with(b"pg_internal.init") && !is_dir {
        return Verdict::Skip(Reason::RebuiltAtStart);
    }
    match parts.as_slice() {
        [name] => root_verdict(name, is_dir),
        [b"pg_wal", rest @ ..] => match rest {
            [b"archive_status" | b"summaries"] if is_dir => Verdict::SkipContents(Reason::Wal),
            _ => Verdict::Skip(Reason::Wal),
        },
        [b"pg_tblspc", _, version, ..]
            if *version != tablespace_version_directory(major).as_bytes() =>
        {
            Verdict::Skip(Reason::ForeignToTablespace)
        }
        [root, ..] => match emptied(root) {
            Some(reason) => Verdict::Skip(reason),
            None => Verdict::Keep,
        },
        [] => Verdict::Keep,
    }
}

fn root_verdict(name: &[u8], is_dir: bool) -> Verdict {
    if is_dir {
        return emptied(name).map_or(Verdict::Keep, Verdict::SkipContents);
    }
    let listed = ROOT_FILES.iter().find(|(file, _)| file.as_bytes() == name);
    listed.map_or(Verdict::Keep, |(_, reason)| Verdict::Skip(*reason))
}

fn emptied(directory: &[u8]) -> Option<Reason> {
    EMPTIED_DIRECTORIES.iter().find(|(name, _)| name.as_bytes() == directory).map(|found| found.1)
}

/// The unlogged relations of one database directory: those with an init fork.
///
/// Their data is not WAL-logged, so a copy of it is worth nothing; a restored server starts them
/// from the init fork (`ResetUnloggedRelations`, reinit.c).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnloggedRelations(BTreeSet<Oid>);

impl UnloggedRelations {
    /// Finds them among the names in one database directory.
    pub fn in_directory<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let init_forks = names.into_iter().filter_map(|name| match RelationName::parse(name)? {
            RelationName::File { relation, fork: Fork::Init, segment: 0 } => Some(relation),
            _ => None,
        });
        Self(init_forks.collect())
    }

    /// Whether a backup leaves this file of the directory out: any fork but the init fork.
    #[must_use]
    pub fn skips(&self, name: &str) -> bool {
        match RelationName::parse(name) {
            Some(RelationName::File { relation, fork, .. }) => {
                fork != Fork::Init && self.0.contains(&relation)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Verdict {
        verdict(path, false, PgMajor::V17)
    }

    fn directory(path: &str) -> Verdict {
        verdict(path, true, PgMajor::V17)
    }

    #[test]
    fn what_a_restored_cluster_needs_is_kept() {
        for path in [
            "PG_VERSION",
            "postgresql.conf",
            "postgresql.auto.conf",
            "global/pg_control",
            "global/pg_filenode.map",
            "base/5/1259",
            "base/5/pg_internal",
            "pg_xact/0000",
            "pg_multixact/offsets/0000",
            "pg_twophase/00000301",
            "pg_logical/replorigin_checkpoint",
            "pg_tblspc/16390/PG_17_202406281/5/16400",
            "standby.signal",
            "backup_label.mine",
            "seawall.restored",
        ] {
            assert_eq!(file(path), Verdict::Keep, "{path}");
        }
        for path in
            ["base", "pg_wal", "pg_tblspc", "pg_tblspc/16390", "pg_tblspc/16390/PG_17_202406281"]
        {
            assert_eq!(directory(path), Verdict::Keep, "{path}");
        }
    }

    #[test]
    fn directories_the_server_clears_stay_empty() {
        for path in ["pg_replslot", "pg_stat_tmp", "pg_notify", "pg_subtrans"] {
            assert!(matches!(directory(path), Verdict::SkipContents(_)), "{path}");
            let inside = format!("{path}/0000");
            assert!(matches!(file(&inside), Verdict::Skip(_)), "{inside}");
        }
        assert_eq!(file("pg_notify"), Verdict::Keep);
        assert_eq!(directory("base/pg_notify"), Verdict::Keep);
    }

    #[test]
    fn of_pg_wal_only_the_directories_stay() {
        for path in ["pg_wal/archive_status", "pg_wal/summaries"] {
            assert_eq!(directory(path), Verdict::SkipContents(Reason::Wal), "{path}");
        }
        for path in [
            "pg_wal/000000010000000000000001",
            "pg_wal/00000002.history",
            "pg_wal/archive_status/000000010000000000000001.ready",
        ] {
            assert_eq!(file(path), Verdict::Skip(Reason::Wal), "{path}");
        }
    }

    #[test]
    fn files_of_the_running_server_and_of_other_backups_stay_out() {
        for (path, reason) in [
            ("postmaster.pid", Reason::ServerProcess),
            ("postmaster.opts", Reason::ServerProcess),
            ("current_logfiles", Reason::ServerProcess),
            ("postgresql.auto.conf.tmp", Reason::Temporary),
            ("backup_label", Reason::OtherBackup),
            ("tablespace_map.old", Reason::OtherBackup),
            ("backup_manifest", Reason::OtherBackup),
            ("seawall.restore", Reason::OtherBackup),
            ("global/pg_internal.init", Reason::RebuiltAtStart),
            ("base/5/pg_internal.init.1234", Reason::RebuiltAtStart),
            ("base/pgsql_tmp/pgsql_tmp12.0", Reason::Temporary),
        ] {
            assert_eq!(file(path), Verdict::Skip(reason), "{path}");
        }
        assert_eq!(directory("base/pgsql_tmp"), Verdict::Skip(Reason::Temporary));
        assert_eq!(file("extra/postmaster.pid"), Verdict::Keep);
    }

    #[test]
    fn other_majors_and_strangers_in_a_tablespace_stay_out() {
        for path in ["pg_tblspc/16390/PG_16_202307071", "pg_tblspc/16390/lost+found"] {
            assert_eq!(directory(path), Verdict::Skip(Reason::ForeignToTablespace), "{path}");
        }
    }

    #[test]
    fn unlogged_relations_keep_their_init_fork_only() {
        let names = ["16400", "16400_init", "16400_fsm", "16400.1", "16401", "16402_init.1", "x"];
        let unlogged = UnloggedRelations::in_directory(names);
        let skipped: Vec<_> = names.into_iter().filter(|name| unlogged.skips(name)).collect();
        assert_eq!(skipped, ["16400", "16400_fsm", "16400.1"]);
    }
}
