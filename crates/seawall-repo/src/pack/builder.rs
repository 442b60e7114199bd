use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use seawall_core::{Result, Ulid};
use seawall_store::ObjectPath;

use super::body::FrameBody;
use super::reader::Table;
use crate::envelope::{ObjectKind, ObjectSealer, Section};
use crate::hash::{ContentHasher, FullBlockHash, ObjectHash};
use crate::keys::Keyring;
use crate::{Damage, cbor, error, varint};

/// The footer of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct PackFooter {
    #[n(0)]
    pub frames: u32,
    #[n(1)]
    pub stored_lengths: ByteVec,
    #[n(2)]
    pub hashes: ByteVec,
    #[n(3)]
    pub kinds: ByteVec,
}

/// What a commit says of a pack its backup uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PackInfo {
    /// The pack's id.
    #[cbor(n(0), with = "crate::cbor::ulid")]
    pub id: Ulid,
    /// The object's length in bytes.
    #[n(1)]
    pub length_bytes: u64,
    /// Object hash of its footer's plaintext.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub footer_hash: ObjectHash,
}

/// Makes a pack, frame after frame. Bytes are appended to a buffer the caller drains to the store;
/// joined they are the object.
#[derive(Debug)]
pub struct PackBuilder {
    id: Ulid,
    sealer: ObjectSealer,
    hasher: ContentHasher,
    footer: PackFooter,
}

impl PackBuilder {
    /// Begins the pack `id` at `path`.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] without randomness.
    pub fn begin(
        keyring: &Keyring,
        id: Ulid,
        path: &ObjectPath,
        out: &mut Vec<u8>,
    ) -> Result<Self> {
        let empty = || ByteVec::from(Vec::new());
        Ok(Self {
            id,
            sealer: ObjectSealer::begin(keyring, ObjectKind::Pack, path, out)?,
            hasher: keyring.hasher().clone(),
            footer: PackFooter {
                frames: 0,
                stored_lengths: empty(),
                hashes: empty(),
                kinds: empty(),
            },
        })
    }

    /// The pack's id.
    #[must_use]
    pub const fn id(&self) -> Ulid {
        self.id
    }

    /// How many bytes the pack has so far.
    #[must_use]
    pub const fn stored_bytes(&self) -> u64 {
        self.sealer.offset()
    }

    /// How many frames the pack has so far: the number the next one gets.
    #[must_use]
    pub const fn frames(&self) -> u32 {
        self.footer.frames
    }

    /// Adds a frame. `hashes` are those of its blocks, in order, with this repository's key.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] for hashes of other blocks, or more frames than a pack can number.
    pub fn frame(
        &mut self,
        body: &FrameBody,
        hashes: &[FullBlockHash],
        out: &mut Vec<u8>,
    ) -> Result<u32> {
        if body.blocks() != hashes.len() {
            let (blocks, given) = (body.blocks(), hashes.len());
            let damage = Damage::Content(format!("{given} hashes are given for {blocks} blocks"));
            return Err(error::unreadable("frame", &damage));
        }
        let stored = self.sealer.body_chunk(Section::FIRST, body.chunk(), out)?;
        varint::put(&mut self.footer.stored_lengths, u64::from(stored));
        self.footer.hashes.extend_from_slice(&self.hasher.frame(hashes));
        self.footer.kinds.push(body.kind().number());
        let number = self.footer.frames;
        self.footer.frames += 1;
        Ok(number)
    }

    /// Ends the pack.
    ///
    /// # Errors
    /// [`seawall_core::Code::Internal`] if its table would not be read again.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<PackInfo> {
        let footer = cbor::encode(&self.footer);
        Table::decode(&footer, self.sealer.offset())
            .map_err(|damage| error::unreadable("pack", &damage))?;
        let footer_hash = self.hasher.object(&footer);
        let length_bytes = self.sealer.finish(&footer, out)?;
        Ok(PackInfo { id: self.id, length_bytes, footer_hash })
    }
}
