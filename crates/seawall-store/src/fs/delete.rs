use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, statat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use super::publish::failed;
use super::tree::{Tree, components, describe};
use crate::{ObjectPath, ObjectPlace, ObjectPrefix, StoreError};

/// Removes objects, and directories they leave empty; each directory is synced once. What is not
/// there is removed already. One that cannot be removed keeps no other one.
pub(super) fn objects(tree: &Tree, paths: &[ObjectPath]) -> Result<(), StoreError> {
    let mut by_directory: BTreeMap<ObjectPrefix, Vec<&ObjectPath>> = BTreeMap::new();
    for path in paths {
        by_directory.entry(path.parent()).or_default().push(path);
    }
    let mut outcome = Ok(());
    for (prefix, paths) in &by_directory {
        outcome = outcome.and(below(tree, prefix, paths));
    }
    outcome
}

fn below(tree: &Tree, prefix: &ObjectPrefix, paths: &[&ObjectPath]) -> Result<(), StoreError> {
    let place =
        paths.first().map_or_else(|| ObjectPlace::store(tree.url()), |path| tree.place(path));
    let chain = match tree.open_chain(prefix, &place) {
        Err(error) if error.is_not_found() => return Ok(()),
        chain => chain?,
    };
    let directory = chain.last().map_or(tree.root(), AsFd::as_fd);
    let mut outcome = Ok(());
    let mut is_changed = false;
    for path in paths {
        match one(directory, path, &tree.place(path)) {
            Ok(removed) => is_changed |= removed,
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    if is_changed {
        tree.sync_directory(directory, &place)?;
        remove_if_empty(tree, prefix, &chain);
    }
    outcome
}

/// Whether there was something to remove.
fn one(
    directory: BorrowedFd<'_>,
    path: &ObjectPath,
    place: &ObjectPlace,
) -> Result<bool, StoreError> {
    let kind = match statat(directory, path.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(failed(place, "deleting", errno)),
    };
    if kind != FileType::RegularFile {
        return Err(StoreError::NotAnObject { place: place.clone(), found: describe(kind) });
    }
    match unlinkat(directory, path.file_name(), AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed(place, "deleting", errno)),
    }
}

/// From the innermost directory up, as far as they are empty.
fn remove_if_empty(tree: &Tree, prefix: &ObjectPrefix, chain: &[OwnedFd]) {
    let names: Vec<&str> = components(prefix).collect();
    for (depth, name) in names.iter().enumerate().rev() {
        let above = depth.checked_sub(1).and_then(|above| chain.get(above));
        let parent = above.map_or(tree.root(), AsFd::as_fd);
        if retry_on_intr(|| unlinkat(parent, *name, AtFlags::REMOVEDIR)).is_err() {
            break;
        }
    }
}
