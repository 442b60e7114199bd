//! The envelope of every object: header, chunks, trailer (format.md, 3).
//!
//! ```text
//! header (64) ‖ chunk ‖ chunk ‖ … ‖ footer chunk ‖ trailer (32)
//! ```

mod compress;
mod ends;
mod layout;
mod open;
mod seal;
mod whole;

pub use compress::{ChunkBody, Compressor};
pub use ends::{Ends, read_ends};
pub use layout::{CHUNK_PREFIX_BYTES, HEADER_BYTES, ObjectKind, Section, TRAILER_BYTES};
pub(crate) use layout::{epoch_of, kind_of};
pub use open::{Decompressor, ObjectOpener};
pub(crate) use open::{check_chunks, sha256};
pub use seal::ObjectSealer;
pub(crate) use whole::ChunkWalk;
pub use whole::WholeObject;

/// The authentication tag AES-256-GCM adds to each chunk.
pub const TAG_BYTES: usize = 16;

#[cfg(test)]
mod tests;
