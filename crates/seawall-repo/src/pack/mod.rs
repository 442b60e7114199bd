//! Packs: frames and the table that finds them (format.md, 6).

mod body;
mod builder;
mod frame;
mod reader;

pub use body::FrameBody;
pub use builder::{PackBuilder, PackInfo};
pub use frame::{BundleSize, DeltaFile, FRAME_BLOCKS, FrameKind, FramePayload, PAYLOAD_BYTES_MAX};
pub use reader::{FrameReader, FrameTable, Frames};

/// The bytes of a block, PostgreSQL's page.
pub const BLOCK_BYTES: usize = 8192;
