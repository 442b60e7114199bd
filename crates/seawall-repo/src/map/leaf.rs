use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use seawall_core::Ulid;

use crate::pack::FRAME_BLOCKS;
use crate::{Damage, cbor, varint};

/// Where a run of blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSource {
    /// The blocks are all zero and stored nowhere.
    Zero,
    /// In base frames with consecutive numbers.
    Frames {
        /// The pack.
        pack: Ulid,
        /// The frame of the run's first block.
        first_frame: u32,
    },
}

/// Consecutive blocks with one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first block, within the file.
    pub first_block: u32,
    /// How many.
    pub blocks: u32,
    /// Where they are.
    pub source: BlockSource,
}

impl Run {
    /// How many frames the run takes.
    #[must_use]
    pub const fn frames(&self) -> u32 {
        match self.source {
            BlockSource::Zero => 0,
            BlockSource::Frames { .. } => self.blocks.div_ceil(FRAME_BLOCKS),
        }
    }
}

/// Where all blocks of one file are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockMap {
    /// Runs that cover the file from block 0 on, without gaps.
    pub runs: Vec<Run>,
    /// The file's length in bytes.
    pub file_bytes: u64,
}

const BLOCK_BYTES: u64 = crate::pack::BLOCK_BYTES as u64;

const fn blocks_of(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(BLOCK_BYTES)
}

/// Files have at most this many blocks: 1 GiB segments have 131072; other files may be longer.
const BLOCKS_MAX: u64 = u32::MAX as u64;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Leaf {
    #[n(0)]
    blocks: u32,
    #[n(1)]
    last_block_bytes: u32,
    #[n(2)]
    frame_blocks: u32,
    #[cbor(n(3), with = "crate::cbor::ulids")]
    packs: Vec<Ulid>,
    #[n(4)]
    runs: ByteVec,
    #[n(5)]
    exceptions: Option<ByteVec>,
}

impl BlockMap {
    /// How many blocks the file has; the last may be short.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        // No map of a longer file is made: `BlockMapBuilder::finish` and `MapBuilder::add`.
        u32::try_from(blocks_of(self.file_bytes)).unwrap_or(u32::MAX)
    }

    /// The packs the blocks are in, each once.
    #[must_use]
    pub fn packs(&self) -> Vec<Ulid> {
        let mut packs: Vec<Ulid> = Vec::new();
        for run in &self.runs {
            if let BlockSource::Frames { pack, .. } = run.source
                && !packs.contains(&pack)
            {
                packs.push(pack);
            }
        }
        packs
    }

    /// The leaf's plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut packs: Vec<Ulid> = Vec::new();
        let mut runs = Vec::new();
        for run in &self.runs {
            varint::put(&mut runs, u64::from(run.blocks));
            match run.source {
                BlockSource::Zero => varint::put(&mut runs, 0),
                BlockSource::Frames { pack, first_frame } => {
                    let index =
                        packs.iter().rposition(|known| *known == pack).unwrap_or_else(|| {
                            packs.push(pack);
                            packs.len() - 1
                        });
                    varint::put(&mut runs, index as u64 + 1);
                    varint::put(&mut runs, u64::from(first_frame));
                }
            }
        }
        cbor::encode(&Leaf {
            blocks: self.blocks(),
            last_block_bytes: last_block_bytes(self.file_bytes),
            frame_blocks: FRAME_BLOCKS,
            packs,
            runs: runs.into(),
            exceptions: None,
        })
    }

    /// Reads a leaf.
    ///
    /// # Errors
    /// [`Damage::Content`] if the runs do not cover the file exactly, or need what this program
    /// does not know.
    pub fn decode(plaintext: &[u8]) -> Result<Self, Damage> {
        let leaf: Leaf = cbor::decode(plaintext)?;
        let bad = |what: &str| Damage::Content(format!("a block map {what}"));
        if leaf.exceptions.is_some_and(|exceptions| !exceptions.is_empty()) {
            return Err(bad("has exceptions, which this program does not know"));
        }
        if leaf.frame_blocks != FRAME_BLOCKS {
            return Err(bad("has frames of another size than this program knows"));
        }
        let mut rest: &[u8] = &leaf.runs;
        let mut runs = Vec::new();
        let mut next = 0u32;
        while !rest.is_empty() {
            let mut take = || varint::take(&mut rest).and_then(|value| u32::try_from(value).ok());
            let cut = || bad("is cut");
            let blocks = take().filter(|blocks| *blocks > 0).ok_or_else(cut)?;
            let source = match take().ok_or_else(cut)? {
                0 => BlockSource::Zero,
                index => BlockSource::Frames {
                    pack: *leaf.packs.get(index as usize - 1).ok_or_else(cut)?,
                    first_frame: take().ok_or_else(cut)?,
                },
            };
            runs.push(Run { first_block: next, blocks, source });
            next = next.checked_add(blocks).ok_or_else(cut)?;
        }
        let map = Self { runs, file_bytes: file_bytes(leaf.blocks, leaf.last_block_bytes) };
        if next == leaf.blocks && map.blocks() == leaf.blocks {
            Ok(map)
        } else {
            Err(bad("does not cover its file"))
        }
    }
}

fn last_block_bytes(file_bytes: u64) -> u32 {
    // At most a block's length.
    let bytes = match file_bytes % BLOCK_BYTES {
        0 if file_bytes > 0 => BLOCK_BYTES,
        rest => rest,
    };
    u32::try_from(bytes).unwrap_or_default()
}

fn file_bytes(blocks: u32, last_block_bytes: u32) -> u64 {
    match blocks.checked_sub(1) {
        Some(full) => u64::from(full) * BLOCK_BYTES + u64::from(last_block_bytes),
        None => 0,
    }
}

/// Collects runs in block order and joins what continues.
#[derive(Debug, Clone, Default)]
pub struct BlockMapBuilder {
    runs: Vec<Run>,
}

impl BlockMapBuilder {
    /// The next blocks are all zero.
    pub fn zero(&mut self, blocks: u32) {
        self.push(blocks, BlockSource::Zero);
    }

    /// The next blocks are in one base frame.
    pub fn frame(&mut self, blocks: u32, pack: Ulid, frame: u32) {
        debug_assert!(blocks <= FRAME_BLOCKS, "a frame holds no more blocks");
        self.push(blocks, BlockSource::Frames { pack, first_frame: frame });
    }

    /// Appends the runs of blocks that follow.
    pub fn append(&mut self, later: Self) {
        for run in later.runs {
            self.push(run.blocks, run.source);
        }
    }

    /// The map of a file of `file_bytes`; `None` if the runs do not cover it exactly.
    #[must_use]
    pub fn finish(self, file_bytes: u64) -> Option<BlockMap> {
        let covered: u64 = self.runs.iter().map(|run| u64::from(run.blocks)).sum();
        let map = BlockMap { runs: self.runs, file_bytes };
        (covered <= BLOCKS_MAX && covered == blocks_of(file_bytes)).then_some(map)
    }

    fn push(&mut self, blocks: u32, source: BlockSource) {
        let first_block = self.runs.last().map_or(0, |last| last.first_block + last.blocks);
        if let Some(last) = self.runs.last_mut() {
            let continues = match (last.source, source) {
                (BlockSource::Zero, BlockSource::Zero) => true,
                (
                    BlockSource::Frames { pack, first_frame },
                    BlockSource::Frames { pack: next_pack, first_frame: next_frame },
                ) => {
                    // Only full frames may stand before another frame of the same run.
                    pack == next_pack
                        && last.blocks % FRAME_BLOCKS == 0
                        && first_frame.checked_add(last.blocks / FRAME_BLOCKS) == Some(next_frame)
                }
                _ => false,
            };
            if continues {
                last.blocks += blocks;
                return;
            }
        }
        self.runs.push(Run { first_block, blocks, source });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(n: u128) -> Ulid {
        Ulid(n)
    }

    #[test]
    fn consecutive_full_frames_are_one_run() {
        let mut builder = BlockMapBuilder::default();
        for frame in 5..10 {
            builder.frame(16, pack(1), frame);
        }
        builder.frame(3, pack(1), 10);
        builder.zero(1);
        builder.frame(16, pack(1), 11);
        let map = builder.finish((5 * 16 + 3 + 1 + 16) * 8192 - 100).unwrap();
        assert_eq!(map.runs.len(), 3);
        assert_eq!(map.runs[0].frames(), 6);
        assert_eq!(BlockMap::decode(&map.encode()).unwrap(), map);
    }

    #[test]
    fn a_frame_after_a_short_one_begins_a_run() {
        let mut builder = BlockMapBuilder::default();
        builder.frame(3, pack(1), 0);
        builder.frame(16, pack(1), 1);
        assert_eq!(builder.finish(19 * 8192).unwrap().runs.len(), 2);
    }

    #[test]
    fn a_map_that_does_not_cover_its_file_is_refused() {
        let mut builder = BlockMapBuilder::default();
        builder.zero(2);
        assert!(builder.clone().finish(3 * 8192).is_none());
        let mut map = builder.finish(2 * 8192).unwrap();
        map.file_bytes = 8192;
        assert!(BlockMap::decode(&map.encode()).is_err());
    }

    proptest! {
        #[test]
        fn maps_round_trip(
            pieces in proptest::collection::vec((1u32..=16, 0u128..4, 0u32..1000), 0..50),
            cut in 0u64..8192,
        ) {
            let mut builder = BlockMapBuilder::default();
            let mut blocks = 0u64;
            for (count, source, frame) in pieces {
                if source == 0 { builder.zero(count) } else { builder.frame(count, pack(source), frame) }
                blocks += u64::from(count);
            }
            let map = builder.finish((blocks * 8192).saturating_sub(cut)).unwrap();
            prop_assert_eq!(BlockMap::decode(&map.encode()).unwrap(), map);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = BlockMap::decode(&bytes);
        }
    }
}
