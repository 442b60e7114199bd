//! Manifests: what makes a backup (format.md, 8).

mod entry;
mod footer;
mod reader;
mod writer;

pub use entry::{Content, Entry, EntryKind, is_path};
pub use footer::{
    BackupInfo, BackupKind, BackupSource, Database, ExternalFile, INCLUDED, LeftOut, Manifest,
    PageError,
};
pub use reader::ManifestReader;
pub use writer::ManifestWriter;

/// Where a page of entries is in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct PageAddress {
    /// The path of the first entry.
    #[n(0)]
    pub first_path: minicbor::bytes::ByteVec,
    /// Offset of the chunk.
    #[n(1)]
    pub offset: u64,
    /// Length of the chunk, its prefix included.
    #[n(2)]
    pub length: u32,
    /// How many entries it holds.
    #[n(3)]
    pub entries: u32,
}

/// Where a page of the pack list is in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct PackPageAddress {
    /// Offset of the chunk.
    #[n(0)]
    pub offset: u64,
    /// Length of the chunk, its prefix included.
    #[n(1)]
    pub length: u32,
    /// How many packs it names.
    #[n(2)]
    pub packs: u32,
}
