//! A backup's files, as they are stored: where their bytes are, whether all of them are there, and where
//! each belongs. Restore and verify read them.

mod content;
mod deltas;
mod layout;
mod proof;
mod sources;

pub(crate) use content::{
    Batch, Part, block_offset, length_of, parts, prove_blocks, read_block, read_file, read_leaves,
    wrong_frame,
};
pub(crate) use deltas::DeltaBlocks;
pub(crate) use layout::Layout;
pub(crate) use proof::{Frames, Proven, prove_backup};
pub(crate) use sources::{Sources, inconsistent};
