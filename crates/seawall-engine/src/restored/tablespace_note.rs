//! Whose restore a tablespace's directory is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use seawall_core::{Action, Code, Error, Result, Ulid, hint};
use serde::{Deserialize, Serialize};

use super::directory::resolved;
use super::own_places::OwnPlaces;
use super::state::{RestoreProgress, RestoreState};
use crate::durable::{local, remove, sync_directory};

/// The version this program writes.
const VERSION: u32 = 1;

/// The note that a restore makes in the directory of a tablespace before anything else, and that
/// stays there: `seawall.tablespace`, beside the directory that PostgreSQL makes its own by its name
/// (`TABLESPACE_VERSION_DIRECTORY`). PostgreSQL looks at nothing else there, and neither does a
/// backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TablespaceNote {
    version: u32,
    /// The restore whose files are here.
    #[serde(with = "crate::as_text")]
    pub restore_id: Ulid,
    /// The data directory they belong to, for people.
    #[serde(with = "crate::as_bytes::path")]
    pub data_directory: PathBuf,
}

/// What is said of a tablespace's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Nothing.
    Not,
    /// A restore died as it began, before its note was whole.
    Torn,
    /// Whose it is.
    By(TablespaceNote),
}

impl TablespaceNote {
    /// The file's name.
    pub const FILE_NAME: &str = "seawall.tablespace";

    /// Reads the note in a directory.
    ///
    /// # Errors
    /// [`Code::LocalIo`] if there is one and it cannot be read or is of an unknown version.
    pub fn read(place: &Path) -> Result<Noted> {
        let path = place.join(Self::FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Noted::Not),
            Err(error) => return Err(local(error, "reading", &path)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(note) if note.version == VERSION => Ok(Noted::By(note)),
            Ok(_) => Err(Error::new(
                Code::LocalIo,
                format!("{} is of a version this program does not know", path.display()),
            )
            .with_hint("Use the Seawall that began the restore.")),
            Err(_) => Ok(Noted::Torn),
        }
    }

    /// Whether a directory is that restore's.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn is_of(place: &Path, restore_id: Ulid) -> Result<bool> {
        Ok(matches!(Self::read(place)?, Noted::By(note) if note.restore_id == restore_id))
    }

    /// Whether the restore is over and its cluster has no tablespace in `place` any more, as replay
    /// leaves it that drops one. A data directory that is not there may be away.
    ///
    /// # Errors
    /// [`Code::LocalIo`], [`Code::ClusterUnreadable`].
    pub fn is_over(&self, place: &Path) -> Result<bool> {
        let complete = RestoreState::read(&self.data_directory)?.is_some_and(|state| {
            state.restore_id == self.restore_id && state.progress == RestoreProgress::Complete
        });
        Ok(complete && !OwnPlaces::of_directory(&self.data_directory)?.has(place))
    }

    /// Notes whose a directory is, durably, if it is nobody's. Whoever calls holds its lock, and has
    /// looked that nothing else is in it.
    ///
    /// # Errors
    /// [`Code::DirectoryNotEmpty`] if it is another restore's; [`Code::LocalIo`].
    pub fn claim(place: &Path, restore_id: Ulid, data_directory: &Path, mode: u32) -> Result<()> {
        match Self::read(place)? {
            Noted::By(note) if note.restore_id == restore_id => return Ok(()),
            Noted::By(note) if !note.is_over(place)? => return Err(note.refused(place)),
            Noted::By(_) | Noted::Torn => Self::remove(place)?,
            Noted::Not => {}
        }
        let data_directory = data_directory.to_owned();
        let note = Self { version: VERSION, restore_id, data_directory };
        let mut bytes = serde_json::to_vec_pretty(&note).map_err(|error| {
            Error::new(Code::Internal, "a tablespace's note is not JSON").with_source(error)
        })?;
        bytes.push(b'\n');
        let path = place.join(Self::FILE_NAME);
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            file.write_all(&bytes).and_then(|()| file.sync_all())
        };
        write().map_err(|error| local(error, "creating", &path))?;
        sync_directory(place)
    }

    /// As [`Self::claim`], also where an earlier restore of the same data directory has its note.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub fn take_over(
        place: &Path,
        restore_id: Ulid,
        data_directory: &Path,
        mode: u32,
    ) -> Result<()> {
        if let Noted::By(note) = Self::read(place)?
            && note.restore_id != restore_id
            && note.is_for(data_directory)
        {
            Self::remove(place)?;
        }
        Self::claim(place, restore_id, data_directory, mode)
    }

    /// Whether the note says that the files belong to that data directory.
    pub fn is_for(&self, data_directory: &Path) -> bool {
        resolved(&self.data_directory) == resolved(data_directory)
    }

    /// Removes the note, durably.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn remove(place: &Path) -> Result<()> {
        remove(&place.join(Self::FILE_NAME))
    }

    /// That a directory is another restore's.
    pub fn refused(&self, place: &Path) -> Error {
        let what = format!(
            "{} holds a tablespace that was restored for {}",
            place.display(),
            self.data_directory.display()
        );
        Error::new(Code::DirectoryNotEmpty, what).with_hint(hint![
            "Restore it to another place: `--map-tablespace OLD=NEW`. If that restore is not needed any more: ",
            Action::Discard { directory: self.data_directory.clone().into() },
            format!(
                "; or, where that directory is gone for good, remove {}.",
                place.join(Self::FILE_NAME).display()
            )
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ulid = Ulid(1);

    #[test]
    fn a_directory_is_one_restore_s_until_its_note_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let claim = |id| TablespaceNote::claim(place.path(), id, Path::new("/into"), 0o600);
        assert_eq!(TablespaceNote::read(place.path()).unwrap(), Noted::Not);
        claim(ONE).unwrap();
        claim(ONE).unwrap();
        assert!(TablespaceNote::is_of(place.path(), ONE).unwrap());
        let refused = claim(Ulid(2)).unwrap_err();
        assert_eq!(refused.code(), Code::DirectoryNotEmpty);
        assert!(refused.message().contains("/into"), "{refused:?}");
        TablespaceNote::remove(place.path()).unwrap();
        claim(Ulid(2)).unwrap();
        assert!(!TablespaceNote::is_of(place.path(), ONE).unwrap());
    }

    #[test]
    fn a_note_that_a_crash_cut_is_nobody_s_and_an_unknown_one_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(TablespaceNote::FILE_NAME);
        TablespaceNote::claim(place.path(), ONE, Path::new("/into"), 0o600).unwrap();
        let whole = fs::read(&path).unwrap();
        for torn in [&b""[..], &whole[..20], &[0; 40]] {
            fs::write(&path, torn).unwrap();
            assert_eq!(TablespaceNote::read(place.path()).unwrap(), Noted::Torn);
            TablespaceNote::claim(place.path(), ONE, Path::new("/into"), 0o600).unwrap();
        }
        let text = String::from_utf8(whole).unwrap().replace("\"version\": 1", "\"version\": 2");
        fs::write(&path, text).unwrap();
        assert_eq!(TablespaceNote::read(place.path()).unwrap_err().code(), Code::LocalIo);
    }
}
