//! Epochs that begin while a repository is in use: what others write under them is read all the same.
//!
//! A backup, a verification or a restore runs for hours, and meets what an archiver wrote under an
//! epoch that began meanwhile. The key in use opens that one too, if it was carried over; what is
//! written goes on under the epoch it began with.

use std::sync::Arc;

use seawall_core::Result;
use seawall_store::Store;

use super::{Slots, StoredSlot, newest_in_heads, open_keyring};
use crate::Repository;
use crate::envelope::epoch_of;
use crate::keys::{Keyring, LaterEpoch};
use crate::repository::wrong_key;

impl Keyring {
    /// Learns, once, of the epoch that an object says it was written under. `object` begins as the
    /// object does. What is found out shows when the object is opened.
    ///
    /// # Errors
    /// A damaged slot of that epoch, or a store that fails.
    pub(crate) async fn learn(&self, store: &dyn Store, object: &[u8]) -> Result<()> {
        match (self.unlock(), epoch_of(object)) {
            (Some(unlock), Ok(epoch)) if !self.knows(epoch) => {
                let (epochs, slots) = Slots::read(store, self.repository()).await?;
                let mut wider = self.clone();
                for StoredSlot { id, slot, .. } in &slots.counted {
                    if self.epoch(slot.epoch).is_none()
                        && let Some(keys) = slot.open(*id, unlock)?
                    {
                        wider.add(slot.epoch, keys);
                    }
                }
                epochs.prove(&wider)?;
                let what = match wider.epoch(epoch) {
                    Some(keys) => LaterEpoch::Keys(keys.clone()),
                    None => without_keys(store, epoch, &wider, slots)?,
                };
                self.learn_epoch(epoch, what);
                Ok(())
            }
            // What does not begin as an object is damaged, which opening it tells.
            _ => Ok(()),
        }
    }
}

/// Why the key in use does not open an epoch.
fn without_keys(
    store: &dyn Store,
    epoch: u32,
    keyring: &Keyring,
    slots: Slots,
) -> Result<LaterEpoch> {
    let begun = slots.begun();
    let is_there = slots.has(epoch);
    if let Some((_, error)) = slots.damaged.into_iter().find(|(of, _)| *of == epoch) {
        return Err(error);
    }
    if !is_there {
        return Ok(LaterEpoch::Gone);
    }
    let opened = (0..epoch).rev().find(|before| keyring.epoch(*before).is_some());
    Ok(LaterEpoch::Locked(wrong_key(store, opened, &begun).message().to_owned()))
}

impl Repository {
    /// The same repository with the keys there are by now, so that what is written goes under the
    /// newest.
    ///
    /// # Errors
    /// [`seawall_core::Code::WrongKey`] if an epoch began that the key in use does not open, damage,
    /// or a store that fails.
    pub async fn with_newest_keys(&self) -> Result<Self> {
        let Some(unlock) = self.keyring().unlock() else { return Ok(self.clone()) };
        let in_heads = newest_in_heads(self.store()).await?;
        let (keyring, epochs) =
            open_keyring(self.store(), self.keyring().repository(), unlock, in_heads).await?;
        Ok(self.with_keys(Arc::new(keyring), Arc::new(epochs)))
    }
}
