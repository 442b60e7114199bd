use minicbor::{Decode, Encode};
use seawall_core::{Error, Result, Ulid};
use seawall_store::{ObjectPath, Store};

use super::BlockMap;
use crate::cbor;
use crate::envelope::{
    Compressor, Decompressor, ObjectKind, ObjectOpener, ObjectSealer, Section, read_ends,
};
use crate::hash::{BlockHash, ContentHasher, ObjectHash};
use crate::keys::Keyring;
use crate::{Damage, error};

/// The footer of a map object.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct MapFooter {
    #[n(0)]
    leaves: u32,
    #[n(1)]
    hash_leaves: u32,
}

/// What a commit says of a map object its backup uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MapInfo {
    /// The map's id.
    #[cbor(n(0), with = "crate::cbor::ulid")]
    pub id: Ulid,
    /// The object's length in bytes.
    #[n(1)]
    pub length_bytes: u64,
    /// Object hash of its footer's plaintext.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub footer_hash: ObjectHash,
}

/// Where a leaf of a block map is. A page names the map by its place in a list ([`Page`]).
///
/// [`Page`]: crate::manifest::Page
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafAddress {
    /// The map object.
    pub map: Ulid,
    /// Offset of the chunk in it.
    pub offset: u64,
    /// Length of the chunk, its prefix included.
    pub length: u32,
    /// Object hash of the chunk's plaintext.
    pub hash: ObjectHash,
}

/// The two leaves of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafPair {
    /// Where the blocks are.
    pub runs: LeafAddress,
    /// Their hashes.
    pub hashes: LeafAddress,
}

/// Makes a map object, leaf after leaf, into a buffer the caller drains.
#[derive(Debug)]
pub struct MapBuilder {
    id: Ulid,
    sealer: ObjectSealer,
    hasher: ContentHasher,
    compressor: Compressor,
    footer: MapFooter,
}

impl MapBuilder {
    /// Begins the map `id` at `path`.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] without randomness.
    pub fn begin(
        keyring: &Keyring,
        id: Ulid,
        path: &ObjectPath,
        out: &mut Vec<u8>,
    ) -> Result<Self> {
        Ok(Self {
            id,
            sealer: ObjectSealer::begin(keyring, ObjectKind::Map, path, out)?,
            hasher: keyring.hasher().clone(),
            compressor: Compressor::new(3)?,
            footer: MapFooter { leaves: 0, hash_leaves: 0 },
        })
    }

    /// How many bytes the object has so far.
    #[must_use]
    pub const fn stored_bytes(&self) -> u64 {
        self.sealer.offset()
    }

    /// Adds the leaves of a file.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] for more leaves than a map can number, and for leaves that
    /// would not be read again as what they are.
    pub fn add(
        &mut self,
        map: &BlockMap,
        hashes: &[BlockHash],
        out: &mut Vec<u8>,
    ) -> Result<LeafPair> {
        if map.blocks() as usize != hashes.len() {
            let what = format!("{} blocks have {} hashes", map.blocks(), hashes.len());
            return Err(unreadable(&Damage::Content(what)));
        }
        let runs = self.runs(map, out)?;
        let hashes = self.leaf(Section::SECOND, hashes.as_flattened(), out)?;
        self.footer.hash_leaves += 1;
        Ok(LeafPair { runs, hashes })
    }

    /// Adds the leaf of a file of which some blocks changed: the hashes of the others stay where
    /// they are, `hash_count` of them.
    ///
    /// # Errors
    /// As for [`MapBuilder::add`].
    pub fn add_changed(
        &mut self,
        map: &BlockMap,
        hashes: LeafAddress,
        hash_count: usize,
        out: &mut Vec<u8>,
    ) -> Result<LeafPair> {
        if (map.run_blocks() as usize) > hash_count {
            let what = format!("{} blocks have {hash_count} hashes", map.run_blocks());
            return Err(unreadable(&Damage::Content(what)));
        }
        Ok(LeafPair { runs: self.runs(map, out)?, hashes })
    }

    fn runs(&mut self, map: &BlockMap, out: &mut Vec<u8>) -> Result<LeafAddress> {
        let encoded = map.encode();
        let read = BlockMap::decode(&encoded).map_err(|damage| unreadable(&damage))?;
        if read != *map {
            return Err(unreadable(&Damage::Content("it is not the map that was made".to_owned())));
        }
        let address = self.leaf(Section::FIRST, &encoded, out)?;
        self.footer.leaves += 1;
        Ok(address)
    }

    fn leaf(
        &mut self,
        section: Section,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<LeafAddress> {
        let offset = self.sealer.offset();
        let length = self.sealer.chunk(section, plaintext, Some(&mut self.compressor), out)?;
        Ok(LeafAddress { map: self.id, offset, length, hash: self.hasher.object(plaintext) })
    }

    /// Ends the object.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] if the footer cannot be sealed.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<MapInfo> {
        let footer = cbor::encode(&self.footer);
        let footer_hash = self.hasher.object(&footer);
        let length_bytes = self.sealer.finish(&footer, out)?;
        Ok(MapInfo { id: self.id, length_bytes, footer_hash })
    }
}

fn unreadable(damage: &Damage) -> Error {
    error::unreadable("block map", damage)
}

/// Reads leaves of one map object.
#[derive(Debug)]
pub struct MapReader {
    path: ObjectPath,
    opener: ObjectOpener,
    hasher: ContentHasher,
    leaves_end: u64,
}

impl MapReader {
    /// Reads the object's ends and proves that it is the one the backup names.
    ///
    /// # Errors
    /// Damage, a missing object, or a store that fails.
    pub async fn read(
        store: &dyn Store,
        keyring: &Keyring,
        path: &ObjectPath,
        expected: &MapInfo,
    ) -> Result<Self> {
        let ends = read_ends(store, keyring, ObjectKind::Map, path).await?;
        let hash = keyring.hasher().object(&ends.footer);
        if ends.length_bytes != expected.length_bytes || hash != expected.footer_hash {
            return Err(error::inconsistent(path, "it is not the map the backup names"));
        }
        Ok(Self {
            path: path.clone(),
            opener: ends.opener,
            hasher: keyring.hasher().clone(),
            leaves_end: ends.footer_offset,
        })
    }

    /// Reads where a file's blocks are.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn runs(&self, store: &dyn Store, address: &LeafAddress) -> Result<BlockMap> {
        let plaintext = self.leaf(store, Section::FIRST, address).await?;
        BlockMap::decode(&plaintext).map_err(|damage| damage.at(&self.path))
    }

    /// Reads the hashes of a file's blocks, of those at least that are no exceptions.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn hashes(&self, store: &dyn Store, address: &LeafAddress) -> Result<Vec<BlockHash>> {
        let plaintext = self.leaf(store, Section::SECOND, address).await?;
        let (hashes, rest) = plaintext.as_chunks::<8>();
        if rest.is_empty() {
            Ok(hashes.to_vec())
        } else {
            Err(Damage::Content("block hashes are cut".to_owned()).at(&self.path))
        }
    }

    async fn leaf(
        &self,
        store: &dyn Store,
        section: Section,
        address: &LeafAddress,
    ) -> Result<Vec<u8>> {
        let end = address.offset.saturating_add(u64::from(address.length));
        if end > self.leaves_end {
            return Err(error::inconsistent(&self.path, "a leaf lies past its end"));
        }
        let mut bytes: Vec<u8> = store.read_range(&self.path, address.offset..end).await?.into();
        let mut plaintext = Vec::new();
        self.opener
            .any_chunk(
                section,
                &mut bytes,
                address.offset,
                &mut Decompressor::new()?,
                &mut plaintext,
            )
            .map_err(|damage| damage.at(&self.path))?;
        if self.hasher.object(&plaintext) == address.hash {
            Ok(plaintext)
        } else {
            Err(error::inconsistent(&self.path, "a leaf is not the one the backup names"))
        }
    }
}
