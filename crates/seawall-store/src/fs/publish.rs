use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, OFlags, RenameFlags, fstat, linkat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use seawall_core::Ulid;

use super::read::stat;
use super::tree::{Tree, undo_umask};
use crate::direct::write_all_at;
use crate::{ObjectPath, ObjectPlace, RESERVED_SUFFIX, StoreError};

/// How often a directory may vanish between being opened and being written to, because another
/// process removed it as empty.
const DIRECTORY_ATTEMPTS: usize = 64;

/// An object that is being written, under a temporary name in the directory it will be in.
///
/// Gone when dropped unpublished, as far as the filesystem lets it go.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: ObjectPath,
    place: ObjectPlace,
    directory: OwnedFd,
    temporary: Temporary,
    file: File,
}

/// A temporary name; unlinked when dropped.
#[derive(Debug)]
struct Temporary {
    directory: OwnedFd,
    name: String,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(errno) = unlinkat(&self.directory, self.name.as_str(), AtFlags::empty())
            && errno != Errno::NOENT
        {
            tracing::warn!(name = self.name, %errno, "an unfinished file could not be removed");
        }
    }
}

impl Unfinished {
    /// Makes the directories and an empty file under a temporary name.
    pub(super) fn begin(tree: &Tree, path: &ObjectPath) -> Result<Self, StoreError> {
        let place = tree.place(path);
        for _ in 0..DIRECTORY_ATTEMPTS {
            let directory = match tree.make_parent(path) {
                Err(error) if error.is_not_found() => continue,
                directory => directory?,
            };
            if statat(&directory, path.file_name(), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Err(already_exists(tree, &directory, &place));
            }
            let name = format!("{}{RESERVED_SUFFIX}", Ulid::generate());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = tree.file_mode();
            let file = match openat(&directory, name.as_str(), flags, mode) {
                Ok(file) => File::from(file),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed(&place, "creating", errno)),
            };
            let temporary = Temporary {
                directory: directory
                    .try_clone()
                    .map_err(|source| StoreError::from_io(place.clone(), "creating", source))?,
                name,
            };
            undo_umask(&file, mode).map_err(|errno| failed(&place, "creating", errno))?;
            return Ok(Self { path: path.clone(), place, directory, temporary, file });
        }
        Err(StoreError::Io {
            place,
            doing: "creating",
            source: io::Error::other("its directory was removed again and again"),
        })
    }

    pub(super) const fn place(&self) -> &ObjectPlace {
        &self.place
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes at a place in the file.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        write_all_at(&self.file, bytes, offset)
            .map_err(|source| StoreError::from_io(self.place.clone(), "writing", source))
    }

    /// Makes the bytes durable, gives them their name unless it is taken, and makes that durable.
    ///
    /// A sync that fails is not tried again: the kernel reports a lost write once and then calls
    /// the file clean.
    pub(super) fn publish(self, tree: &Tree) -> Result<(), StoreError> {
        tree.syncs()
            .file(&self.file)
            .map_err(|source| StoreError::from_io(self.place.clone(), "syncing", source))?;
        if !self.name_it()? {
            return Err(already_exists(tree, &self.directory, &self.place));
        }
        let Self { path, place, directory, temporary, file: _ } = self;
        drop(temporary);
        tree.sync_directory(directory.as_fd(), &place).inspect_err(|_| {
            // A name that may vanish must not be taken for a stored object by whoever tries again.
            if let Err(errno) = unlinkat(&directory, path.file_name(), AtFlags::empty()) {
                tracing::warn!(%place, %errno, "an object that is not durable could not be removed");
            }
        })
    }

    /// `false` if the name is taken.
    fn name_it(&self) -> Result<bool, StoreError> {
        let (from, to) = (self.temporary.name.as_str(), self.path.file_name());
        match linkat(&self.directory, from, &self.directory, to, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // A file server's answer may have been lost and the call repeated: then it is our own.
            Err(Errno::EXIST) => Ok(self.is_named_already()),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                self.name_it_without_links()
            }
            Err(errno) => Err(self.publishing(errno)),
        }
    }

    /// For filesystems without hard links, such as FAT and some network mounts.
    fn name_it_without_links(&self) -> Result<bool, StoreError> {
        let (from, to) = (self.temporary.name.as_str(), self.path.file_name());
        let (directory, flags) = (&self.directory, RenameFlags::NOREPLACE);
        match renameat_with(directory, from, directory, to, flags) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(StoreError::Unsupported {
                place: self.place.clone(),
                lacking: "the filesystem has neither hard links nor a rename that does not replace",
            }),
            Err(errno) => Err(self.publishing(errno)),
        }
    }

    fn is_named_already(&self) -> bool {
        let named = statat(&self.directory, self.path.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        match (fstat(&self.file), named) {
            (Ok(ours), Ok(named)) => (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino),
            _ => false,
        }
    }

    fn publishing(&self, errno: Errno) -> StoreError {
        match errno {
            // The temporary file is gone: swept away as a dead writer's.
            Errno::NOENT => StoreError::Io {
                place: self.place.clone(),
                doing: "publishing",
                source: errno.into(),
            },
            _ => failed(&self.place, "publishing", errno),
        }
    }
}

/// Makes the name of an object durable, and the directories on the way to it. Its bytes were before
/// it had a name.
pub(super) fn make_durable(tree: &Tree, path: &ObjectPath) -> Result<(), StoreError> {
    stat(tree, path)?;
    let directory = tree.make_parent(path)?;
    tree.sync_directory(directory.as_fd(), &tree.place(path))?;
    // What was there a moment ago may have been taken back: see `Unfinished::publish`.
    stat(tree, path).map(drop)
}

/// Whoever is told that an object exists takes it for stored, so it has to be: who made it may not
/// have synced its name yet.
fn already_exists(tree: &Tree, directory: &OwnedFd, place: &ObjectPlace) -> StoreError {
    match tree.sync_directory(directory.as_fd(), place) {
        Ok(()) => StoreError::AlreadyExists { place: place.clone() },
        Err(error) => error,
    }
}

pub(super) fn failed(place: &ObjectPlace, doing: &'static str, errno: Errno) -> StoreError {
    StoreError::from_io(place.clone(), doing, errno.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::StoreDirectory;
    use crate::fs::FsOptions;
    use crate::fs::sync::Kernel;

    fn tree() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let root = StoreDirectory::new(directory.path()).unwrap();
        let tree = Tree::open(&root, FsOptions::default(), Arc::new(Kernel)).unwrap();
        (directory, tree)
    }

    fn written(tree: &Tree, bytes: &[u8]) -> Unfinished {
        let file = Unfinished::begin(tree, &"a/b".parse().unwrap()).unwrap();
        file.write_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn without_hard_links_a_name_is_still_taken_only_once() {
        let (directory, tree) = tree();
        let (first, second) = (written(&tree, b"first"), written(&tree, b"second"));
        assert!(first.name_it_without_links().unwrap());
        assert!(!second.name_it_without_links().unwrap());
        drop((first, second));
        assert_eq!(std::fs::read(directory.path().join("a/b")).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(directory.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_whose_answer_was_lost_is_recognised_as_our_own() {
        let (directory, tree) = tree();
        let (ours, theirs) = (written(&tree, b"ours"), written(&tree, b"theirs"));
        assert!(ours.name_it().unwrap());
        ours.publish(&tree).unwrap();
        assert!(theirs.publish(&tree).unwrap_err().is_already_exists());
        assert_eq!(std::fs::read(directory.path().join("a/b")).unwrap(), b"ours");
    }
}
