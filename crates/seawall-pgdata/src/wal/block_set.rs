//! A compact set of block numbers.

use std::fmt;
use std::ops::Range;

use roaring::RoaringBitmap;
use seawall_core::BlockNumber;

/// A set of blocks of one relation fork. A bitmap per 65536 blocks where it is dense, a list
/// where it is sparse; equal sets are equal however they came about.
#[derive(Clone, Default, PartialEq)]
pub struct BlockSet(RoaringBitmap);

impl Eq for BlockSet {}

impl BlockSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one block; tells whether it is new.
    pub fn insert(&mut self, block: BlockNumber) -> bool {
        self.0.insert(block)
    }

    /// Adds all blocks of another set.
    pub fn insert_all(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// Adds these blocks.
    pub fn insert_range(&mut self, blocks: Range<BlockNumber>) {
        self.0.insert_range(blocks);
    }

    /// Which of these blocks are in the set, counted from the first of them.
    #[must_use]
    pub fn within(&self, blocks: Range<BlockNumber>) -> Self {
        let start = blocks.start;
        self.0.range(blocks).map(|block| block - start).collect()
    }

    /// Removes the blocks at and above `limit`.
    pub fn truncate(&mut self, limit: BlockNumber) {
        self.0.remove_range(limit..);
    }

    /// Whether the block is in the set.
    #[must_use]
    pub fn contains(&self, block: BlockNumber) -> bool {
        self.0.contains(block)
    }

    /// Whether any of `blocks` is in the set.
    #[must_use]
    pub fn intersects(&self, blocks: Range<BlockNumber>) -> bool {
        self.0.range_cardinality(blocks) > 0
    }

    /// How many blocks there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All blocks, rising.
    pub fn iter(&self) -> impl Iterator<Item = BlockNumber> + '_ {
        self.0.iter()
    }

    /// All blocks as runs (first block, count), rising and never adjacent.
    pub fn runs(&self) -> impl Iterator<Item = (BlockNumber, u64)> + '_ {
        let mut blocks = self.0.iter().peekable();
        std::iter::from_fn(move || {
            let first = blocks.next()?;
            let mut count = 1u64;
            while blocks.next_if(|next| u64::from(*next) == u64::from(first) + count).is_some() {
                count += 1;
            }
            Some((first, count))
        })
    }
}

impl FromIterator<BlockNumber> for BlockSet {
    fn from_iter<I: IntoIterator<Item = BlockNumber>>(blocks: I) -> Self {
        Self(blocks.into_iter().collect())
    }
}

impl fmt::Debug for BlockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.runs().map(|(first, count)| format!("{first}+{count}")))
            .finish()
    }
}
