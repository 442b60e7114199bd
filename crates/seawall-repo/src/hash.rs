//! Keyed content hashes (format.md, 5). Keyed, so that whoever sees a repository cannot test
//! guesses about what it holds.

use crate::keys::{HashKey, derive};

/// The hash of one block: the first 8 bytes of keyed BLAKE3, or zero for a block of zeroes.
pub type BlockHash = [u8; 8];

/// The hash of a frame or of a chunk's plaintext: the first 16 bytes of keyed BLAKE3.
pub type ObjectHash = [u8; 16];

/// A repository's two content hash functions.
#[derive(Clone)]
pub struct ContentHasher {
    block_key: [u8; 32],
    frame_key: [u8; 32],
}

/// The whole keyed hash of a block, of which its frame's hash is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullBlockHash([u8; 32]);

impl FullBlockHash {
    /// The part that is stored for each block.
    #[must_use]
    pub fn short(&self) -> BlockHash {
        first(&self.0)
    }
}

impl ContentHasher {
    pub(crate) fn new(key: &HashKey) -> Self {
        Self {
            block_key: derive(key.bytes(), &[], &[b"seawall 1 block"]),
            frame_key: derive(key.bytes(), &[], &[b"seawall 1 frame"]),
        }
    }

    /// Hashes a block that is not all zero.
    #[must_use]
    pub fn block(&self, block: &[u8]) -> FullBlockHash {
        FullBlockHash(*blake3::keyed_hash(&self.block_key, block).as_bytes())
    }

    /// Hashes a frame, given the hashes of its blocks in order.
    #[must_use]
    pub fn frame(&self, blocks: &[FullBlockHash]) -> ObjectHash {
        let mut hasher = blake3::Hasher::new_keyed(&self.frame_key);
        for block in blocks {
            hasher.update(&block.0);
        }
        first(hasher.finalize().as_bytes())
    }

    /// Hashes the plaintext of a metadata chunk.
    #[must_use]
    pub fn object(&self, plaintext: &[u8]) -> ObjectHash {
        first(blake3::keyed_hash(&self.frame_key, plaintext).as_bytes())
    }
}

impl std::fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentHasher")
    }
}

fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    let mut short = [0; N];
    short.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    short
}
