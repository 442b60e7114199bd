//! Everything that is done to a local directory and must survive a crash, and nothing else.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Key, Result};
use seawall_store::fs::sync_directory_at;

/// What a file is called while it is written.
pub(crate) const UNFINISHED_SUFFIX: &str = ".seawall-tmp";

/// An error of the local filesystem, with what was being done to which path.
pub(crate) fn local(error: io::Error, doing: &str, path: &Path) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let code = if full { Code::TargetDiskFull } else { Code::LocalIo };
    let failed = Error::new(code, format!("{doing} {} failed", path.display()))
        .with_pair(Key::Path, path.display());
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let read_only = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
    let failed = failed.with_source(error);
    if full {
        failed.with_hint("Free space and run the same command again: it goes on where it stopped.")
    } else if denied {
        failed.with_hint("Run as the user who is to own the data directory.")
    } else if read_only {
        let path = path.display();
        failed.with_hint(format!("The file system is mounted read-only: `findmnt -T {path}`."))
    } else {
        failed
    }
}

/// Makes a directory with exactly this mode, whatever the umask; one that is there gets the mode.
pub(crate) fn create_directory(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
    .and_then(|()| File::open(path))
    .and_then(|directory| give_mode(&directory, mode))
    .map_err(|error| local(error, "creating", path))
}

/// Gives a file or directory its mode. Where modes belong to the mount and cannot be changed, it is
/// enough that nothing is more open than it has to be: whether the rest suffices, PostgreSQL tells.
fn give_mode(file: &File, mode: u32) -> io::Result<()> {
    let Err(refused) = file.set_permissions(Permissions::from_mode(mode)) else { return Ok(()) };
    let cannot =
        matches!(refused.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported);
    let too_open = file.metadata()?.mode() & 0o777 & !mode != 0;
    if cannot && !too_open { Ok(()) } else { Err(refused) }
}

/// Opens a file for writing, with exactly this mode; what it held is gone.
pub(crate) fn create_file(path: &Path, mode: u32) -> Result<File> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
    };
    let opened = match open() {
        // Written before, by this restore, with a mode that forbids to write it again.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.is_file() => {
            fs::remove_file(path).and_then(|()| open())
        }
        opened => opened,
    };
    opened
        .and_then(|file| give_mode(&file, mode).map(|()| file))
        .map_err(|error| local(error, "creating", path))
}

/// Puts a whole file at `path`, or leaves what is there: durable when it returns.
pub(crate) fn publish(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let unfinished = unfinished(path);
    let mut file = create_file(&unfinished, mode)?;
    file.write_all(bytes).map_err(|error| local(error, "writing", path))?;
    publish_file(&file, path)
}

/// What a file that was put in its place is whole after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    /// The end of this process.
    Crash,
    /// A power cut too.
    PowerCut,
}

/// Writes a new file beside its place and renames it, so that it is whole under its name. What could
/// not be written takes no room.
pub(crate) fn put_beside(place: &Path, bytes: &[u8], survives: Survives) -> io::Result<()> {
    let beside = unfinished(place);
    let written = write_new(&beside, bytes)
        .and_then(|file| match survives {
            Survives::Crash => Ok(()),
            Survives::PowerCut => file.sync_all(),
        })
        .and_then(|()| fs::rename(&beside, place));
    if written.is_err()
        && let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %beside.display(), %error, "an unfinished file could not be removed");
    }
    written
}

/// Writes a new file. What has its name, left by a process that was killed or a link that somebody
/// planted, is not what is written to.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The server's umask decides whether its group may read (miscinit.c, SetDataDirectoryCreatePerm).
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Where [`publish_file`] expects the bytes of `path`.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED_SUFFIX);
    PathBuf::from(name)
}

/// Gives a file written at [`unfinished`] its name: durable when it returns.
pub(crate) fn publish_file(file: &File, path: &Path) -> Result<()> {
    file.sync_all()
        .and_then(|()| fs::rename(unfinished(path), path))
        .map_err(|error| local(error, "writing", path))?;
    sync_parent(path)
}

/// Removes a file, durably; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(local(error, "removing", path)),
    }
}

/// Makes what is in a directory, its names, durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    sync_directory_at(path).map_err(|error| local(error, "syncing", path))
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes everything durable that was written to the filesystems these directories are on: one call
/// each instead of one for every file. Linux tells write errors by it since 5.8.
pub(crate) fn sync_filesystems<'p>(directories: impl Iterator<Item = &'p Path>) -> Result<()> {
    let mut devices = BTreeSet::new();
    for path in directories {
        let directory = File::open(path).map_err(|error| local(error, "opening", path))?;
        let metadata = directory.metadata().map_err(|error| local(error, "opening", path))?;
        if devices.insert(metadata.dev()) {
            rustix::fs::syncfs(&directory)
                .map_err(|error| local(error.into(), "syncing the filesystem of", path))?;
        }
    }
    Ok(())
}

/// The room that the file system of a path has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// For others than root.
    pub free_bytes: u64,
    /// In all.
    pub disk_bytes: u64,
}

/// Looks how much room there is where a path is.
pub(crate) fn room(path: &Path) -> io::Result<Room> {
    let disk = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Room { free_bytes: bytes(disk.f_bavail), disk_bytes: bytes(disk.f_blocks) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_is_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        publish(&path, b"one", 0o640).unwrap();
        publish(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn e57_a_file_is_never_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, b"precious").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        assert_eq!(create_file(&link, 0o600).unwrap_err().code(), Code::LocalIo);
        assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let full = Path::new("/dev/full");
        let mut file = OpenOptions::new().write(true).open(full).unwrap();
        let error = local(file.write_all(b"x").unwrap_err(), "writing", full);
        assert_eq!(error.code(), Code::TargetDiskFull);
    }
}
