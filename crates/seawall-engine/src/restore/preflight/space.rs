use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use seawall_core::{ByteSize, Code, Error, Result};

use crate::durable::{local, room};

/// Proves that what goes into each directory fits on the filesystem it is on.
///
/// # Errors
/// [`Code::TargetDiskFull`].
pub fn prove_space<'p>(needs: impl Iterator<Item = (&'p Path, u64)>) -> Result<()> {
    let mut filesystems: BTreeMap<u64, (&Path, u64, u64)> = BTreeMap::new();
    for (path, bytes) in needs {
        // What is not there yet will be made on its nearest parent's filesystem.
        let existing = path.ancestors().find(|it| it.exists()).unwrap_or(path);
        let device =
            existing.metadata().map_err(|error| local(error, "looking at", existing))?.dev();
        let room = room(existing)
            .map_err(|error| local(error, "looking at the filesystem of", existing))?;
        let available = room.free_bytes;
        filesystems.entry(device).or_insert((path, 0, available)).1 += bytes;
    }
    for (path, needed, available) in filesystems.into_values() {
        if needed > available {
            return Err(Error::new(
                Code::TargetDiskFull,
                format!(
                    "the filesystem of {} has {} free, and {} are needed",
                    path.display(),
                    ByteSize(available),
                    ByteSize(needed)
                ),
            )
            .with_hint("Free space, or restore into a directory on a larger filesystem."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_one_filesystem_is_added_up() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("a"), dir.path().join("b/c"));
        let half = room(dir.path()).unwrap().free_bytes / 2 + (1 << 30);
        prove_space([(one.as_path(), half)].into_iter()).unwrap();
        let both = prove_space([(one.as_path(), half), (two.as_path(), half)].into_iter());
        assert_eq!(both.unwrap_err().code(), Code::TargetDiskFull);
    }
}
