use std::fs::File;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use seawall_core::{Code, Error, Result};
use seawall_store::direct::{AlignedBuffer, set_direct, write_all_at};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::durable::{create_file, local};

/// Smaller files are written through the page cache: they are written out together at the end.
const DIRECT_BYTES_MIN: u64 = 1 << 20;

/// Two buffers: one is filled while the other is written.
pub(super) struct WriteBehind {
    runtime: Handle,
    filling: AlignedBuffer,
    written: Option<AlignedBuffer>,
    writing: Option<JoinHandle<(AlignedBuffer, Result<()>)>>,
}

impl WriteBehind {
    /// `capacity` is how much is written at a time.
    pub fn new(runtime: Handle, capacity: usize) -> Self {
        let buffer = || AlignedBuffer::new(capacity);
        Self { runtime, filling: buffer(), written: Some(buffer()), writing: None }
    }

    /// Begins to write what is filled, once what was begun before is written.
    fn begin(&mut self, piece: FilePiece) -> Result<()> {
        self.wait()?;
        let empty = self.written.take();
        let empty = empty.ok_or_else(|| Error::new(Code::Internal, "a buffer was lost"))?;
        let full = mem::replace(&mut self.filling, empty);
        self.filling.set_length(0);
        self.writing = Some(self.runtime.spawn_blocking(move || {
            let result = piece.write(full.filled());
            (full, result)
        }));
        Ok(())
    }

    /// Waits for what is being written.
    fn wait(&mut self) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let (buffer, result) = self.runtime.block_on(writing).map_err(|error| {
            Error::new(Code::Internal, "a writing thread died").with_source(error)
        })?;
        self.written = Some(buffer);
        result
    }
}

/// A file that is written from its beginning to its end, with holes where nothing is stored.
///
/// Large files are written around the page cache where the filesystem lets us: that is several
/// times faster, and leaves the cache to the databases of the host.
pub(super) struct FileSink<'b> {
    path: Arc<PathBuf>,
    file: Arc<File>,
    behind: &'b mut WriteBehind,
    /// Where the buffer's bytes belong.
    offset: u64,
    /// What will be written soon.
    reserve: Option<Range<u64>>,
}

impl<'b> FileSink<'b> {
    /// Creates the file with its full length, all of it a hole.
    pub fn create(
        path: &Path,
        mode: u32,
        size_bytes: u64,
        behind: &'b mut WriteBehind,
    ) -> Result<Self> {
        let file = create_file(path, mode)?;
        file.set_len(size_bytes).map_err(|error| local(error, "extending", path))?;
        if size_bytes >= DIRECT_BYTES_MIN {
            set_direct(&file, true);
        }
        behind.filling.set_length(0);
        let (path, file) = (Arc::new(path.to_owned()), Arc::new(file));
        Ok(Self { path, file, behind, offset: 0, reserve: None })
    }

    /// Gets room on the disk for bytes that will be written, so that a full disk is noticed early
    /// and the file lies in one piece.
    pub fn reserve(&mut self, offset: u64, bytes: u64) {
        if bytes >= DIRECT_BYTES_MIN {
            self.reserve = Some(offset..offset + bytes);
        }
    }

    /// Writes bytes at a place that is not before what was written already.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) -> Result<()> {
        if offset != self.offset + self.behind.filling.filled().len() as u64 {
            self.flush()?;
            self.offset = offset;
        }
        while !bytes.is_empty() {
            let taken = self.behind.filling.take(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.behind.filling.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is left. The file's bytes are not durable by this.
    pub fn finish(mut self) -> Result<()> {
        self.behind.wait()?;
        let last = self.next();
        let result = last.write(self.behind.filling.filled());
        self.behind.filling.set_length(0);
        result
    }

    fn flush(&mut self) -> Result<()> {
        if self.behind.filling.filled().is_empty() {
            return Ok(());
        }
        let piece = self.next();
        self.offset += self.behind.filling.filled().len() as u64;
        self.behind.begin(piece)
    }

    fn next(&mut self) -> FilePiece {
        FilePiece {
            path: Arc::clone(&self.path),
            file: Arc::clone(&self.file),
            offset: self.offset,
            reserve: self.reserve.take(),
        }
    }
}

/// Where bytes of a file go.
struct FilePiece {
    path: Arc<PathBuf>,
    file: Arc<File>,
    offset: u64,
    reserve: Option<Range<u64>>,
}

impl FilePiece {
    fn write(&self, bytes: &[u8]) -> Result<()> {
        if let Some(range) = &self.reserve {
            self.reserve(range)?;
        }
        write_all_at(&self.file, bytes, self.offset)
            .map_err(|error| local(error, "writing", &self.path))
    }

    fn reserve(&self, range: &Range<u64>) -> Result<()> {
        let bytes = range.end - range.start;
        match fallocate(&*self.file, FallocateFlags::KEEP_SIZE, range.start, bytes) {
            // Not every filesystem can.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(local(error.into(), "extending", &self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_pieces_at_any_places_read_back(
            pieces in proptest::collection::vec((0u64..40, 1usize..300_000), 1..8),
            tail in 0u64..9000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let mut behind = WriteBehind::new(runtime.handle().clone(), 64 * 1024);
            let mut expected = Vec::new();
            let mut places = Vec::new();
            for (gap, length) in pieces {
                expected.resize((expected.len() + gap as usize * 8192).next_multiple_of(8192), 0);
                places.push((expected.len(), length));
                let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8 + 1).collect();
                expected.extend_from_slice(&bytes);
            }
            expected.resize(expected.len() + tail as usize, 0);
            let mut sink = FileSink::create(&path, 0o600, expected.len() as u64, &mut behind).unwrap();
            for (offset, length) in places {
                sink.reserve(offset as u64, length as u64);
                sink.write(offset as u64, &expected[offset..offset + length]).unwrap();
            }
            sink.finish().unwrap();
            prop_assert!(fs::read(&path).unwrap() == expected);
        }
    }

    #[test]
    fn what_is_not_written_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut behind = WriteBehind::new(runtime.handle().clone(), 1 << 20);
        let mut sink = FileSink::create(&path, 0o640, 1 << 30, &mut behind).unwrap();
        sink.write(512 << 20, &[7; 8192]).unwrap();
        sink.finish().unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o7777), (1 << 30, 0o640));
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    }
}
