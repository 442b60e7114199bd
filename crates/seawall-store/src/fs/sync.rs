use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

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
        Ok(rustix::fs::fsync(directory)?)
    }
}
