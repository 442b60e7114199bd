//! Files that every cluster has. Without them no restore of a backup would start, or one of its
//! databases could not be opened.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use seawall_core::{Action, Code, Error, Oid, Result, hint};
use seawall_pgdata::PgMajor;
use seawall_pgdata::relation_path::{DEFAULT_TABLESPACE, tablespace_version_directory};

use super::Server;
use super::unreadable::unreadable;

/// What PostgreSQL reads as it starts, whatever was written (`ValidatePgVersion`, `load_relmap_file`).
const FILES: [&str; 2] = ["PG_VERSION", "global/pg_filenode.map"];

/// Simple logs of which `initdb` makes a first segment, and truncation leaves the last.
const LOGS: [&str; 3] = ["pg_xact", "pg_multixact/offsets", "pg_multixact/members"];

/// What PostgreSQL reads as somebody connects to a database.
const OF_DATABASE: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// So many missing files are named.
const NAMED: usize = 20;

/// Databases that can be connected to, and the tablespaces they are in. One whose removal was
/// interrupted has a connection limit of its own (`DATCONNLIMIT_INVALID_DB`, pg_database.h).
const DATABASES: &str = "select d.oid::pg_catalog.int8 as oid, \
     d.dattablespace::pg_catalog.int8 as tablespace from pg_catalog.pg_database d \
     where d.datconnlimit OPERATOR(pg_catalog.<>) '-2'::pg_catalog.int4";

/// Proves that the files are there which every cluster has.
///
/// # Errors
/// [`Code::ClusterUnreadable`] that names what is missing; those of the server.
pub(crate) async fn prove_essentials(server: &mut Server, directory: &Path) -> Result<()> {
    let major = server.major();
    let mut missing = missing_of_cluster(directory)?;
    let before = databases(server).await?;
    let suspects = lacking(directory, major, &before)?;
    if !suspects.is_empty() {
        // One of them may have been dropped, or moved, while it was looked at.
        let still: BTreeSet<Database> = databases(server).await?.into_iter().collect();
        let suspects: Vec<Database> =
            suspects.into_iter().filter(|database| still.contains(database)).collect();
        for database in suspects {
            missing.extend(missing_of_database(directory, major, &database)?);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(damaged(directory, &missing)) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Database {
    oid: Oid,
    tablespace: Oid,
}

async fn databases(server: &mut Server) -> Result<Vec<Database>> {
    let rows = server.connection().query_rows(DATABASES).await?;
    let database = |row: &seawall_pgwire::Row| {
        Ok(Database { oid: row.get("oid")?, tablespace: row.get("tablespace")? })
    };
    rows.iter().map(database).collect()
}

fn missing_of_cluster(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for name in FILES {
        if !is_there(&directory.join(name))? {
            missing.push(PathBuf::from(name));
        }
    }
    for name in LOGS {
        let path = directory.join(name);
        let is_empty = match fs::read_dir(&path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(unreadable(&path, error)),
        };
        if is_empty {
            missing.push(Path::new(name).join("*"));
        }
    }
    Ok(missing)
}

fn lacking(directory: &Path, major: PgMajor, databases: &[Database]) -> Result<Vec<Database>> {
    let mut lacking = Vec::new();
    for database in databases {
        if !missing_of_database(directory, major, database)?.is_empty() {
            lacking.push(*database);
        }
    }
    Ok(lacking)
}

fn missing_of_database(
    directory: &Path,
    major: PgMajor,
    database: &Database,
) -> Result<Vec<PathBuf>> {
    let Database { oid, tablespace } = database;
    let below = if *tablespace == DEFAULT_TABLESPACE {
        PathBuf::from(format!("base/{oid}"))
    } else {
        let version = tablespace_version_directory(major);
        PathBuf::from(format!("pg_tblspc/{tablespace}/{version}/{oid}"))
    };
    let mut missing = Vec::new();
    for name in OF_DATABASE {
        let path = below.join(name);
        if !is_there(&directory.join(&path))? {
            missing.push(path);
        }
    }
    Ok(missing)
}

/// Whether there is such a file, with something in it.
fn is_there(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(file) => Ok(file.is_file() && file.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unreadable(path, error)),
    }
}

fn damaged(directory: &Path, missing: &[PathBuf]) -> Error {
    let named: Vec<String> =
        missing.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Error::new(
        Code::ClusterUnreadable,
        format!(
            "the data directory {} lacks what every cluster has, so that a backup of it would be none: {}{more}",
            directory.display(),
            named.join(", ")
        ),
    )
    .with_hint(hint!["The cluster is damaged: keep the backups there are, and see what removed the files before the server is restarted; ", Action::Restore { waits: false }, " brings back the last good backup."])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_cluster_has_is_missed_by_name() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for name in FILES.iter().chain(&["pg_xact/0000", "base/5/PG_VERSION"]) {
            make(name);
        }
        let missing = missing_of_cluster(root.path()).unwrap();
        assert_eq!(
            missing,
            [Path::new("pg_multixact/offsets/*"), Path::new("pg_multixact/members/*")]
        );
        let here = Database { oid: 5, tablespace: DEFAULT_TABLESPACE };
        let elsewhere = Database { oid: 6, tablespace: 7 };
        let of = |database| missing_of_database(root.path(), PgMajor::V15, database).unwrap();
        assert_eq!(of(&here), [Path::new("base/5/pg_filenode.map")]);
        assert_eq!(of(&elsewhere).len(), 2);
        make("base/5/pg_filenode.map");
        make("pg_tblspc/7/PG_15_202209061/6/PG_VERSION");
        make("pg_tblspc/7/PG_15_202209061/6/pg_filenode.map");
        assert_eq!((of(&here).len(), of(&elsewhere).len()), (0, 0));
        fs::write(root.path().join("base/5/PG_VERSION"), "").unwrap();
        assert_eq!(of(&here), [Path::new("base/5/PG_VERSION")], "an empty one is none");
    }
}
