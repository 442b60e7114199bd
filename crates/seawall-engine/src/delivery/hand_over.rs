//! WAL that the archiver is held up with, handed over without it.
//!
//! PostgreSQL archives one file after another, and a file counts as archived when every repository
//! has it: one that fails keeps the later files from all others. What is not archived stays in
//! `pg_wal`, marked `.ready` (`XLogArchiveNotify`, xlogarchive.c), and whoever is beside the database
//! can store it where it is missing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seawall_core::{Code, Error, Lsn, Result, ResultExt, WalSegment, WalSegmentSize};
use seawall_repo::wal::SegmentKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::WalNeeded;

/// A segment is held as it is, and as what it is compressed and sealed to.
const HELD_TIMES: u64 = 2;

/// A repository for which there was no room for so long goes on without: another one has the room,
/// and may not answer.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// The memory that segments may take at a time, whichever repositories they are for.
///
/// It is all that the backup may use: no file is copied while it waits for WAL. A segment that is larger
/// than that is held alone. Where one repository keeps the others waiting, it is exceeded, by no more
/// than one segment for each of them.
#[derive(Debug, Clone)]
pub(crate) struct WalRoom {
    free_mib: Arc<Semaphore>,
    all_mib: u32,
}

impl WalRoom {
    /// Room of so many bytes.
    pub fn new(memory_bytes: usize) -> Self {
        let all_mib = u32::try_from(memory_bytes >> 20).unwrap_or(u32::MAX).max(1);
        let permits = usize::try_from(all_mib).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { free_mib: Arc::new(Semaphore::new(permits)), all_mib }
    }

    /// Waits so long for room for a segment, and keeps it until what is returned is dropped; `None` if
    /// there was none.
    async fn take(
        &self,
        size: WalSegmentSize,
        patience: Duration,
    ) -> Result<Option<OwnedSemaphorePermit>> {
        let wanted = (size.bytes() * HELD_TIMES).div_ceil(1 << 20);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.all_mib);
        let free = Arc::clone(&self.free_mib);
        let taken = timeout(patience, free.acquire_many_owned(wanted)).await;
        taken.ok().transpose().code(Code::Internal, || "no room for WAL".to_owned())
    }
}

/// Whether a backup hands WAL over itself, and where that waits.
#[derive(Debug, Clone)]
pub(crate) struct HandOver {
    pg_wal: PathBuf,
    several: bool,
    room: WalRoom,
    some_repository_fails: Arc<AtomicBool>,
}

impl HandOver {
    /// The WAL is in this data directory, and goes into several repositories or one;
    /// `some_repository_fails` may become true later.
    pub fn new(
        data_directory: &Path,
        several: bool,
        room: WalRoom,
        some_repository_fails: Arc<AtomicBool>,
    ) -> Self {
        Self { pg_wal: data_directory.join("pg_wal"), several, room, some_repository_fails }
    }

    /// Whether the archiver is held up by a repository, as far as that can be known: some repository
    /// has failed, or there are several and the archiver seems to fail.
    pub fn is_needed(&self, archiver_seems_to_fail: bool) -> bool {
        self.some_repository_fails.load(Ordering::Relaxed)
            || (self.several && archiver_seems_to_fail)
    }

    /// Stores the segments from `from` on that wait for the archiver.
    pub(super) async fn store_waiting(&self, needed: WalNeeded<'_>, from: Lsn) -> Result<()> {
        let WalNeeded { archive, ancestry, range } = needed;
        let size = archive.segment_size();
        let mut segment = WalSegment::containing(ancestry.tip(), from, size);
        let mut patience = ROOM_PATIENCE;
        while segment.start() < range.end {
            let room = self.room.take(size, patience).await?;
            if room.is_none() {
                patience = Duration::ZERO;
            }
            let (pg_wal, name) = (self.pg_wal.clone(), segment.to_string());
            let reading = tokio::task::spawn_blocking(move || read_waiting(&pg_wal, &name));
            let read = reading.await.map_err(|error| {
                Error::new(Code::Internal, "a reading thread died").with_source(error)
            })?;
            let Some(bytes) = read? else { break };
            archive.store_segment(segment, SegmentKind::Whole, &bytes).await?;
            drop((bytes, room));
            segment = segment.next();
        }
        Ok(())
    }
}

/// A segment that waits for the archiver; `None` if it does not.
fn read_waiting(pg_wal: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let ready = pg_wal.join("archive_status").join(format!("{name}.ready"));
    let path = pg_wal.join(name);
    let read = || -> io::Result<Option<Vec<u8>>> {
        if !ready.try_exists()? {
            return Ok(None);
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // One that was archived meanwhile may have been written over while it was read.
        Ok(ready.try_exists()?.then_some(bytes))
    };
    read().map_err(|error| {
        Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
            .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(room: &WalRoom, bytes: u32) -> Option<OwnedSemaphorePermit> {
        room.take(WalSegmentSize::new(bytes).unwrap(), Duration::ZERO).await.unwrap()
    }

    #[tokio::test]
    async fn no_more_segments_are_held_than_there_is_memory_for_and_a_large_one_alone() {
        let room = WalRoom::new(80 << 20);
        let first = take(&room, 16 << 20).await.unwrap();
        let second = take(&room, 16 << 20).await.unwrap();
        assert!(take(&room, 16 << 20).await.is_none(), "the third");
        drop(first);
        let third = take(&room, 16 << 20).await.unwrap();
        assert!(take(&room, 1 << 30).await.is_none(), "two are held");
        drop((second, third));
        let large = take(&room, 1 << 30).await.unwrap();
        assert!(take(&room, 1 << 20).await.is_none(), "a large one is held");
        drop(large);
        assert!(take(&WalRoom::new(0), 16 << 20).await.is_some());
    }

    #[test]
    fn only_what_waits_for_the_archiver_is_read() {
        let pg_wal = tempfile::tempdir().unwrap();
        let (name, status) = ("000000010000000000000001", pg_wal.path().join("archive_status"));
        fs::create_dir(&status).unwrap();
        fs::write(pg_wal.path().join(name), b"wal").unwrap();
        assert_eq!(read_waiting(pg_wal.path(), name).unwrap(), None, "it is being written");
        fs::write(status.join(format!("{name}.ready")), b"").unwrap();
        assert_eq!(read_waiting(pg_wal.path(), name).unwrap().unwrap(), b"wal");
        fs::rename(status.join(format!("{name}.ready")), status.join(format!("{name}.done")))
            .unwrap();
        assert_eq!(read_waiting(pg_wal.path(), name).unwrap(), None, "it is archived");
    }
}
