use std::path::PathBuf;
use std::sync::Arc;

use seawall_core::{Code, Error, Result, Ulid};
use seawall_repo::hash::BlockHash;
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::map::LeafPair;
use seawall_repo::pack::{FRAME_BLOCKS, FrameReader, Frames};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::sink::{FileSink, WriteBehind};
use crate::durable::create_file;
use crate::pace::Pace;
use crate::stored::{
    Batch, Part, Sources, block_offset, length_of, parts, prove_blocks, read_leaves, wrong_frame,
};

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
    read_bytes: u64,
    /// The pack and frame `reader` holds.
    open: Option<(Ulid, u32)>,
}

impl Worker {
    /// `piece_bytes` is how much is read and written at a time; about five times as much is held.
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
        let mut target = Target { wanted, hashes: &hashes, size_bytes, sink, crc: 0 };
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
    hashes: &'f [BlockHash],
    size_bytes: u64,
    sink: FileSink<'f>,
    crc: u32,
}

impl Target<'_> {
    fn offset(&self, block: u32) -> u64 {
        block_offset(block, self.size_bytes)
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
            let length = self.offset(end) - offset;
            pace.take(length)?;
            reader.open(&batch.table, frames, batch.first_frame + index)?;
            let expected = self.hashes.get(block as usize..end as usize).unwrap_or_default();
            let payload = reader.payload();
            if payload.len() as u64 != length || !reader.block_hashes().eq(expected.iter().copied())
            {
                return Err(wrong_frame(&self.wanted.entry));
            }
            self.crc = crc32c::crc32c_append(self.crc, payload);
            self.sink.write(offset, payload)?;
        }
        Ok(())
    }
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
            Part::Zero { .. } => None,
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
