use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use seawall_core::{Code, Error, Result, Ulid};
use seawall_repo::hash::BlockHash;
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::map::{BlockMap, Exception, LeafPair};
use seawall_repo::pack::{FRAME_BLOCKS, FrameReader, Frames};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::sink::{FileSink, WriteBehind};
use crate::durable::create_file;
use crate::pace::Pace;
use crate::stored::{
    Batch, DeltaBlocks, Part, Sources, block_offset, length_of, parts, prove_blocks, read_leaves,
    wrong_frame,
};

/// Delta frames are kept while one file is written, as much as so many pieces.
const PIECES_OF_DELTAS: usize = 4;

/// A file to write.
#[derive(Debug)]
pub(super) struct FileToWrite {
    /// Which entry of the manifest it is.
    pub number: u32,
    pub location: PathBuf,
    pub entry: Entry,
}

/// What is written together.
#[derive(Debug)]
pub(super) enum WriteTask {
    /// A file with a block map.
    Mapped(Box<FileToWrite>),
    /// Small files, those of one frame beside each other.
    Small(Vec<FileToWrite>),
}

/// Reads frames and writes files.
pub(super) struct Worker {
    sources: Arc<Sources>,
    runtime: Handle,
    pace: Arc<Pace>,
    reader: FrameReader,
    behind: WriteBehind,
    deltas: DeltaBlocks,
    read_bytes: u64,
    /// The pack and frame `reader` holds.
    open: Option<(Ulid, u32)>,
}

impl Worker {
    /// `piece_bytes` is how much is read and written at a time; about nine times as much is held.
    pub fn new(
        sources: Arc<Sources>,
        runtime: Handle,
        pace: Arc<Pace>,
        piece_bytes: usize,
    ) -> Result<Self> {
        let behind = WriteBehind::new(runtime.clone(), piece_bytes);
        Ok(Self {
            sources,
            runtime,
            pace,
            reader: FrameReader::new()?,
            behind,
            deltas: DeltaBlocks::new(piece_bytes.saturating_mul(PIECES_OF_DELTAS))?,
            read_bytes: piece_bytes as u64,
            open: None,
        })
    }

    /// Writes files; `done` is told the CRC-32C of each.
    pub fn work(
        &mut self,
        task: &WriteTask,
        done: &mut dyn FnMut(&FileToWrite, u32) -> Result<()>,
    ) -> Result<()> {
        match task {
            WriteTask::Small(files) => {
                for file in files {
                    let crc = self.small(file)?;
                    done(file, crc)?;
                }
                Ok(())
            }
            WriteTask::Mapped(file) => {
                let Some(Content::Mapped { leaves, .. }) = &file.entry.content else {
                    return Err(Error::new(Code::Internal, "a small file came as a large one"));
                };
                let crc = self.mapped(file, leaves)?;
                done(file, crc)
            }
        }
    }

    /// Writes a file that is a piece of a frame, or empty.
    fn small(&mut self, wanted: &FileToWrite) -> Result<u32> {
        let bytes: &[u8] = match &wanted.entry.content {
            Some(Content::Blob { pack, frame, offset, hashes }) => {
                self.open_frame(*pack, *frame)?;
                let start = *offset as usize;
                let end = start.saturating_add(length_of(&wanted.entry)?);
                let bytes = self.reader.payload().get(start..end);
                let bytes = bytes.ok_or_else(|| wrong_frame(&wanted.entry))?;
                prove_blocks(&self.sources, &wanted.entry, bytes, hashes)?;
                bytes
            }
            _ => &[],
        };
        self.pace.take(bytes.len() as u64)?;
        let file = create_file(&wanted.location, wanted.entry.mode)?;
        std::io::Write::write_all(&mut &file, bytes)
            .map_err(|error| crate::durable::local(error, "writing", &wanted.location))?;
        Ok(crc32c::crc32c(bytes))
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

    /// Writes a file whose blocks are in frames of its own.
    fn mapped(&mut self, wanted: &FileToWrite, leaves: &LeafPair) -> Result<u32> {
        self.open = None;
        let size_bytes = wanted.entry.size_bytes();
        let sources = Arc::clone(&self.sources);
        let (map, hashes) = self.runtime.block_on(read_leaves(&sources, leaves))?;
        if map.file_bytes != size_bytes || hashes.len() != map.blocks() as usize {
            return Err(wrong_frame(&wanted.entry));
        }
        let parts = self.runtime.block_on(parts(&sources, &map, self.read_bytes))?;
        let sink =
            FileSink::create(&wanted.location, wanted.entry.mode, size_bytes, &mut self.behind)?;
        let overlay = Overlay {
            sources: &sources,
            runtime: &self.runtime,
            deltas: &mut self.deltas,
            bytes: Vec::new(),
        };
        let mut target = Target { wanted, map: &map, hashes: &hashes, overlay, sink, crc: 0 };
        let mut ahead = ReadAhead {
            sources: &self.sources,
            runtime: &self.runtime,
            parts: parts.iter(),
            reading: None,
        };
        ahead.start();
        for part in &parts {
            match part {
                Part::Zero { bytes } => target.crc = crc_of_zeroes(target.crc, *bytes),
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
        target.sink.finish()?;
        Ok(target.crc)
    }
}

/// A file that is being written, and what is known of it.
struct Target<'f> {
    wanted: &'f FileToWrite,
    map: &'f BlockMap,
    hashes: &'f [BlockHash],
    overlay: Overlay<'f>,
    sink: FileSink<'f>,
    crc: u32,
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
        block_offset(block, self.map.file_bytes)
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
            let exceptions = self.map.exceptions_within(block..end);
            self.prove(block..end, exceptions, reader)?;
            // The last block may have been one of a longer file, or of a shorter one: then it is an
            // exception.
            let payload = reader.payload();
            let payload = payload.get(..length).unwrap_or(payload);
            if exceptions.is_empty() {
                self.crc = crc32c::crc32c_append(self.crc, payload);
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
            let expected = self.hashes.get(block as usize);
            found.is_some_and(|(bytes, hash)| {
                bytes.len() as u64 == length && Some(&hash) == expected
            })
        };
        if blocks.clone().all(is_same) { Ok(()) } else { Err(wrong_frame(&self.wanted.entry)) }
    }

    /// Writes blocks that are all in delta frames.
    fn scattered(&mut self, blocks: Range<u32>, pace: &Pace) -> Result<()> {
        for block in blocks.clone().step_by(FRAME_BLOCKS as usize) {
            let end = block.saturating_add(FRAME_BLOCKS).min(blocks.end);
            let offset = self.offset(block);
            let length = narrow(self.offset(end) - offset)?;
            pace.take(length as u64)?;
            self.write((offset, length), &[], block, self.map.exceptions_within(block..end))?;
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
        let bytes = self.overlay.put(bytes, length, first_block, exceptions)?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
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

/// Appends zeroes to a CRC-32C.
pub(super) fn crc_of_zeroes(mut crc: u32, mut bytes: u64) -> u32 {
    static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
    while bytes > 0 {
        let count = usize::try_from(bytes).map_or(ZEROES.len(), |bytes| bytes.min(ZEROES.len()));
        crc = crc32c::crc32c_append(crc, ZEROES.get(..count).unwrap_or_default());
        bytes -= count as u64;
    }
    crc
}
