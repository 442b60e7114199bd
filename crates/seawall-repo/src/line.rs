use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use seawall_core::{
    Action, BackupId, ClusterName, Code, Error, ExitClass, Key, LineId, Result, Ulid, hint,
};
use seawall_store::{ObjectPath, Store, StoreError};

use crate::envelope::ObjectKind;
use crate::keys::Keyring;
use crate::layout::{LineObject, LinePaths, ObjectName};
use crate::manifest::{BackupInfo, Commit, ManifestInfo, ManifestReader, kind_at_commit};
use crate::map::MapInfo;
use crate::pack::PackInfo;
use crate::records::{About, HistoryFile, Numbered, Pin, PinRole, Record, Tombstone};
use crate::repository::{LIST_PAGE, READS_AT_ONCE};
use crate::{Repository, error};

/// One line of history of one cluster in a repository.
#[derive(Debug, Clone)]
pub struct Line {
    repository: Repository,
    cluster: ClusterName,
    id: LineId,
    paths: LinePaths,
}

/// A backup in a line.
#[derive(Debug)]
pub struct BackupSummary {
    /// Its id.
    pub id: BackupId,
    /// What its newest whole commit says, or why none can be read.
    pub info: Result<BackupInfo>,
    /// If it is to be deleted, until when it stays at least, by the clock of the store.
    pub goes_at: Option<Timestamp>,
}

/// What a commit names: all that the backup keeps from being deleted.
#[derive(Debug)]
pub struct Named {
    /// What the backup is.
    pub info: BackupInfo,
    /// Its packs, whichever backup stored them.
    pub packs: Vec<PackInfo>,
    /// Its maps.
    pub maps: Vec<MapInfo>,
    /// Its manifests.
    pub manifests: Vec<ManifestInfo>,
}

/// A backup that began and has not ended, by the names of its records; or whoever else holds a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The id it would have; of another pin its own.
    pub id: BackupId,
    /// The number of its first record.
    pub first_record: u32,
    /// The number of its newest record.
    pub newest_record: u32,
}

impl Line {
    pub(crate) fn new(repository: Repository, cluster: ClusterName, id: LineId) -> Result<Self> {
        let paths = LinePaths::new(&cluster, id)?;
        Ok(Self { repository, cluster, id, paths })
    }

    /// The cluster's name.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The line's id.
    #[must_use]
    pub const fn id(&self) -> LineId {
        self.id
    }

    /// The repository the line is in.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The same line, its store asked through another one in front of it.
    #[must_use]
    pub fn through(&self, layer: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self { repository: self.repository.through(layer), ..self.clone() }
    }

    /// The store the line is in.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.repository.store()
    }

    /// The keys of the repository.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        self.repository.keyring()
    }

    /// The names of the line's objects.
    #[must_use]
    pub const fn paths(&self) -> &LinePaths {
        &self.paths
    }

    /// What the cluster is; `None` if the line does not exist yet.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn about(&self) -> Result<Option<About>> {
        let path = self.paths.path(&LineObject::About)?;
        let limit_bytes = ObjectKind::About.whole_bytes_max();
        let bytes = self.repository.read_if_there(&path, limit_bytes).await?;
        bytes.map(|bytes| About::open(self.keyring(), &path, &bytes)).transpose()
    }

    /// Makes the line. If it is there already, it must be of the same cluster.
    ///
    /// # Errors
    /// [`Code::ClusterMismatch`], damage, or a store that fails.
    pub async fn create(&self, about: &About) -> Result<()> {
        let path = self.paths.path(&LineObject::About)?;
        let bytes = about.seal(self.keyring(), &path)?;
        match self.store().create(&path, bytes.into()).await {
            Ok(()) => Ok(()),
            Err(StoreError::AlreadyExists { .. }) => self.refuse_other_cluster(about).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn refuse_other_cluster(&self, about: &About) -> Result<()> {
        let there = self.about().await?;
        let same =
            there.is_some_and(|there| About { created_us: about.created_us, ..there } == *about);
        if same {
            return Ok(());
        }
        Err(Error::new(
            Code::ClusterMismatch,
            format!(
                "line {} of cluster {} was made by a cluster of another shape",
                self.id, self.cluster
            ),
        )
        .with_hint(
            "A new major version or a new initdb begins a new line; check which cluster this is.",
        ))
    }

    /// The line's backups, oldest first. Attempts that died are not among them, and neither is what
    /// is to be deleted: nobody may rely on it.
    ///
    /// # Errors
    /// A store that fails; a damaged commit is told in its summary.
    pub async fn backups(&self) -> Result<Vec<BackupSummary>> {
        let mut backups = self.all_backups().await?;
        backups.retain(|summary| summary.goes_at.is_none());
        Ok(backups)
    }

    /// The line's backups, and those that are to be deleted among them.
    ///
    /// # Errors
    /// A store that fails; a damaged commit is told in its summary.
    pub async fn all_backups(&self) -> Result<Vec<BackupSummary>> {
        self.summaries(usize::MAX, |summary| summary).await
    }

    /// The same, of each what `take` makes of it: of thousands, what is not needed is not held.
    ///
    /// # Errors
    /// As [`Self::all_backups`].
    pub async fn all_backups_as<T>(&self, take: impl Fn(BackupSummary) -> T) -> Result<Vec<T>> {
        self.summaries(usize::MAX, take).await
    }

    /// As [`Line::backups`], of so many at the most: those whose ids were made last. By the clocks of
    /// their hosts, which may be wrong: there may be others that are further in the log.
    ///
    /// # Errors
    /// Those of [`Line::backups`].
    pub async fn last_backups(&self, most: usize) -> Result<Vec<BackupSummary>> {
        let mut backups = self.summaries(most, |summary| summary).await?;
        backups.retain(|summary| summary.goes_at.is_none());
        Ok(backups)
    }

    async fn summaries<T>(&self, most: usize, take: impl Fn(BackupSummary) -> T) -> Result<Vec<T>> {
        let (numbers, condemned) =
            try_join(self.numbered("backup"), self.known_condemnations()).await?;
        let mut generations: BTreeMap<BackupId, Vec<u32>> = BTreeMap::new();
        for name in numbers {
            generations.entry(BackupId(name.id)).or_default().push(name.number);
        }
        while generations.len() > most {
            generations.pop_first();
        }
        let summaries = stream::iter(generations)
            .map(async |(id, generations)| {
                let newest = generations.last().copied();
                let goes_at = newest.and_then(|newest| condemned.until(id, newest));
                let commit = self.newest_commit(id, generations).await.transpose()?;
                let info = commit.map(|(_, commit)| commit.info);
                // A collector may have come to it since the names were listed.
                let is_gone = info
                    .as_ref()
                    .is_err_and(|error| goes_at.is_some() && error.code() == Code::ObjectMissing);
                (!is_gone).then_some(BackupSummary { id, info, goes_at })
            })
            .buffered(READS_AT_ONCE);
        Ok(summaries.filter_map(async |summary| summary.map(&take)).collect().await)
    }

    /// When the first commit of each backup was written that is still there, by the clock of the store.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn commits_written(&self) -> Result<BTreeMap<BackupId, Timestamp>> {
        let mut written = BTreeMap::new();
        let below = self.paths.below("backup")?;
        let mut after = None;
        loop {
            let page = self.store().list(&below, after.as_ref(), LIST_PAGE).await?;
            for object in page.objects {
                if let Some(ObjectName::Line(_, _, LineObject::Backup(id, _))) =
                    ObjectName::parse(&object.path)
                {
                    let first = written.entry(id).or_insert(object.modified);
                    *first = object.modified.min(*first);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(written);
            }
        }
    }

    /// Reads what a backup consists of, as its newest whole commit has it; `None` for an attempt
    /// that was given up.
    ///
    /// # Errors
    /// [`Code::NoSuchBackup`], damage, or a store that fails.
    pub async fn manifest(&self, id: BackupId) -> Result<Option<ManifestReader>> {
        let generations = self.generations(id).await?;
        let Some((path, commit)) = self.newest_commit(id, generations).await? else {
            return Ok(None);
        };
        let (store, keyring) = (self.store(), self.keyring());
        ManifestReader::open(store, keyring, &self.paths, path, commit).await.map(Some)
    }

    /// The newest whole commit of `generations`, which ascend, and where it lies.
    async fn newest_commit(
        &self,
        id: BackupId,
        generations: Vec<u32>,
    ) -> Result<Option<(ObjectPath, Commit)>> {
        let mut damage = None;
        for generation in generations.into_iter().rev() {
            let path = self.paths.path(&LineObject::Backup(id, generation))?;
            match self.commit(id, generation, &path).await {
                Ok(commit) => return Ok(commit.map(|commit| (path, commit))),
                Err(error) if error.exit_class() == ExitClass::Integrity => {
                    damage = damage.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(damage.unwrap_or_else(|| {
            Error::new(
                Code::NoSuchBackup,
                format!("there is no backup {id} of cluster {}", self.cluster),
            )
            .with_pair(Key::Cluster, &self.cluster)
            .with_hint(hint![Action::List, " shows the backups there are."])
        }))
    }

    /// Reads a commit; `None` if there is a tombstone in its place.
    async fn commit(
        &self,
        id: BackupId,
        generation: u32,
        path: &ObjectPath,
    ) -> Result<Option<Commit>> {
        let limit_bytes = ObjectKind::Commit.whole_bytes_max();
        let bytes = self.repository.read_whole(path, limit_bytes).await?;
        if kind_at_commit(self.keyring(), path, &bytes)? == ObjectKind::Tombstone {
            return Tombstone::open(self.keyring(), path, &bytes).map(|_| None);
        }
        let commit = Commit::open(self.keyring(), path, &bytes)?;
        let info = &commit.info;
        // The name is authenticated; this compares what it says with what is said under it.
        let is_its_own = info.id == id.0
            && info.generation == generation
            && info.system_id == self.id.system_id
            && info.branch == self.id.branch;
        if !is_its_own {
            return Err(error::inconsistent(path, "it describes another backup"));
        }
        if let Some(feature) = info.required_features.first() {
            let what =
                format!("{path} needs the feature \"{feature}\", which this program does not know");
            return Err(Error::new(Code::UnknownFormat, what)
                .with_hint("Use the Seawall that made the backup, or a newer one."));
        }
        Ok(Some(commit))
    }

    /// Every commit and tombstone, by its backup and generation, in order.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn generations_there(&self) -> Result<Vec<(BackupId, u32)>> {
        let names = self.numbered("backup").await?;
        Ok(names.into_iter().map(|name| (BackupId(name.id), name.number)).collect())
    }

    /// What a commit names, by itself: an older generation is not taken in its place. `None` for a
    /// tombstone.
    ///
    /// # Errors
    /// [`Code::UnknownFormat`], damage, a missing object, or a store that fails.
    pub async fn named_by(&self, id: BackupId, generation: u32) -> Result<Option<Named>> {
        let path = self.paths.path(&LineObject::Backup(id, generation))?;
        let Some(commit) = self.commit(id, generation, &path).await? else { return Ok(None) };
        let (store, keyring) = (self.store(), self.keyring());
        let reader = ManifestReader::open(store, keyring, &self.paths, path, commit).await?;
        let packs = reader.packs(store).await?;
        let Commit { info, parts } = reader.commit;
        Ok(Some(Named { info, packs, maps: parts.maps, manifests: parts.manifests }))
    }

    async fn generations(&self, id: BackupId) -> Result<Vec<u32>> {
        let names = self.numbered(&format!("backup/{}", id.0)).await?;
        Ok(names.into_iter().map(|name| name.number).collect())
    }

    /// Whether a backup of that id is there, or was given up: there cannot be another one.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn has_ended(&self, id: BackupId) -> Result<bool> {
        Ok(!self.generations(id).await?.is_empty())
    }

    /// Whether the backup is there. One that was given up is not.
    ///
    /// # Errors
    /// Its commit is damaged, or a store that fails.
    pub async fn has_backup(&self, id: BackupId) -> Result<bool> {
        let generations = self.generations(id).await?;
        if generations.is_empty() {
            return Ok(false);
        }
        Ok(self.newest_commit(id, generations).await?.is_some())
    }

    async fn backup_ids(&self) -> Result<Vec<BackupId>> {
        let names = self.numbered("backup").await?;
        let ids: BTreeSet<Ulid> = names.into_iter().map(|name| name.id).collect();
        Ok(ids.into_iter().map(BackupId).collect())
    }

    /// Backups that began and have neither a commit nor a tombstone, oldest first.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn attempts(&self) -> Result<Vec<Attempt>> {
        let ended: BTreeSet<BackupId> = self.backup_ids().await?.into_iter().collect();
        let begun = self.pins().await?.into_iter().filter(|pin| !ended.contains(&pin.id));
        let begun = begun.map(async |pin| {
            let newest = self.record(&pin, pin.newest_record).await?;
            // One that cannot be read may be a writer's.
            let is_writers = newest.is_none_or(|newest| newest.role == PinRole::Writer);
            Ok::<_, Error>(is_writers.then_some(pin))
        });
        let begun: Vec<_> = stream::iter(begun).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(begun.into_iter().flatten().collect())
    }

    /// All pins, whoever holds them, oldest first.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn pins(&self) -> Result<Vec<Attempt>> {
        let mut pins: BTreeMap<BackupId, Attempt> = BTreeMap::new();
        for Numbered { id, number } in self.numbered("pin").await? {
            let id = BackupId(id);
            let begun = Attempt { id, first_record: number, newest_record: number };
            pins.entry(id).or_insert(begun).newest_record = number;
        }
        Ok(pins.into_values().collect())
    }

    /// One record of an attempt; `None` if it is gone, for the attempt may have ended, or damaged.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn record(&self, attempt: &Attempt, number: u32) -> Result<Option<Pin>> {
        let path = self.paths.path(&LineObject::Pin(attempt.id.0, number))?;
        match self.repository.read_record(&path).await {
            Ok(record) => Ok(Some(record)),
            Err(error)
                if error.code() == Code::ObjectMissing
                    || error.exit_class() == ExitClass::Integrity =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The records of an attempt that are of use, in order: those before one that is damaged or
    /// gone.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn records(&self, attempt: &Attempt) -> Result<Vec<Pin>> {
        let mut records = Vec::new();
        for number in 0..=attempt.newest_record {
            match self.record(attempt, number).await? {
                Some(record) => records.push(record),
                None => break,
            }
        }
        Ok(records)
    }

    /// When a record of an attempt was written, by the clock of the store; `None` if it is gone.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn record_written(
        &self,
        attempt: &Attempt,
        number: u32,
    ) -> Result<Option<Timestamp>> {
        let path = self.paths.path(&LineObject::Pin(attempt.id.0, number))?;
        match self.store().stat(&path).await {
            Ok(record) => Ok(Some(record.modified)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Declares an attempt dead: if its process lives after all, it cannot commit any more.
    ///
    /// # Errors
    /// [`Code::ObjectExists`] if it committed meanwhile, or a store that fails.
    pub async fn fence(&self, id: BackupId, now: Timestamp, reason: &str) -> Result<()> {
        let path = self.paths.path(&LineObject::Backup(id, 0))?;
        let tombstone = Tombstone { time_us: now.as_microsecond(), reason: reason.to_owned() };
        self.repository.create_record(&path, &tombstone).await
    }

    /// Deletes the records of a job whose work is published or given up.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn unpin(&self, id: Ulid) -> Result<()> {
        let records = self.repository.list(&self.paths.below(&format!("pin/{id}"))?).await?;
        self.store().delete_many(&records).await?;
        Ok(())
    }

    /// Deletes the pins that backups left which have ended: a process may die between the two.
    /// Those of readers explain what a head announces, and stay.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn sweep_pins(&self) -> Result<()> {
        let ended: BTreeSet<BackupId> = self.backup_ids().await?.into_iter().collect();
        let mut left = Vec::new();
        for pin in self.numbered("pin").await? {
            let path = self.paths.path(&LineObject::Pin(pin.id, pin.number))?;
            if ended.contains(&BackupId(pin.id)) && !self.is_readers(&path).await {
                left.push(path);
            }
        }
        self.store().delete_many(&left).await?;
        Ok(())
    }

    /// Whether a pin is certainly a reader's.
    async fn is_readers(&self, path: &ObjectPath) -> bool {
        let pin = self.repository.read_record::<Pin>(path).await;
        pin.is_ok_and(|pin| pin.role == PinRole::Reader)
    }

    /// Objects named `<directory>/<ulid>/<number>`, in order.
    pub(crate) async fn numbered(&self, directory: &str) -> Result<Vec<Numbered>> {
        let paths = self.repository.list(&self.paths.below(directory)?).await?;
        Ok(paths
            .iter()
            .filter_map(|path| match ObjectName::parse(path) {
                Some(ObjectName::Line(
                    _,
                    _,
                    LineObject::Backup(BackupId(id), number)
                    | LineObject::Event(id, number)
                    | LineObject::Pin(id, number),
                )) => Some(Numbered { id, number }),
                _ => None,
            })
            .collect())
    }

    /// Reads a history file of the line by its object.
    ///
    /// # Errors
    /// Damage, a missing object, or a store that fails.
    pub async fn history(&self, object: &LineObject) -> Result<HistoryFile> {
        self.repository.read_record(&self.paths.path(object)?).await
    }
}
