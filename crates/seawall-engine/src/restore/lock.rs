//! One command at a time works on a restored directory, or on the place of a tablespace.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use seawall_core::{Code, Error, Result};

use crate::durable::local;

/// Keeps others out of a directory as long as it lives; it ends with its process.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _directory: File,
}

impl DirectoryLock {
    /// Takes it, if nobody has it.
    ///
    /// # Errors
    /// [`Code::OtherRestoreInterrupted`] if another command works on the directory.
    pub fn take(directory: &Path) -> Result<Self> {
        let opened = File::open(directory).map_err(|error| local(error, "opening", directory))?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _directory: opened }),
            Err(Errno::WOULDBLOCK) => {
                let what = format!("another command is at work in {}", directory.display());
                Err(Error::new(Code::OtherRestoreInterrupted, what).with_hint(
                    "A restore, a discard or a promotion: wait for it, and nothing was changed by this one.",
                ))
            }
            Err(error) => Err(local(error.into(), "locking", directory)),
        }
    }
}
