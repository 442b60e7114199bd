use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatxFlags, fchmod, mkdirat, openat, statat, statx,
};
use rustix::io::{Errno, retry_on_intr};

use super::FsOptions;
use super::sync::SyncCalls;
use crate::{ObjectPath, ObjectPlace, ObjectPrefix, StoreDirectory, StoreError, StoreUrl};

/// How many directories are remembered as durable; beyond that the memory starts afresh.
const REMEMBERED_DIRECTORIES: usize = 4096;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories of a store, reached from its open root one component at a time.
#[derive(Debug)]
pub(super) struct Tree {
    url: StoreUrl,
    root: OwnedFd,
    options: FsOptions,
    syncs: Arc<dyn SyncCalls>,
    durable: Mutex<HashMap<String, Identity>>,
    sync_failed: AtomicBool,
}

/// Tells a directory from another one made later under the same name, even if the filesystem gave
/// it the same inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl Tree {
    /// Opens the root, which may be reached through symbolic links.
    pub(super) fn open(
        directory: &StoreDirectory,
        options: FsOptions,
        syncs: Arc<dyn SyncCalls>,
    ) -> Result<Self, StoreError> {
        let url = StoreUrl::Directory(directory.clone());
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let root = retry_on_intr(|| rustix::fs::open(directory.path(), flags, Mode::empty()))
            .map_err(|errno| match errno {
                Errno::NOTDIR => StoreError::NotAnObject {
                    place: ObjectPlace::store(&url),
                    found: "not a directory",
                },
                _ => StoreError::from_io(ObjectPlace::store(&url), "opening", errno.into()),
            })?;
        Ok(Self {
            url,
            root,
            options,
            syncs,
            durable: Mutex::default(),
            sync_failed: AtomicBool::new(false),
        })
    }

    pub(super) const fn url(&self) -> &StoreUrl {
        &self.url
    }

    pub(super) fn place(&self, path: &ObjectPath) -> ObjectPlace {
        ObjectPlace::object(&self.url, path)
    }

    pub(super) const fn file_mode(&self) -> Mode {
        self.options.file()
    }

    pub(super) fn syncs(&self) -> &dyn SyncCalls {
        &*self.syncs
    }

    /// The directory a prefix names.
    pub(super) fn open_prefix(&self, prefix: &ObjectPrefix) -> Result<OwnedFd, StoreError> {
        let place = ObjectPlace::prefix(&self.url, prefix);
        let mut chain = self.open_chain(prefix, &place)?;
        chain.pop().map_or_else(|| self.open_root_again(&place), Ok)
    }

    /// Every directory on the way to a prefix, without the root.
    pub(super) fn open_chain(
        &self,
        prefix: &ObjectPrefix,
        place: &ObjectPlace,
    ) -> Result<Vec<OwnedFd>, StoreError> {
        let mut chain: Vec<OwnedFd> = Vec::new();
        for name in components(prefix) {
            let parent = chain.last().map_or(self.root.as_fd(), AsFd::as_fd);
            chain.push(open_directory(parent, name, place)?);
        }
        Ok(chain)
    }

    /// The directory an object is to be created in, made if need be, with every entry on the way
    /// to it durable.
    pub(super) fn make_parent(&self, path: &ObjectPath) -> Result<OwnedFd, StoreError> {
        let place = self.place(path);
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(StoreError::Io {
                place,
                doing: "creating",
                source: std::io::Error::other(
                    "an earlier sync of a directory failed, so nothing can be promised any more",
                ),
            });
        }
        let prefix = path.parent();
        let mut chain: Vec<OwnedFd> = Vec::new();
        for name in components(&prefix) {
            let parent = chain.last().map_or(self.root.as_fd(), AsFd::as_fd);
            chain.push(self.open_or_make_directory(parent, name, &place)?);
        }
        let Some(directory) = chain.pop() else { return self.open_root_again(&place) };
        self.make_entries_durable(&prefix, &chain, &directory, &place)?;
        Ok(directory)
    }

    /// Syncs a directory. Once that fails, the kernel may have forgotten the entries and will not
    /// say so again: nothing more is created through this store.
    pub(super) fn sync_directory(
        &self,
        directory: BorrowedFd<'_>,
        place: &ObjectPlace,
    ) -> Result<(), StoreError> {
        self.syncs.directory(directory).map_err(|source| {
            self.sync_failed.store(true, Ordering::Release);
            StoreError::from_io(place.clone(), "syncing the directory of", source)
        })
    }

    /// Syncs the directories above `directory`, unless this process has done so since it was made.
    /// Finding a directory is not enough: who made it may not have synced it yet.
    fn make_entries_durable(
        &self,
        prefix: &ObjectPrefix,
        above: &[OwnedFd],
        directory: &OwnedFd,
        place: &ObjectPlace,
    ) -> Result<(), StoreError> {
        let name = prefix.to_string();
        let identity = identity(directory.as_fd());
        let remembered = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if identity.is_some() && remembered().get(&name).copied() == identity {
            return Ok(());
        }
        for parent in above.iter().rev().map(AsFd::as_fd).chain([self.root.as_fd()]) {
            self.sync_directory(parent, place)?;
        }
        if let Some(identity) = identity {
            let mut durable = remembered();
            if durable.len() >= REMEMBERED_DIRECTORIES {
                durable.clear();
            }
            durable.insert(name, identity);
        }
        Ok(())
    }

    fn open_or_make_directory(
        &self,
        parent: BorrowedFd<'_>,
        name: &str,
        place: &ObjectPlace,
    ) -> Result<OwnedFd, StoreError> {
        match open_directory(parent, name, place) {
            Err(StoreError::NotFound { .. }) => {}
            found => return found,
        }
        let mode = self.options.directory();
        match mkdirat(parent, name, mode) {
            Ok(()) => {
                let made = open_directory(parent, name, place)?;
                undo_umask(&made, mode).map_err(|errno| making(place, errno))?;
                Ok(made)
            }
            Err(Errno::EXIST) => open_directory(parent, name, place),
            Err(errno) => Err(making(place, errno)),
        }
    }

    fn open_root_again(&self, place: &ObjectPlace) -> Result<OwnedFd, StoreError> {
        self.root
            .try_clone()
            .map_err(|source| StoreError::from_io(place.clone(), "opening", source))
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Gives what was made with `mode` all of its bits. The umask only took some away, so where modes
/// belong to the mount and cannot be changed, nothing is more open than was asked for.
pub(super) fn undo_umask(made: impl AsFd, mode: Mode) -> Result<(), Errno> {
    match fchmod(made, mode) {
        Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn making(place: &ObjectPlace, errno: Errno) -> StoreError {
    StoreError::from_io(place.clone(), "making the directory of", errno.into())
}

/// The directories a prefix is made of.
pub(super) fn components(prefix: &ObjectPrefix) -> impl DoubleEndedIterator<Item = &str> {
    prefix.path().into_iter().flat_map(ObjectPath::components)
}

/// Opens a directory by its name in another one; a symbolic link is refused.
pub(super) fn open_directory(
    parent: BorrowedFd<'_>,
    name: &str,
    place: &ObjectPlace,
) -> Result<OwnedFd, StoreError> {
    retry_on_intr(|| openat(parent, name, DIRECTORY, Mode::empty())).map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => StoreError::NotAnObject {
            place: place.clone(),
            found: what_is_in_the_way(parent, name),
        },
        _ => StoreError::from_io(place.clone(), "opening", errno.into()),
    })
}

fn what_is_in_the_way(parent: BorrowedFd<'_>, name: &str) -> &'static str {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            "behind a symbolic link"
        }
        _ => "below something that is not a directory",
    }
}

/// What a file that is not an object is, for people.
pub(super) const fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory, not an object",
        FileType::Symlink => "a symbolic link, not an object",
        FileType::Fifo => "a named pipe, not an object",
        FileType::Socket => "a socket, not an object",
        FileType::CharacterDevice | FileType::BlockDevice => "a device, not an object",
        FileType::Unknown => "of an unknown kind, not an object",
    }
}

/// `None` where the filesystem does not keep the time of birth.
fn identity(directory: BorrowedFd<'_>) -> Option<Identity> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(directory, "", AtFlags::EMPTY_PATH, wanted).ok()?;
    StatxFlags::from_bits_retain(stat.stx_mask).contains(wanted).then_some(Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        born: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
    })
}
