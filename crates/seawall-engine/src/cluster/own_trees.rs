//! Proof that directories are the very ones a server works in.
//!
//! A copy may have the same files, times and `pg_control`. So the server is asked to make a file,
//! which has to appear here, and then to remove it, which has to make it go: in the data directory an
//! exported snapshot, in a tablespace the temporary file of a sort. Neither needs writing from here,
//! and both work on a standby (seen on 12 to 18).

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seawall_core::{Code, Error, Oid, Result};
use seawall_pgdata::relation_path::tablespace_version_directory;
use tokio::time::{Instant, sleep};

use super::unreadable::unreadable;
use super::{PostmasterFile, Server, TablespaceLinks};

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(50);

/// A wait that is longer than this is told.
const UNTOLD: Duration = Duration::from_secs(1);

/// How long what the server did may take to be seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    /// Until a file that it made is there.
    appear: Duration,
    /// Until one that it removed is gone.
    vanish: Duration,
}

impl Patience {
    /// Where the kernel that made the change is this one: a copy is found out in half a second.
    const LOCAL: Self = Self { appear: Duration::from_millis(500), vanish: Duration::from_secs(3) };

    /// Where it may be another one: a client of NFS goes by what it knew of a directory for up to a
    /// minute (`acdirmax`, nfs(5)), and others have caches too.
    const ANY: Self = Self { appear: Duration::from_secs(65), vanish: Duration::from_secs(65) };

    /// What is right for a directory, which may not be there yet.
    fn at(directory: &Path) -> Self {
        let there = directory.ancestors().find_map(|it| rustix::fs::statfs(it).ok());
        let kind = there.and_then(|system| u32::try_from(system.f_type).ok());
        let is_local = kind.is_some_and(|kind| LOCAL_FILE_SYSTEMS.contains(&kind));
        if is_local { Self::LOCAL } else { Self::ANY }
    }
}

/// `f_type` of file systems that only one kernel writes (statfs(2), magic.h): ext2 to ext4, XFS, Btrfs,
/// tmpfs, overlayfs, ZFS, F2FS, bcachefs.
const LOCAL_FILE_SYSTEMS: [u32; 8] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0x794C_7630,
    0x2FC1_2FC1,
    0xF2F5_2010,
    0xCA45_1A4E,
];

/// Proves that a data directory is the one the server works in.
///
/// # Errors
/// [`Code::ClusterMismatch`] if it is not; those of the server and of the directory.
pub(super) async fn prove_data_directory(server: &mut Server, directory: &Path) -> Result<()> {
    server.connection().simple_query("begin").await?;
    // In `pg_snapshots`, until the transaction ends (ExportSnapshot, snapmgr.c).
    let sql = "select pg_catalog.pg_export_snapshot()";
    let name = match server.connection().query_value::<String>(sql).await {
        Ok(name) => name,
        Err(error) => {
            server.connection().simple_query("rollback").await?;
            return Err(server.explain(error).await);
        }
    };
    if !name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(Error::new(Code::QueryFailed, format!("\"{name}\" is no snapshot's name")));
    }
    let place = directory.join("pg_snapshots");
    let patience = Patience::at(&place);
    let is_there = || Ok(names(&place)?.contains(&name));
    let appeared = until(true, &place, patience.appear, is_there).await?;
    server.connection().simple_query("rollback").await?;
    if appeared && until(false, &place, patience.vanish, is_there).await? {
        return Ok(());
    }
    Err(Error::new(
        Code::ClusterMismatch,
        format!(
            "the data directory {} is not the one the server works in: a file that the server made in it did not appear here, so it belongs to another copy of the cluster",
            directory.display()
        ),
    ))
}

/// Proves that the tablespaces behind links are those of the server, whose data directory is proven.
///
/// # Errors
/// [`Code::ClusterMismatch`] if one is not; [`Code::PrivilegeMissing`], with the `GRANT`, if that has
/// to be asked and the role may not; those of the server and of the directories.
pub async fn prove_tablespaces(
    server: &mut Server,
    data_directory: &Path,
    tablespaces: &TablespaceLinks,
) -> Result<()> {
    if sees_our_paths(data_directory) {
        return Ok(());
    }
    let version = tablespace_version_directory(server.major());
    for oid in tablespaces.oids() {
        let link = data_directory.join(format!("pg_tblspc/{oid}"));
        match shows_a_sort(server, oid, &link.join(&version).join("pgsql_tmp")).await? {
            Some(true) => {}
            Some(false) => return Err(another_tablespace(&link)),
            // It was dropped meanwhile; a link that is still there is none of the server's.
            None if fs::symlink_metadata(&link).is_err() => {}
            None => return Err(another_tablespace(&link)),
        }
    }
    Ok(())
}

/// Whether the server of a data directory sees this machine's paths as this process does: then a link
/// leads both to the same place. It is a process here, works in that very directory, and has the same
/// mounts and the same root. What cannot be found out is taken for no.
fn sees_our_paths(data_directory: &Path) -> bool {
    let Some(server) = PostmasterFile::read(data_directory) else { return false };
    let process = PathBuf::from(format!("/proc/{}", server.pid));
    let is = |path: PathBuf, other: &Path| match (fs::metadata(path), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    };
    let mounts = |process: &Path| fs::read_link(process.join("ns/mnt"));
    // The postmaster changes to its data directory (ChangeToDataDir, miscinit.c).
    is(process.join("cwd"), data_directory)
        && is(process.join("root"), Path::new("/"))
        && match (mounts(&process), mounts(Path::new("/proc/self"))) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            _ => false,
        }
}

/// Whether a sort that the server does in a tablespace is seen here to begin and to end. `None` if
/// the server has no such tablespace.
async fn shows_a_sort(server: &mut Server, oid: Oid, place: &Path) -> Result<Option<bool>> {
    let sql = "select pg_catalog.pg_backend_pid()";
    let process: i32 = server.connection().query_value(sql).await?;
    let prefix = format!("pgsql_tmp{process}.");
    let ours = || -> Result<BTreeSet<String>> {
        Ok(names(place)?.into_iter().filter(|name| name.starts_with(&prefix)).collect())
    };
    // Of a server that crashed, whose process had the same number.
    let before = ours()?;
    server.connection().simple_query("begin").await?;
    let sorted = sort_in(server, oid).await;
    let patience = Patience::at(place);
    let is_new = || Ok(!ours()?.is_subset(&before));
    let appeared = match &sorted {
        Ok(true) => until(true, place, patience.appear, is_new).await?,
        Ok(false) | Err(_) => false,
    };
    server.connection().simple_query("rollback").await?;
    match sorted {
        Ok(true) => Ok(Some(appeared && until(false, place, patience.vanish, is_new).await?)),
        Ok(false) => Ok(None),
        Err(error) if error.sqlstate() == Some("42501") => Err(may_not_sort(server, oid).await?),
        Err(error) => Err(error.into()),
    }
}

/// Begins a sort that does not fit in memory, and leaves it there. `false` if there is no such
/// tablespace.
async fn sort_in(server: &mut Server, oid: Oid) -> Result<bool, seawall_pgwire::PgError> {
    // A name has the encoding of whoever made it: it does not leave the server.
    let sql = format!(
        "select pg_catalog.set_config('work_mem', '64kB', true), \
           pg_catalog.set_config('temp_tablespaces', \
             pg_catalog.quote_ident(spcname::pg_catalog.text), true) is null as unset \
         from pg_catalog.pg_tablespace \
         where oid OPERATOR(pg_catalog.=) '{oid}'::pg_catalog.oid"
    );
    if server.connection().query_rows(&sql).await?.is_empty() {
        return Ok(false);
    }
    let sort = "declare seawall_sort no scroll cursor for \
         select g from pg_catalog.generate_series(1, 20000) as g order by g desc";
    server.connection().simple_query(sort).await?;
    server.connection().simple_query("fetch 1 from seawall_sort").await?;
    Ok(true)
}

/// The error of a role that may not make temporary files in a tablespace.
async fn may_not_sort(server: &mut Server, oid: Oid) -> Result<Error> {
    let sql = format!(
        "select pg_catalog.format('GRANT CREATE ON TABLESPACE %I TO %I', \
           spcname::pg_catalog.text, current_user::pg_catalog.text) as fix \
         from pg_catalog.pg_tablespace \
         where oid OPERATOR(pg_catalog.=) '{oid}'::pg_catalog.oid"
    );
    let grant: String = server.connection().query_one(&sql).await?.get("fix")?;
    let what = format!(
        "whether the tablespace with OID {oid} is the server's own cannot be proven: the server sees other paths than this machine, and the role may not have a temporary file made in it"
    );
    Ok(Error::new(Code::PrivilegeMissing, what).with_hint(format!("As a superuser: {grant};")))
}

fn another_tablespace(link: &Path) -> Error {
    let target = fs::read_link(link).unwrap_or_else(|_| link.to_owned());
    let target = target.display();
    Error::new(
        Code::ClusterMismatch,
        format!(
            "the tablespace at {target} is not the one the server works in: a file that the server made in it did not appear here"
        ),
    )
    .with_hint(format!(
        "The server sees other paths than this machine, as in a container. Let {target} lead to the directory that the server has there (a bind mount, or a link to its volume), or run Seawall where the server runs."
    ))
}

/// Looks until a file that the server made in a directory is there, or one that it removed is not;
/// whether it came to that.
async fn until(
    is_there: bool,
    directory: &Path,
    patience: Duration,
    mut look: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let begun = Instant::now();
    let mut is_told = false;
    while look()? != is_there {
        let waited = begun.elapsed();
        if waited >= patience {
            return Ok(false);
        }
        if waited >= UNTOLD && patience > Patience::LOCAL.vanish && !is_told {
            is_told = true;
            tracing::warn!(
                "{} does not show yet what the server has just done in it, as a network file system may for a while: looking for up to {} s before it is taken for another server's",
                directory.display(),
                patience.as_secs()
            );
        }
        sleep(PAUSE).await;
    }
    Ok(true)
}

/// What is in a directory; nothing if it is not there. Listed, because a name that was not there a
/// moment ago may be remembered as absent.
fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(unreadable(directory, error)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(directory, error))?;
        // PostgreSQL's names here are of ASCII.
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes to find a file that is to be seen after a while, if it is found.
    async fn found_after(shown: Duration, patience: Duration) -> Option<Duration> {
        let begun = Instant::now();
        let look = || Ok(begun.elapsed() >= shown);
        let found = until(true, Path::new("pg_snapshots"), patience, look).await.unwrap();
        found.then(|| begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_network_file_system_shows_late_is_waited_for_and_nothing_else_is() {
        let late = Duration::from_secs(59);
        let found = found_after(late, Patience::at(Path::new("/proc/self/net")).appear).await;
        assert!(found.is_some_and(|found| found >= late), "nothing is known of that file system");
        assert_eq!(found_after(Duration::ZERO, Patience::ANY.appear).await, Some(Duration::ZERO));
        assert_eq!(found_after(late, Patience::LOCAL.appear).await, None);
        // Whatever tests run on is local, as is what will be made there.
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Patience::at(&directory.path().join("not/yet")), Patience::LOCAL);
    }

    #[test]
    fn a_server_that_is_no_process_here_has_paths_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!sees_our_paths(directory.path()), "there is no server");
        let pid_file = |process: u32| {
            let text = format!("{process}\n{}\n", directory.path().display());
            fs::write(directory.path().join("postmaster.pid"), text).unwrap();
        };
        // A process that works elsewhere, as a container's number may be another's here.
        pid_file(std::process::id());
        assert!(!sees_our_paths(directory.path()));
        let mut here = std::process::Command::new("sleep");
        let mut here = here.arg("60").current_dir(directory.path()).spawn().unwrap();
        pid_file(here.id());
        assert!(sees_our_paths(directory.path()));
        here.kill().unwrap();
        here.wait().unwrap();
        assert!(!sees_our_paths(directory.path()), "it is gone");
    }
}
