//! Keys: three independent ones per epoch, wrapped in slots (format.md, 5).

mod key_file;
mod later;
mod slot;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf;
use seawall_core::{Code, Error, Result};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use key_file::KeyFile;
pub(crate) use later::LaterEpoch;
use later::LaterEpochs;
pub use slot::{KeySlot, SecretText, SlotMethod, SlotPlace, Unlock};

use crate::hash::ContentHasher;
use crate::{Damage, error};

/// A 256-bit secret that is wiped when dropped and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Wraps key material.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh random secret.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub fn random() -> Result<Self> {
        random_bytes().map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The key of the hash domain.
pub(crate) type HashKey = Secret;

/// Which key protects a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Manifests, maps, footers, pins: what a host needs to make incremental backups.
    Metadata,
    /// Bodies of packs and WAL ranges: the database's content.
    Data,
}

impl Domain {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Metadata => b"metadata",
            Self::Data => b"data",
        }
    }
}

/// The keys of one epoch.
#[derive(Debug, Clone)]
pub struct EpochKeys {
    /// Key of the metadata domain.
    pub metadata: Secret,
    /// Key of the hash domain; the same in all epochs of a repository.
    pub hash: Secret,
    /// Key of the data domain.
    pub data: Secret,
}

impl EpochKeys {
    /// Fresh keys for a new repository.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub fn random() -> Result<Self> {
        Ok(Self { metadata: Secret::random()?, hash: Secret::random()?, data: Secret::random()? })
    }

    /// Fresh metadata and data keys; content hashes stay comparable.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub fn rotated(&self) -> Result<Self> {
        Ok(Self { metadata: Secret::random()?, hash: self.hash.clone(), data: Secret::random()? })
    }
}

/// What tells an epoch from another of the same number, which a rotation began that lost.
pub type EpochId = [u8; 16];

/// Every key of a repository that its holder can open.
#[derive(Debug, Clone)]
pub struct Keyring {
    repository: [u8; 16],
    epochs: BTreeMap<u32, EpochKeys>,
    /// The newest epoch there is; its keys may be missing.
    newest: u32,
    /// What opened it, for epochs that begin while it is in use: they are read, not written.
    unlock: Option<Arc<Unlock>>,
    later: LaterEpochs,
    hasher: ContentHasher,
}

impl Keyring {
    /// A keyring of one epoch.
    #[must_use]
    pub fn new(repository: [u8; 16], epoch: u32, keys: EpochKeys) -> Self {
        let hasher = ContentHasher::new(&keys.hash);
        let epochs = BTreeMap::from([(epoch, keys)]);
        let later = LaterEpochs::default();
        Self { repository, epochs, newest: epoch, unlock: None, later, hasher }
    }

    /// The same keyring, which opens epochs that begin later with `unlock`.
    pub(crate) fn opened_by(mut self, unlock: &Unlock) -> Self {
        self.unlock = Some(Arc::new(unlock.clone()));
        self
    }

    pub(crate) fn unlock(&self) -> Option<&Unlock> {
        self.unlock.as_deref()
    }

    /// Whether an epoch was opened or looked for.
    pub(crate) fn knows(&self, epoch: u32) -> bool {
        self.epochs.contains_key(&epoch) || self.later.get(epoch).is_some()
    }

    /// Notes what was found of an epoch that began after the keyring was opened.
    pub(crate) fn learn_epoch(&self, epoch: u32, what: LaterEpoch) {
        self.later.learn(epoch, what);
    }

    /// Adds the keys of another epoch.
    pub fn add(&mut self, epoch: u32, keys: EpochKeys) {
        self.epochs.insert(epoch, keys);
        self.has_begun(epoch);
    }

    /// Notes that an epoch has begun, with or without keys. Without those of the newest nothing can
    /// be written.
    pub fn has_begun(&mut self, epoch: u32) {
        self.newest = self.newest.max(epoch);
    }

    /// The id of the repository these keys belong to.
    #[must_use]
    pub const fn repository(&self) -> &[u8; 16] {
        &self.repository
    }

    /// The epoch new objects are written under.
    #[must_use]
    pub const fn current_epoch(&self) -> u32 {
        self.newest
    }

    /// The keys new objects are written under.
    ///
    /// # Errors
    /// [`Code::KeyEpochGone`] if the newest epoch has none.
    pub fn current(&self) -> Result<&EpochKeys> {
        self.epoch(self.newest).ok_or_else(|| error::epoch_gone(self.newest))
    }

    /// The keys of one epoch.
    #[must_use]
    pub fn epoch(&self, epoch: u32) -> Option<&EpochKeys> {
        self.epochs.get(&epoch)
    }

    /// The content hash functions.
    #[must_use]
    pub const fn hasher(&self) -> &ContentHasher {
        &self.hasher
    }

    /// The key of one object in one domain.
    ///
    /// # Errors
    /// [`Damage::Epoch`] and [`Damage::Locked`] for an epoch without keys.
    pub(crate) fn object_key(
        &self,
        epoch: u32,
        domain: Domain,
        salt: &[u8; 32],
    ) -> Result<[u8; 32], Damage> {
        let key = |keys: &EpochKeys| {
            let secret = match domain {
                Domain::Metadata => &keys.metadata,
                Domain::Data => &keys.data,
            };
            derive(secret.bytes(), salt, &[b"seawall 1 ", domain.name()])
        };
        if let Some(keys) = self.epochs.get(&epoch) {
            return Ok(key(keys));
        }
        match self.later.get(epoch) {
            Some(LaterEpoch::Keys(keys)) => Ok(key(&keys)),
            Some(LaterEpoch::Locked(why)) => Err(Damage::Locked(why)),
            Some(LaterEpoch::Gone) | None => Err(Damage::Epoch(epoch)),
        }
    }
}

/// HKDF-SHA-256 to 32 bytes.
pub(crate) fn derive(secret: &[u8], salt: &[u8], info: &[&[u8]]) -> [u8; 32] {
    struct ThirtyTwo;
    impl hkdf::KeyType for ThirtyTwo {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let filled = prk.expand(info, ThirtyTwo).and_then(|okm| okm.fill(&mut key));
    debug_assert!(filled.is_ok(), "32 bytes are within what HKDF-SHA-256 gives");
    key
}

/// Random bytes from the operating system.
///
/// # Errors
/// [`Code::Internal`] if it has none to give.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("no randomness: {error}")))?;
    Ok(bytes)
}
