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

use seawall_core::{Code, Error, Lsn, Result, WalSegment};
use seawall_repo::wal::SegmentKind;

use super::WalNeeded;

/// Whether a backup hands WAL over itself, and where that waits.
#[derive(Debug, Clone)]
pub(crate) struct HandOver {
    pg_wal: PathBuf,
    several: bool,
    some_repository_fails: Arc<AtomicBool>,
}

impl HandOver {
    /// The WAL is in this data directory, and goes into several repositories or one;
    /// `some_repository_fails` may become true later.
    pub fn new(
        data_directory: &Path,
        several: bool,
        some_repository_fails: Arc<AtomicBool>,
    ) -> Self {
        Self { pg_wal: data_directory.join("pg_wal"), several, some_repository_fails }
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
        while segment.start() < range.end {
            let (pg_wal, name) = (self.pg_wal.clone(), segment.to_string());
            let reading = tokio::task::spawn_blocking(move || read_waiting(&pg_wal, &name));
            let read = reading.await.map_err(|error| {
                Error::new(Code::Internal, "a reading thread died").with_source(error)
            })?;
            let Some(bytes) = read? else { break };
            archive.store_segment(segment, SegmentKind::Whole, &bytes).await?;
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
