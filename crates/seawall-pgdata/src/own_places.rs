//! Which paths below PGDATA PostgreSQL itself opens, and so must not be missing from a backup.

use crate::PgMajor;
use crate::decimal::positive_decimal;
use crate::relation_path::tablespace_version_directory;

/// The directories `initdb` makes, 12–18 (`subdirs`, initdb.c).
const DIRECTORIES: [&str; 23] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_wal/summaries",
    "pg_xact",
];

/// Files at the root that PostgreSQL reads by these names.
const ROOT_FILES: [&str; 7] = [
    "PG_VERSION",
    "pg_hba.conf",
    "pg_ident.conf",
    "postgresql.auto.conf",
    "postgresql.conf",
    "recovery.signal",
    "standby.signal",
];

/// Whether PostgreSQL has a directory of its own at a path relative to PGDATA.
#[must_use]
pub fn is_own_directory(path: impl AsRef<[u8]>, major: PgMajor) -> bool {
    let Ok(path) = std::str::from_utf8(path.as_ref()) else { return false };
    if DIRECTORIES.contains(&path) {
        return true;
    }
    let number = |text: &str| positive_decimal(text).is_some();
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["base", database] => number(database),
        ["pg_tblspc", tablespace] => number(tablespace),
        ["pg_tblspc", tablespace, version, rest @ ..] => {
            let own = number(tablespace) && *version == tablespace_version_directory(major);
            own && match rest {
                [] => true,
                [database] => number(database),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether a file at a path relative to PGDATA is PostgreSQL's own: one of the root, or any in a
/// directory of its own.
#[must_use]
pub fn is_own_file(path: impl AsRef<[u8]>, major: PgMajor) -> bool {
    let path = path.as_ref();
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path.get(..slash).is_some_and(|parent| is_own_directory(parent, major)),
        None => ROOT_FILES.iter().any(|name| name.as_bytes() == path),
    }
}

/// Whether a file is of the simple logs (`pg_xact` and the like, slru.c): written in place all the
/// time, and made right by replay whatever a copy caught of it.
#[must_use]
pub fn is_simple_log(path: impl AsRef<[u8]>) -> bool {
    let path = path.as_ref();
    [b"pg_xact/".as_slice(), b"pg_multixact/", b"pg_commit_ts/"]
        .iter()
        .any(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAJOR: PgMajor = PgMajor::V15;

    #[test]
    fn what_postgres_opens_is_told_from_what_others_put_there() {
        for own in [
            "base",
            "base/5",
            "global",
            "pg_xact",
            "pg_multixact/members",
            "pg_logical/snapshots",
            "pg_stat_tmp",
            "pg_wal/archive_status",
            "pg_tblspc/16390",
            "pg_tblspc/16390/PG_15_202209061",
            "pg_tblspc/16390/PG_15_202209061/5",
        ] {
            assert!(is_own_directory(own, MAJOR), "{own}");
        }
        for other in [
            "log",
            "pg_log",
            "conf.d",
            "base/x",
            "base/05",
            "base/5/x",
            "pg_tblspc/x",
            "pg_tblspc/16390/PG_14_202107181",
            "pg_tblspc/16390/PG_15_202209061/5/1",
            "pg_xact/x",
            "",
        ] {
            assert!(!is_own_directory(other, MAJOR), "{other}");
        }
        assert!(!is_own_directory(b"base/\xff", MAJOR));
    }

    #[test]
    fn its_files_are_those_in_its_directories_and_some_at_the_root() {
        for own in ["base/5/1259", "global/pg_control", "pg_xact/0000", "postgresql.conf"] {
            assert!(is_own_file(own, MAJOR), "{own}");
        }
        for other in ["server.key", "log/a.log", "conf.d/a.conf", "base/x/1", "pg_log/x"] {
            assert!(!is_own_file(other, MAJOR), "{other}");
        }
        assert!(is_simple_log("pg_multixact/members/0000") && !is_simple_log("pg_xactly/0000"));
    }
}
