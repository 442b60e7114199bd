use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;
use seawall_core::{Action, Code, Error, Result, hint};
use seawall_pgdata::wal::BlockSet;
use seawall_store::direct::{ALIGNMENT, AlignedBuffer, Cached, cached, read_direct};

/// How much of a file is read at a time: eight whole frames.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// Blocks that are so far from each other are read at once.
const GAP_BYTES: u64 = 64 << 10;

/// The kernel is told of so many reads to come.
const STRETCHES_AHEAD: usize = 64;

/// Less than this is not worth opening a file twice.
const DIRECT_BYTES_MIN: usize = 256 << 10;

/// Buffers for reading ahead: one is worked on, one is full, one is being filled.
const BUFFERS: usize = 3;

/// A file of the cluster, open for reading.
///
/// What the page cache has is read from there; the rest is read around it, which takes a tenth of
/// the processor's time and does not push out what the database wants cached.
pub(crate) struct OpenFile {
    file: File,
    direct: Option<File>,
}

/// A piece that was read.
pub(crate) struct Piece<'b> {
    pub offset: u64,
    /// Its bytes; zeros past the file's end.
    pub bytes: &'b mut [u8],
    /// How many there were in the file.
    pub read_bytes: u64,
}

impl OpenFile {
    /// Opens a file; `None` if it vanished since it was found, or is no file any more.
    pub fn open(location: &Path) -> Result<Option<Self>> {
        let opened = open(location).map_err(|error| unreadable(location, error))?;
        Ok(opened.map(|file| Self { file, direct: None }))
    }

    /// The file, to be read through the cache.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives every piece of a part of the file to `each`, in order. What is not cached is read ahead
    /// meanwhile. `buffers` are kept for the next time.
    pub fn pieces(
        &mut self,
        location: &Path,
        (offset, length): (u64, u64),
        buffers: &mut Vec<AlignedBuffer>,
        each: &mut dyn FnMut(&File, Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let end = offset + length;
        let piece_bytes =
            |at| usize::try_from(end - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let pieces = (offset..end).step_by(PIECE_BYTES).map(|at| (at, piece_bytes(at)));
        buffers.resize_with(BUFFERS.max(buffers.len()), || AlignedBuffer::new(PIECE_BYTES));
        if length < DIRECT_BYTES_MIN as u64 || cached(&self.file, offset, length) == Cached::All {
            let Some(buffer) = buffers.first_mut() else {
                return Err(Error::new(Code::Internal, "there is no buffer to read into"));
            };
            for (offset, length) in pieces {
                let read_bytes = read(&self.file, buffer, offset, length)
                    .map_err(|error| unreadable(location, error))?;
                each(&self.file, Piece { offset, bytes: buffer.filled_mut(), read_bytes })?;
            }
            return Ok(());
        }
        self.direct = open_direct(location, &self.file);
        self.ahead(location, pieces, buffers, each)
    }

    /// Gives some blocks of the file to `each`, in order, and those between that are close to them:
    /// to read these costs less than to pass over them.
    pub fn scattered(
        &self,
        location: &Path,
        blocks: &BlockSet,
        size_bytes: u64,
        each: &mut dyn FnMut(&File, Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let stretches = stretches(blocks, size_bytes);
        let mut ahead = stretches.iter();
        let mut bytes = Vec::new();
        for (number, &(offset, length)) in stretches.iter().enumerate() {
            while stretches.len() - ahead.len() < number + STRETCHES_AHEAD {
                let Some(&(offset, length)) = ahead.next() else { break };
                // Only advice: what is not read ahead is read when it is needed.
                let _ = fadvise(&self.file, offset, NonZeroU64::new(length), Advice::WillNeed);
            }
            bytes.clear();
            let too_long = |_| Error::new(Code::Internal, "a stretch is longer than memory");
            bytes.resize(usize::try_from(length).map_err(too_long)?, 0);
            let read_bytes = read_at(&self.file, &mut bytes, offset)
                .map_err(|error| unreadable(location, error))?;
            each(&self.file, Piece { offset, bytes: &mut bytes, read_bytes })?;
        }
        Ok(())
    }

    /// Reads pieces on a thread of their own.
    fn ahead(
        &self,
        location: &Path,
        pieces: impl Iterator<Item = (u64, usize)> + Send,
        buffers: &mut Vec<AlignedBuffer>,
        each: &mut dyn FnMut(&File, Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let (full_sender, full) = sync_channel(1);
        let (empty_sender, empty) = channel();
        for buffer in buffers.drain(..) {
            let _ = empty_sender.send(buffer);
        }
        thread::scope(move |scope| {
            let read_ahead = move || {
                for (offset, length) in pieces {
                    let Ok(mut buffer) = empty.recv() else { break };
                    let result = self.read(&mut buffer, offset, length);
                    if full_sender.send((offset, buffer, result)).is_err() {
                        break;
                    }
                }
                empty
            };
            let reader =
                thread::Builder::new().spawn_scoped(scope, read_ahead).map_err(|error| {
                    Error::new(Code::LocalIo, "cannot start a thread").with_source(error)
                })?;
            for (offset, mut buffer, result) in full {
                let read_bytes = result.map_err(|error| unreadable(location, error))?;
                each(&self.file, Piece { offset, bytes: buffer.filled_mut(), read_bytes })?;
                let _ = empty_sender.send(buffer);
            }
            let empty = reader.join();
            let empty = empty.map_err(|_| Error::new(Code::Internal, "a reading thread died"))?;
            buffers.extend(empty.try_iter());
            Ok(())
        })
    }

    fn read(&self, buffer: &mut AlignedBuffer, offset: u64, length: usize) -> io::Result<u64> {
        if let Some(direct) = &self.direct
            && cached(&self.file, offset, length as u64) == Cached::Hardly
        {
            match read_around(direct, &self.file, buffer, offset, length) {
                // Some filesystems refuse only now.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                result => return result,
            }
        }
        read(&self.file, buffer, offset, length)
    }
}

/// Where blocks are to be read, as offset and length: those that are close to each other at once.
fn stretches(blocks: &BlockSet, size_bytes: u64) -> Vec<(u64, u64)> {
    const BLOCK_BYTES: u64 = seawall_repo::pack::BLOCK_BYTES as u64;
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for (first, count) in blocks.runs() {
        let start = u64::from(first) * BLOCK_BYTES;
        let end = (start + count * BLOCK_BYTES).min(size_bytes);
        let mut from = start;
        if let Some((offset, length)) = stretches.last_mut()
            && from <= *offset + *length + GAP_BYTES
            && from < *offset + PIECE_BYTES as u64
        {
            let joined = end.min(*offset + PIECE_BYTES as u64);
            *length = joined - *offset;
            from = joined;
        }
        for offset in (from..end).step_by(PIECE_BYTES) {
            stretches.push((offset, (end - offset).min(PIECE_BYTES as u64)));
        }
    }
    stretches
}

fn open(location: &Path) -> io::Result<Option<File>> {
    // A pipe may have the name by now; opening one waits for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(location) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                || error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The same file, to be read around the cache; `None` where that cannot be.
fn open_direct(location: &Path, file: &File) -> Option<File> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let direct = OpenOptions::new().read(true).custom_flags(flags).open(location).ok()?;
    let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino())).ok();
    // Another may have its name by now.
    (identity(&direct)? == identity(file)?).then_some(direct)
}

/// Fills the buffer from the file; what lies past the file's end is zero. Returns the bytes read.
fn read(file: &File, buffer: &mut AlignedBuffer, offset: u64, length: usize) -> io::Result<u64> {
    buffer.set_length(length);
    read_at(file, buffer.filled_mut(), offset)
}

/// The same around the cache: whole blocks of the disk are asked for. What seems to be the file's
/// end is read again through the cache, which alone says so for certain.
fn read_around(
    direct: &File,
    file: &File,
    buffer: &mut AlignedBuffer,
    offset: u64,
    length: usize,
) -> io::Result<u64> {
    buffer.set_length(length.next_multiple_of(ALIGNMENT));
    let filled = read_direct(direct, buffer, offset)?.min(length);
    buffer.set_length(length);
    let rest = buffer.filled_mut().get_mut(filled..).unwrap_or_default();
    Ok(filled as u64 + read_at(file, rest, offset + filled as u64)?)
}

/// Fills `buffer` from the file; what lies past the file's end is zero. Returns the bytes read.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<u64> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled as u64)
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
        .with_source(error)
        .with_hint(hint![
            "Run as the owner of the data directory; if the disk fails, ",
            Action::Restore { waits: false },
            " brings back the last good backup."
        ])
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Advice, fadvise};
    use seawall_testkit::faults::Random;

    use super::*;

    /// A file, dropped from the page cache but for its first bytes, on a real disk.
    fn cold(bytes: &[u8], cached_bytes: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.as_file().write_all_at(bytes, 0).unwrap();
        file.as_file().sync_all().unwrap();
        fadvise(file.as_file(), 0, None, Advice::DontNeed).unwrap();
        file.as_file().read_exact_at(&mut vec![0; cached_bytes], 0).unwrap();
        file
    }

    fn random(length: usize) -> Vec<u8> {
        let mut random = Random::new(length as u64);
        (0..length).map(|_| random.below(256) as u8).collect()
    }

    #[test]
    fn cached_or_not_the_pieces_are_the_file_and_zeros_behind_it() {
        for (length, cached_bytes) in [(0, 0), (8192, 0), (5 << 20, 0), (5 << 20, 3 << 20)] {
            for tail in [0, 1, 4095, 4096, 8192 + 77] {
                let mut bytes = random(length + tail);
                let file = cold(&bytes, cached_bytes);
                let (asked, there) = (length + 64 * 1024, bytes.len() as u64);
                bytes.resize(asked, 0);
                let mut source = OpenFile::open(file.path()).unwrap().unwrap();
                let (mut found, mut read_bytes, mut buffers) = (Vec::new(), 0, Vec::new());
                let part = (0, asked as u64);
                source
                    .pieces(file.path(), part, &mut buffers, &mut |_, piece| {
                        assert_eq!(piece.offset, found.len() as u64);
                        found.extend_from_slice(piece.bytes);
                        read_bytes += piece.read_bytes;
                        Ok(())
                    })
                    .unwrap();
                assert!(found == bytes, "{length} + {tail}, {cached_bytes} cached");
                assert_eq!((read_bytes, buffers.len()), (there, BUFFERS));
            }
        }
    }

    #[test]
    fn an_error_ends_the_reading() {
        let file = cold(&random(20 << 20), 0);
        let mut source = OpenFile::open(file.path()).unwrap().unwrap();
        let mut pieces = 0;
        let result = source.pieces(file.path(), (0, 20 << 20), &mut Vec::new(), &mut |_, _| {
            pieces += 1;
            Err(Error::new(Code::Interrupted, "enough"))
        });
        assert_eq!((result.unwrap_err().code(), pieces), (Code::Interrupted, 1));
        assert!(OpenFile::open(Path::new("/nothing/here")).unwrap().is_none());
    }
}
