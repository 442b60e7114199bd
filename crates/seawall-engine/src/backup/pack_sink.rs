use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use seawall_core::{Code, Error, Result, Ulid};
use seawall_repo::envelope::Compressor;
use seawall_repo::hash::FullBlockHash;
use seawall_repo::layout::LineObject;
use seawall_repo::pack::{FramePayload, PackBuilder, PackInfo};
use seawall_repo::{Line, new_ulid};
use seawall_store::ObjectWriter;
use tokio::runtime::Handle;

/// A pack's bytes go to the store in parts of this size: the largest that memory must hold.
const PART_BYTES: usize = 4 << 20;

/// A pack is closed at so many frames too, which bounds its table and the journal's records.
const FRAMES_MAX: u32 = 8192;

/// An open pack is lost when a backup dies, so it is not open for longer, however slow the backup.
const PACK_AGE_MAX: Duration = Duration::from_secs(30);

/// Where one worker's frames go: into a pack of its own, and into the next when that is full.
pub(super) struct PackSink {
    line: Line,
    runtime: Handle,
    compressor: Compressor,
    pack_bytes: u64,
    open: Option<OpenPack>,
}

struct OpenPack {
    builder: PackBuilder,
    writer: Box<dyn ObjectWriter>,
    part: Vec<u8>,
    since: Instant,
}

/// Where a frame was put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub pack: Ulid,
    pub frame: u32,
}

impl PackSink {
    pub fn new(line: Line, runtime: Handle, level: i32, pack_bytes: u64) -> Result<Self> {
        let compressor = Compressor::new(level)?;
        Ok(Self { line, runtime, compressor, pack_bytes, open: None })
    }

    /// Adds a frame to the open pack, which is begun if there is none.
    pub fn frame(
        &mut self,
        what: FramePayload<'_>,
        payload: &[u8],
        hashes: &[FullBlockHash],
    ) -> Result<Placed> {
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let Some(open) = &mut self.open else {
            return Err(Error::new(Code::Internal, "no pack is open"));
        };
        let frame =
            open.builder.frame(what, payload, hashes, &mut self.compressor, &mut open.part)?;
        if open.part.len() >= PART_BYTES {
            let part =
                mem::replace(&mut open.part, Vec::with_capacity(PART_BYTES + PART_BYTES / 8));
            self.runtime.block_on(open.writer.write(Bytes::from(part)))?;
        }
        Ok(Placed { pack: open.builder.id(), frame })
    }

    /// Finishes the open pack if it is full or old. To be called between files' pieces, so that no
    /// piece lies in two packs.
    pub fn rotate(&mut self) -> Result<Option<PackInfo>> {
        let full = self.open.as_ref().is_some_and(|open| {
            open.builder.stored_bytes() >= self.pack_bytes
                || open.builder.frames() >= FRAMES_MAX
                || open.since.elapsed() >= PACK_AGE_MAX
        });
        if full { self.finish() } else { Ok(None) }
    }

    /// Finishes the open pack, if there is one, and makes it durable.
    pub fn finish(&mut self) -> Result<Option<PackInfo>> {
        let Some(mut open) = self.open.take() else { return Ok(None) };
        let info = open.builder.finish(&mut open.part)?;
        let written = self.runtime.block_on(async {
            open.writer.write(Bytes::from(open.part)).await?;
            open.writer.finish().await
        })?;
        if written != info.length_bytes {
            return Err(Error::new(Code::Internal, "a pack has another length than was written"));
        }
        Ok(Some(info))
    }

    fn begin(&self) -> Result<OpenPack> {
        let id = new_ulid(Timestamp::now())?;
        let path = self.line.paths().path(&LineObject::Pack(id))?;
        let writer = self.runtime.block_on(self.line.store().create_large(&path))?;
        let mut part = Vec::with_capacity(PART_BYTES + PART_BYTES / 8);
        let builder = PackBuilder::begin(self.line.keyring(), id, &path, &mut part)?;
        Ok(OpenPack { builder, writer, part, since: Instant::now() })
    }
}
