use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};

/// The two calls all durability rests on, apart so that tests can watch them and let them fail.
pub(super) trait SyncCalls: Debug + Send + Sync {
    /// Makes a file's content and metadata durable.
    fn file(&self, file: &File) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn directory(&self, directory: BorrowedFd<'_>) -> io::Result<()>;
}

/// The kernel's own.
#[derive(Debug)]
pub(super) struct Kernel;

impl SyncCalls for Kernel {
    fn file(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fsync(file)?)
    }

    fn directory(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        sync_directory(directory)
    }
}

/// Makes a directory's entries durable. Some file systems, as of network and FUSE mounts, cannot be
/// asked to and write them in an order of their own: nothing more can be done there, and PostgreSQL
/// goes on as well (`fsync_fname_ext`, fd.c, 12–18).
///
/// # Errors
/// Those of `fsync`: the entries may be lost.
pub fn sync_directory(directory: impl AsFd) -> io::Result<()> {
    match retry_on_intr(|| rustix::fs::fsync(&directory)) {
        Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// As [`sync_directory`], for a path. A directory that this user may pass through and not read
/// cannot be asked either.
///
/// # Errors
/// As there, and those of opening it.
pub fn sync_directory_at(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.is_dir() => Ok(()),
        opened => sync_directory(opened?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_error_and_one_that_is_not_there_is() {
        // procfs answers EINVAL, as many network and FUSE mounts do.
        let procfs = File::open("/proc/self").unwrap();
        assert_eq!(rustix::fs::fsync(&procfs).unwrap_err(), Errno::INVAL);
        sync_directory(&procfs).unwrap();
        sync_directory_at(Path::new("/proc/self")).unwrap();
        let gone = sync_directory_at(Path::new("/proc/self/gone")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        Kernel.directory(procfs.as_fd()).unwrap();
        assert!(Kernel.file(&procfs).is_err(), "bytes that are not durable are lost");
    }
}
