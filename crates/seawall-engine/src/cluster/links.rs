//! Symbolic links in a data directory where PostgreSQL itself makes none.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use seawall_pgdata::PgMajor;
use seawall_pgdata::own_places::{is_own_directory, is_own_file};

use super::unreadable::denied;

/// What becomes of links.
///
/// Where PostgreSQL opens a file or directory of its own, or is led by its configuration, the link
/// is followed and what it leads to is stored as data: a restore makes plain files and directories
/// of it. So is a link to any file outside the data directory. Other links stay links; what is
/// behind them is not the cluster's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkRules {
    /// Paths of links that configuration leads through, relative to the data directory.
    configured: BTreeSet<Vec<u8>>,
    /// What lies in the data directory under a name of its own, and is stored under its link's.
    reached: BTreeSet<PathBuf>,
}

/// What becomes of one link.
pub(super) enum Link {
    /// It vanished.
    Gone,
    /// What it leads to is data.
    Followed { target: PathBuf, metadata: Metadata },
    /// It stays a link.
    Kept(PathBuf),
    /// What it leads to would be data, and cannot be looked at.
    Refused { target: PathBuf, error: io::Error },
}

impl LinkRules {
    /// The rules for a data directory whose configuration is at `paths`, relative to it.
    #[must_use]
    pub fn for_configuration(root: &Path, paths: &BTreeSet<PathBuf>) -> Self {
        let mut configured = BTreeSet::new();
        for path in paths {
            let mut below = PathBuf::new();
            for component in path.components() {
                let Component::Normal(name) = component else { break };
                below.push(name);
                let there = fs::symlink_metadata(root.join(&below));
                if there.is_ok_and(|found| found.file_type().is_symlink()) {
                    configured.insert(below.as_os_str().as_bytes().to_vec());
                }
            }
        }
        Self { configured, reached: BTreeSet::new() }
    }

    /// Takes note that what is at `place` is stored under the name of a link to it.
    pub(super) fn reach(&mut self, place: PathBuf) {
        self.reached.insert(place);
    }

    /// What is stored under the names of links alone.
    pub(super) fn reached_through_links(&self) -> impl Iterator<Item = &PathBuf> {
        self.reached.iter()
    }

    /// What becomes of the link at `location`, which is `path` in the data directory.
    pub(super) fn judge(&self, location: &Path, path: &[u8], major: PgMajor) -> Link {
        let target = match fs::read_link(location) {
            Ok(target) => target,
            // It is gone, or no link any more: replaced while it was looked at.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                return Link::Gone;
            }
            Err(error) => return Link::Refused { target: location.to_owned(), error },
        };
        let directory = is_own_directory(path, major) || self.configured.contains(path);
        let file = is_own_file(path, major) || self.configured.contains(path);
        match fs::metadata(location) {
            Ok(metadata) if metadata.is_dir() && directory => Link::Followed { target, metadata },
            Ok(metadata) if metadata.is_file() => {
                let stays = !file && (stays_inside(path, &target) || denied(location).is_some());
                if stays { Link::Kept(target) } else { Link::Followed { target, metadata } }
            }
            Err(error) if directory || file => Link::Refused { target, error },
            Ok(_) | Err(_) => Link::Kept(target),
        }
    }
}

/// Whether a link at `path` leads to a place below the data directory, wherever that is. It is read
/// without looking at the disk, so it may go up only at first: `a/..` is elsewhere if `a` is a link.
#[must_use]
pub fn stays_inside(path: &[u8], target: &Path) -> bool {
    let mut depth = path.iter().filter(|byte| **byte == b'/').count();
    let mut goes_down = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => goes_down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !goes_down => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_may_be_made_again_stay_inside() {
        for (path, target, inside) in [
            (b"log".as_slice(), "/var/log/postgresql", false),
            (b"log", "../log", false),
            (b"log", "base/x", true),
            (b"base/1/x", "../../y", true),
            (b"base/1/x", "../../../y", false),
            (b"a/b", "c/../../../d", false),
            // If `a/b/c` is a link itself, this is outside.
            (b"x", "a/b/c/../../../y", false),
        ] {
            assert_eq!(stays_inside(path, Path::new(target)), inside, "{target}");
        }
    }
}
