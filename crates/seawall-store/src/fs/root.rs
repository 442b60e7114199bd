use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use super::FsOptions;
use super::sync::sync_directory_at;
use crate::{ObjectPlace, StoreDirectory, StoreError, StoreUrl};

/// Makes the root of a store and the directories it is in, as far as they are missing, durably.
/// What exists keeps its mode.
pub(super) fn make(root: &StoreDirectory, options: FsOptions) -> Result<(), StoreError> {
    make_directory(root.path(), options.directory_mode & 0o777).map_err(|source| {
        let url = StoreUrl::Directory(root.clone());
        StoreError::from_io(ObjectPlace::store(&url), "making", source)
    })
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    make_directory(parent, mode)?;
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(mode))?,
        // Somebody else made it at the same moment; whether it is durable is not known either way.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(error),
    }
    sync_directory_at(path)?;
    sync_directory_at(parent)
}
