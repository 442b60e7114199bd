use futures_util::{StreamExt, TryStreamExt, stream};
use seawall_core::{Result, Ulid};
use seawall_repo::hash::BlockHash;
use seawall_repo::map::{Exception, ExceptionSource};
use seawall_repo::pack::{BLOCK_BYTES, FrameReader, PAYLOAD_BYTES_MAX};

use super::sources::{Sources, inconsistent};

/// How many frames are fetched at once.
const READS: usize = 8;

/// So many blocks are looked ahead for frames that are worth fetching together.
const AHEAD: usize = 256;

/// Blocks in delta frames, for who reads a file from its beginning to its end. Each backup that
/// changed the file has its blocks in their order, so that few frames are of use at a time: those
/// are kept.
pub(crate) struct DeltaBlocks {
    reader: FrameReader,
    /// The one used last at the end.
    kept: Vec<Kept>,
    kept_bytes_max: usize,
}

/// A frame that is open.
struct Kept {
    pack: Ulid,
    frame: u32,
    bytes: usize,
    blocks: Vec<(Vec<u8>, BlockHash)>,
}

impl DeltaBlocks {
    /// Keeps frames of so many bytes.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] if zstd cannot be set up.
    pub fn new(kept_bytes_max: usize) -> Result<Self> {
        Ok(Self { reader: FrameReader::new()?, kept: Vec::new(), kept_bytes_max })
    }

    /// Puts blocks in their places among the bytes of a file, which begin with `first_block`. The
    /// exceptions are ascending, and all of these bytes.
    ///
    /// # Errors
    /// Damage, a store that fails, and a map that names another block than it says.
    pub async fn overlay(
        &mut self,
        sources: &Sources,
        bytes: &mut [u8],
        first_block: u32,
        exceptions: &[Exception],
    ) -> Result<()> {
        for (number, exception) in exceptions.iter().enumerate() {
            let at = exception.block.checked_sub(first_block).map(|at| at as usize * BLOCK_BYTES);
            let rest = at.and_then(|at| bytes.get_mut(at..)).unwrap_or_default();
            let length = rest.len().min(BLOCK_BYTES);
            let place = rest.get_mut(..length).unwrap_or_default();
            match exception.source {
                ExceptionSource::Zero => place.fill(0),
                ExceptionSource::Delta { pack, frame, slot } => {
                    let ahead = exceptions.iter().skip(number).take(AHEAD);
                    let kept = self.frame(sources, (pack, frame), ahead).await?;
                    match kept.blocks.get(slot as usize) {
                        Some((block, hash)) if *hash == exception.hash && block.len() == length => {
                            place.copy_from_slice(block);
                        }
                        _ => return Err(wrong_block(exception.block, pack, frame)),
                    }
                }
            }
        }
        Ok(())
    }

    /// A frame, fetched together with others that will be needed if it is not there.
    async fn frame(
        &mut self,
        sources: &Sources,
        wanted: (Ulid, u32),
        ahead: impl Iterator<Item = &Exception>,
    ) -> Result<&Kept> {
        let at = self.kept.iter().rposition(|kept| (kept.pack, kept.frame) == wanted);
        let kept = match at {
            Some(at) => self.kept.remove(at),
            None => self.fetch(sources, wanted, ahead).await?,
        };
        self.kept.push(kept);
        self.kept.last().ok_or_else(|| wrong_block(0, wanted.0, wanted.1))
    }

    async fn fetch(
        &mut self,
        sources: &Sources,
        wanted: (Ulid, u32),
        ahead: impl Iterator<Item = &Exception>,
    ) -> Result<Kept> {
        let fetches = self.missing(wanted, ahead);
        let fetched: Vec<_> = stream::iter(fetches)
            .map(async |(pack, frame)| {
                let table = sources.table(sources.pack_number(pack)?).await?;
                let frames = table.fetch(sources.store(), frame, 1).await?;
                Ok::<_, seawall_core::Error>((pack, frame, table, frames))
            })
            .buffered(READS)
            .try_collect()
            .await?;
        let mut opened = Vec::new();
        for (pack, frame, table, mut frames) in fetched {
            self.reader.open(&table, &mut frames, frame)?;
            let blocks = self.reader.blocks().map(|(block, hash)| (block.to_vec(), hash)).collect();
            opened.push(Kept { pack, frame, bytes: self.reader.payload().len(), blocks });
        }
        let first = opened.drain(..1).next();
        self.keep(opened, first.as_ref().map_or(0, |first| first.bytes));
        first.ok_or_else(|| wrong_block(0, wanted.0, wanted.1))
    }

    /// The frames to fetch: the one that is wanted, then those that are needed next, as far as there
    /// is room for them.
    fn missing<'e>(
        &self,
        wanted: (Ulid, u32),
        ahead: impl Iterator<Item = &'e Exception>,
    ) -> Vec<(Ulid, u32)> {
        let room = (self.kept_bytes_max / PAYLOAD_BYTES_MAX).clamp(1, READS);
        let has = |(pack, frame)| self.kept.iter().any(|it| it.pack == pack && it.frame == frame);
        let mut missing = vec![wanted];
        for exception in ahead {
            let ExceptionSource::Delta { pack, frame, .. } = exception.source else { continue };
            if missing.len() < room && !missing.contains(&(pack, frame)) && !has((pack, frame)) {
                missing.push((pack, frame));
            }
        }
        missing
    }

    /// Keeps these too, and as many of those before as there is room for.
    fn keep(&mut self, opened: Vec<Kept>, besides_bytes: usize) {
        self.kept.extend(opened);
        let mut bytes = besides_bytes;
        let mut kept_from = self.kept.len();
        for (at, kept) in self.kept.iter().enumerate().rev() {
            bytes = bytes.saturating_add(kept.bytes);
            if bytes > self.kept_bytes_max {
                break;
            }
            kept_from = at;
        }
        self.kept.drain(..kept_from);
    }
}

fn wrong_block(block: u32, pack: Ulid, frame: u32) -> seawall_core::Error {
    inconsistent(format!("block {block} of a file is not in frame {frame} of pack {pack}"))
}
