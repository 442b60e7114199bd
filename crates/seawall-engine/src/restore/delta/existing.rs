//! Whether a directory may be restored onto.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use seawall_core::{Code, Error, Result, SystemId};
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;

use super::Delta;
use super::living::refuse_living;
use crate::cluster::read_control;
use crate::durable::local;
use crate::restore::RestoreRequest;
use crate::restore::preflight::{being_discarded, prove_owner, prove_parent};
use crate::restored::{Asked, RestoreProgress, RestoreState, names};

/// What a restore may go onto.
#[derive(Debug)]
pub(in crate::restore) enum Existing {
    /// Nothing: it is a restore like any other.
    Empty,
    /// The same restore onto it was begun, and not ended.
    Begun(Box<RestoreState>),
    /// The cluster, or what is left of it.
    Cluster,
}

/// Looks at a directory, and writes nothing.
///
/// # Errors
/// [`Code::PostmasterRunning`]; [`Code::ClusterMismatch`] and [`Code::DirectoryNotEmpty`] where it is
/// not the cluster's, or cannot be told to be; [`Code::WrongUser`], [`Code::OtherRestoreInterrupted`].
pub(in crate::restore) fn look(
    request: &RestoreRequest,
    delta: Delta,
    own: SystemId,
) -> Result<Existing> {
    let into = &request.into;
    if !into.is_absolute() {
        return Err(Error::new(Code::Usage, format!("{} is not an absolute path", into.display())));
    }
    let metadata = match fs::metadata(into) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return prove_parent(into).map(|()| Existing::Empty);
        }
        Err(error) => return Err(local(error, "looking at", into)),
    };
    if !metadata.is_dir() {
        let what = format!("{} is not a directory", into.display());
        return Err(Error::new(Code::DirectoryNotEmpty, what));
    }
    refuse_living(into, &[])?;
    prove_owner(into, metadata.uid())?;
    if names(into)?.is_empty() {
        return Ok(Existing::Empty);
    }
    let state = RestoreState::read(into)?;
    if state.as_ref().is_some_and(|state| state.progress == RestoreProgress::Discarding) {
        return Err(being_discarded(into));
    }
    recognise(into, state.as_ref(), delta, own)?;
    let is_begun = |state: &RestoreState| {
        state.asked == Asked::from(request) && !into.join("global/pg_control").exists()
    };
    Ok(match state.filter(is_begun) {
        Some(state) => Existing::Begun(Box::new(state)),
        None => Existing::Cluster,
    })
}

/// Proves that a directory is the cluster's: its `pg_control` says so, or, where that is gone or
/// damaged, the note of a restore that did not come to its end.
fn recognise(into: &Path, state: Option<&RestoreState>, delta: Delta, own: SystemId) -> Result<()> {
    let shown = into.display();
    let has = |name: &str| fs::symlink_metadata(into.join(name)).is_ok();
    if !["PG_VERSION", "base", "global", RESTORE_STATE_FILE].into_iter().any(has) {
        let what = format!("{shown} is not empty, and no data directory of PostgreSQL");
        return Err(Error::new(Code::DirectoryNotEmpty, what)
            .with_hint("Restore into a directory that is empty, or the cluster's own."));
    }
    let found = match read_control(into) {
        Ok(control) => Some(control.system_id),
        Err(error) => {
            tracing::debug!(%error, "pg_control tells nothing");
            state.map(|state| state.line().system_id)
        }
    };
    match found {
        _ if delta.force => Ok(()),
        Some(found) if found == own => Ok(()),
        Some(SystemId(found)) => {
            let SystemId(own) = own;
            let what = format!(
                "{shown} holds cluster {found}, and what is to be restored is cluster {own}"
            );
            Err(Error::new(Code::ClusterMismatch, what).with_hint(
                "Restore into another directory. If this cluster is not needed any more, `--force` overwrites it.",
            ))
        }
        None => {
            let what = format!(
                "{shown} has no pg_control that can be read, so that nothing tells whose cluster it is"
            );
            Err(Error::new(Code::DirectoryNotEmpty, what).with_hint(
                "If you know that it is this cluster's, `--force` takes it for that. Else restore into another directory.",
            ))
        }
    }
}
