use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use seawall_core::{Action, Code, Error, Hint, Result, hint};

use crate::cluster::{PostmasterFile, read_control};
use crate::durable::local;
use crate::restore::RestoreRequest;
use crate::restored::{Asked, RestoreProgress, RestoreState, names};

use seawall_pgdata::control::NO_CHECKPOINT;

/// Looks at the directory to restore into, and writes nothing. Returns the state of an
/// interrupted restore that `request` goes on with.
///
/// # Errors
/// [`Code::PostmasterRunning`], [`Code::DirectoryNotEmpty`], [`Code::OtherRestoreInterrupted`],
/// [`Code::WrongUser`].
pub fn look(into: &Path, request: &RestoreRequest) -> Result<Option<RestoreState>> {
    if !into.is_absolute() {
        return Err(Error::new(Code::Usage, format!("{} is not an absolute path", into.display())));
    }
    let metadata = match fs::metadata(into) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return prove_parent(into).map(|()| None);
        }
        Err(error) => return Err(local(error, "looking at", into)),
    };
    if !metadata.is_dir() {
        return Err(not_empty(format!("{} is not a directory", into.display())));
    }
    refuse_postmaster(into)?;
    let found = names(into)?;
    if !found.is_empty() {
        return resume(into, request).map(Some);
    }
    prove_owner(into, metadata.uid())?;
    Ok(None)
}

fn resume(into: &Path, request: &RestoreRequest) -> Result<RestoreState> {
    let asked = Asked::from(request);
    let Some(state) = RestoreState::read(into)? else {
        return Err(not_empty(format!("{} is not empty", into.display())));
    };
    if into.join("global/pg_control").exists() {
        let shown = into.display();
        let finished = not_empty(format!("{shown} holds a finished restore"));
        if state.asked != asked || !was_never_started(into, &state) {
            return Err(finished);
        }
        return if request.starts {
            Ok(state)
        } else {
            Err(finished.with_hint(format!(
                "It was never started: the same command with `--start` starts it, and so does `pg_ctl start -D {shown}`."
            )))
        };
    }
    if state.progress == RestoreProgress::Discarding {
        return Err(being_discarded(into));
    }
    if state.asked == asked {
        return Ok(state);
    }
    let plan = &state.plan;
    Err(Error::new(
        Code::OtherRestoreInterrupted,
        format!(
            "{} holds an interrupted restore of another kind: backup {}, {}",
            into.display(),
            plan.backup.id,
            plan.target
        ),
    )
    .with_hint(match plan.onto {
        Some(_) => "Run the command that began it to go on, or another with `--delta`.".into(),
        None => go_on_or_discard(into),
    }))
}

/// What to do about an interrupted restore that is not the one that is asked for.
pub fn go_on_or_discard(directory: &Path) -> Hint {
    hint![
        "Run the command that began it to go on. Or ",
        Action::Discard { directory: directory.into() },
        " makes room to start anew."
    ]
}

/// The control file is the backup's as long as no server has begun to recover.
fn was_never_started(into: &Path, state: &RestoreState) -> bool {
    let control = read_control(into);
    state.progress == RestoreProgress::Complete
        && control.is_ok_and(|control| control.checkpoint == NO_CHECKPOINT)
}

/// What is half removed is not restored into.
pub fn being_discarded(directory: &Path) -> Error {
    let shown = directory.display();
    Error::new(Code::OtherRestoreInterrupted, format!("{shown} was being removed")).with_hint(
        hint!["Let that be done first: ", Action::Discard { directory: directory.into() }, "."],
    )
}

fn not_empty(what: String) -> Error {
    Error::new(Code::DirectoryNotEmpty, what).with_hint(
        "Seawall overwrites nothing: restore into a directory that is empty or not there yet.",
    )
}

pub fn prove_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if parent.is_dir() => Ok(()),
        parent => {
            let parent = parent.unwrap_or(path).display();
            Err(Error::new(Code::LocalIo, format!("there is no directory {parent}"))
                .with_hint(format!("Make it first: `mkdir -p {parent}`.")))
        }
    }
}

/// PostgreSQL starts only on a directory of its own user.
pub fn prove_owner(path: &Path, owner: u32) -> Result<()> {
    if owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(Error::new(Code::WrongUser, format!("{} belongs to another user", path.display()))
        .with_hint(format!(
            "Run as its owner, or give it away first: `chown postgres {}`.",
            path.display()
        )))
}

/// A server that runs here is told as such, whatever else is wrong with the directory.
fn refuse_postmaster(directory: &Path) -> Result<()> {
    if PostmasterFile::read(directory).is_none() {
        return Ok(());
    }
    Err(Error::new(
        Code::PostmasterRunning,
        format!("a PostgreSQL server runs in {}", directory.display()),
    )
    .with_hint("Restore into another directory, or stop the server and move its directory away."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::{Target, TimelineChoice};
    use crate::restored::{Mode, TargetAction};
    use seawall_pgdata::exclusion::RESTORE_STATE_FILE;

    fn request() -> RestoreRequest {
        RestoreRequest {
            target: Target::Latest,
            target_text: "latest".to_owned(),
            asked_at: jiff::Timestamp::UNIX_EPOCH,
            backup: None,
            timeline: TimelineChoice::Current,
            mode: Mode::Clone,
            then: TargetAction::Promote,
            into: "/into".into(),
            tablespaces: Vec::new(),
            databases: Vec::new(),
            delta: None,
            starts: true,
        }
    }

    fn refused(into: &Path) -> Code {
        look(into, &request()).expect_err("refused").code()
    }

    #[test]
    fn a_directory_that_is_empty_or_not_there_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path(), &request()).unwrap(), None);
        assert_eq!(look(&dir.path().join("new"), &request()).unwrap(), None);
        assert_eq!(refused(&dir.path().join("no/parent")), Code::LocalIo);
        assert_eq!(refused(Path::new("relative")), Code::Usage);
    }

    #[test]
    fn e23_a_directory_with_anything_in_it_even_a_stale_label_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("backup_label"), "stale").unwrap();
        assert_eq!(refused(dir.path()), Code::DirectoryNotEmpty);
        assert_eq!(refused(&dir.path().join("backup_label")), Code::DirectoryNotEmpty);
        assert_eq!(fs::read(dir.path().join("backup_label")).unwrap(), b"stale");
    }

    #[test]
    fn a_live_server_is_named_and_a_dead_ones_note_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("postmaster.pid");
        fs::write(&note, format!("{}\n{}\n", std::process::id(), dir.path().display())).unwrap();
        assert_eq!(refused(dir.path()), Code::PostmasterRunning);
        fs::write(&note, "2147483646\n/x\n").unwrap();
        assert_eq!(refused(dir.path()), Code::DirectoryNotEmpty);
    }

    #[test]
    fn e19_a_state_that_cannot_be_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RESTORE_STATE_FILE), "{\"version\": 2}").unwrap();
        assert_eq!(refused(dir.path()), Code::LocalIo);
    }
}
