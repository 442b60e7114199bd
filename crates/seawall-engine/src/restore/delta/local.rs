//! A file of the directory, as it is.

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::unistd::geteuid;
use seawall_core::Result;

use crate::durable::local;

/// A file system's clock moves in steps, so what was changed just now may be changed again without
/// being seen to be.
const STEP: Duration = Duration::from_secs(1);

/// What tells that a file was not changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

impl Stamp {
    /// The one of a file that was looked at before it was read; `None` if it was changed so lately
    /// that nothing can be told by it.
    pub fn of(found: &Metadata) -> Option<Self> {
        let seconds = u64::try_from(found.ctime()).ok()?;
        let nanoseconds = u64::try_from(found.ctime_nsec()).ok()?;
        let changed = Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let mut hasher = DefaultHasher::new();
        (found.dev(), found.ino(), found.len(), found.mode(), changed).hash(&mut hasher);
        (found.mtime(), found.mtime_nsec()).hash(&mut hasher);
        (now > changed + STEP).then(|| Self(hasher.finish()))
    }
}

/// Looks at a file that can be written into as it is: a regular one of this user, that no other name
/// leads to. What is written into it would be written into what has the other name, such as a copy that
/// was made with hard links. `None` for all else.
pub(super) fn usable(location: &Path) -> Result<Option<Metadata>> {
    let Some(found) = look(location)? else { return Ok(None) };
    let is_own = found.uid() == geteuid().as_raw() && found.nlink() == 1;
    let is_open = found.mode() & 0o600 == 0o600;
    Ok(Some(found).filter(|found| found.is_file() && is_own && is_open))
}

/// What is at a place itself, not what it leads to.
pub(super) fn look(location: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(location) {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(local(error, "looking at", location)),
    }
}

/// Removes what is at a place, and a directory with all that is in it. No link is followed.
pub(super) fn clear(location: &Path) -> Result<()> {
    let Some(found) = look(location)? else { return Ok(()) };
    let removed =
        if found.is_dir() { fs::remove_dir_all(location) } else { fs::remove_file(location) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(local(error, "removing", location))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Room that something takes on the disk which removing it gives back.
pub(super) fn room_of(location: &Path, found: &Metadata) -> u64 {
    if !found.is_dir() {
        return if found.nlink() == 1 { found.blocks() * 512 } else { 0 };
    }
    let entries = fs::read_dir(location).into_iter().flatten().flatten();
    let rooms = entries.map(|entry| match fs::symlink_metadata(entry.path()) {
        Ok(found) => room_of(&entry.path(), &found),
        Err(_) => 0,
    });
    rooms.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_name_a_link_and_one_that_cannot_be_read_are_not_written_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["plain", "twice", "closed"] {
            fs::write(path(name), "x").unwrap();
        }
        fs::hard_link(path("twice"), path("again")).unwrap();
        std::os::unix::fs::symlink(path("plain"), path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        fs::set_permissions(path("closed"), mode).unwrap();
        assert!(usable(&path("plain")).unwrap().is_some());
        for name in ["twice", "again", "link", "directory", "closed", "none", "plain/below"] {
            assert!(usable(&path(name)).unwrap().is_none(), "{name}");
        }
    }

    #[test]
    fn what_was_changed_just_now_is_not_known_to_be_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        assert_eq!(Stamp::of(&fs::metadata(&path).unwrap()), None);
    }

    #[test]
    fn what_is_removed_is_the_link_and_not_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("precious/below")).unwrap();
        fs::create_dir(path("goes")).unwrap();
        std::os::unix::fs::symlink(path("precious"), path("goes/link")).unwrap();
        std::os::unix::fs::symlink(path("precious"), path("link")).unwrap();
        for name in ["goes", "link", "none"] {
            clear(&path(name)).unwrap();
            assert!(fs::symlink_metadata(path(name)).is_err());
        }
        assert!(path("precious/below").is_dir());
    }
}
