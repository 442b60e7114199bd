use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use seawall_core::Ulid;

use super::tree::{Tree, open_directory};
use crate::path::is_component;
use crate::{ObjectPlace, ObjectPrefix, RESERVED_SUFFIX, StoreError};

/// What [`FsStore::sweep_temporary`](super::FsStore::sweep_temporary) removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Unfinished files.
    pub files: u64,
    /// Their length together.
    pub bytes: u64,
}

/// Removes old unfinished files below the root.
pub(super) fn sweep(tree: &Tree, older_than: Duration) -> Result<Swept, StoreError> {
    let place = ObjectPlace::store(tree.url());
    let now = now_of_store(tree)
        .map_err(|errno| StoreError::from_io(place.clone(), "sweeping", errno.into()))?;
    let older_than_s = i64::try_from(older_than.as_secs()).ok();
    let written_before = older_than_s.and_then(|seconds| now.checked_sub(seconds));
    let mut sweep = Sweep { written_before, place, swept: Swept::default() };
    if sweep.written_before.is_some() {
        sweep.visit(&tree.open_prefix(&ObjectPrefix::root())?)?;
    }
    Ok(sweep.swept)
}

/// The time by the clock that dates the files: a file server's is not this machine's. Seconds since
/// 1970.
fn now_of_store(tree: &Tree) -> Result<i64, Errno> {
    let name = format!("{}{RESERVED_SUFFIX}", Ulid::generate());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(tree.root(), name.as_str(), flags, tree.file_mode())?;
    let stat = fstat(&file);
    unlinkat(tree.root(), name.as_str(), AtFlags::empty())?;
    Ok(stat?.st_mtime)
}

struct Sweep {
    written_before: Option<i64>,
    place: ObjectPlace,
    swept: Swept,
}

impl Sweep {
    fn visit(&mut self, directory: &OwnedFd) -> Result<(), StoreError> {
        let mut children = Vec::new();
        let listed = match Dir::read_from(directory) {
            Err(Errno::NOENT) => return Ok(()),
            listed => listed.map_err(|errno| self.failed(errno))?,
        };
        for entry in listed {
            let entry = entry.map_err(|errno| self.failed(errno))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.ends_with(RESERVED_SUFFIX) {
                self.remove_if_old(directory, name).map_err(|errno| self.failed(errno))?;
            } else if is_component(name)
                && matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
            {
                children.push(name.to_owned());
            }
        }
        for name in children {
            match open_directory(directory.as_fd(), &name, &self.place) {
                Ok(child) => self.visit(&child)?,
                Err(StoreError::NotFound { .. } | StoreError::NotAnObject { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_if_old(&mut self, directory: &OwnedFd, name: &str) -> Result<(), Errno> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || self.written_before.is_none_or(|before| stat.st_mtime > before) {
            return Ok(());
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) => {
                self.swept.files += 1;
                self.swept.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn failed(&self, errno: Errno) -> StoreError {
        StoreError::from_io(self.place.clone(), "sweeping", errno.into())
    }
}
