use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::data::Type;
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};
use seawall_core::Ulid;

use super::page::{List, Names};
use crate::map::{LeafAddress, LeafPair};
use crate::pack::{BLOCK_BYTES, PAYLOAD_BYTES_MAX};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum EntryKind {
    /// A directory.
    #[n(0)]
    Directory,
    /// A regular file.
    #[n(1)]
    File,
    /// A symbolic link.
    #[n(2)]
    Symlink,
}

/// One path of a backup, relative to the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map, context_bound = "AsMut<Names>")]
pub struct Entry {
    /// The path; bytes, for PostgreSQL's names are.
    #[n(0)]
    pub path: ByteVec,
    /// What it is.
    #[n(1)]
    pub kind: EntryKind,
    /// Permission bits.
    #[n(2)]
    pub mode: u32,
    /// Length of a file in bytes.
    #[n(3)]
    pub size_bytes: Option<u64>,
    /// When a file was last changed, microseconds since 1970.
    #[n(4)]
    pub modified_us: Option<i64>,
    /// Where a file's bytes are; absent for an empty file.
    #[n(5)]
    pub content: Option<Content>,
    /// Where a link leads.
    #[n(6)]
    pub link_target: Option<ByteVec>,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Inside a frame with other small files.
    Blob {
        /// The pack.
        pack: Ulid,
        /// The frame.
        frame: u32,
        /// Where the file begins in the frame's payload.
        offset: u32,
        /// Hashes of its blocks, 8 bytes each.
        hashes: Vec<u8>,
    },
    /// In the frames a block map names.
    Mapped {
        /// Where the map and the hashes of the blocks are.
        leaves: LeafPair,
        /// The packs the map names, each once.
        packs: Vec<Ulid>,
    },
}

impl<C: AsMut<Names>> Encode<C> for Content {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        names: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let Names { packs: listed, maps } = names.as_mut();
        match self {
            Self::Blob { pack, frame, offset, hashes } => {
                encoder.array(5)?.u8(0)?.u32(listed.number(*pack))?;
                encoder.u32(*frame)?.u32(*offset)?.bytes(hashes)?;
            }
            Self::Mapped { leaves, packs } => {
                encoder.array(4)?.u8(1)?;
                for leaf in [&leaves.runs, &leaves.hashes] {
                    encoder.array(4)?.u32(maps.number(leaf.map))?;
                    encoder.u64(leaf.offset)?.u32(leaf.length)?.bytes(&leaf.hash)?;
                }
                encoder.array(packs.len() as u64)?;
                for pack in packs {
                    encoder.u32(listed.number(*pack))?;
                }
            }
        }
        Ok(())
    }
}

impl<'b, C: AsMut<Names>> Decode<'b, C> for Content {
    fn decode(decoder: &mut Decoder<'b>, names: &mut C) -> Result<Self, decode::Error> {
        let Names { packs: listed, maps } = names.as_mut();
        if decoder.datatype()? != Type::Array {
            return Err(decode::Error::message("content is not an array"));
        }
        match (decoder.array()?, decoder.u8()?) {
            (Some(5), 0) => Ok(Self::Blob {
                pack: listed.id(decoder.u32()?)?,
                frame: decoder.u32()?,
                offset: decoder.u32()?,
                hashes: decoder.bytes()?.to_vec(),
            }),
            (Some(4), 1) => {
                let leaves = LeafPair { runs: leaf(decoder, maps)?, hashes: leaf(decoder, maps)? };
                let packs = decoder.array_iter::<u32>()?;
                let packs = packs.map(|number| listed.id(number?)).collect::<Result<_, _>>()?;
                Ok(Self::Mapped { leaves, packs })
            }
            _ => Err(decode::Error::message("content of an unknown kind")),
        }
    }
}

fn leaf(decoder: &mut Decoder<'_>, maps: &List) -> Result<LeafAddress, decode::Error> {
    if decoder.array()? != Some(4) {
        return Err(decode::Error::message("a leaf's address has four parts"));
    }
    Ok(LeafAddress {
        map: maps.id(decoder.u32()?)?,
        offset: decoder.u64()?,
        length: decoder.u32()?,
        hash: *decoder.decode::<ByteArray<16>>()?,
    })
}

impl Entry {
    /// Proves what an entry can prove alone: that a restore can make of it what it says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), &'static str> {
        if !is_path(self.path()) {
            return Err("has a path that is not one of a data directory");
        }
        let size_bytes = self.size_bytes();
        let hash_bytes = size_bytes.div_ceil(BLOCK_BYTES as u64).checked_mul(8);
        match (self.kind, &self.content) {
            (EntryKind::Symlink, _) if self.link_target.as_ref().is_none_or(|to| !is_link(to)) => {
                Err("is a link without a target")
            }
            (EntryKind::Directory | EntryKind::Symlink, Some(_)) => {
                Err("has content and is no file")
            }
            (EntryKind::File, None) if size_bytes > 0 => Err("has no content"),
            (EntryKind::File, Some(Content::Blob { hashes, .. }))
                if Some(hashes.len() as u64) != hash_bytes =>
            {
                Err("has hashes of another length")
            }
            (EntryKind::File, Some(Content::Blob { offset, .. }))
                if u64::from(*offset).saturating_add(size_bytes) > PAYLOAD_BYTES_MAX as u64 =>
            {
                Err("lies beyond its frame")
            }
            _ => Ok(()),
        }
    }

    /// The packs its bytes are in, each once.
    pub fn packs(&self) -> impl Iterator<Item = Ulid> {
        let packs = match &self.content {
            None => &[][..],
            Some(Content::Blob { pack, .. }) => std::slice::from_ref(pack),
            Some(Content::Mapped { packs, .. }) => packs,
        };
        packs.iter().copied()
    }

    /// The maps that say where its blocks are; not each once.
    pub fn maps(&self) -> impl Iterator<Item = Ulid> {
        let leaves = match &self.content {
            None | Some(Content::Blob { .. }) => None,
            Some(Content::Mapped { leaves, .. }) => Some(leaves),
        };
        leaves.into_iter().flat_map(|leaves| [leaves.runs.map, leaves.hashes.map])
    }

    /// The path as bytes.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// A file's length; zero for anything else.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.unwrap_or_default()
    }
}

/// Whether a path is one of a data directory: relative, and nothing that leads out of it.
#[must_use]
pub fn is_path(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .all(|part| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0))
}

fn is_link(target: &[u8]) -> bool {
    !target.is_empty() && !target.contains(&0)
}
