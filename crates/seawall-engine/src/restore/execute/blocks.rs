//! The bytes of a backup's files, read and proven for whoever writes them.

use std::ops::Range;
use std::sync::Arc;

use seawall_core::{Code, Error, Result, Ulid};
use seawall_pgdata::wal::BlockSet;
use seawall_repo::hash::BlockHash;
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::map::{BlockMap, Exception, LeafPair};
use seawall_repo::pack::{FRAME_BLOCKS, FrameReader, Frames};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::pace::Pace;
use crate::stored::{
    Batch, DeltaBlocks, Part, Sources, block_offset, length_of, parts, prove_blocks, read_leaves,
    wrong_frame,
};

/// Delta frames are kept while one file is read, as much as so many pieces.
const PIECES_OF_DELTAS: usize = 4;

/// Where the blocks of a file are, and their hashes.
pub(in crate::restore) struct FileBlocks {
    pub map: BlockMap,
    pub hashes: Vec<BlockHash>,
}

impl FileBlocks {
    /// Reads the block map of a file, and the hashes.
    ///
    /// # Errors
    /// Damage, a store that fails.
    pub async fn read(sources: &Sources, entry: &Entry, leaves: &LeafPair) -> Result<Self> {
        let (map, hashes) = read_leaves(sources, leaves).await?;
        if map.file_bytes != entry.size_bytes() || hashes.len() != map.blocks() as usize {
            return Err(wrong_frame(entry));
        }
        Ok(Self { map, hashes })
    }
}

/// Takes a file's bytes, in their order.
pub(in crate::restore) trait BlockSink {
    /// So many zeroes, which nobody stores.
    fn zeroes(&mut self, bytes: u64);
    /// What will be written soon.
    fn reserve(&mut self, offset: u64, bytes: u64);
    /// Bytes at their place.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// Reads frames, and proves that what is in them is what was backed up.
pub(in crate::restore) struct BlockReader {
    sources: Arc<Sources>,
    runtime: Handle,
    pace: Arc<Pace>,
    reader: FrameReader,
    deltas: DeltaBlocks,
    read_bytes: u64,
    /// The pack and frame `reader` holds.
    open: Option<(Ulid, u32)>,
}

impl BlockReader {
    /// `piece_bytes` is how much is read at a time; about seven times as much is held.
    pub fn new(
        sources: Arc<Sources>,
        runtime: Handle,
        pace: Arc<Pace>,
        piece_bytes: usize,
    ) -> Result<Self> {
        Ok(Self {
            sources,
            runtime,
            pace,
            reader: FrameReader::new()?,
            deltas: DeltaBlocks::new(piece_bytes.saturating_mul(PIECES_OF_DELTAS))?,
            read_bytes: piece_bytes as u64,
            open: None,
        })
    }

    /// The bytes of a file that is a piece of a frame, or empty.
    pub fn small(&mut self, entry: &Entry) -> Result<&[u8]> {
        let Some(Content::Blob { pack, frame, offset, hashes }) = &entry.content else {
            return Ok(&[]);
        };
        self.open_frame(*pack, *frame)?;
        let start = *offset as usize;
        let bytes = self.reader.payload().get(start..start.saturating_add(length_of(entry)?));
        let bytes = bytes.ok_or_else(|| wrong_frame(entry))?;
        prove_blocks(&self.sources, entry, bytes, hashes)?;
        self.pace.take(bytes.len() as u64)?;
        Ok(bytes)
    }

    fn open_frame(&mut self, pack: Ulid, frame: u32) -> Result<()> {
        if self.open == Some((pack, frame)) {
            return Ok(());
        }
        self.open = None;
        let sources = &self.sources;
        let (table, mut frames) = self.runtime.block_on(async {
            let table = sources.table(sources.pack_number(pack)?).await?;
            let frames = table.fetch(sources.store(), frame, 1).await?;
            Ok::<_, Error>((table, frames))
        })?;
        self.reader.open(&table, &mut frames, frame)?;
        self.open = Some((pack, frame));
        Ok(())
    }

    /// Where the blocks of a file are that are in frames of its own.
    pub fn blocks_of(&self, entry: &Entry, leaves: &LeafPair) -> Result<FileBlocks> {
        self.runtime.block_on(FileBlocks::read(&self.sources, entry, leaves))
    }

    /// Gives all blocks of a file to `sink`, or those frames that have one which is wanted: none of
    /// these is a zero block.
    pub fn copy(
        &mut self,
        entry: &Entry,
        blocks: &FileBlocks,
        wanted: Option<&BlockSet>,
        sink: &mut dyn BlockSink,
    ) -> Result<()> {
        self.open = None;
        let sources = &self.sources;
        let parts = self.runtime.block_on(parts(sources, &blocks.map, wanted, self.read_bytes))?;
        let overlay = Overlay {
            sources,
            runtime: &self.runtime,
            deltas: &mut self.deltas,
            bytes: Vec::new(),
        };
        let mut target = Target { entry, blocks, wanted, overlay, sink };
        let mut ahead =
            ReadAhead { sources, runtime: &self.runtime, parts: parts.iter(), reading: None };
        ahead.start();
        for part in &parts {
            match part {
                Part::Zero { bytes } => target.sink.zeroes(*bytes),
                Part::Scattered { first_block, blocks } => {
                    target.scattered(*first_block..first_block + blocks, &self.pace)?;
                }
                Part::Stored(batch) => {
                    let mut frames = ahead.take()?;
                    target.reserve(batch);
                    target.batch(batch, &mut frames, &mut self.reader, &self.pace)?;
                }
            }
        }
        Ok(())
    }
}

/// A file that is being written, and what is known of it.
struct Target<'f> {
    entry: &'f Entry,
    blocks: &'f FileBlocks,
    wanted: Option<&'f BlockSet>,
    overlay: Overlay<'f>,
    sink: &'f mut dyn BlockSink,
}

/// Blocks that lie elsewhere than those around them.
struct Overlay<'f> {
    sources: &'f Sources,
    runtime: &'f Handle,
    deltas: &'f mut DeltaBlocks,
    /// The bytes they are put into.
    bytes: Vec<u8>,
}

impl Overlay<'_> {
    /// So many bytes from `first_block` on, with these in their places.
    fn put(
        &mut self,
        bytes: &[u8],
        length: usize,
        first_block: u32,
        exceptions: &[Exception],
    ) -> Result<&[u8]> {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(length, 0);
        let overlay = self.deltas.overlay(self.sources, &mut self.bytes, first_block, exceptions);
        self.runtime.block_on(overlay)?;
        Ok(&self.bytes)
    }
}

impl Target<'_> {
    fn offset(&self, block: u32) -> u64 {
        block_offset(block, self.blocks.map.file_bytes)
    }

    fn reserve(&mut self, batch: &Batch) {
        let start = self.offset(batch.first_block);
        let bytes = self.offset(batch.first_block + batch.blocks) - start;
        self.sink.reserve(start, bytes);
    }

    fn batch(
        &mut self,
        batch: &Batch,
        frames: &mut Frames,
        reader: &mut FrameReader,
        pace: &Pace,
    ) -> Result<()> {
        for index in 0..batch.frames {
            let block = batch.first_block + index * FRAME_BLOCKS;
            let end = block.saturating_add(FRAME_BLOCKS).min(batch.first_block + batch.blocks);
            let offset = self.offset(block);
            let length = narrow(self.offset(end) - offset)?;
            pace.take(length as u64)?;
            reader.open(&batch.table, frames, batch.first_frame + index)?;
            let exceptions = self.blocks.map.exceptions_within(block..end);
            self.prove(block..end, exceptions, reader)?;
            // The last block may have been one of a longer file, or of a shorter one: then it is an
            // exception.
            let payload = reader.payload();
            let payload = payload.get(..length).unwrap_or(payload);
            if exceptions.is_empty() {
                self.sink.write(offset, payload)?;
            } else {
                self.write((offset, length), payload, block, exceptions)?;
            }
        }
        Ok(())
    }

    /// Proves of a frame's blocks that they are the file's, but for those that lie elsewhere.
    fn prove(
        &self,
        blocks: Range<u32>,
        exceptions: &[Exception],
        reader: &FrameReader,
    ) -> Result<()> {
        let mut elsewhere = exceptions.iter().map(|exception| exception.block).peekable();
        let mut found = reader.blocks();
        let is_same = |block: u32| {
            let found = found.next();
            if elsewhere.next_if_eq(&block).is_some() {
                return true;
            }
            let length = self.offset(block.saturating_add(1)) - self.offset(block);
            let expected = self.blocks.hashes.get(block as usize);
            found.is_some_and(|(bytes, hash)| {
                bytes.len() as u64 == length && Some(&hash) == expected
            })
        };
        if blocks.clone().all(is_same) { Ok(()) } else { Err(wrong_frame(self.entry)) }
    }

    /// Writes blocks that are all in delta frames.
    fn scattered(&mut self, blocks: Range<u32>, pace: &Pace) -> Result<()> {
        for block in blocks.clone().step_by(FRAME_BLOCKS as usize) {
            let end = block.saturating_add(FRAME_BLOCKS).min(blocks.end);
            let offset = self.offset(block);
            let length = narrow(self.offset(end) - offset)?;
            pace.take(length as u64)?;
            self.write(
                (offset, length),
                &[],
                block,
                self.blocks.map.exceptions_within(block..end),
            )?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        (offset, length): (u64, usize),
        bytes: &[u8],
        first_block: u32,
        exceptions: &[Exception],
    ) -> Result<()> {
        let bytes = match self.wanted {
            None => self.overlay.put(bytes, length, first_block, exceptions)?,
            Some(wanted) => {
                let exceptions = exceptions.iter().filter(|it| wanted.contains(it.block));
                let exceptions: Vec<Exception> = exceptions.copied().collect();
                self.overlay.put(bytes, length, first_block, &exceptions)?
            }
        };
        self.sink.write(offset, bytes)
    }
}

fn narrow(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::new(Code::Internal, "a frame is longer than memory"))
}

/// Reads the next frames while those before are decoded and written.
struct ReadAhead<'p> {
    sources: &'p Arc<Sources>,
    runtime: &'p Handle,
    /// Those that are not being read yet.
    parts: std::slice::Iter<'p, Part>,
    reading: Option<JoinHandle<Result<Frames>>>,
}

impl ReadAhead<'_> {
    /// Begins to read the next frames, if there are any.
    fn start(&mut self) {
        let batch = self.parts.find_map(|part| match part {
            Part::Stored(batch) => Some(batch),
            Part::Zero { .. } | Part::Scattered { .. } => None,
        });
        let Some(batch) = batch else { return };
        let (sources, table) = (Arc::clone(self.sources), Arc::clone(&batch.table));
        let (first, count) = (batch.first_frame, batch.frames);
        let read = async move { table.fetch(sources.store(), first, count).await };
        self.reading = Some(self.runtime.spawn(read));
    }

    /// The frames that were begun last; the next are begun.
    fn take(&mut self) -> Result<Frames> {
        let reading = self.reading.take();
        self.start();
        let reading =
            reading.ok_or_else(|| Error::new(Code::Internal, "no frames are being read"))?;
        let read = self.runtime.block_on(reading);
        read.unwrap_or_else(|error| {
            Err(Error::new(Code::Internal, "reading frames was stopped").with_source(error))
        })
    }
}

impl Drop for ReadAhead<'_> {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}
