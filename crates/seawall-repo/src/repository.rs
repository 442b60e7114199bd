use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use seawall_core::{Action, ClusterName, Code, Error, LineId, Result, Ulid, hint};
use seawall_store::{ObjectPath, ObjectPrefix, Store, StoreError};

use crate::envelope::{ObjectKind, WholeObject};
use crate::epochs::{Epochs, is_gone, newest_in_heads, open_keyring};
use crate::keys::{EpochKeys, Keyring, Unlock, random_bytes};
use crate::layout::{self, ObjectName};
use crate::manifest::kind_at_commit;
use crate::records::{FormatRecord, Record, open_clear, seal_clear};
use crate::{Line, cbor};

/// The format this program writes.
const FORMAT: u32 = 1;

/// How many names a listing asks for at a time.
pub(crate) const LIST_PAGE: usize = 1000;

/// How many small objects are asked for at once where many are needed: a store that is far away
/// answers each of them late, and all of them at the same time.
pub const READS_AT_ONCE: usize = 32;

/// An opened repository: a store, and the keys to read and write it.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    /// The epochs that had begun when it was opened.
    epochs: Arc<Epochs>,
}

/// What a new repository needs.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// What will open it.
    pub unlock: &'a Unlock,
    /// The name of the first key slot.
    pub label: &'a str,
    /// The time now.
    pub now: Timestamp,
}

impl Repository {
    /// Makes a repository in an empty store.
    ///
    /// # Errors
    /// [`Code::RepositoryExists`] if there is one, and whatever keeps the store from being written.
    pub async fn create(store: Arc<dyn Store>, options: &CreateOptions<'_>) -> Result<Self> {
        if Self::exists(store.as_ref()).await? {
            return Err(already_there(store.as_ref()));
        }
        let keyring = Keyring::new(random_bytes()?, 1, EpochKeys::random()?);
        let keyring = keyring.opened_by(options.unlock);
        let repository = Self { store, keyring: Arc::new(keyring), epochs: Arc::default() };
        repository.write_slot(1, options).await?;
        let record = FormatRecord {
            version: FORMAT,
            repository: *repository.keyring.repository(),
            created_us: options.now.as_microsecond(),
            required_features: Vec::new(),
            optional_features: Vec::new(),
        };
        let path = ObjectName::Format(FORMAT).path()?;
        let clear = cbor::encode_readable(&record, "format object")?;
        let bytes = seal_clear(&repository.keyring, ObjectKind::Format, &path, &clear)?;
        match repository.store.create(&path, bytes.into()).await {
            Ok(()) => Ok(repository),
            Err(StoreError::AlreadyExists { .. }) => Err(already_there(repository.store.as_ref())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a repository of any format is in the store.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn exists(store: &dyn Store) -> Result<bool> {
        Ok(!store.list(&layout::formats()?, None, 1).await?.objects.is_empty())
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`Code::NoRepository`], [`Code::UnknownFormat`], [`Code::WrongKey`], damage, or a store that
    /// fails.
    pub async fn open(store: Arc<dyn Store>, unlock: &Unlock) -> Result<Self> {
        // Both at once: a store may be far away, and whoever restores opens one for each segment.
        let (format, in_heads) =
            join(newest_format(store.as_ref()), newest_in_heads(store.as_ref())).await;
        let (path, bytes) = format?;
        let clear = WholeObject::peek_clear(ObjectKind::Format, &bytes)
            .map_err(|damage| damage.at(&path))?;
        let record: FormatRecord = cbor::decode(&clear).map_err(|damage| damage.at(&path))?;
        refuse_unknown_format(&record)?;
        let (keyring, epochs) =
            open_keyring(store.as_ref(), &record.repository, unlock, in_heads?).await?;
        // Now that there is a key: the format object is what its writer wrote.
        let proven = open_clear(&keyring, ObjectKind::Format, &path, &bytes)?;
        debug_assert_eq!(proven, clear);
        Ok(Self { store, keyring: Arc::new(keyring), epochs: Arc::new(epochs) })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The keys.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// The same repository, its store asked through another one in front of it.
    #[must_use]
    pub fn through(&self, layer: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self { store: layer(Arc::clone(&self.store)), ..self.clone() }
    }

    /// The same repository with other keys.
    pub(crate) fn with_keys(&self, keyring: Arc<Keyring>, epochs: Arc<Epochs>) -> Self {
        Self { store: Arc::clone(&self.store), keyring, epochs }
    }

    /// The number of its format.
    #[must_use]
    pub const fn format(&self) -> u32 {
        FORMAT
    }

    /// The repository's id, as text.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(self.keyring.repository())
    }

    /// The lines in the repository, ordered by name.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn lines(&self) -> Result<Vec<(ClusterName, LineId)>> {
        let names = self.store().list_children(&layout::clusters()?).await?;
        let clusters = names.into_iter().filter_map(|name| name.parse::<ClusterName>().ok());
        let of_each = clusters.map(|cluster| async move {
            let ids = self.lines_of(&cluster).await?;
            let named = ids.into_iter().map(|id| (cluster.clone(), id)).collect::<Vec<_>>();
            Ok::<_, Error>(named)
        });
        let of_each = stream::iter(of_each).buffered(READS_AT_ONCE);
        Ok(of_each.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
    }

    /// The lines of one cluster, ordered by name.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn lines_of(&self, cluster: &ClusterName) -> Result<Vec<LineId>> {
        let names = self.store().list_children(&layout::lines_of(cluster)?).await?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// One line of a cluster.
    ///
    /// # Errors
    /// [`Code::Internal`] if the store cannot have its names.
    pub fn line(&self, cluster: &ClusterName, line: LineId) -> Result<Line> {
        Line::new(self.clone(), cluster.clone(), line)
    }

    /// Seals a record and creates it; durable when it returns.
    ///
    /// # Errors
    /// [`Code::ObjectExists`] if the name is taken, or a store that fails.
    pub async fn create_record<R: Record>(&self, path: &ObjectPath, record: &R) -> Result<()> {
        let bytes = record.seal(&self.keyring, path)?;
        self.store.create(path, bytes.into()).await.map_err(Error::from)
    }

    /// Reads a whole object of at most `limit_bytes`, and the keys of its epoch if that began since
    /// the repository was opened.
    ///
    /// # Errors
    /// A missing object, or a store that fails.
    pub(crate) async fn read_whole(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes> {
        let bytes = self.store.read_within(path, limit_bytes).await?;
        self.keyring.learn(self.store(), &bytes).await?;
        Ok(bytes)
    }

    /// As [`Repository::read_whole`]; `None` if the store is there and the object is not.
    ///
    /// # Errors
    /// A store that fails or is gone.
    pub(crate) async fn read_if_there(
        &self,
        path: &ObjectPath,
        limit_bytes: u64,
    ) -> Result<Option<Bytes>> {
        match self.store.read_within(path, limit_bytes).await {
            Ok(bytes) => {
                self.keyring.learn(self.store(), &bytes).await?;
                Ok(Some(bytes))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Damage, a missing object, or a store that fails.
    pub async fn read_record<R: Record>(&self, path: &ObjectPath) -> Result<R> {
        let bytes = self.read_whole(path, R::KIND.whole_bytes_max()).await?;
        R::open(&self.keyring, path, &bytes)
    }

    /// Reads an object from end to end and proves that it is what was written under its name. For
    /// objects that fit in memory; packs are read frame by frame.
    ///
    /// # Errors
    /// Damage, a missing object, or a store that fails.
    pub async fn prove(&self, path: &ObjectPath, name: &ObjectName) -> Result<()> {
        let bytes = self.read_whole(path, name.kind().whole_bytes_max()).await?;
        match name.kind() {
            kind @ ObjectKind::Format => open_clear(&self.keyring, kind, path, &bytes).map(|_| ()),
            kind @ (ObjectKind::KeySlot | ObjectKind::Epoch) => self.prove_keys(kind, path, &bytes),
            ObjectKind::Commit => {
                let kind = kind_at_commit(&self.keyring, path, &bytes)?;
                self.prove_chunks(kind, path, &bytes)
            }
            kind => self.prove_chunks(kind, path, &bytes),
        }
    }

    fn prove_chunks(&self, kind: ObjectKind, path: &ObjectPath, bytes: &[u8]) -> Result<()> {
        WholeObject::prove(&self.keyring, kind, path, bytes).map_err(|damage| damage.at(path))
    }

    /// Every path below a prefix, in order. For prefixes that hold few objects.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn list(&self, prefix: &ObjectPrefix) -> Result<Vec<ObjectPath>> {
        list(self.store.as_ref(), prefix).await
    }
}

/// A new unique id that sorts by time.
///
/// # Errors
/// [`Code::Internal`] without randomness.
pub fn new_ulid(now: Timestamp) -> Result<Ulid> {
    let ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Ok(Ulid::from_parts(ms, u128::from_le_bytes(random_bytes()?)))
}

pub(crate) async fn list(store: &dyn Store, prefix: &ObjectPrefix) -> Result<Vec<ObjectPath>> {
    let mut paths = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_ref(), LIST_PAGE).await?;
        paths.extend(page.objects.into_iter().map(|object| object.path));
        after = page.next;
        if after.is_none() {
            return Ok(paths);
        }
    }
}

async fn newest_format(store: &dyn Store) -> Result<(ObjectPath, Bytes)> {
    let newest = list(store, &layout::formats()?)
        .await?
        .into_iter()
        .filter_map(|path| match ObjectName::parse(&path) {
            Some(ObjectName::Format(n)) => Some((n, path)),
            _ => None,
        })
        .max();
    let Some((_, path)) = newest else {
        return Err(Error::new(
            Code::NoRepository,
            format!("there is no Seawall repository at {}", store.url()),
        )
        .with_hint("Look whether its storage is mounted, and whether the URL is right."));
    };
    let bytes = store.read_within(&path, ObjectKind::Format.whole_bytes_max()).await?;
    Ok((path, bytes))
}

fn refuse_unknown_format(record: &FormatRecord) -> Result<()> {
    let unknown = |what: String| {
        Error::new(Code::UnknownFormat, what).with_hint("Use a newer Seawall with this repository.")
    };
    if record.version != FORMAT {
        return Err(unknown(format!(
            "the repository has format {}, and this program knows format {FORMAT}",
            record.version
        )));
    }
    record.required_features.first().map_or(Ok(()), |feature| {
        Err(unknown(format!(
            "the repository needs the feature \"{feature}\", which this program does not know"
        )))
    })
}

/// The key opens no epoch, or none after `opened`. `begun` tells when the epochs' first slots were made,
/// in microseconds: whoever has several keys and kits knows by it which one to take.
pub(crate) fn wrong_key(
    store: &dyn Store,
    opened: Option<u32>,
    begun: &BTreeMap<u32, i64>,
) -> Error {
    let url = store.url();
    let date = |created_us: &i64| {
        Timestamp::from_microsecond(*created_us)
            .map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
    };
    let rotated = opened.and_then(|opened| begun.range(opened + 1..).next());
    let newest = begun.last_key_value().filter(|(epoch, _)| **epoch > 1);
    let what = match (rotated, newest) {
        (Some((_, at)), _) => format!(
            "the key does not open the repository at {url} any more: it was rotated at {}, and this key was not carried over",
            date(at)
        ),
        (None, Some((_, at))) => format!(
            "the key does not open the repository at {url}, whose key was last rotated at {}",
            date(at)
        ),
        (None, None) => format!("the key does not open the repository at {url}"),
    };
    let hint = match newest {
        Some((_, at)) => hint![
            format!("Use a key file or recovery kit that was made, or carried over, at {} or later; or let this key in with one that works: ", date(at)),
            Action::LetKeyIn { repository: url.to_string() },
            ". Without any, the data cannot be read."
        ],
        None => "Use the key file or recovery kit that was written when this repository was made; without it the data cannot be read.".into(),
    };
    Error::new(Code::WrongKey, what).with_hint(hint)
}

fn already_there(store: &dyn Store) -> Error {
    Error::new(
        Code::RepositoryExists,
        format!("there is already a Seawall repository at {}", store.url()),
    )
    .with_hint(hint!["To add a cluster to it, give its key: ", Action::Join, "."])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyFile;
    use seawall_store::{OpenOptions, open_or_create};

    /// A repository that also has the given format object.
    async fn with_format(
        number: u32,
        record: impl FnOnce(&mut FormatRecord),
    ) -> Result<Repository> {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let store = open_or_create(&url, &OpenOptions::default()).await.unwrap();
        let unlock = Unlock::KeyFile(KeyFile::generate().unwrap());
        let options = CreateOptions { unlock: &unlock, label: "test", now: Timestamp::UNIX_EPOCH };
        let repository = Repository::create(Arc::clone(&store), &options).await.unwrap();
        let mut format = FormatRecord {
            version: number,
            repository: *repository.keyring().repository(),
            created_us: 0,
            required_features: Vec::new(),
            optional_features: Vec::new(),
        };
        record(&mut format);
        let path = ObjectName::Format(number).path().unwrap();
        let clear = cbor::encode(&format);
        let bytes = seal_clear(repository.keyring(), ObjectKind::Format, &path, &clear).unwrap();
        store.create(&path, bytes.into()).await.unwrap();
        Repository::open(store, &unlock).await
    }

    #[tokio::test]
    async fn a_slot_that_a_dead_init_left_is_no_key_of_the_repository() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let store = open_or_create(&url, &OpenOptions::default()).await.unwrap();
        let unlock = Unlock::KeyFile(KeyFile::generate().unwrap());
        let options = CreateOptions { unlock: &unlock, label: "test", now: Timestamp::UNIX_EPOCH };
        Repository::create(Arc::clone(&store), &options).await.unwrap();
        store.delete(&ObjectName::Format(FORMAT).path().unwrap()).await.unwrap();
        let repository = Repository::create(Arc::clone(&store), &options).await.unwrap();

        let slots = repository.key_slots().await.unwrap();
        let [(epoch, id, _)] = slots.as_slice() else { panic!("{} slots", slots.len()) };
        let refused = repository.remove_key(*epoch, *id).await.unwrap_err();
        assert_eq!(refused.code(), Code::LastKey, "what the dead one left opens nothing");
        Repository::open(store, &unlock).await.unwrap();
    }

    #[tokio::test]
    async fn a_later_format_is_refused_and_not_guessed_at() {
        let refused = with_format(2, |_| {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::UnknownFormat);
    }

    #[tokio::test]
    async fn an_unknown_required_feature_is_refused_and_an_optional_one_is_not() {
        let required = |format: &mut FormatRecord| {
            format.version = FORMAT;
            format.required_features = vec!["time travel".to_owned()];
        };
        let refused = with_format(3, required).await.unwrap_err();
        assert!(refused.message().contains("time travel"), "{refused}");
        let optional = |format: &mut FormatRecord| {
            format.version = FORMAT;
            format.optional_features = vec!["decoration".to_owned()];
        };
        assert!(with_format(3, optional).await.is_ok());
    }
}
