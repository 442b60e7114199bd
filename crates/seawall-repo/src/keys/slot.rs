use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use seawall_core::{Code, Error, Result, Ulid};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{EpochId, EpochKeys, KeyFile, Secret, derive, random_bytes};

/// What a user brings to open a repository.
#[derive(Debug, Clone)]
pub enum Unlock {
    /// A key file's key.
    KeyFile(KeyFile),
    /// A passphrase.
    Passphrase(SecretText),
}

/// A secret text that is wiped when dropped and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps the text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// How a slot's keys are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotMethod {
    /// By a key file.
    KeyFile,
    /// By a passphrase, through Argon2id.
    Passphrase,
}

/// Argon2id cost for new slots: 64 MiB, 3 passes, 1 lane, about a tenth of a second.
const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
const ARGON2_PASSES: u32 = 3;
const ARGON2_LANES: u32 = 1;

/// A stored slot may ask for no more than this, so that a forged one cannot exhaust the machine.
const ARGON2_MEMORY_KIB_MAX: u32 = 1024 * 1024;
const ARGON2_PASSES_MAX: u32 = 64;

const METHOD_KEY_FILE: u32 = 1;
const METHOD_PASSPHRASE: u32 = 2;
const ALL_DOMAINS: u32 = 7;
const KEY_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Parameters {
    #[cbor(n(0), with = "minicbor::bytes")]
    salt: [u8; 32],
    #[n(1)]
    memory_kib: Option<u32>,
    #[n(2)]
    passes: Option<u32>,
    #[n(3)]
    lanes: Option<u32>,
}

/// The clear part of a key slot: an epoch's keys, wrapped for one holder.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeySlot {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) repository: [u8; 16],
    /// The epoch whose keys are inside.
    #[n(1)]
    pub epoch: u32,
    /// What the user called it.
    #[n(2)]
    pub label: String,
    /// When it was made, microseconds since 1970.
    #[n(3)]
    pub created_us: i64,
    #[n(4)]
    method: u32,
    #[n(5)]
    parameters: Parameters,
    #[n(6)]
    domains: u32,
    #[cbor(n(7), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(8), with = "minicbor::bytes")]
    wrapped: Vec<u8>,
    /// Absent in epoch 1.
    #[n(9)]
    epoch_id: Option<ByteArray<16>>,
}

/// Where a slot is, and of which epoch.
#[derive(Debug, Clone, Copy)]
pub struct SlotPlace {
    /// The repository's id.
    pub repository: [u8; 16],
    /// The epoch's number.
    pub epoch: u32,
    /// What tells it from another of that number; `None` in epoch 1.
    pub epoch_id: Option<EpochId>,
    /// The slot's id.
    pub id: Ulid,
}

impl KeySlot {
    /// Wraps `keys` so that `unlock` opens them.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub fn seal(
        SlotPlace { repository, epoch, epoch_id, id }: SlotPlace,
        label: &str,
        created_us: i64,
        unlock: &Unlock,
        keys: &EpochKeys,
    ) -> Result<Self> {
        let passphrase = matches!(unlock, Unlock::Passphrase(_));
        let parameters = Parameters {
            salt: random_bytes()?,
            memory_kib: passphrase.then_some(ARGON2_MEMORY_KIB),
            passes: passphrase.then_some(ARGON2_PASSES),
            lanes: passphrase.then_some(ARGON2_LANES),
        };
        let mut slot = Self {
            repository,
            epoch,
            label: label.to_owned(),
            created_us,
            method: if passphrase { METHOD_PASSPHRASE } else { METHOD_KEY_FILE },
            parameters,
            domains: ALL_DOMAINS,
            nonce: random_bytes()?,
            wrapped: [keys.metadata.bytes(), keys.hash.bytes(), keys.data.bytes()]
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            epoch_id: epoch_id.map(ByteArray::from),
        };
        let kek = slot.kek(unlock)?;
        let (nonce, aad) = (slot.nonce, slot.aad(id)?);
        gcm(&kek)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut slot.wrapped,
            )
            .map_err(|_| Error::new(Code::Internal, "cannot wrap the repository's keys"))?;
        Ok(slot)
    }

    /// Opens the slot named `id`. `Ok(None)` if `unlock` is not for this slot.
    ///
    /// # Errors
    /// [`Code::UnknownFormat`] for a method or parameters this program does not know.
    pub fn open(&self, id: Ulid, unlock: &Unlock) -> Result<Option<EpochKeys>> {
        let method = match unlock {
            Unlock::KeyFile(_) => METHOD_KEY_FILE,
            Unlock::Passphrase(_) => METHOD_PASSPHRASE,
        };
        if self.method != method {
            return Ok(None);
        }
        let kek = self.kek(unlock)?;
        let mut wrapped = self.wrapped.clone();
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let Ok(opened) = gcm(&kek)?.open_in_place(nonce, Aad::from(self.aad(id)?), &mut wrapped)
        else {
            return Ok(None);
        };
        let keys = unwrap_keys(opened);
        wrapped.zeroize();
        keys.map(Some).ok_or_else(|| unknown_keys(id))
    }

    /// Which epoch of its number it belongs to; `None` for epoch 1.
    #[must_use]
    pub fn epoch_id(&self) -> Option<EpochId> {
        self.epoch_id.map(EpochId::from)
    }

    /// How the slot is opened; `None` if this program does not know the method.
    #[must_use]
    pub const fn method(&self) -> Option<SlotMethod> {
        match self.method {
            METHOD_KEY_FILE => Some(SlotMethod::KeyFile),
            METHOD_PASSPHRASE => Some(SlotMethod::Passphrase),
            _ => None,
        }
    }

    fn kek(&self, unlock: &Unlock) -> Result<Secret> {
        match unlock {
            Unlock::KeyFile(file) => Ok(Secret::new(derive(
                file.secret().bytes(),
                &self.parameters.salt,
                &[b"seawall 1 key file"],
            ))),
            Unlock::Passphrase(text) => self.stretch(text.0.as_bytes()),
        }
    }

    fn stretch(&self, passphrase: &[u8]) -> Result<Secret> {
        let Parameters { salt, memory_kib, passes, lanes } = &self.parameters;
        let bounded = |value: Option<u32>, max: u32| value.filter(|v| (1..=max).contains(v));
        let parameters = bounded(*memory_kib, ARGON2_MEMORY_KIB_MAX)
            .zip(bounded(*passes, ARGON2_PASSES_MAX))
            .zip(bounded(*lanes, 16))
            .and_then(|((memory, passes), lanes)| {
                argon2::Params::new(memory, passes, lanes, Some(KEY_BYTES)).ok()
            })
            .ok_or_else(|| {
                Error::new(Code::UnknownFormat, "a key slot asks for passphrase costs out of range")
            })?;
        let argon2 =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
        let mut key = [0; KEY_BYTES];
        argon2.hash_password_into(passphrase, salt, &mut key).map_err(|error| {
            Error::new(Code::Internal, format!("cannot stretch the passphrase: {error}"))
        })?;
        Ok(Secret::new(key))
    }

    fn aad(&self, id: Ulid) -> Result<Vec<u8>> {
        let domains = u8::try_from(self.domains).map_err(|_| unknown_keys(id))?;
        let mut aad = b"seawall 1 slot".to_vec();
        aad.extend_from_slice(&self.repository);
        aad.extend_from_slice(&self.epoch.to_le_bytes());
        aad.extend_from_slice(&id.0.to_be_bytes());
        aad.push(domains);
        Ok(aad)
    }
}

fn unknown_keys(id: Ulid) -> Error {
    let what = format!("key slot {id} holds other keys than this program knows");
    Error::new(Code::UnknownFormat, what)
}

fn unwrap_keys(bytes: &[u8]) -> Option<EpochKeys> {
    let mut keys = bytes.chunks_exact(KEY_BYTES);
    let mut next = || keys.next().and_then(|key| <[u8; 32]>::try_from(key).ok()).map(Secret::new);
    let all = EpochKeys { metadata: next()?, hash: next()?, data: next()? };
    (bytes.len() == 3 * KEY_BYTES).then_some(all)
}

fn gcm(key: &Secret) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.bytes())
        .map(LessSafeKey::new)
        .map_err(|_| Error::new(Code::Internal, "AES-256-GCM takes 32-byte keys"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(unlock: &Unlock) -> (Ulid, KeySlot, EpochKeys) {
        let id = Ulid(7);
        let keys = EpochKeys::random().unwrap_or_else(|_| unreachable!());
        let place = SlotPlace { repository: [1; 16], epoch: 1, epoch_id: None, id };
        let slot = KeySlot::seal(place, "test", 0, unlock, &keys);
        (id, slot.unwrap_or_else(|_| unreachable!()), keys)
    }

    #[test]
    fn only_the_right_key_opens_a_slot() {
        let right = Unlock::KeyFile(KeyFile::generate().unwrap_or_else(|_| unreachable!()));
        let wrong = Unlock::KeyFile(KeyFile::generate().unwrap_or_else(|_| unreachable!()));
        let (id, slot, keys) = slot(&right);
        let opened = slot.open(id, &right).ok().flatten();
        assert_eq!(opened.map(|opened| *opened.data.bytes()), Some(*keys.data.bytes()));
        assert!(matches!(slot.open(id, &wrong), Ok(None)));
        assert!(matches!(slot.open(Ulid(8), &right), Ok(None)), "a slot is bound to its name");
    }

    #[test]
    fn a_passphrase_opens_its_slot() {
        let text = |text: &str| Unlock::Passphrase(SecretText::new(text.to_owned()));
        let (id, slot, _) = slot(&text("correct horse"));
        assert!(matches!(slot.open(id, &text("correct horse")), Ok(Some(_))));
        assert!(matches!(slot.open(id, &text("battery staple")), Ok(None)));
    }

    #[test]
    fn a_forged_slot_cannot_ask_for_all_memory() {
        let unlock = Unlock::Passphrase(SecretText::new("x".to_owned()));
        let (id, mut slot, _) = slot(&unlock);
        slot.parameters.memory_kib = Some(u32::MAX);
        assert_eq!(slot.open(id, &unlock).err().map(|e| e.code()), Some(Code::UnknownFormat));
    }
}
