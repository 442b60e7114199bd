use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use seawall_core::Result;
use seawall_store::direct::{ALIGNMENT, AlignedBuffer, set_direct};

use super::super::durable::{create_file, local};

/// Smaller files are written through the page cache: they are written out together at the end.
const DIRECT_BYTES_MIN: u64 = 1 << 20;

/// A file that is written from its beginning to its end, with holes where nothing is stored.
///
/// Large files are written around the page cache where the filesystem lets us: that is several
/// times faster, and leaves the cache to the databases of the host.
pub(super) struct FileSink<'b> {
    path: PathBuf,
    file: File,
    direct: bool,
    buffer: &'b mut AlignedBuffer,
    /// Where the buffer's bytes belong.
    offset: u64,
}

impl<'b> FileSink<'b> {
    /// Creates the file with its full length, all of it a hole.
    pub fn create(
        path: &Path,
        mode: u32,
        size_bytes: u64,
        buffer: &'b mut AlignedBuffer,
    ) -> Result<Self> {
        let file = create_file(path, mode)?;
        file.set_len(size_bytes).map_err(|error| local(error, "extending", path))?;
        let direct = size_bytes >= DIRECT_BYTES_MIN && set_direct(&file, true);
        buffer.set_length(0);
        Ok(Self { path: path.to_owned(), file, direct, buffer, offset: 0 })
    }

    /// Gets room on the disk for bytes that will be written, so that a full disk is noticed early
    /// and the file lies in one piece.
    pub fn reserve(&self, offset: u64, bytes: u64) -> Result<()> {
        if bytes < DIRECT_BYTES_MIN {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, bytes) {
            // Not every filesystem can.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(local(error.into(), "extending", &self.path)),
        }
    }

    /// Writes bytes at a place that is not before what was written already.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) -> Result<()> {
        if offset != self.offset + self.buffer.filled().len() as u64 {
            self.flush()?;
            self.offset = offset;
        }
        while !bytes.is_empty() {
            let taken = self.buffer.take(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.buffer.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is left. The file's bytes are not durable by this.
    pub fn finish(mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let length = self.buffer.filled().len();
        let mut written = 0;
        if self.direct && self.offset.is_multiple_of(ALIGNMENT as u64) {
            let bytes = self.buffer.filled().get(..length - length % ALIGNMENT).unwrap_or_default();
            match self.file.write_all_at(bytes, self.offset) {
                Ok(()) => written = bytes.len(),
                // Some filesystems refuse only now, and had better be asked in the usual way.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) => return Err(local(error, "writing", &self.path)),
            }
        }
        let rest = self.buffer.filled().get(written..).unwrap_or_default();
        if !rest.is_empty() {
            if self.direct && !set_direct(&self.file, false) {
                let stays = io::Error::other("it stays in direct mode");
                return Err(local(stays, "writing", &self.path));
            }
            self.direct = false;
            self.file
                .write_all_at(rest, self.offset + written as u64)
                .map_err(|error| local(error, "writing", &self.path))?;
        }
        self.offset += length as u64;
        self.buffer.set_length(0);
        Ok(())
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
            let mut buffer = AlignedBuffer::new(64 * 1024);
            let mut expected = Vec::new();
            let mut places = Vec::new();
            for (gap, length) in pieces {
                expected.resize((expected.len() + gap as usize * 8192).next_multiple_of(8192), 0);
                places.push((expected.len(), length));
                let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8 + 1).collect();
                expected.extend_from_slice(&bytes);
            }
            expected.resize(expected.len() + tail as usize, 0);
            let mut sink = FileSink::create(&path, 0o600, expected.len() as u64, &mut buffer).unwrap();
            for (offset, length) in places {
                sink.reserve(offset as u64, length as u64).unwrap();
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
        let mut buffer = AlignedBuffer::new(1 << 20);
        let mut sink = FileSink::create(&path, 0o640, 1 << 30, &mut buffer).unwrap();
        sink.write(512 << 20, &[7; 8192]).unwrap();
        sink.finish().unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o7777), (1 << 30, 0o640));
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    }
}
