use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use seawall_core::{Code, Error, Result, Ulid};
use seawall_repo::hash::FullBlockHash;
use seawall_repo::layout::LineObject;
use seawall_repo::pack::{FrameBody, PackBuilder, PackInfo};
use seawall_repo::{Line, new_ulid};
use seawall_store::ObjectWriter;

/// A pack's bytes go to the store in parts of this size: the largest that memory must hold.
const PART_BYTES: usize = 4 << 20;

/// A pack is closed at so many frames too, which bounds its table and the journal's records.
const FRAMES_MAX: u32 = 8192;

/// An open pack is lost when a backup dies, so it is not open for longer, however slow the backup.
const PACK_AGE_MAX: Duration = Duration::from_secs(30);

/// Where one worker's frames go at one destination: into a pack of its own, and into the next when
/// that is full. What the store is asked for is asked for when the caller says.
pub(super) struct PackSink {
    line: Line,
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
    pub const fn new(line: Line, pack_bytes: u64) -> Self {
        Self { line, pack_bytes, open: None }
    }

    /// Whether no pack is open.
    pub const fn needs_pack(&self) -> bool {
        self.open.is_none()
    }

    /// Opens a pack.
    pub async fn begin(&mut self) -> Result<()> {
        let id = new_ulid(Timestamp::now())?;
        let path = self.line.paths().path(&LineObject::Pack(id))?;
        let writer = self.line.store().create_large(&path).await?;
        let mut part = new_part();
        let builder = PackBuilder::begin(self.line.keyring(), id, &path, &mut part)?;
        self.open = Some(OpenPack { builder, writer, part, since: Instant::now() });
        Ok(())
    }

    /// Adds a frame to the open pack.
    pub fn frame(&mut self, body: &FrameBody, hashes: &[FullBlockHash]) -> Result<Placed> {
        let Some(open) = &mut self.open else {
            return Err(Error::new(Code::Internal, "no pack is open"));
        };
        let frame = open.builder.frame(body, hashes, &mut open.part)?;
        Ok(Placed { pack: open.builder.id(), frame })
    }

    /// Whether there is as much as is sent at a time.
    pub fn has_part(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.part.len() >= PART_BYTES)
    }

    /// Sends what there is of the open pack.
    pub async fn write_part(&mut self) -> Result<()> {
        if let Some(open) = &mut self.open {
            let part = mem::replace(&mut open.part, new_part());
            open.writer.write(Bytes::from(part)).await?;
        }
        Ok(())
    }

    /// Whether the open pack is full or old. To be asked between files' pieces, so that no piece
    /// lies in two packs.
    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.builder.stored_bytes() >= self.pack_bytes
                || open.builder.frames() >= FRAMES_MAX
                || open.since.elapsed() >= PACK_AGE_MAX
        })
    }

    /// Finishes the open pack, if there is one, and makes it durable.
    pub async fn finish(&mut self) -> Result<Option<PackInfo>> {
        let Some(mut open) = self.open.take() else { return Ok(None) };
        let info = open.builder.finish(&mut open.part)?;
        open.writer.write(Bytes::from(open.part)).await?;
        if open.writer.finish().await? != info.length_bytes {
            return Err(Error::new(Code::Internal, "a pack has another length than was written"));
        }
        Ok(Some(info))
    }
}

fn new_part() -> Vec<u8> {
    Vec::with_capacity(PART_BYTES + PART_BYTES / 8)
}
