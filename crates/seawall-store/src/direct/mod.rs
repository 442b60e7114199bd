//! Reading and writing around the page cache (`O_DIRECT`, open(2)).
//!
//! Large data that passes through once has no business in the cache of a database's machine, and
//! gets to and from the disk with a fraction of the processor's time without it.

mod page_cache;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

pub use page_cache::{Cached, cached};

/// Direct reads and writes begin, end and lie in memory at multiples of this.
pub const ALIGNMENT: usize = 4096;

/// Switches a file's reads and writes to go around the page cache, or back. `false` where the
/// filesystem cannot; the file is then as before.
pub fn set_direct(file: &File, direct: bool) -> bool {
    let Ok(flags) = fcntl_getfl(file) else { return false };
    let mut wanted = flags;
    wanted.set(OFlags::DIRECT, direct);
    wanted == flags || fcntl_setfl(file, wanted).is_ok()
}

/// Writes all of `bytes` to a file that may be in direct mode. What cannot be written directly (an
/// end that is no whole block, and anything where the filesystem refuses only now) goes through the
/// cache, and the file leaves direct mode for it.
///
/// # Errors
/// Those of writing.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    if is_direct(file) && offset.is_multiple_of(ALIGNMENT as u64) {
        let whole = bytes.get(..bytes.len() - bytes.len() % ALIGNMENT).unwrap_or_default();
        match file.write_all_at(whole, offset) {
            Ok(()) => written = whole.len(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(error),
        }
    }
    let rest = bytes.get(written..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    if !set_direct(file, false) {
        return Err(io::Error::other("it stays in direct mode"));
    }
    file.write_all_at(rest, offset + written as u64)
}

/// Fills the buffer around the cache, from a file in direct mode. `offset` and the buffer's length
/// are multiples of [`ALIGNMENT`]. Returns the bytes read: fewer than asked for at the file's end.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] where the filesystem refuses only now, and those of reading.
pub fn read_direct(file: &File, buffer: &mut AlignedBuffer, offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.filled_mut().get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // Part of a block is the file's last.
        if !filled.is_multiple_of(ALIGNMENT) {
            break;
        }
    }
    Ok(filled)
}

/// Whether a file's reads and writes go around the page cache.
pub(crate) fn is_direct(file: &File) -> bool {
    fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
}

/// A buffer that lies in memory as direct reads and writes need it.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    capacity: usize,
    length: usize,
}

impl AlignedBuffer {
    /// An empty buffer for `capacity` bytes, rounded up to [`ALIGNMENT`].
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(ALIGNMENT);
        let bytes = vec![0; capacity + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, start, capacity, length: 0 }
    }

    /// What it holds.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.start + self.length).unwrap_or_default()
    }

    /// What it holds, to be changed.
    #[must_use]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start + self.length).unwrap_or_default()
    }

    /// Whether nothing more fits.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.length == self.capacity
    }

    /// Takes as many of `bytes` as there is room for, and says how many.
    #[must_use]
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity - self.length);
        let at = self.start + self.length;
        if let (Some(to), Some(from)) = (self.bytes.get_mut(at..at + count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        self.length += count;
        count
    }

    /// Makes it hold so many bytes, or as many as fit. What is new among them is left over from
    /// whatever was there: the caller writes all of it.
    pub fn set_length(&mut self, length: usize) {
        self.length = length.min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_takes_what_fits() {
        let mut buffer = AlignedBuffer::new(5000);
        assert_eq!(buffer.take(&[7; 5000]), 5000);
        assert_eq!(buffer.filled().as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!((buffer.take(&[8; 5000]), buffer.is_full()), (3192, true));
        assert_eq!(buffer.filled(), [[7; 5000].as_slice(), &[8; 3192]].concat());
        buffer.set_length(usize::MAX);
        assert_eq!(buffer.filled_mut().len(), 8192);
        buffer.set_length(0);
        assert!(buffer.filled().is_empty());
    }

    #[test]
    fn a_file_is_switched_back_and_forth() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut buffer = AlignedBuffer::new(ALIGNMENT);
        let _ = buffer.take(&[5; ALIGNMENT]);
        if !set_direct(&file, true) {
            return; // a filesystem without
        }
        file.write_all_at(buffer.filled(), 0).unwrap();
        assert!(file.write_all_at(&[6; 100], ALIGNMENT as u64).is_err(), "it is not direct");
        write_all_at(&file, &[6; ALIGNMENT], ALIGNMENT as u64).unwrap();
        write_all_at(&file, &[6; 100], 2 * ALIGNMENT as u64).unwrap();
        assert!(!is_direct(&file));
        assert_eq!(file.metadata().unwrap().len(), 2 * ALIGNMENT as u64 + 100);
    }
}
