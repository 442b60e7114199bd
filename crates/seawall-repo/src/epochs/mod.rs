//! Key epochs and slots of a repository (format.md, 5): which there are, and how they come and go.
//!
//! All of it is decided by names that two programs share and only one can create, or by looking
//! again after the own intention was written: keys that two programs disagree on would be lost data.

mod later;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{join_all, ready};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use seawall_core::{Action, ClusterName, Code, Error, Result, Ulid, hint};
use seawall_store::{ObjectPath, Store, StoreError};

use crate::envelope::{HEADER_BYTES, ObjectKind, WholeObject, epoch_of};
use crate::keys::{EpochId, EpochKeys, KeySlot, Keyring, SlotPlace, Unlock, random_bytes};
use crate::layout::{self, ObjectName};
use crate::records::{EpochRecord, Removal, open_clear, seal_clear};
use crate::repository::{CreateOptions, Repository, list, new_ulid, wrong_key};
use crate::{Damage, cbor, error};

/// How many clusters are looked at at the same time.
const READS_AT_ONCE: usize = 16;

/// The epoch that begins with the repository. It has no object and no id.
const FIRST: u32 = 1;

/// The later epochs that have begun.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epochs {
    begun: BTreeMap<u32, Begun>,
    /// The highest number that is taken, be it of a repository that was here before.
    highest_name: u32,
}

#[derive(Debug, Clone)]
struct Begun {
    path: ObjectPath,
    bytes: Bytes,
    id: Result<EpochId, Damage>,
}

/// A key slot as it is stored.
#[derive(Debug)]
struct StoredSlot {
    path: ObjectPath,
    id: Ulid,
    bytes: Bytes,
    slot: KeySlot,
}

/// The key slots of a repository, without those that nobody counts.
#[derive(Debug, Default)]
struct Slots {
    counted: Vec<StoredSlot>,
    /// Slots of epochs that have begun which cannot be read: the epoch, and why.
    damaged: Vec<(u32, Error)>,
}

impl Epochs {
    async fn read(store: &dyn Store, repository: &[u8; 16]) -> Result<Self> {
        let mut epochs = Self::default();
        for path in list(store, &layout::epochs()?).await? {
            let Some(ObjectName::Epoch(epoch)) = ObjectName::parse(&path) else { continue };
            epochs.highest_name = epochs.highest_name.max(epoch);
            let bytes = store.read_within(&path, ObjectKind::Epoch.whole_bytes_max()).await?;
            let id = match peek_epoch(&bytes) {
                // Left over from a repository that was here before.
                Ok(record) if record.repository != *repository => continue,
                Ok(record) if record.epoch == epoch => Ok(record.id.into()),
                Ok(_) => Err(Damage::Content("it is of another epoch".to_owned())),
                Err(damage) => Err(damage),
            };
            epochs.begun.insert(epoch, Begun { path, bytes, id });
        }
        Ok(epochs)
    }

    fn newest(&self) -> u32 {
        self.begun.keys().next_back().copied().unwrap_or(FIRST)
    }

    /// The id that the slots of an epoch carry. `Err` if the epoch has not begun.
    fn id(&self, epoch: u32) -> Result<Option<EpochId>, ()> {
        match self.begun.get(&epoch) {
            None if epoch == FIRST => Ok(None),
            None => Err(()),
            Some(begun) => Ok(begun.id.as_ref().ok().copied()),
        }
    }

    /// Whether a slot is one of an epoch that has begun. Else a rotation left it that died or lost.
    fn count(&self, slot: &KeySlot) -> bool {
        self.id(slot.epoch) == Ok(slot.epoch_id())
    }

    /// Where an epoch's object is damaged, its slots tell the id, if they agree.
    fn heal(&mut self, slots: &[StoredSlot]) {
        for (epoch, begun) in &mut self.begun {
            let of_epoch = slots.iter().filter(|stored| stored.slot.epoch == *epoch);
            let ids: BTreeSet<EpochId> =
                of_epoch.filter_map(|stored| stored.slot.epoch_id()).collect();
            if begun.id.is_err()
                && ids.len() == 1
                && let Some(id) = ids.first()
            {
                begun.id = Ok(*id);
            }
        }
    }

    /// Proves, of the epochs whose keys are at hand, that they began with these keys.
    fn prove(&self, keyring: &Keyring) -> Result<()> {
        for (epoch, begun) in &self.begun {
            if keyring.epoch(*epoch).is_some() && peek_epoch(&begun.bytes).is_ok() {
                open_clear(keyring, ObjectKind::Epoch, &begun.path, &begun.bytes)?;
            }
        }
        Ok(())
    }
}

impl Slots {
    /// Reads the slots there are, and which epochs they belong to.
    async fn read(store: &dyn Store, repository: &[u8; 16]) -> Result<(Epochs, Self)> {
        // In this order: an epoch that is seen has its slots already, one that begins now is not seen.
        let mut epochs = Epochs::read(store, repository).await?;
        let mut stored = Vec::new();
        let mut damaged = Vec::new();
        let limit_bytes = ObjectKind::KeySlot.whole_bytes_max();
        // A handful: each is somebody's who opens the repository.
        let reads = list_slots(store).await?.into_iter().map(async |(path, epoch, id)| {
            let bytes = store.read_within(&path, limit_bytes).await;
            (path, epoch, id, bytes)
        });
        for (path, epoch, id, bytes) in join_all(reads).await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            match peek_slot(&bytes) {
                Ok(slot) if slot.repository != *repository || slot.epoch != epoch => {}
                Ok(slot) => stored.push(StoredSlot { path, id, bytes, slot }),
                Err(damage) => damaged.push((epoch, damage.at(&path))),
            }
        }
        epochs.heal(&stored);
        let counted = stored.into_iter().filter(|stored| epochs.count(&stored.slot)).collect();
        damaged.retain(|(epoch, _)| epochs.id(*epoch).is_ok());
        Ok((epochs, Self { counted, damaged }))
    }

    /// When the first slot of each epoch was made, in microseconds since 1970.
    fn begun(&self) -> BTreeMap<u32, i64> {
        let mut begun = BTreeMap::new();
        for StoredSlot { slot, .. } in &self.counted {
            let first = begun.entry(slot.epoch).or_insert(slot.created_us);
            *first = slot.created_us.min(*first);
        }
        begun
    }

    /// Whether an epoch has any slot, readable or not.
    fn has(&self, epoch: u32) -> bool {
        self.counted.iter().any(|stored| stored.slot.epoch == epoch)
            || self.damaged.iter().any(|(of, _)| *of == epoch)
    }
}

/// Opens every epoch that `unlock` opens. The newest must be among them, if anybody's key opens it.
/// What heads tell ([`newest_in_heads`]) was read before: what they tell of began before.
pub(crate) async fn open_keyring(
    store: &dyn Store,
    repository: &[u8; 16],
    unlock: &Unlock,
    newest_in_heads: u32,
) -> Result<(Keyring, Epochs)> {
    let (epochs, slots) = Slots::read(store, repository).await?;
    let mut keyring: Option<Keyring> = None;
    for StoredSlot { id, slot, .. } in &slots.counted {
        if let Some(keys) = slot.open(*id, unlock)? {
            match &mut keyring {
                Some(keyring) => keyring.add(slot.epoch, keys),
                None => keyring = Some(Keyring::new(*repository, slot.epoch, keys)),
            }
        }
    }
    let newest = epochs.newest().max(newest_in_heads);
    match keyring {
        Some(mut keyring) if keyring.epoch(newest).is_some() || !slots.has(newest) => {
            epochs.prove(&keyring)?;
            keyring.has_begun(newest);
            Ok((keyring.opened_by(unlock), epochs))
        }
        None if !slots.has(newest) => Err(error::epoch_gone(newest)),
        // A damaged slot may hold the newest keys.
        keyring => {
            let opened = keyring.map(|keyring| keyring.current_epoch());
            let begun = slots.begun();
            let mut damaged = slots.damaged.into_iter().rev();
            Err(damaged.next().map_or_else(|| wrong_key(store, opened, &begun), |(_, error)| error))
        }
    }
}

/// The newest epoch that the newest head of any line was written under; 0 without one. A rotation
/// writes a head in each, so that an epoch is missed even if all of its own objects are gone.
pub(crate) async fn newest_in_heads(store: &dyn Store) -> Result<u32> {
    let clusters = store.list_children(&layout::clusters()?).await?;
    let clusters = clusters.iter().filter_map(|cluster| cluster.parse::<ClusterName>().ok());
    let looks: Vec<_> =
        clusters.map(|cluster| newest_in_heads_of(store, cluster).boxed()).collect();
    let newest = stream::iter(looks).buffer_unordered(READS_AT_ONCE);
    newest.try_fold(0, |newest, epoch| ready(Ok(newest.max(epoch)))).await
}

async fn newest_in_heads_of(store: &dyn Store, cluster: ClusterName) -> Result<u32> {
    let mut newest = 0;
    for line in store.list_children(&layout::lines_of(&cluster)?).await? {
        let Ok(line) = line.parse() else { continue };
        let heads = list(store, &layout::LinePaths::new(&cluster, line)?.below("head")?).await?;
        for path in heads.iter().rev() {
            if let Some(epoch) = epoch_of_head(store, path).await? {
                newest = newest.max(epoch);
                break;
            }
        }
    }
    Ok(newest)
}

/// `None` for a head that is gone again or damaged, which `verify` tells.
async fn epoch_of_head(store: &dyn Store, path: &ObjectPath) -> Result<Option<u32>> {
    match store.read_range(path, 0..HEADER_BYTES as u64).await {
        Ok(header) => Ok(epoch_of(&header).ok()),
        Err(StoreError::RangeBeyondEnd { .. }) => Ok(None),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether an object is gone, and not the store.
pub(crate) fn is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::NotFound { place } if !place.path().is_empty())
}

impl Repository {
    /// Adds a key slot for every epoch, so that `unlock` opens all of the repository.
    ///
    /// # Errors
    /// [`Code::KeysChanged`] if another epoch began meanwhile, which it would not open; a store
    /// that fails, or no randomness.
    pub async fn add_key(&self, options: &CreateOptions<'_>) -> Result<Vec<Ulid>> {
        self.keyring().current()?;
        let mut slots = Vec::new();
        for epoch in FIRST..=self.keyring().current_epoch() {
            if self.keyring().epoch(epoch).is_some() {
                slots.push((epoch, self.write_slot(epoch, options).await?));
            }
        }
        if let Err(error) = self.prove_newest_epoch().await {
            self.delete_slots(&slots).await?;
            return Err(error);
        }
        Ok(slots.into_iter().map(|(_, id)| id).collect())
    }

    /// Begins a new key epoch. What was written stays readable under the old one; `options` are
    /// those that will open the new one.
    ///
    /// # Errors
    /// [`Code::KeysChanged`] if another rotation was first, [`Code::KeyEpochGone`] if the newest
    /// epoch has no keys, a store that fails, or no randomness.
    pub async fn rotate(&self, options: &[CreateOptions<'_>]) -> Result<Self> {
        let keys = self.keyring().current()?.rotated()?;
        let epochs = self.epochs_now().await?;
        if epochs.newest() != self.keyring().current_epoch() {
            return Err(keys_changed());
        }
        let epoch = epochs.newest().max(epochs.highest_name).saturating_add(1);
        let (id, path): (EpochId, _) = (random_bytes()?, ObjectName::Epoch(epoch).path()?);
        let created = options.iter().map(|options| options.now).max().unwrap_or_default();
        let rotated = self.in_epoch(epoch, keys, epochs, &path, id);
        let mut slots = Vec::new();
        for slot in options {
            slots.push((epoch, rotated.write_slot(epoch, slot).await?));
        }
        let record = EpochRecord {
            repository: *self.keyring().repository(),
            epoch,
            id: id.into(),
            created_us: created.as_microsecond(),
        };
        let clear = cbor::encode_readable(&record, "key epoch")?;
        let bytes = seal_clear(rotated.keyring(), ObjectKind::Epoch, &path, &clear)?;
        match self.store().create(&path, bytes.into()).await {
            Ok(()) => {}
            Err(StoreError::AlreadyExists { .. }) => {
                rotated.delete_slots(&slots).await?;
                return Err(keys_changed());
            }
            Err(error) => return Err(error.into()),
        }
        rotated.tell_lines(&path, created).await.map_err(|error| {
            error.context(format_args!("key epoch {epoch} has begun, and not every line was told"))
        })?;
        Ok(rotated)
    }

    /// This repository with the keys of one more epoch, which begins with `path`.
    fn in_epoch(
        &self,
        epoch: u32,
        keys: EpochKeys,
        mut epochs: Epochs,
        path: &ObjectPath,
        id: EpochId,
    ) -> Self {
        let mut keyring = self.keyring().clone();
        keyring.add(epoch, keys);
        let begun = Begun { path: path.clone(), bytes: Bytes::new(), id: Ok(id) };
        epochs.begun.insert(epoch, begun);
        self.with_keys(Arc::new(keyring), Arc::new(epochs))
    }

    /// Writes a head in each line: whatever becomes of an epoch's objects, its writers are told.
    async fn tell_lines(&self, epoch: &ObjectPath, now: Timestamp) -> Result<()> {
        for (cluster, id) in self.lines().await? {
            self.line(&cluster, id)?.write_head(epoch, now).await?;
        }
        Ok(())
    }

    /// The key slots there are: epoch, id and clear part. Those that an `init` or a rotation left
    /// which died or lost open nothing, and are not among them.
    ///
    /// # Errors
    /// [`Code::KeysChanged`] if another epoch began since the repository was opened, damage, or a
    /// store that fails.
    pub async fn key_slots(&self) -> Result<Vec<(u32, Ulid, KeySlot)>> {
        let (epochs, slots) = Slots::read(self.store(), self.keyring().repository()).await?;
        self.refuse_later(&epochs)?;
        if let Some((_, error)) = slots.damaged.into_iter().next() {
            return Err(error);
        }
        let mut proven = Vec::new();
        for StoredSlot { path, id, bytes, .. } in slots.counted {
            let clear = open_clear(self.keyring(), ObjectKind::KeySlot, &path, &bytes)?;
            let slot: KeySlot = cbor::decode(&clear).map_err(|damage| damage.at(&path))?;
            proven.push((slot.epoch, id, slot));
        }
        Ok(proven)
    }

    /// Removes a key slot.
    ///
    /// # Errors
    /// [`Code::LastKey`] if its epoch would be left without one, also if another one is being
    /// removed at this moment; [`Code::KeysChanged`] if another epoch began since the repository was
    /// opened; damage, or a store that fails.
    pub async fn remove_key(&self, epoch: u32, id: Ulid) -> Result<()> {
        let removal = ObjectName::Removal(epoch, id).path()?;
        let record = Removal { time_us: Timestamp::now().as_microsecond() };
        let ours = match self.create_record(&removal, &record).await {
            Ok(()) => true,
            // Whoever began this one died, or is at it.
            Err(error) if error.code() == Code::ObjectExists => false,
            Err(error) => return Err(error),
        };
        let refused = match self.keeps_another_key(epoch).await {
            Ok(true) => None,
            Ok(false) => Some(last_key(epoch, id)),
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            if ours {
                self.store().delete(&removal).await?;
            }
            return Err(error);
        }
        self.store().delete(&ObjectName::Key(epoch, id).path()?).await?;
        self.store().delete(&removal).await?;
        Ok(())
    }

    /// Whether an epoch has a slot that nobody is removing. To be asked after the own removal was
    /// written: whoever removes another slot has said so before this looks, or sees the own.
    async fn keeps_another_key(&self, epoch: u32) -> Result<bool> {
        let leaving = self.removals(epoch).await?;
        let slots = self.key_slots().await?;
        Ok(slots.iter().any(|(of, slot, _)| *of == epoch && !leaving.contains(slot)))
    }

    async fn removals(&self, epoch: u32) -> Result<BTreeSet<Ulid>> {
        let names = list(self.store(), &layout::removals()?).await?;
        Ok(names
            .iter()
            .filter_map(|path| match ObjectName::parse(path) {
                Some(ObjectName::Removal(of, slot)) if of == epoch => Some(slot),
                _ => None,
            })
            .collect())
    }

    /// The epochs that have begun by now.
    pub(crate) async fn epochs_begun(&self) -> Result<BTreeSet<u32>> {
        let epochs = self.epochs_now().await?;
        Ok(epochs.begun.into_keys().chain([FIRST]).collect())
    }

    /// Proves that no other epoch has begun since the repository was opened. If one has, what was
    /// written since cannot be read with the keys at hand, and is not damaged.
    ///
    /// # Errors
    /// [`Code::KeysChanged`], or a store that fails.
    pub async fn prove_newest_epoch(&self) -> Result<()> {
        self.refuse_later(&self.epochs_now().await?)
    }

    fn refuse_later(&self, epochs: &Epochs) -> Result<()> {
        let is_later = epochs.newest() > self.keyring().current_epoch();
        if is_later { Err(keys_changed()) } else { Ok(()) }
    }

    async fn epochs_now(&self) -> Result<Epochs> {
        Epochs::read(self.store(), self.keyring().repository()).await
    }

    pub(crate) async fn write_slot(&self, epoch: u32, options: &CreateOptions<'_>) -> Result<Ulid> {
        let id = new_ulid(options.now)?;
        let keys = self.keyring().epoch(epoch).ok_or_else(|| error::epoch_gone(epoch))?;
        let epoch_id = self.epochs().id(epoch).map_err(|()| error::epoch_gone(epoch))?;
        let place = SlotPlace { repository: *self.keyring().repository(), epoch, epoch_id, id };
        let now_us = options.now.as_microsecond();
        let slot = KeySlot::seal(place, options.label, now_us, options.unlock, keys)?;
        let path = ObjectName::Key(epoch, id).path()?;
        let clear = cbor::encode_readable(&slot, "key slot")?;
        let bytes = seal_clear(self.keyring(), ObjectKind::KeySlot, &path, &clear)?;
        self.store().create(&path, bytes.into()).await?;
        Ok(id)
    }

    async fn delete_slots(&self, slots: &[(u32, Ulid)]) -> Result<()> {
        let paths = slots.iter().map(|(epoch, id)| ObjectName::Key(*epoch, *id).path());
        self.store().delete_many(&paths.collect::<Result<Vec<_>>>()?).await?;
        Ok(())
    }

    /// Proves the object of a key slot or an epoch, unless it was left over.
    pub(crate) fn prove_keys(
        &self,
        kind: ObjectKind,
        path: &ObjectPath,
        bytes: &[u8],
    ) -> Result<()> {
        let peeked = match kind {
            ObjectKind::KeySlot => peek_slot(bytes).map(|slot| {
                slot.repository == *self.keyring().repository() && self.epochs().count(&slot)
            }),
            // One that began since has keys that nobody could have at hand.
            _ => peek_epoch(bytes).map(|epoch| {
                epoch.repository == *self.keyring().repository()
                    && self.epochs().begun.contains_key(&epoch.epoch)
            }),
        };
        if peeked.map_err(|damage| damage.at(path))? {
            open_clear(self.keyring(), kind, path, bytes)?;
        }
        Ok(())
    }
}

async fn list_slots(store: &dyn Store) -> Result<Vec<(ObjectPath, u32, Ulid)>> {
    let paths = list(store, &layout::key_slots()?).await?;
    Ok(paths
        .into_iter()
        .filter_map(|path| match ObjectName::parse(&path) {
            Some(ObjectName::Key(epoch, slot)) => Some((path, epoch, slot)),
            _ => None,
        })
        .collect())
}

/// Reads a slot's clear part, which is not proven yet.
fn peek_slot(bytes: &[u8]) -> Result<KeySlot, Damage> {
    WholeObject::peek_clear(ObjectKind::KeySlot, bytes).and_then(|clear| cbor::decode(&clear))
}

/// Reads an epoch's clear part, which is not proven yet.
fn peek_epoch(bytes: &[u8]) -> Result<EpochRecord, Damage> {
    WholeObject::peek_clear(ObjectKind::Epoch, bytes).and_then(|clear| cbor::decode(&clear))
}

fn last_key(epoch: u32, id: Ulid) -> Error {
    Error::new(
        Code::LastKey,
        format!(
            "key slot {id} is the only one of epoch {epoch}, or others are being removed: without it the data is lost"
        ),
    )
    .with_hint(hint!["Add another key first: ", Action::AddKey, "."])
}

fn keys_changed() -> Error {
    Error::new(Code::KeysChanged, "the keys of the repository were changed meanwhile")
        .with_hint(hint!["Nothing was changed. Look again: ", Action::ShowKeys, "."])
}
