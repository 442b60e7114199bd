use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, Stat, fadvise, fstat, openat, statat};
use rustix::io::{Errno, retry_on_intr};

use super::tree::{Tree, describe};
use crate::direct::{ALIGNMENT, AlignedBuffer, Cached, cached, read_direct, set_direct};
use crate::{MAX_READ_BYTES, ObjectEnd, ObjectInfo, ObjectPath, ObjectPlace, StoreError};

/// Ranges of so many bytes that are not cached are read around the cache.
const AROUND_BYTES_MIN: u64 = 256 << 10;

/// And no more: how long a range is may have come from a disk, and memory for it is taken at once.
const AROUND_BYTES_MAX: u64 = 64 << 20;

/// Reads all of an object, if it is no longer than that.
pub(super) fn whole(tree: &Tree, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError> {
    let place = tree.place(path);
    let (mut file, size_bytes) = open(tree, path)?;
    if size_bytes > limit_bytes {
        return Err(StoreError::TooLong { place, size_bytes, limit_bytes });
    }
    exactly(&mut file, size_bytes, &place)
}

/// Reads a range of an object.
pub(super) fn range(
    tree: &Tree,
    path: &ObjectPath,
    range: Range<u64>,
) -> Result<Bytes, StoreError> {
    let place = tree.place(path);
    let (mut file, size_bytes) = open(tree, path)?;
    if range.start.max(range.end) > size_bytes {
        return Err(StoreError::RangeBeyondEnd { place, range, size_bytes });
    }
    file.seek(SeekFrom::Start(range.start))
        .map_err(|source| StoreError::from_io(place.clone(), "reading", source))?;
    let bytes = range.end.saturating_sub(range.start);
    if bytes >= AROUND_BYTES_MIN && cached(&file, range.start, bytes) == Cached::Hardly {
        if let Some(bytes) = around_the_cache(&file, &range) {
            return Ok(bytes);
        }
        // Only advice. Without it the disk is asked for a window of 128 KiB at a time, which begins
        // anew with every range.
        let _ = fadvise(&file, range.start, NonZeroU64::new(bytes), Advice::WillNeed);
    }
    exactly(&mut file, bytes, &place)
}

/// Reads a range without filling the page cache with it, which costs the processor less.
/// Nothing where the filesystem refuses, or gives less than was asked for: then it is read as usual.
fn around_the_cache(file: &File, range: &Range<u64>) -> Option<Bytes> {
    if range.end.checked_sub(range.start)? > AROUND_BYTES_MAX {
        return None;
    }
    let before = usize::try_from(range.start % ALIGNMENT as u64).ok()?;
    let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
    let mut buffer = AlignedBuffer::new(before.checked_add(length)?);
    buffer.set_length(before.checked_add(length)?.next_multiple_of(ALIGNMENT));
    if !set_direct(file, true) {
        return None;
    }
    let read = read_direct(file, &mut buffer, range.start - before as u64);
    set_direct(file, false);
    let is_whole = read.is_ok_and(|read| read >= before + length);
    is_whole.then(|| Bytes::from_owner(Filled(buffer)).slice(before..before + length))
}

/// A buffer's bytes, for who shares them.
struct Filled(AlignedBuffer);

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.0.filled()
    }
}

/// Reads the last bytes of an object.
pub(super) fn end(tree: &Tree, path: &ObjectPath, bytes: u64) -> Result<ObjectEnd, StoreError> {
    let place = tree.place(path);
    let (mut file, size_bytes) = open(tree, path)?;
    let wanted = bytes.min(size_bytes);
    file.seek(SeekFrom::Start(size_bytes - wanted))
        .map_err(|source| StoreError::from_io(place.clone(), "reading", source))?;
    Ok(ObjectEnd { bytes: exactly(&mut file, wanted, &place)?, size_bytes })
}

/// What the filesystem knows about an object.
pub(super) fn stat(tree: &Tree, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
    let place = tree.place(path);
    let directory = tree.open_prefix(&path.parent()).map_err(|error| about(error, &place))?;
    stat_in(directory.as_fd(), path, &place)
}

/// What the filesystem knows about an object in an open directory.
pub(super) fn stat_in(
    directory: BorrowedFd<'_>,
    path: &ObjectPath,
    place: &ObjectPlace,
) -> Result<ObjectInfo, StoreError> {
    let stat = statat(directory, path.file_name(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| StoreError::from_io(place.clone(), "looking at", errno.into()))?;
    Ok(ObjectInfo {
        path: path.clone(),
        size_bytes: object_size(&stat, place)?,
        modified: modified(&stat),
    })
}

fn modified(stat: &Stat) -> Timestamp {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Opens an object without following a link or waiting for a pipe's other end.
fn open(tree: &Tree, path: &ObjectPath) -> Result<(File, u64), StoreError> {
    let place = tree.place(path);
    let directory = tree.open_prefix(&path.parent()).map_err(|error| about(error, &place))?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match retry_on_intr(|| openat(&directory, path.file_name(), flags, Mode::empty())) {
        Ok(file) => {
            let stat = fstat(&file)
                .map_err(|errno| StoreError::from_io(place.clone(), "opening", errno.into()))?;
            Ok((File::from(file), object_size(&stat, &place)?))
        }
        Err(errno @ (Errno::LOOP | Errno::NXIO)) => {
            stat_in(directory.as_fd(), path, &place)?;
            Err(StoreError::from_io(place, "opening", errno.into()))
        }
        Err(errno) => Err(StoreError::from_io(place, "opening", errno.into())),
    }
}

/// The error of a directory, said about the object that was looked for in it.
fn about(error: StoreError, object: &ObjectPlace) -> StoreError {
    match error {
        StoreError::NotFound { .. } => StoreError::NotFound { place: object.clone() },
        StoreError::NotAnObject { found, .. } => {
            StoreError::NotAnObject { place: object.clone(), found }
        }
        other => other,
    }
}

fn object_size(stat: &Stat, place: &ObjectPlace) -> Result<u64, StoreError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
        kind => Err(StoreError::NotAnObject { place: place.clone(), found: describe(kind) }),
    }
}

/// Reads so many bytes, in as many calls as it takes; an early end is an error.
fn exactly(
    reader: &mut impl Read,
    wanted_bytes: u64,
    place: &ObjectPlace,
) -> Result<Bytes, StoreError> {
    let failed = |source| StoreError::from_io(place.clone(), "reading", source);
    if wanted_bytes > MAX_READ_BYTES {
        return Err(failed(io::Error::other("more than 2 GiB were to be read at once")));
    }
    let mut bytes = Vec::new();
    usize::try_from(wanted_bytes)
        .map_err(io::Error::other)
        .and_then(|wanted| bytes.try_reserve_exact(wanted).map_err(io::Error::other))
        .map_err(failed)?;
    reader.take(wanted_bytes).read_to_end(&mut bytes).map_err(failed)?;
    let got_bytes = bytes.len() as u64;
    if got_bytes < wanted_bytes {
        let place = place.clone();
        return Err(StoreError::ShortRead { place, expected_bytes: wanted_bytes, got_bytes });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what a signal, a slow disk or a network mount may make of a read.
    struct Reluctant {
        bytes: Vec<u8>,
        turn: usize,
        fails_at_end: bool,
    }

    impl Read for Reluctant {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.turn += 1;
            if self.turn % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if self.bytes.is_empty() && self.fails_at_end {
                return Err(Errno::IO.into());
            }
            let given = self.bytes.len().min(buffer.len()).min(3);
            for (slot, byte) in buffer.iter_mut().zip(self.bytes.drain(..given)) {
                *slot = byte;
            }
            Ok(given)
        }
    }

    #[test]
    fn what_is_read_around_the_cache_is_the_range_wherever_it_begins_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("object");
        let content: Vec<u8> = (0..1_000_003u32).map(|at| (at * 31 % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let end = content.len() as u64;
        for range in [0..end, 1..end, 4096..8192, 5000..700_001, end - 1..end] {
            let expected = &content[range.start as usize..range.end as usize];
            // Some filesystems do not read around the cache.
            if let Some(bytes) = around_the_cache(&file, &range) {
                assert_eq!(bytes, expected, "{range:?}");
            }
            let mut cached = vec![0; expected.len()];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut cached, range.start).unwrap();
            assert_eq!(cached, expected, "the file is as before");
        }
        assert!(around_the_cache(&file, &(0..end + 1)).is_none(), "behind the end");
        let long = AROUND_BYTES_MAX + 1;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(long).unwrap();
        assert!(around_the_cache(&file, &(0..long)).is_none(), "more than memory is taken for");
    }

    fn reluctant(bytes: &[u8], fails_at_end: bool) -> Reluctant {
        Reluctant { bytes: bytes.to_vec(), turn: 0, fails_at_end }
    }

    fn place() -> ObjectPlace {
        ObjectPlace::object(&"/srv".parse().unwrap(), &"a/b".parse().unwrap())
    }

    #[test]
    fn e51_a_read_in_small_interrupted_pieces_is_whole() {
        let bytes = exactly(&mut reluctant(b"sixteen bytes ok", false), 16, &place()).unwrap();
        assert_eq!(bytes, "sixteen bytes ok");
    }

    #[test]
    fn e51_an_early_end_is_an_error_not_a_short_object() {
        let error = exactly(&mut reluctant(b"half", false), 8, &place()).unwrap_err();
        assert!(
            matches!(error, StoreError::ShortRead { expected_bytes: 8, got_bytes: 4, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn a_read_error_in_the_middle_surfaces() {
        let error = exactly(&mut reluctant(b"half", true), 8, &place()).unwrap_err();
        let StoreError::Io { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.raw_os_error(), Some(Errno::IO.raw_os_error()));
    }

    #[test]
    fn a_length_from_a_disk_does_not_take_all_memory() {
        let error = exactly(&mut io::empty(), u64::MAX, &place()).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    }
}
