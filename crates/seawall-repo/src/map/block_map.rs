use std::ops::Range;

use seawall_core::Ulid;

use crate::hash::BlockHash;
use crate::pack::FRAME_BLOCKS;

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

    pub(super) const fn end(&self) -> u32 {
        self.first_block.saturating_add(self.blocks)
    }
}

/// A block that lies elsewhere than the runs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// The block, within the file.
    pub block: u32,
    /// Where it is.
    pub source: ExceptionSource,
    /// Its hash; that of a zero block is zero.
    pub hash: BlockHash,
}

/// Where an exception is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExceptionSource {
    /// It is all zero and stored nowhere.
    Zero,
    /// In a delta frame.
    Delta {
        /// The pack.
        pack: Ulid,
        /// The frame.
        frame: u32,
        /// Which of the frame's blocks.
        slot: u32,
    },
}

/// Where all blocks of one file are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockMap {
    /// Runs from block 0 on, without gaps. What they do not cover are exceptions.
    pub runs: Vec<Run>,
    /// Blocks that lie elsewhere than the runs say, ascending.
    pub exceptions: Vec<Exception>,
    /// The file's length in bytes.
    pub file_bytes: u64,
}

const BLOCK_BYTES: u64 = crate::pack::BLOCK_BYTES as u64;

const fn blocks_of(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(BLOCK_BYTES)
}

/// Files have at most this many blocks: 1 GiB segments have 131072; other files may be longer.
const BLOCKS_MAX: u64 = u32::MAX as u64;

impl BlockMap {
    /// How many blocks the file has; the last may be short.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        // No map of a longer file is made: `BlockMapBuilder::finish` and `MapBuilder::add`.
        u32::try_from(blocks_of(self.file_bytes)).unwrap_or(u32::MAX)
    }

    /// How many blocks the runs cover.
    #[must_use]
    pub fn run_blocks(&self) -> u32 {
        self.runs.last().map_or(0, Run::end)
    }

    /// The exceptions among these blocks.
    #[must_use]
    pub fn exceptions_within(&self, blocks: Range<u32>) -> &[Exception] {
        let before = |end: u32| self.exceptions.partition_point(|it| it.block < end);
        self.exceptions.get(before(blocks.start)..before(blocks.end)).unwrap_or_default()
    }

    /// The hashes of all blocks, of which `leaf` has those that are no exceptions. `None` if it
    /// has fewer than the runs have blocks.
    #[must_use]
    pub fn hashes(&self, mut leaf: Vec<BlockHash>) -> Option<Vec<BlockHash>> {
        if leaf.len() < self.run_blocks() as usize {
            return None;
        }
        leaf.resize(self.blocks() as usize, BlockHash::default());
        for exception in &self.exceptions {
            if let Some(hash) = leaf.get_mut(exception.block as usize) {
                *hash = exception.hash;
            }
        }
        Some(leaf)
    }

    /// The packs the blocks are in, each once.
    #[must_use]
    pub fn packs(&self) -> Vec<Ulid> {
        let mut packs: Vec<Ulid> = Vec::new();
        let in_runs = self.runs.iter().filter_map(|run| match run.source {
            BlockSource::Zero => None,
            BlockSource::Frames { pack, .. } => Some(pack),
        });
        let in_deltas = self.exceptions.iter().filter_map(|exception| match exception.source {
            ExceptionSource::Zero => None,
            ExceptionSource::Delta { pack, .. } => Some(pack),
        });
        for pack in in_runs.chain(in_deltas) {
            number_in(&mut packs, pack);
        }
        packs
    }

    /// The map of the file as it is later: of `file_bytes`, and these blocks changed, ascending.
    /// `None` if that leaves a block without a place: each that is new, or has another length than
    /// before, must be among them.
    #[must_use]
    pub fn changed(&self, file_bytes: u64, changed: &[Exception]) -> Option<Self> {
        let blocks = u32::try_from(blocks_of(file_bytes)).ok()?;
        let is_changed =
            |block: u32| changed.binary_search_by_key(&block, |change| change.block).is_ok();
        let lasts = [self.blocks(), blocks].map(|blocks| blocks.saturating_sub(1));
        let same_length = |block: &u32| {
            bytes_of(*block, self.file_bytes) == bytes_of(*block, file_bytes) || *block >= blocks
        };
        if !lasts.iter().all(|last| same_length(last) || is_changed(*last)) {
            return None;
        }
        let runs = self.runs.iter().filter(|run| run.first_block < blocks);
        let runs = runs.map(|run| Run { blocks: run.blocks.min(blocks - run.first_block), ..*run });
        let kept = self.exceptions.iter().filter(|it| it.block < blocks && !is_changed(it.block));
        let mut exceptions: Vec<Exception> = kept.chain(changed).copied().collect();
        exceptions.sort_by_key(|exception| exception.block);
        let map = Self { runs: runs.collect(), exceptions, file_bytes };
        map.is_sound().then_some(map)
    }

    /// Whether every block has one place.
    pub(super) fn is_sound(&self) -> bool {
        let blocks = self.blocks();
        let ascending = self.exceptions.is_sorted_by(|one, next| one.block < next.block);
        let zeroes_are = self.exceptions.iter().all(|exception| {
            (exception.source == ExceptionSource::Zero) == (exception.hash == BlockHash::default())
        });
        let covered = self.run_blocks();
        let behind = self.exceptions_within(covered..u32::MAX);
        let all_behind = behind.iter().map(|exception| exception.block).eq(covered..blocks);
        blocks_of(self.file_bytes) <= BLOCKS_MAX
            && covered <= blocks
            && ascending
            && zeroes_are
            && all_behind
    }
}

/// How many bytes a block has in a file of this length.
fn bytes_of(block: u32, file_bytes: u64) -> u64 {
    file_bytes.saturating_sub(u64::from(block) * BLOCK_BYTES).min(BLOCK_BYTES)
}

/// The place of a pack in a list, to which it is added if it is not there.
pub(super) fn number_in(packs: &mut Vec<Ulid>, pack: Ulid) -> usize {
    packs.iter().rposition(|known| *known == pack).unwrap_or_else(|| {
        packs.push(pack);
        packs.len() - 1
    })
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
        let map = BlockMap { runs: self.runs, exceptions: Vec::new(), file_bytes };
        (covered <= BLOCKS_MAX && covered == blocks_of(file_bytes)).then_some(map)
    }

    fn push(&mut self, blocks: u32, source: BlockSource) {
        let first_block = self.runs.last().map_or(0, Run::end);
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
