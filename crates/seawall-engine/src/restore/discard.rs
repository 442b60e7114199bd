//! Removing what a restore made to be looked at.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seawall_core::{Action, Code, Error, Hint, Result, ResultExt as _, hint};
use seawall_pgdata::control::DbState;
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;
use seawall_pgdata::tablespace_map::{Tablespace, TablespaceMap};

use super::lock::DirectoryLock;
use super::start::{RunningServer, StopMode, stop};
use crate::restored::{
    DirectoryIdentity, Mode, RestoreProgress, RestoreState, TablespaceNote, TargetAction,
    is_mount_point,
};

use crate::cluster::{is_lost_and_found, read_control};
use crate::durable::{local, remove, sync_directory};

/// How long a server gets to end its sessions before it is stopped at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// What will be removed.
#[derive(Debug)]
pub struct Discard {
    data_directory: PathBuf,
    state: RestoreState,
    /// The places of tablespaces that the restore made its own.
    pub tablespaces: Vec<PathBuf>,
    /// Tablespaces in other places, which stay.
    pub left: Vec<PathBuf>,
    /// A server runs on it.
    pub is_running: bool,
    /// Something is mounted there, so that the directory itself stays.
    pub is_mount_point: bool,
}

impl Discard {
    /// Looks whether a directory may be removed: it is the one, and no copy, that a restore made as
    /// a clone, or that waits at its target and never took writes. Changes nothing.
    ///
    /// # Errors
    /// [`Code::NotDiscardable`], with the reason; [`Code::LocalIo`].
    pub fn look(data_directory: &Path) -> Result<Self> {
        let shown = data_directory.display();
        let metadata = fs::symlink_metadata(data_directory).map_err(|error| {
            let is_absent = error.kind() == io::ErrorKind::NotFound;
            let error = local(error, "looking at", data_directory);
            if is_absent { error.with_hint(absent()) } else { error }
        })?;
        if !metadata.is_dir() {
            return Err(refused(format!("{shown} is not a directory; a link is not followed")));
        }
        let Some(state) = RestoreState::read(data_directory)? else {
            return Err(refused(format!(
                "{shown} was not restored by Seawall, or is a cluster of its own by now"
            )));
        };
        if state.plan.onto.is_some() {
            return Err(refused(format!(
                "{shown} was there before it was restored onto, and not all in it is a restore's"
            )));
        }
        prove_no_copy(data_directory, &state)?;
        prove_unused(data_directory, &state)?;
        let is_running = prove_own_server(data_directory, &state)?;
        let (tablespaces, left) = tablespaces(data_directory, &state)?;
        let is_mount_point = is_mount_point(data_directory);
        let data_directory = data_directory.to_owned();
        Ok(Self { data_directory, state, tablespaces, left, is_running, is_mount_point })
    }

    /// Stops the server and removes all that [`Self::look`] found, but for the directory itself,
    /// which is empty then. An interrupted one goes on when it is asked for again.
    ///
    /// # Errors
    /// [`Code::LocalIo`], [`Code::RestoredServerFailed`]; [`Code::OtherRestoreInterrupted`] while
    /// another command works on it; those of [`Self::look`].
    pub async fn run(self) -> Result<()> {
        let directory = &self.data_directory;
        let _lock = DirectoryLock::take(directory)?;
        // Much may have happened while somebody was asked.
        let now = Self::look(directory)?;
        if now.tablespaces != self.tablespaces || now.state.restore_id != self.state.restore_id {
            let shown = directory.display();
            return Err(refused(format!("{shown} is not any more what it was a moment ago")));
        }
        now.remove().await
    }

    async fn remove(self) -> Result<()> {
        let directory = &self.data_directory;
        if stop(directory, StopMode::Fast, PATIENCE).await.is_err() {
            stop(directory, StopMode::Immediate, PATIENCE).await?;
        }
        // It may have been promoted as it was stopped.
        prove_unused(directory, &self.state)?;
        let progress = RestoreProgress::Discarding;
        RestoreState { progress, ..self.state.clone() }.write(directory, 0o600)?;
        remove(&directory.join("global/pg_control"))?;
        for place in &self.tablespaces {
            let _lock = DirectoryLock::take(place)?;
            for version in version_directories(place, directory)? {
                fs::remove_dir_all(&version).map_err(|error| local(error, "removing", &version))?;
            }
            TablespaceNote::remove(place)?;
            remove_if_empty(place)?;
        }
        for entry in entries(directory)? {
            let path = entry.path();
            if entry.file_name() == RESTORE_STATE_FILE || is_lost_and_found(&path) {
                continue;
            }
            let kind = entry.file_type().map_err(|error| local(error, "looking at", &path))?;
            // Neither follows a link.
            let removed =
                if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| local(error, "removing", &path))?;
        }
        sync_directory(directory)?;
        remove(&directory.join(RESTORE_STATE_FILE))
    }
}

/// What was copied from a clone may be anything by now.
fn prove_no_copy(data_directory: &Path, state: &RestoreState) -> Result<()> {
    let shown = data_directory.display();
    let Some(made) = &state.directory else {
        return Err(refused(format!("{shown} was restored by an older Seawall")));
    };
    let now = DirectoryIdentity::of(data_directory)?;
    if let Some(why) = made.differs_from(&now) {
        return Err(refused(format!("{shown} is not the directory that was restored: {why}")));
    }
    if now.is_any_root() {
        return Err(refused(format!(
            "{shown} is the root of a file system that does not tell when it was made: whether it is the directory that was restored, or a copy, nobody can say"
        )));
    }
    Ok(())
}

/// A server that somebody started by hand may be in use. Returns whether one runs that a restore
/// started.
fn prove_own_server(data_directory: &Path, state: &RestoreState) -> Result<bool> {
    let shown = data_directory.display();
    let what = match RunningServer::of(data_directory, state.restore_id) {
        RunningServer::None => return Ok(false),
        RunningServer::Started => return Ok(true),
        RunningServer::Foreign => format!("a server that Seawall did not start runs in {shown}"),
        RunningServer::Unknown => {
            format!("a server seems to run in {shown}, and its process cannot be looked at")
        }
    };
    Err(Error::new(Code::NotDiscardable, what).with_hint(format!(
        "Nothing was touched. If nobody needs it, stop it and type this again: `pg_ctl stop -D {shown}`."
    )))
}

/// A clone is there to be thrown away. Anything else only as long as nobody could have written to
/// it.
fn prove_unused(data_directory: &Path, state: &RestoreState) -> Result<()> {
    let shown = data_directory.display();
    let was_complete = state.progress == RestoreProgress::Complete;
    if state.mode() == Mode::Clone || !was_complete {
        return Ok(());
    }
    let control = read_control(data_directory)?;
    let recovers =
        matches!(control.state, DbState::InArchiveRecovery | DbState::ShutDownInRecovery);
    let waits = state.mode() == Mode::Primary && state.asked.then == TargetAction::Pause;
    if waits && recovers && control.checkpoint_timeline <= state.plan.timeline {
        return Ok(());
    }
    let what = match state.mode() {
        Mode::Standby => "a standby",
        _ => "the primary",
    };
    Err(refused(format!("{shown} was restored as {what}")))
}

/// The places of tablespaces that the restore made its own, and those of all others.
fn tablespaces(
    data_directory: &Path,
    state: &RestoreState,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let is_own = |place: &Path| -> Result<bool> {
        let is_there = fs::symlink_metadata(place).is_ok_and(|it| it.is_dir());
        Ok(is_there && TablespaceNote::is_of(place, state.restore_id)?)
    };
    let (mut own, mut left) = (Vec::new(), Vec::new());
    for link in entries(&data_directory.join("pg_tblspc"))? {
        let Ok(place) = fs::read_link(link.path()) else { continue };
        if is_own(&place)? { own.push(place) } else { left.push(place) }
    }
    // Of what replay has dropped the note is left.
    for place in restored_places(data_directory)? {
        if !own.contains(&place) && is_own(&place)? {
            own.push(place);
        }
    }
    Ok((own, left))
}

/// Where the restore put tablespaces. PostgreSQL renames the map when it has read it
/// (`TABLESPACE_MAP_OLD`, xlog.h).
fn restored_places(data_directory: &Path) -> Result<Vec<PathBuf>> {
    for name in ["tablespace_map", "tablespace_map.old"] {
        let path = data_directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => {
                let map = TablespaceMap::parse(&bytes)
                    .code(Code::LocalIo, || format!("{} cannot be read", path.display()))?;
                let place = |it: &Tablespace| PathBuf::from(OsStr::from_bytes(&it.path));
                return Ok(map.tablespaces().iter().map(place).collect());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(local(error, "reading", &path)),
        }
    }
    Ok(Vec::new())
}

/// The directories in a tablespace's place that are the cluster's, by its major version.
fn version_directories(place: &Path, data_directory: &Path) -> Result<Vec<PathBuf>> {
    let file = data_directory.join("PG_VERSION");
    let version = match fs::read_to_string(&file) {
        Ok(version) => version,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(local(error, "reading", &file)),
    };
    let prefix = format!("PG_{}_", version.trim());
    let is_own = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_directory && name.to_str().is_some_and(|name| name.starts_with(&prefix))
    };
    Ok(entries(place)?.into_iter().filter(is_own).map(|entry| entry.path()).collect())
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(Iterator::collect),
    };
    listed.map_err(|error| local(error, "reading", directory))
}

/// Whoever made a directory owns what it is in, and a mount point stays.
fn remove_if_empty(directory: &Path) -> Result<()> {
    let Err(error) = fs::remove_dir(directory) else { return Ok(()) };
    tracing::debug!(path = %directory.display(), %error, "a tablespace's place stays");
    Ok(())
}

/// What to do about a directory that is not there.
fn absent() -> Hint {
    hint![
        "Nothing is there to be removed, or not any more. Name the DIR that was given to ",
        Action::Restore { waits: false },
        "."
    ]
}

fn refused(what: String) -> Error {
    Error::new(Code::NotDiscardable, what).with_hint(
        "Nothing was touched. Only clones are removed, and restores that wait at their target; anything else you remove yourself, after `pg_ctl stop`.",
    )
}
