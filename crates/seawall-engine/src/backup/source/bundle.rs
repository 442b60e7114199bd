//! Small files that share a frame.

use seawall_core::Result;
use seawall_repo::manifest::{Entry, PageError};
use seawall_repo::pack::BundleSize;

use super::EachBefore;
use super::worker::narrow;

/// A frame of small files holds at most so much.
const BUNDLE_BYTES: u64 = 128 * 1024;

/// A small file that was read.
pub(in crate::backup) struct SmallRead {
    pub sequence: u64,
    pub entry: Entry,
    /// What each destination has of it from before.
    pub before: EachBefore,
    pub bytes: Vec<u8>,
    pub errors: Vec<PageError>,
    /// How many bytes there were in the file.
    pub read_bytes: u64,
}

/// Files for one frame.
#[derive(Default)]
pub(in crate::backup) struct Bundle {
    /// Their bytes, one file after another.
    pub payload: Vec<u8>,
    /// Path and length of each.
    pub names: Vec<(Vec<u8>, u32)>,
    pub files: Vec<BundledFile>,
    size: BundleSize,
}

/// A file in a bundle.
pub(in crate::backup) struct BundledFile {
    pub sequence: u64,
    pub entry: Entry,
    pub errors: Vec<PageError>,
    pub read_bytes: u64,
    /// Where it begins in the payload.
    pub offset: u32,
    /// How long it is there.
    pub length: usize,
}

impl Bundle {
    /// The bytes of a file of the bundle.
    pub fn bytes(&self, file: &BundledFile) -> &[u8] {
        let start = file.offset as usize;
        self.payload.get(start..start + file.length).unwrap_or_default()
    }

    /// Whether a file still fits.
    pub(super) fn has_room_for(&self, file: &SmallRead) -> bool {
        fits(self.size.with_file(file.entry.path(), file.bytes.len() as u64))
    }

    pub(super) fn add(&mut self, file: SmallRead) -> Result<()> {
        let SmallRead { sequence, entry, bytes, errors, read_bytes, .. } = file;
        self.size = self.size.with_file(entry.path(), bytes.len() as u64);
        self.names.push((entry.path().to_vec(), narrow(bytes.len())?));
        let (offset, length) = (narrow(self.payload.len())?, bytes.len());
        self.payload.extend_from_slice(&bytes);
        self.files.push(BundledFile { sequence, entry, errors, read_bytes, offset, length });
        Ok(())
    }
}

/// Whether files of that size together are to share a frame.
pub(super) fn fits(size: BundleSize) -> bool {
    size.payload_bytes() <= BUNDLE_BYTES && size.fits()
}
