use seawall_core::Result;
use seawall_store::{ObjectPath, Store};

use super::PackInfo;
use super::builder::PackFooter;
use super::frame::{FrameKind, blocks_of, split};
use crate::envelope::{Decompressor, HEADER_BYTES, ObjectKind, ObjectOpener, Section};
use crate::hash::{BlockHash, ContentHasher, FullBlockHash, ObjectHash};
use crate::keys::Keyring;
use crate::{Damage, cbor, envelope, varint};

/// Where each frame of a pack is. Small: about 25 bytes a frame.
#[derive(Debug)]
pub struct FrameTable {
    path: ObjectPath,
    opener: ObjectOpener,
    hasher: ContentHasher,
    table: Table,
}

/// What a pack's footer says of its frames.
#[derive(Debug)]
pub(super) struct Table {
    /// Offset of each frame, and of the footer at the end.
    offsets: Vec<u64>,
    hashes: Vec<ObjectHash>,
    kinds: Vec<FrameKind>,
}

impl Table {
    /// Reads the footer that begins at `footer_offset`.
    pub fn decode(footer: &[u8], footer_offset: u64) -> Result<Self, Damage> {
        let footer: PackFooter = cbor::decode(footer)?;
        let bad = || Damage::Content("the frame table contradicts itself".to_owned());
        let count = footer.frames as usize;
        let mut offsets = Vec::with_capacity(count.min(1 << 20) + 1);
        let mut offset = HEADER_BYTES as u64;
        let mut lengths: &[u8] = &footer.stored_lengths;
        for _ in 0..count {
            offsets.push(offset);
            let length = varint::take(&mut lengths).ok_or_else(bad)?;
            offset = offset.checked_add(length).ok_or_else(bad)?;
        }
        offsets.push(offset);
        let hashes: Vec<ObjectHash> =
            footer.hashes.chunks_exact(16).filter_map(|hash| hash.try_into().ok()).collect();
        let kinds: Option<Vec<FrameKind>> =
            footer.kinds.iter().map(|kind| FrameKind::from_number(*kind)).collect();
        let kinds = kinds.ok_or_else(|| {
            Damage::Content("the pack has frames of a kind this program does not know".to_owned())
        })?;
        let sound = lengths.is_empty()
            && hashes.len() == count
            && footer.hashes.len() == 16 * count
            && kinds.len() == count
            && offset == footer_offset;
        if sound { Ok(Self { offsets, hashes, kinds }) } else { Err(bad()) }
    }
}

impl FrameTable {
    /// Reads a pack's header and footer, and proves that the pack is the one a backup names.
    ///
    /// # Errors
    /// Damage, a missing object, or a store that fails.
    pub async fn read(
        store: &dyn Store,
        keyring: &Keyring,
        path: &ObjectPath,
        expected: &PackInfo,
    ) -> Result<Self> {
        let object = envelope::read_ends(store, keyring, ObjectKind::Pack, path).await?;
        let hash = keyring.hasher().object(&object.footer);
        if object.length_bytes != expected.length_bytes || hash != expected.footer_hash {
            return Err(crate::error::inconsistent(path, "it is not the pack the backup names"));
        }
        Self::parse(keyring, path, object).map_err(|damage| damage.at(path))
    }

    /// Reads a pack's table without a backup to compare it to.
    ///
    /// # Errors
    /// Damage, a missing object, or a store that fails.
    pub async fn read_any(store: &dyn Store, keyring: &Keyring, path: &ObjectPath) -> Result<Self> {
        let object = envelope::read_ends(store, keyring, ObjectKind::Pack, path).await?;
        Self::parse(keyring, path, object).map_err(|damage| damage.at(path))
    }

    fn parse(keyring: &Keyring, path: &ObjectPath, ends: envelope::Ends) -> Result<Self, Damage> {
        let table = Table::decode(&ends.footer, ends.footer_offset)?;
        let hasher = keyring.hasher().clone();
        Ok(Self { path: path.clone(), opener: ends.opener, hasher, table })
    }

    /// How many frames the pack has.
    #[must_use]
    pub fn frames(&self) -> u32 {
        // Proven to be the number the footer states, which has 32 bits.
        u32::try_from(self.table.kinds.len()).unwrap_or(u32::MAX)
    }

    /// What each frame is, for readers that need no more of the table.
    #[must_use]
    pub fn into_kinds(self) -> Vec<FrameKind> {
        self.table.kinds
    }

    /// About how much memory the table takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        256 + self.table.kinds.len() * 25
    }

    /// How many of the frames from `first` on lie within `bytes_max` stored bytes; at least one.
    #[must_use]
    pub fn frames_within(&self, first: u32, last: u32, bytes_max: u64) -> u32 {
        let start = self.offset(first).unwrap_or_default();
        let fits = |frame: &u32| self.offset(frame + 1).is_some_and(|end| end - start <= bytes_max);
        (first + 1..=last).take_while(fits).last().map_or(1, |end| end - first + 1)
    }

    fn offset(&self, frame: u32) -> Option<u64> {
        self.table.offsets.get(frame as usize).copied()
    }

    /// Tests, without decrypting, that fetched frames are stored as they were written.
    ///
    /// # Errors
    /// Damage.
    pub fn check_stored(&self, frames: &Frames) -> Result<()> {
        envelope::check_chunks(&frames.bytes, frames.offset)
            .map(drop)
            .map_err(|damage| damage.at(&self.path))
    }

    /// Reads the stored bytes of consecutive frames.
    ///
    /// # Errors
    /// A frame the pack does not have, a missing object, or a store that fails.
    pub async fn fetch(&self, store: &dyn Store, first: u32, count: u32) -> Result<Frames> {
        let range =
            self.offset(first).zip(first.checked_add(count).and_then(|end| self.offset(end)));
        let Some((start, end)) = range else {
            let what = format!("a block map asks for frames {first} to {}", first + count);
            return Err(crate::error::inconsistent(&self.path, what));
        };
        let bytes = store.read_range(&self.path, start..end).await?;
        Ok(Frames { first, offset: start, bytes: bytes.into() })
    }
}

/// Stored bytes of consecutive frames.
#[derive(Debug)]
pub struct Frames {
    first: u32,
    offset: u64,
    bytes: Vec<u8>,
}

impl Frames {
    /// How many bytes were read.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Opens frames, reusing its buffers.
#[derive(Debug)]
pub struct FrameReader {
    decompressor: Decompressor,
    plaintext: Vec<u8>,
    payload_bytes: usize,
    /// How the payload is cut into blocks.
    pieces: Vec<usize>,
    hashes: Vec<FullBlockHash>,
}

impl FrameReader {
    /// A reader with empty buffers.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] if zstd cannot be set up.
    pub fn new() -> Result<Self> {
        let decompressor = Decompressor::new()?;
        let (plaintext, pieces, hashes) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { decompressor, plaintext, payload_bytes: 0, pieces, hashes })
    }

    /// The payload of the frame that was opened last.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.plaintext.get(..self.payload_bytes).unwrap_or_default()
    }

    /// The hashes of the blocks of the frame that was opened last, as block maps have them: one
    /// that names the wrong frame is noticed by them.
    pub fn block_hashes(&self) -> impl Iterator<Item = BlockHash> {
        self.hashes.iter().map(FullBlockHash::short)
    }

    /// The blocks of the frame that was opened last, and their hashes.
    pub fn blocks(&self) -> impl Iterator<Item = (&[u8], BlockHash)> {
        blocks_of(self.payload(), &self.pieces).zip(self.block_hashes())
    }

    /// Opens one frame out of `frames`, proves it by its hash, and gives its payload.
    ///
    /// # Errors
    /// Damage, or a frame that is not among `frames`.
    pub fn open(&mut self, table: &FrameTable, frames: &mut Frames, frame: u32) -> Result<&[u8]> {
        self.payload_bytes = 0;
        self.payload_bytes =
            self.try_open(table, frames, frame).map_err(|damage| damage.at(&table.path))?;
        Ok(self.payload())
    }

    fn try_open(
        &mut self,
        table: &FrameTable,
        frames: &mut Frames,
        frame: u32,
    ) -> Result<usize, Damage> {
        let missing = || Damage::Content(format!("frame {frame} is not where it should be"));
        let index = frame as usize;
        let kind = *table.table.kinds.get(index).ok_or_else(missing)?;
        let start = table.offset(frame).ok_or_else(missing)?;
        let end = table.offset(frame + 1).ok_or_else(missing)?;
        debug_assert!(frame >= frames.first, "frames are opened from the range they were read in");
        let within =
            |at: u64| at.checked_sub(frames.offset).and_then(|at| usize::try_from(at).ok());
        let (from, to) = within(start).zip(within(end)).ok_or_else(missing)?;
        let bytes = frames.bytes.get_mut(from..to).ok_or_else(missing)?;
        table.opener.chunk(
            Section::FIRST,
            frame,
            bytes,
            start,
            &mut self.decompressor,
            &mut self.plaintext,
        )?;
        let opened = split(&self.plaintext, kind)?;
        let payload = self.plaintext.get(..opened.payload_bytes).unwrap_or_default();
        self.hashes.clear();
        let blocks = blocks_of(payload, &opened.pieces);
        self.hashes.extend(blocks.map(|block| table.hasher.block(block)));
        self.pieces = opened.pieces;
        if Some(&table.hasher.frame(&self.hashes)) == table.table.hashes.get(index) {
            Ok(opened.payload_bytes)
        } else {
            Err(Damage::Content(format!("frame {frame} is not the one its hash names")))
        }
    }
}
