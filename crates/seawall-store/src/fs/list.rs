use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, statat};
use rustix::io::Errno;

use super::read::stat_in;
use super::tree::{Tree, describe, open_directory};
use crate::path::is_component;
use crate::{
    ListPage, MAX_PAGE_OBJECTS, ObjectInfo, ObjectPath, ObjectPlace, ObjectPrefix, StoreError,
};

/// One page of a listing. Takes memory for one directory on each level of the way, no more.
pub(super) fn page(
    tree: &Tree,
    prefix: &ObjectPrefix,
    start_after: Option<&ObjectPath>,
    limit: usize,
) -> Result<ListPage, StoreError> {
    let place = ObjectPlace::prefix(tree.url(), prefix);
    let directory = match tree.open_prefix(prefix) {
        Err(error) if error.is_not_found() => {
            return Ok(ListPage { objects: Vec::new(), next: None });
        }
        directory => directory?,
    };
    let mut listing = Listing {
        tree,
        place,
        start_after: start_after.map_or("", ObjectPath::as_str),
        limit: limit.clamp(1, MAX_PAGE_OBJECTS),
        objects: Vec::new(),
        more: false,
    };
    listing.visit(&directory, &prefix.to_string())?;
    let Listing { objects, more, .. } = listing;
    let next = if more { objects.last().map(|object| object.path.clone()) } else { None };
    Ok(ListPage { objects, next })
}

/// The names in a directory, without those of directories that hold no object.
pub(super) fn children(tree: &Tree, prefix: &ObjectPrefix) -> Result<Vec<String>, StoreError> {
    let place = ObjectPlace::prefix(tree.url(), prefix);
    let directory = match tree.open_prefix(prefix) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        directory => directory?,
    };
    let (start_after, limit) = ("", MAX_PAGE_OBJECTS);
    let listing = Listing { tree, place, start_after, limit, objects: Vec::new(), more: false };
    let path = prefix.to_string();
    let mut children = Vec::new();
    for entry in listing.entries(&directory, &path)? {
        if listing.is_child(&directory, &path, &entry)? {
            children.push(entry.trim_end_matches('/').to_owned());
        }
    }
    children.sort_unstable();
    Ok(children)
}

struct Listing<'a> {
    tree: &'a Tree,
    place: ObjectPlace,
    start_after: &'a str,
    limit: usize,
    objects: Vec<ObjectInfo>,
    more: bool,
}

impl Listing<'_> {
    /// Takes what is below `directory`, whose path ends in `/` or is empty, until the page is full.
    fn visit(&mut self, directory: &OwnedFd, directory_path: &str) -> Result<(), StoreError> {
        for entry in self.entries(directory, directory_path)? {
            if self.objects.len() == self.limit {
                self.more = true;
                return Ok(());
            }
            if let Some(name) = entry.strip_suffix('/') {
                match open_directory(directory.as_fd(), name, &self.place) {
                    Ok(child) => self.visit(&child, &format!("{directory_path}{entry}"))?,
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            } else {
                self.take(directory, &format!("{directory_path}{entry}"))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, directory: &OwnedFd, path: &str) -> Result<(), StoreError> {
        // Deeper than an object's path may be: nothing a store was asked to keep.
        let Ok(path) = ObjectPath::new(path) else { return Ok(()) };
        match stat_in(directory.as_fd(), &path, &self.tree.place(&path)) {
            Ok(object) => self.objects.push(object),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether an entry of a directory is an object, or a directory with one somewhere in it.
    fn is_child(&self, directory: &OwnedFd, path: &str, entry: &str) -> Result<bool, StoreError> {
        let path = format!("{path}{entry}");
        let Some(name) = entry.strip_suffix('/') else {
            return Ok(ObjectPath::new(path).is_ok());
        };
        let directory = match open_directory(directory.as_fd(), name, &self.place) {
            Err(error) if error.is_not_found() => return Ok(false),
            directory => directory?,
        };
        // Files first: most directories have one, or a directory that has.
        let (directories, files): (Vec<_>, Vec<_>) =
            self.entries(&directory, &path)?.into_iter().partition(|entry| entry.ends_with('/'));
        for entry in files.iter().chain(&directories) {
            if self.is_child(&directory, &path, entry)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names in a directory that may lead past `start_after`, in the order of full paths: a
    /// directory sorts as its name and a `/`, since that is how the paths below it go on, so
    /// `a-b/c` comes before `a/b`.
    ///
    /// Names no object can have are passed over, temporary ones among them.
    fn entries(&self, directory: &OwnedFd, path: &str) -> Result<Vec<String>, StoreError> {
        let failed =
            |errno: Errno| StoreError::from_io(self.place.clone(), "listing", errno.into());
        let mut entries = Vec::new();
        let listed = match Dir::read_from(directory) {
            // Removed as empty since it was opened.
            Err(Errno::NOENT) => return Ok(entries),
            listed => listed.map_err(failed)?,
        };
        for entry in listed {
            let entry = entry.map_err(failed)?;
            let Some(name) = entry.file_name().to_str().ok().filter(|name| is_component(name))
            else {
                continue;
            };
            let key = match kind_of(directory.as_fd(), name, entry.file_type()).map_err(failed)? {
                None => continue,
                Some(FileType::RegularFile) => name.to_owned(),
                Some(FileType::Directory) => format!("{name}/"),
                Some(kind) => {
                    let refused = ObjectPath::new(format!("{path}{name}"));
                    let place =
                        refused.map_or_else(|_| self.place.clone(), |path| self.tree.place(&path));
                    return Err(StoreError::NotAnObject { place, found: describe(kind) });
                }
            };
            if self.is_ahead(&format!("{path}{key}")) {
                entries.push(key);
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Whether a path, or anything below it if it ends in `/`, comes after `start_after`.
    fn is_ahead(&self, path: &str) -> bool {
        path > self.start_after || (path.ends_with('/') && self.start_after.starts_with(path))
    }
}

/// The kind of a directory entry; `None` if it has gone. Not every filesystem tells it on the way.
fn kind_of(
    directory: BorrowedFd<'_>,
    name: &str,
    listed: FileType,
) -> Result<Option<FileType>, Errno> {
    if listed != FileType::Unknown {
        return Ok(Some(listed));
    }
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
