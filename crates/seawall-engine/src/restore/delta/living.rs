//! No server may work on what is restored onto.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};

use super::local::clear;
use crate::cluster::{PostmasterFile, ServerProcess};
use crate::durable::local;

/// Refuses a data directory in which a server works, and places of tablespaces that a server of
/// another data directory has: a copy of a data directory has links to the tablespaces of the original.
///
/// # Errors
/// [`Code::PostmasterRunning`].
pub(in crate::restore) fn refuse_living(directory: &Path, places: &[&Path]) -> Result<()> {
    let shown = directory.display();
    if let Some(file) = PostmasterFile::read(directory) {
        return Err(refused(&format!("a PostgreSQL server runs in {shown}"), file.pid));
    }
    let servers = ServerProcess::all();
    if let Some(server) = servers.iter().find(|server| server.has(Path::new(""), directory)) {
        return Err(refused(&format!("a PostgreSQL server works in {shown}"), server.pid));
    }
    for place in places {
        if let Some(server) = servers.iter().find(|server| has_tablespace(server, place)) {
            let what = format!("a PostgreSQL server has a tablespace in {}", place.display());
            return Err(refused(&what, server.pid));
        }
    }
    Ok(())
}

/// PostgreSQL's own lock of a data directory, `postmaster.pid`: no server starts while this lives
/// (`CreateLockFile`, miscinit.c).
#[derive(Debug)]
pub(super) struct ServerLock {
    path: PathBuf,
}

impl ServerLock {
    /// Takes it. One of a process that is gone is removed first, as PostgreSQL does.
    ///
    /// # Errors
    /// [`Code::PostmasterRunning`] if a server has it; [`Code::LocalIo`].
    pub fn take(directory: &Path) -> Result<Self> {
        let path = directory.join("postmaster.pid");
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut created = create();
        if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            refuse_living(directory, &[])?;
            clear(&path)?;
            created = create();
        }
        let mut file = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                refuse_living(directory, &[])?;
                return Err(local(error, "creating", &path));
            }
            created => created.map_err(|error| local(error, "creating", &path))?,
        };
        let lock = Self { path };
        let lines = format!("{}\n{}\n", std::process::id(), directory.display());
        file.write_all(lines.as_bytes()).map_err(|error| local(error, "writing", &lock.path))?;
        Ok(lock)
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a lock could not be removed");
        }
    }
}

fn has_tablespace(server: &ServerProcess, place: &Path) -> bool {
    let links = fs::read_dir(server.works_in.join("pg_tblspc")).into_iter().flatten().flatten();
    links.map(|link| Path::new("pg_tblspc").join(link.file_name())).any(|it| server.has(&it, place))
}

fn refused(what: &str, pid: u32) -> Error {
    Error::new(Code::PostmasterRunning, format!("{what}, process {pid}"))
        .with_hint("Stop it first: `pg_ctl stop -D DIR`. Nothing was written.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_server_s_note_gives_way_and_a_living_one_s_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("postmaster.pid");
        fs::write(&note, "2147483646\n/x\n").unwrap();
        let lock = ServerLock::take(dir.path()).unwrap();
        assert_eq!(PostmasterFile::read(dir.path()).unwrap().pid, std::process::id());
        let second = ServerLock::take(dir.path()).unwrap_err();
        assert_eq!(second.code(), Code::PostmasterRunning);
        assert!(note.exists(), "it was removed under who has it");
        drop(lock);
        assert!(!note.exists());
    }
}
