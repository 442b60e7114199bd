//! A backup and its restore, measured.

use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seawall_testkit::PgCluster;

use super::contestant::{Contestant, archive_for};
use super::dataset::Contents;
use super::measure::{Taken, measure};
use super::{dataset, floors};

/// What the page cache holds when something is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// All that will be read, as far as there is room.
    Warm,
    /// Nothing.
    Cold,
}

/// One backup into an empty repository and its restore into an empty directory. The server
/// archives for this tool alone, from before the backup.
pub fn one_turn(
    contestant: &dyn Contestant,
    server: &PgCluster,
    restored: &Path,
    cache: Cache,
) -> Result<(Taken, Taken)> {
    archive_for(contestant, server)?;
    settle(cache, server.data_directory())?;
    let before = dataset::size_bytes(contestant.repository())?;
    let (mut backup, _) = measure(&mut contestant.backup()).context("backup")?;
    backup.bytes_added = dataset::size_bytes(contestant.repository())? - before;

    server.owner().create_dir(restored, 0o700)?;
    settle(cache, contestant.repository())?;
    let (restore, _) = measure(&mut contestant.restore(restored)).context("restore")?;
    Ok((backup, restore))
}

/// Nothing left to write from before, and what will be read in the page cache, or nothing.
pub fn settle(cache: Cache, read: &Path) -> Result<()> {
    nix::unistd::sync();
    if cache == Cache::Cold {
        fs::write("/proc/sys/vm/drop_caches", "3\n").context("dropping the page cache")
    } else {
        floors::read(read).map(drop)
    }
}

/// Takes what was restored out of the way and gives its room back, and keeps the emptied files until
/// the end: ext4 without a journal looks at every inode that was deleted in the last minutes before
/// it makes a new one (`recently_deleted`, ialloc.c), which would be most of the next restore.
pub fn retire(directory: &Path, place: &Path) -> Result<()> {
    empty(directory)?;
    fs::rename(directory, place).with_context(|| format!("move to {}", place.display()))
}

fn empty(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            empty(&entry.path())?;
        } else if kind.is_file() {
            OpenOptions::new().write(true).open(entry.path())?.set_len(0)?;
        }
    }
    Ok(())
}

/// Starts what was restored: PostgreSQL recovers it, and it holds the same rows.
pub fn open_and_compare(contents: Contents, restored: &Path, expected: &str) -> Result<()> {
    let server = PgCluster::open(dataset::MAJOR, restored).config("archive_mode", "off").start()?;
    let found = contents.fingerprint(&server)?;
    ensure!(found == expected, "other rows than the cluster has:\n{found}\nnot\n{expected}");
    Ok(())
}
