//! No server may work on what is restored onto.

use std::fs;
use std::path::Path;

use seawall_core::{Code, Error, Result};

use crate::cluster::{PostmasterFile, ServerProcess};

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

fn has_tablespace(server: &ServerProcess, place: &Path) -> bool {
    let links = fs::read_dir(server.works_in.join("pg_tblspc")).into_iter().flatten().flatten();
    links.map(|link| Path::new("pg_tblspc").join(link.file_name())).any(|it| server.has(&it, place))
}

fn refused(what: &str, pid: u32) -> Error {
    Error::new(Code::PostmasterRunning, format!("{what}, process {pid}"))
        .with_hint("Stop it first: `pg_ctl stop -D DIR`. Nothing was written.")
}
