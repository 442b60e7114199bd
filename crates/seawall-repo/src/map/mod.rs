//! Block maps: which frame holds each block of a file (format.md, 7).

mod block_map;
mod leaf;
mod object;

pub use block_map::{BlockMap, BlockMapBuilder, BlockSource, Exception, ExceptionSource, Run};
pub use object::{LeafAddress, LeafPair, MapBuilder, MapInfo, MapReader};
