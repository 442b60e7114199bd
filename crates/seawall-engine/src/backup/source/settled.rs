//! Files that nothing but their own content makes right: read as they were at one moment.
//!
//! PostgreSQL writes such files anew and renames them into place; people and their tools do not
//! always. A copy is taken if the file certainly did not change while it was read, or if its
//! bytes read the same a second time: then it had them at the moment between, whatever is added to it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use seawall_core::{Code, Error, Result};
use seawall_repo::manifest::Entry;

use super::read_ahead::{OpenFile, read_at, unreadable};
use crate::cluster::modified_us;

/// How often a file is read that changes each time.
pub(super) const ATTEMPTS: u32 = 10;

/// Longer after each attempt, so that what writes the file may come to an end: 2.75 s in all.
const PAUSE: Duration = Duration::from_millis(50);

/// Within so long of a change another one may leave the times as they are: clocks of file systems
/// tick a few times a second at worst.
const RECENT: Duration = Duration::from_secs(1);

/// What came of reading a small file.
pub(in crate::backup) enum Settled {
    /// It vanished.
    Gone,
    /// Its content, and what it was when that was read.
    Content(Vec<u8>, Metadata),
    /// It is larger than what is read here.
    Larger,
    /// It changed each time it was read.
    Restless,
}

/// Reads a file of up to `bytes_max` bytes. What has the name may be replaced meanwhile: what is
/// open stays what it is.
pub(in crate::backup) fn read_settled(location: &Path, bytes_max: u64) -> Result<Settled> {
    let failed = |error| unreadable(location, error);
    for attempt in 1..=ATTEMPTS {
        let Some(source) = OpenFile::open(location)? else { return Ok(Settled::Gone) };
        let file = source.file();
        let opened = file.metadata().map_err(failed)?;
        let Some(bytes) = read_to_end(file, bytes_max).map_err(failed)? else {
            return Ok(Settled::Larger);
        };
        let read = file.metadata().map_err(failed)?;
        if bytes.len() as u64 == read.len() && is_unchanged(&opened, &read) {
            return Ok(Settled::Content(bytes, read));
        }
        let mut again = vec![0; bytes.len()];
        let there = read_at(file, &mut again, 0).map_err(failed)?;
        if there == bytes.len() as u64 && again == bytes {
            return Ok(Settled::Content(bytes, read));
        }
        pause(attempt);
    }
    Ok(Settled::Restless)
}

/// Waits before a file is read again.
pub(super) fn pause(attempt: u32) {
    sleep(PAUSE * attempt);
}

/// Whether a file certainly did not change between two looks at it.
pub(super) fn is_unchanged(one: &Metadata, other: &Metadata) -> bool {
    let state = |it: &Metadata| {
        (it.dev(), it.ino(), it.len(), it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec())
    };
    let changed = Duration::new(
        u64::try_from(other.ctime()).unwrap_or_default(),
        u32::try_from(other.ctime_nsec()).unwrap_or_default(),
    );
    let quiet_since = SystemTime::UNIX_EPOCH.checked_add(changed + RECENT);
    state(one) == state(other) && quiet_since.is_some_and(|since| since <= SystemTime::now())
}

/// Makes an entry say what was read.
pub(super) fn describe(entry: &mut Entry, size_bytes: u64, read: &Metadata) {
    entry.size_bytes = Some(size_bytes);
    entry.modified_us = Some(modified_us(read));
}

/// A file without which the cluster is not what it was, and that cannot be read whole.
pub(in crate::backup) fn restless(location: &Path) -> Error {
    let what =
        format!("{} changed each of the {ATTEMPTS} times that it was read", location.display());
    Error::new(Code::ClusterUnreadable, what)
        .with_hint("Something writes it all the time: `lsof` tells what. Then run it again.")
}

/// The whole file; `None` if it is larger.
fn read_to_end(file: &File, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, FileTimes, OpenOptions};
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    fn content(path: &Path) -> Vec<u8> {
        match read_settled(path, 4096).unwrap() {
            Settled::Content(bytes, metadata) => {
                assert!(bytes.len() as u64 <= metadata.len());
                bytes
            }
            Settled::Gone | Settled::Larger | Settled::Restless => panic!("not settled"),
        }
    }

    #[test]
    fn a_file_is_read_to_its_end_whatever_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(matches!(read_settled(&path, 10).unwrap(), Settled::Gone));
        fs::write(&path, b"new").unwrap();
        assert_eq!(content(&path), b"new");
        fs::write(&path, b"").unwrap();
        assert_eq!(content(&path), b"");
        fs::write(&path, vec![1; 4097]).unwrap();
        assert!(matches!(read_settled(&path, 4096).unwrap(), Settled::Larger));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read_settled(&path, 10).unwrap(), Settled::Gone), "no file any more");
    }

    #[test]
    fn a_change_that_leaves_size_and_times_alone_does_not_pass_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"one").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let then = SystemTime::now() - Duration::from_secs(3600);
        file.set_times(FileTimes::new().set_modified(then)).unwrap();
        let metadata = file.metadata().unwrap();
        assert!(!is_unchanged(&metadata, &metadata), "its inode was changed just now");
    }

    #[test]
    fn what_is_added_to_is_what_it_was_at_one_moment_and_what_is_rewritten_is_not_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let (log, page) = (dir.path().join("log"), dir.path().join("page"));
        fs::write(&log, b"line\n").unwrap();
        fs::write(&page, vec![0; 4096]).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut log = OpenOptions::new().append(true).open(&log).unwrap();
                for value in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if value < 700 {
                        log.write_all(b"line\n").unwrap();
                    }
                    let new = dir.path().join("new");
                    fs::write(&new, vec![value as u8; 100 + (value % 3000) as usize]).unwrap();
                    fs::rename(&new, &page).unwrap();
                }
            });
            for _ in 0..50 {
                let read = content(&log);
                assert!(read.chunks(5).all(|line| line == b"line\n"), "{}", read.len());
                let read = content(&page);
                assert!(read.iter().all(|byte| *byte == read[0]), "a mixture");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
