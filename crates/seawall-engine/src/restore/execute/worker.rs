use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use seawall_core::Result;
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::map::LeafPair;
use tokio::runtime::Handle;

use super::blocks::{BlockReader, BlockSink};
use super::sink::{FileSink, WriteBehind};
use crate::durable::{create_file, local};
use crate::pace::Pace;
use crate::stored::Sources;

/// A file to write.
#[derive(Debug)]
pub(in crate::restore) struct FileToWrite {
    /// Which entry of the manifest it is.
    pub number: u32,
    pub location: PathBuf,
    pub entry: Entry,
}

/// What is written together.
#[derive(Debug)]
pub(in crate::restore) enum WriteTask {
    /// A file with a block map.
    Mapped(Box<FileToWrite>),
    /// Small files, those of one frame beside each other.
    Small(Vec<FileToWrite>),
}

/// Reads frames and writes files.
pub(in crate::restore) struct Worker {
    pub blocks: BlockReader,
    behind: WriteBehind,
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
        Ok(Self { blocks: BlockReader::new(sources, runtime, pace, piece_bytes)?, behind })
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
                    let crc = self.write(file)?;
                    done(file, crc)?;
                }
                Ok(())
            }
            WriteTask::Mapped(file) => {
                let crc = self.write(file)?;
                done(file, crc)
            }
        }
    }

    /// Writes a file anew; returns its CRC-32C.
    pub fn write(&mut self, file: &FileToWrite) -> Result<u32> {
        match &file.entry.content {
            Some(Content::Mapped { leaves, .. }) => self.mapped(file, leaves),
            Some(Content::Blob { .. }) | None => self.small(file),
        }
    }

    /// Writes a file that is a piece of a frame, or empty.
    fn small(&mut self, wanted: &FileToWrite) -> Result<u32> {
        let bytes = self.blocks.small(&wanted.entry)?;
        let file = create_file(&wanted.location, wanted.entry.mode)?;
        (&file).write_all(bytes).map_err(|error| local(error, "writing", &wanted.location))?;
        Ok(crc32c::crc32c(bytes))
    }

    /// Writes a file whose blocks are in frames of its own.
    fn mapped(&mut self, wanted: &FileToWrite, leaves: &LeafPair) -> Result<u32> {
        let FileToWrite { location, entry, .. } = wanted;
        let blocks = self.blocks.blocks_of(entry, leaves)?;
        let sink = FileSink::create(location, entry.mode, entry.size_bytes(), &mut self.behind)?;
        let mut whole = WholeFile { sink, crc: 0 };
        self.blocks.copy(entry, &blocks, None, &mut whole)?;
        whole.sink.finish()?;
        Ok(whole.crc)
    }
}

/// A file that is written from its beginning to its end, and the CRC-32C of what is written.
struct WholeFile<'b> {
    sink: FileSink<'b>,
    crc: u32,
}

impl BlockSink for WholeFile<'_> {
    fn zeroes(&mut self, bytes: u64) {
        self.crc = crc_of_zeroes(self.crc, bytes);
    }

    fn reserve(&mut self, offset: u64, bytes: u64) {
        self.sink.reserve(offset, bytes);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.sink.write(offset, bytes)
    }
}

/// Appends zeroes to a CRC-32C.
pub(in crate::restore) fn crc_of_zeroes(mut crc: u32, mut bytes: u64) -> u32 {
    static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
    while bytes > 0 {
        let count = usize::try_from(bytes).map_or(ZEROES.len(), |bytes| bytes.min(ZEROES.len()));
        crc = crc32c::crc32c_append(crc, ZEROES.get(..count).unwrap_or_default());
        bytes -= count as u64;
    }
    crc
}
