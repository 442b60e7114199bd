//! A directory as it is: what tells it from every copy of it, where it really is, and what is in it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use seawall_core::Result;
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;
use serde::{Deserialize, Serialize};

use crate::cluster::is_lost_and_found;
use crate::durable::{UNFINISHED_SUFFIX, local};

/// A directory, as far as it can be told from its copies.
///
/// The number alone does not suffice: the roots of all file systems of a kind have the same one, and
/// so has a directory in every snapshot of its volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryIdentity {
    /// Where it is, without links on the way.
    #[serde(with = "crate::as_bytes::path")]
    path: PathBuf,
    /// The file system's number.
    device: u64,
    /// The directory's number in that.
    inode: u64,
    /// When it was made, in nanoseconds since 1970, if the file system tells: no copy can be given
    /// that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born_ns: Option<u64>,
}

impl DirectoryIdentity {
    /// The one of a directory.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        let failed = |error| local(error, "looking at", directory);
        let path = fs::canonicalize(directory).map_err(failed)?;
        let metadata = fs::symlink_metadata(directory).map_err(failed)?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok());
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino(), born_ns })
    }

    /// How this one, as it was, and the one that is `now` in its place differ; `None` if they are
    /// the same.
    pub(crate) fn differs_from(&self, now: &Self) -> Option<&'static str> {
        if self.inode != now.inode || self.born_ns != now.born_ns {
            Some("it was copied from there")
        } else if self.path != now.path {
            Some("it was moved, or is a snapshot of its volume")
        } else if self.device != now.device {
            Some(
                "it is in a snapshot of its volume, or its volume has another number since this machine was started",
            )
        } else {
            None
        }
    }

    /// Whether it is the root of a file system of which nothing tells it from another one's.
    pub(crate) fn is_any_root(&self) -> bool {
        self.born_ns.is_none() && is_mount_point(&self.path)
    }
}

/// Whether something is mounted at a directory.
pub(crate) fn is_mount_point(directory: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let attribute = statx(CWD, directory, flags, StatxFlags::BASIC_STATS)
        .is_ok_and(|it| it.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    let device = |path: &Path| fs::symlink_metadata(path).map(|it| it.dev()).ok();
    // Before Linux 5.8 there is no such attribute.
    attribute || directory.parent().is_some_and(|parent| device(parent) != device(directory))
}

/// A path without the links on it, as far as it is there.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|it| Some((it, it.canonicalize().ok()?)));
    let Some((ancestor, real)) = there else { return path.to_owned() };
    match path.strip_prefix(ancestor) {
        Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
        _ => real,
    }
}

/// The names in a directory, without what a restore may have left that died at its first step, and
/// without what a file system is made with.
pub(crate) fn names(directory: &Path) -> Result<Vec<OsString>> {
    let leftover = format!("{RESTORE_STATE_FILE}{UNFINISHED_SUFFIX}");
    let read = |error| local(error, "reading", directory);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        if name != leftover.as_str() && !is_lost_and_found(&entry.path()) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> DirectoryIdentity {
        DirectoryIdentity { path: "/clone".into(), device: 7, inode: 2, born_ns: Some(9) }
    }

    #[test]
    fn a_directory_is_told_from_copies_snapshots_and_roots_of_other_file_systems() {
        assert_eq!(made().differs_from(&made()), None);
        for (other, why) in [
            (DirectoryIdentity { inode: 3, ..made() }, "copied"),
            (DirectoryIdentity { born_ns: Some(10), device: 8, ..made() }, "copied"),
            (DirectoryIdentity { born_ns: None, ..made() }, "copied"),
            (DirectoryIdentity { device: 8, ..made() }, "snapshot"),
            (DirectoryIdentity { path: "/mnt/clone".into(), ..made() }, "moved"),
        ] {
            let told = made().differs_from(&other).unwrap();
            assert!(told.contains(why), "{other:?}: {told}");
        }
    }

    #[test]
    fn a_root_that_tells_nothing_of_itself_is_any_root() {
        assert!(is_mount_point(Path::new("/proc")));
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mount_point(dir.path()));
        let root = DirectoryIdentity { path: "/proc".into(), born_ns: None, ..made() };
        assert!(root.is_any_root());
        assert!(!DirectoryIdentity { born_ns: Some(9), ..root }.is_any_root());
        let mut here = DirectoryIdentity::of(dir.path()).unwrap();
        here.born_ns = None;
        assert!(!here.is_any_root());
    }
}
