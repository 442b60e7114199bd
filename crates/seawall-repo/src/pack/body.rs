use seawall_core::Result;

use super::FrameKind;
use super::frame::FramePayload;
use crate::envelope::{ChunkBody, Compressor};

/// A frame before it is sealed: proven to be one, and compressed. The same for every repository it
/// goes into, whatever their keys.
#[derive(Debug)]
pub struct FrameBody {
    kind: FrameKind,
    blocks: usize,
    plaintext: Vec<u8>,
    chunk: ChunkBody,
}

impl FrameBody {
    /// A frame without content; its buffers serve many frames, one after another.
    #[must_use]
    pub fn new() -> Self {
        Self {
            kind: FrameKind::Base,
            blocks: 0,
            plaintext: Vec::new(),
            chunk: ChunkBody::default(),
        }
    }

    /// Makes it the frame of `payload`.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] for what a frame cannot be.
    pub fn fill(
        &mut self,
        what: FramePayload<'_>,
        payload: &[u8],
        compressor: &mut Compressor,
    ) -> Result<()> {
        self.blocks = what.plaintext(payload, &mut self.plaintext)?;
        self.kind = what.kind();
        self.chunk.fill(&self.plaintext, compressor);
        Ok(())
    }

    pub(super) const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// How many blocks its payload has.
    pub(super) const fn blocks(&self) -> usize {
        self.blocks
    }

    pub(super) const fn chunk(&self) -> &ChunkBody {
        &self.chunk
    }
}

impl Default for FrameBody {
    fn default() -> Self {
        Self::new()
    }
}
