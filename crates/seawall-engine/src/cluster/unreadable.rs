use std::fmt::Display;
use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use seawall_core::{Code, Error, Result, counted};

/// So many are named; the rest is counted.
const NAMED: usize = 50;

/// Paths of a cluster that cannot be read, gathered so that one run tells them all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    named: Vec<String>,
    count: u64,
}

impl Unreadable {
    /// Adds a path, and why it cannot be read.
    pub(super) fn add(&mut self, path: &Path, why: impl Display) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{} ({why})", path.display()));
        }
    }

    /// These and others.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.count += other.count;
        self.named.extend(other.named);
        self.named.truncate(NAMED);
        self
    }

    /// One error for all of them.
    ///
    /// # Errors
    /// [`Code::ClusterUnreadable`] if there is any.
    pub fn refuse(&self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let more = self.count.saturating_sub(self.named.len() as u64);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        let what = format!(
            "cannot read {} of the cluster: {}{more}",
            counted(self.count, "path"),
            self.named.join("; ")
        );
        Err(Error::new(Code::ClusterUnreadable, what).with_hint(
            "Run as the owner of the data directory, who can read every file that is PostgreSQL's. What is not, move out of it; a link that leads nowhere, mend or remove.",
        ))
    }
}

/// Why this process may not read a file, by its effective ids; `None` if it may, or if only reading
/// will tell.
pub(super) fn denied(location: &Path) -> Option<io::Error> {
    match accessat(CWD, location, Access::READ_OK, AtFlags::EACCESS) {
        Err(error @ (Errno::ACCESS | Errno::PERM)) => Some(error.into()),
        // It vanished; or the kernel cannot tell.
        Ok(()) | Err(_) => None,
    }
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
        .with_source(error)
        .with_hint("Run as the owner of the data directory, who can read every file of it.")
}
