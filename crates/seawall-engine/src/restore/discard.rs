//! Removing what a restore made to be looked at.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seawall_core::{Action, Code, Error, Hint, Result, hint};
use seawall_pgdata::control::DbState;
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;

use super::durable::{local, remove, sync_directory};
use super::start::{StopMode, server_of, stop};
use super::state::RestoreProgress;
use super::{Mode, RestoreState, TargetAction};
use crate::cluster::read_control;

/// How long a server gets to end its sessions before it is stopped at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// What will be removed.
#[derive(Debug)]
pub struct Discard {
    data_directory: PathBuf,
    state: RestoreState,
    /// The directories of this cluster in places that the restore was told to put tablespaces.
    pub tablespaces: Vec<PathBuf>,
    /// Tablespaces in other places, which stay.
    pub left: Vec<PathBuf>,
    /// A server runs on it.
    pub is_running: bool,
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
        if state.directory_inode != Some(metadata.ino()) {
            return Err(refused(format!(
                "{shown} is not the directory that was restored: it was copied from there, or restored by an older Seawall"
            )));
        }
        prove_unused(data_directory, &state)?;
        let (tablespaces, left) = tablespaces(data_directory, &state)?;
        let is_running = server_of(data_directory).is_some();
        let data_directory = data_directory.to_owned();
        Ok(Self { data_directory, state, tablespaces, left, is_running })
    }

    /// Stops the server and removes all that [`Self::look`] found, but for the directory itself,
    /// which is empty then. An interrupted one goes on when it is asked for again.
    ///
    /// # Errors
    /// [`Code::LocalIo`], [`Code::RestoredServerFailed`].
    pub async fn run(self) -> Result<()> {
        let directory = &self.data_directory;
        if stop(directory, StopMode::Fast, PATIENCE).await.is_err() {
            stop(directory, StopMode::Immediate, PATIENCE).await?;
        }
        // It may have been promoted while somebody was asked.
        prove_unused(directory, &self.state)?;
        let progress = RestoreProgress::Discarding;
        RestoreState { progress, ..self.state.clone() }.write(directory, 0o600)?;
        remove(&directory.join("global/pg_control"))?;
        for tablespace in &self.tablespaces {
            fs::remove_dir_all(tablespace).map_err(|error| local(error, "removing", tablespace))?;
            remove_if_empty(tablespace.parent())?;
        }
        for entry in entries(directory)? {
            if entry.file_name() == RESTORE_STATE_FILE {
                continue;
            }
            let path = entry.path();
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

/// The directories that are this cluster's own in the mapped places, and the places of all other
/// tablespaces.
fn tablespaces(
    data_directory: &Path,
    state: &RestoreState,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut own, mut left) = (Vec::new(), Vec::new());
    let links = data_directory.join("pg_tblspc");
    let version = fs::read_to_string(data_directory.join("PG_VERSION")).unwrap_or_default();
    let prefix = format!("PG_{}_", version.trim());
    for link in entries(&links)? {
        let Ok(place) = fs::read_link(link.path()) else { continue };
        let mapped = state.asked.tablespaces.iter().any(|mapping| mapping.new == place);
        let is_there = fs::symlink_metadata(&place).is_ok_and(|it| it.is_dir());
        if !mapped || !is_there || version.is_empty() {
            left.push(place);
            continue;
        }
        let is_own = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            is_directory && name.to_str().is_some_and(|name| name.starts_with(&prefix))
        };
        own.extend(entries(&place)?.into_iter().filter(is_own).map(|entry| entry.path()));
    }
    Ok((own, left))
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(Iterator::collect),
    };
    listed.map_err(|error| local(error, "reading", directory))
}

fn remove_if_empty(directory: Option<&Path>) -> Result<()> {
    let Some(directory) = directory else { return Ok(()) };
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
            // Whoever made it owns what it is in.
            tracing::debug!(path = %directory.display(), %error, "an empty directory stays");
            Ok(())
        }
        _ => Ok(()),
    }
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
