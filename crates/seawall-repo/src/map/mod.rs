//! Block maps: which frame holds each block of a file (format.md, 7).

mod leaf;
mod object;

pub use leaf::{BlockMap, BlockMapBuilder, BlockSource, Run};
pub use object::{LeafAddress, LeafPair, MapBuilder, MapInfo, MapReader};
