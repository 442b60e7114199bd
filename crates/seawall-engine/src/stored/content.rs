//! The bytes of a backup's files.

use std::ops::Range;
use std::sync::Arc;

use seawall_core::{Error, Result};
use seawall_pgdata::wal::BlockSet;
use seawall_repo::hash::BlockHash;
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::map::{BlockMap, BlockSource, ExceptionSource, LeafPair, Run};
use seawall_repo::pack::{BLOCK_BYTES, FRAME_BLOCKS, FrameReader, FrameTable};

use super::deltas::DeltaBlocks;
use super::sources::{Sources, inconsistent};

/// Consecutive frames of a file. Some of their blocks may be those of before: exceptions win.
pub(crate) struct Batch {
    pub table: Arc<FrameTable>,
    pub first_frame: u32,
    pub frames: u32,
    pub first_block: u32,
    pub blocks: u32,
}

/// A part of a file.
pub(crate) enum Part {
    Zero {
        bytes: u64,
    },
    Stored(Batch),
    /// Blocks that are all in delta frames.
    Scattered {
        first_block: u32,
        blocks: u32,
    },
}

/// Delta frames kept while a file is read that is held in memory.
const DELTA_BYTES: usize = 1 << 20;

/// Reads a whole file, proven to be what was backed up.
///
/// # Errors
/// Damage, a store that fails, and [`seawall_core::Code::ObjectInconsistent`] for one of more than `bytes_max`.
pub(crate) async fn read_file(sources: &Sources, entry: &Entry, bytes_max: u64) -> Result<Vec<u8>> {
    let size_bytes = entry.size_bytes();
    if size_bytes > bytes_max {
        let path = String::from_utf8_lossy(entry.path());
        return Err(inconsistent(format!("{path} has {size_bytes} bytes, more than it can have")));
    }
    let mut reader = FrameReader::new()?;
    match &entry.content {
        None => Ok(Vec::new()),
        Some(Content::Blob { pack, frame, offset, hashes }) => {
            let table = sources.table(sources.pack_number(*pack)?).await?;
            let mut frames = table.fetch(sources.store(), *frame, 1).await?;
            reader.open(&table, &mut frames, *frame)?;
            let start = *offset as usize;
            let bytes = reader.payload().get(start..start.saturating_add(length_of(entry)?));
            let bytes = bytes.ok_or_else(|| wrong_frame(entry))?;
            prove_blocks(sources, entry, bytes, hashes)?;
            Ok(bytes.to_vec())
        }
        Some(Content::Mapped { leaves, .. }) => {
            let (map, hashes) = read_leaves(sources, leaves).await?;
            let mut bytes = Vec::new();
            for part in parts(sources, &map, None, bytes_max).await? {
                match part {
                    Part::Zero { bytes: zeroes } => {
                        let zeroes = usize::try_from(zeroes.min(bytes_max));
                        let zeroes = zeroes.map_err(|_| wrong_frame(entry))?;
                        bytes.resize(bytes.len().saturating_add(zeroes), 0);
                    }
                    Part::Scattered { first_block, blocks } => {
                        let end = block_offset(first_block.saturating_add(blocks), size_bytes);
                        bytes.resize(usize::try_from(end).map_err(|_| wrong_frame(entry))?, 0);
                    }
                    Part::Stored(batch) => {
                        let first = batch.first_frame;
                        let mut frames =
                            batch.table.fetch(sources.store(), first, batch.frames).await?;
                        for frame in first..first.saturating_add(batch.frames) {
                            reader.open(&batch.table, &mut frames, frame)?;
                            bytes.extend_from_slice(reader.payload());
                        }
                        // The last block may have been one of a longer file, or of a shorter one.
                        let end = block_offset(batch.first_block + batch.blocks, size_bytes);
                        bytes.resize(usize::try_from(end).map_err(|_| wrong_frame(entry))?, 0);
                    }
                }
            }
            if bytes.len() as u64 != size_bytes {
                return Err(wrong_frame(entry));
            }
            let mut deltas = DeltaBlocks::new(DELTA_BYTES)?;
            deltas.overlay(sources, &mut bytes, 0, &map.exceptions).await?;
            prove_blocks(sources, entry, &bytes, hashes.as_flattened())?;
            Ok(bytes)
        }
    }
}

/// Reads a whole block of a file.
///
/// # Errors
/// Damage, or a store that fails.
pub(crate) async fn read_block(sources: &Sources, map: &BlockMap, block: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; BLOCK_BYTES];
    let elsewhere = map.exceptions_within(block..block.saturating_add(1));
    if !elsewhere.is_empty() {
        let mut deltas = DeltaBlocks::new(DELTA_BYTES)?;
        deltas.overlay(sources, &mut bytes, block, elsewhere).await?;
        return Ok(bytes);
    }
    let within = |run: &&Run| (run.first_block..run.first_block + run.blocks).contains(&block);
    let Some(run) = map.runs.iter().find(within) else { return Ok(bytes) };
    let BlockSource::Frames { pack, first_frame } = run.source else { return Ok(bytes) };
    let at = block - run.first_block;
    let frame = first_frame.saturating_add(at / FRAME_BLOCKS);
    let table = sources.table(sources.pack_number(pack)?).await?;
    let mut frames = table.fetch(sources.store(), frame, 1).await?;
    let mut reader = FrameReader::new()?;
    reader.open(&table, &mut frames, frame)?;
    let stored = reader.payload().chunks(BLOCK_BYTES).nth((at % FRAME_BLOCKS) as usize);
    let too_short =
        || inconsistent(format!("frame {frame} of pack {pack} is shorter than its map says"));
    let stored = stored.filter(|stored| stored.len() == BLOCK_BYTES).ok_or_else(too_short)?;
    bytes.copy_from_slice(stored);
    Ok(bytes)
}

/// Proves that bytes are those of which the hashes were kept, eight bytes for each block.
pub(crate) fn prove_blocks(
    sources: &Sources,
    entry: &Entry,
    bytes: &[u8],
    hashes: &[u8],
) -> Result<()> {
    let hasher = sources.line().keyring().hasher();
    let (expected, _) = hashes.as_chunks::<8>();
    let same = expected.len() == bytes.len().div_ceil(BLOCK_BYTES)
        && bytes.chunks(BLOCK_BYTES).zip(expected).all(|(block, expected)| {
            let zero = block.iter().all(|byte| *byte == 0);
            *expected == if zero { BlockHash::default() } else { hasher.block(block).short() }
        });
    if same { Ok(()) } else { Err(wrong_frame(entry)) }
}

/// A file's block map, and the hashes of all its blocks.
pub(crate) async fn read_leaves(
    sources: &Sources,
    leaves: &LeafPair,
) -> Result<(BlockMap, Vec<BlockHash>)> {
    let (runs, hashes) = sources.map_of(leaves)?;
    let map = runs.runs(sources.store(), &leaves.runs).await?;
    let hashes = hashes.hashes(sources.store(), &leaves.hashes).await?;
    let too_few = || inconsistent("a block map has blocks without hashes".to_owned());
    let hashes = map.hashes(hashes).ok_or_else(too_few)?;
    Ok((map, hashes))
}

/// Cuts a file into parts that are read at once: all of it, or what is needed of the blocks that are
/// wanted.
pub(crate) async fn parts(
    sources: &Sources,
    map: &BlockMap,
    wanted: Option<&BlockSet>,
    read_bytes: u64,
) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for run in &map.runs {
        let blocks = run.first_block..run.first_block.saturating_add(run.blocks);
        let BlockSource::Frames { pack, first_frame } = run.source else {
            zero_parts(map, blocks, wanted, &mut parts);
            continue;
        };
        if wanted.is_some_and(|wanted| !wanted.intersects(blocks.clone())) {
            continue;
        }
        let table = sources.table(sources.pack_number(pack)?).await?;
        let last = first_frame.saturating_add(run.frames()).saturating_sub(1);
        let frame_at = |block: u32| block..block.saturating_add(FRAME_BLOCKS).min(blocks.end);
        let (mut frame, mut block) = (first_frame, blocks.start);
        while frame <= last && block < blocks.end {
            if !needs_frame(map, frame_at(block), wanted) {
                zero_parts(map, frame_at(block), wanted, &mut parts);
                (frame, block) = (frame + 1, frame_at(block).end);
                continue;
            }
            let within = table.frames_within(frame, last, read_bytes);
            let begins = (1..within).map(|more| block.saturating_add(more * FRAME_BLOCKS));
            let more = begins.take_while(|begin| needs_frame(map, frame_at(*begin), wanted));
            let end = frame_at(more.last().unwrap_or(block)).end;
            let table = Arc::clone(&table);
            let frames = (end - block).div_ceil(FRAME_BLOCKS);
            parts.push(Part::Stored(Batch {
                table,
                first_frame: frame,
                frames,
                first_block: block,
                blocks: end - block,
            }));
            (frame, block) = (frame + frames, end);
        }
    }
    zero_parts(map, map.run_blocks()..map.blocks(), wanted, &mut parts);
    Ok(parts)
}

/// Whether a base frame of these blocks is to be read: all are, or one of its blocks is wanted that is
/// not elsewhere.
pub(crate) fn needs_frame(map: &BlockMap, blocks: Range<u32>, wanted: Option<&BlockSet>) -> bool {
    let Some(wanted) = wanted else { return true };
    let mut elsewhere = map.exceptions_within(blocks.clone()).iter().peekable();
    let mut is_in_frame = |block: &u32| elsewhere.next_if(|it| it.block == *block).is_none();
    wanted.intersects(blocks.clone())
        && blocks.filter(|block| is_in_frame(block)).any(|block| wanted.contains(block))
}

/// The parts of blocks that no base frame has: zero blocks, and those in delta frames.
fn zero_parts(map: &BlockMap, range: Range<u32>, wanted: Option<&BlockSet>, parts: &mut Vec<Part>) {
    let is_wanted = |block: u32| wanted.is_none_or(|wanted| wanted.contains(block));
    let zeroes = |range: Range<u32>, parts: &mut Vec<Part>| {
        if wanted.is_none() {
            push_zeroes(map, range, parts);
        }
    };
    let mut next = range.start;
    let exceptions = map.exceptions_within(range.clone()).iter();
    let stored = exceptions.filter(|exception| exception.source != ExceptionSource::Zero);
    for exception in stored.filter(|exception| is_wanted(exception.block)) {
        zeroes(next..exception.block, parts);
        next = exception.block.saturating_add(1);
        match parts.last_mut() {
            Some(Part::Scattered { first_block, blocks })
                if *first_block + *blocks == exception.block =>
            {
                *blocks += 1;
            }
            _ => parts.push(Part::Scattered { first_block: exception.block, blocks: 1 }),
        }
    }
    zeroes(next..range.end, parts);
}

fn push_zeroes(map: &BlockMap, range: Range<u32>, parts: &mut Vec<Part>) {
    if !range.is_empty() {
        let offset = |block| block_offset(block, map.file_bytes);
        parts.push(Part::Zero { bytes: offset(range.end) - offset(range.start) });
    }
}

/// Where a block begins; the file's end for the one after its last.
pub(crate) fn block_offset(block: u32, size_bytes: u64) -> u64 {
    (u64::from(block) * BLOCK_BYTES as u64).min(size_bytes)
}

/// The length of a file that is held in memory.
pub(crate) fn length_of(entry: &Entry) -> Result<usize> {
    usize::try_from(entry.size_bytes()).map_err(|_| wrong_frame(entry))
}

pub(crate) fn wrong_frame(entry: &Entry) -> Error {
    let path = String::from_utf8_lossy(entry.path()).into_owned();
    inconsistent(format!("what is stored for {path} is not what was backed up"))
}
