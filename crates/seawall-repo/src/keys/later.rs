use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::EpochKeys;

/// What was learnt of an epoch that began after the keyring was opened.
#[derive(Debug, Clone)]
pub(crate) enum LaterEpoch {
    /// The key in use opens it.
    Keys(EpochKeys),
    /// It has slots, and none is for the key in use: why.
    Locked(String),
    /// No slot of it is there.
    Gone,
}

/// The epochs that began after a keyring was opened; clones share what one learns.
#[derive(Debug, Clone, Default)]
pub(super) struct LaterEpochs(Arc<Mutex<BTreeMap<u32, LaterEpoch>>>);

impl LaterEpochs {
    fn known(&self) -> MutexGuard<'_, BTreeMap<u32, LaterEpoch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, epoch: u32) -> Option<LaterEpoch> {
        self.known().get(&epoch).cloned()
    }

    pub fn learn(&self, epoch: u32, what: LaterEpoch) {
        self.known().insert(epoch, what);
    }
}
