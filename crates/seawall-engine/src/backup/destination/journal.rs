use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Instant;

use jiff::Timestamp;
use seawall_core::{BackupId, Code, Lsn, Result, TimelineId, Ulid};
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{Entry, ManifestInfo, Page};
use seawall_repo::map::MapInfo;
use seawall_repo::pack::PackInfo;
use seawall_repo::records::{Pin, PinRole};
use tokio::time::timeout;

use crate::host::{Host, Process};
use crate::liveness::{HEARTBEAT, is_own};

/// A record has so many files at most: it is held in memory as a whole.
const ENTRIES_PER_RECORD: usize = 5000;

/// The records of a running backup: a pin that keeps its objects, and what a later attempt need
/// not do again.
#[derive(Debug)]
pub(in crate::backup) struct Journal {
    id: BackupId,
    host: Host,
    start_lsn: Lsn,
    start_timeline: TimelineId,
    /// The backup that this one leads on from.
    parent: Option<Ulid>,
    sequence: u32,
    files: usize,
    /// How many files came since entries were written.
    entries: usize,
    written: Instant,
    new_packs: Vec<PackInfo>,
    new_maps: Vec<MapInfo>,
    new_manifests: Vec<ManifestInfo>,
    /// Packs that are durable.
    packs: BTreeSet<Ulid>,
    /// Complete files of which some pack is not durable yet.
    open: Vec<Entry>,
}

impl Journal {
    /// Writes the first record: from now on the backup is seen.
    pub async fn begin(line: &Line, id: BackupId, host: Host) -> Result<Self> {
        let mut journal = Self {
            id,
            host,
            start_lsn: Lsn::INVALID,
            start_timeline: TimelineId(0),
            parent: None,
            sequence: 0,
            files: 0,
            entries: 0,
            written: Instant::now(),
            new_packs: Vec::new(),
            new_maps: Vec::new(),
            new_manifests: Vec::new(),
            packs: BTreeSet::new(),
            open: Vec::new(),
        };
        journal.record(line, Vec::new()).await?;
        Ok(journal)
    }

    /// The backup has begun; what it inherits from an attempt is kept from now on.
    pub fn started(&mut self, start_lsn: Lsn, start_timeline: TimelineId) {
        (self.start_lsn, self.start_timeline) = (start_lsn, start_timeline);
    }

    /// The backup uses what another one has, which has to stay; or none, after all.
    pub async fn lead_on(&mut self, line: &Line, parent: Option<BackupId>) -> Result<()> {
        self.parent = parent.map(|parent| parent.0);
        self.record(line, Vec::new()).await
    }

    /// A pack is durable.
    pub fn pack(&mut self, info: PackInfo) {
        self.packs.insert(info.id);
        self.new_packs.push(info);
    }

    /// A map is durable.
    pub fn map(&mut self, info: MapInfo) {
        self.new_maps.push(info);
    }

    /// A manifest is durable.
    pub fn manifest(&mut self, info: ManifestInfo) {
        self.new_manifests.push(info);
    }

    /// A file is complete. Paths without content are found again at no cost and not noted.
    pub fn entry(&mut self, entry: Entry) {
        if entry.content.is_some() {
            self.open.push(entry);
            self.entries += 1;
        }
    }

    /// Whether any file is noted as finished.
    pub const fn is_worth_keeping(&self) -> bool {
        self.files > 0
    }

    /// Writes records of what became durable since the last one.
    pub async fn write(&mut self, line: &Line) -> Result<()> {
        self.entries = 0;
        let packs = &self.packs;
        let is_durable = |entry: &mut Entry| entry.packs().all(|pack| packs.contains(&pack));
        let mut finished = self.open.extract_if(.., is_durable).collect::<Vec<Entry>>().into_iter();
        loop {
            let entries: Vec<Entry> = finished.by_ref().take(ENTRIES_PER_RECORD).collect();
            self.record(line, entries).await?;
            if finished.as_slice().is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether so many files came since the last record that they should not wait for a pack.
    pub const fn is_full(&self) -> bool {
        self.entries >= ENTRIES_PER_RECORD
    }

    /// Waits for something, and tells the repository meanwhile that the backup lives.
    pub async fn keep_alive<T>(
        &mut self,
        line: &Line,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut work = pin!(work);
        loop {
            match timeout(HEARTBEAT, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.record(line, Vec::new()).await?,
            }
        }
    }

    /// Writes a record, and tells when that was by the clock of the store.
    pub async fn beat(&mut self, line: &Line) -> Result<Timestamp> {
        self.record(line, Vec::new()).await?;
        self.last_beat(line).await
    }

    /// When the last record was written, by the clock of the store.
    pub async fn last_beat(&self, line: &Line) -> Result<Timestamp> {
        let last = LineObject::Pin(self.id.0, self.sequence.saturating_sub(1));
        Ok(line.store().stat(&line.paths().path(&last)?).await?.modified)
    }

    /// Writes a record if the last one is old.
    pub async fn heartbeat(&mut self, line: &Line) -> Result<()> {
        if self.written.elapsed() >= HEARTBEAT {
            self.record(line, Vec::new()).await
        } else {
            Ok(())
        }
    }

    async fn record(&mut self, line: &Line, entries: Vec<Entry>) -> Result<()> {
        self.files += entries.len();
        let pin = Pin {
            role: PinRole::Writer,
            host: self.host.name.clone(),
            boot_id: self.host.boot_id.clone(),
            process_id: std::process::id(),
            time_us: Timestamp::now().as_microsecond(),
            purpose: "backup".to_owned(),
            start_lsn: self.start_lsn,
            start_timeline: self.start_timeline,
            copied_until: self.start_lsn,
            packs: std::mem::take(&mut self.new_packs),
            maps: std::mem::take(&mut self.new_maps),
            files: Page(entries),
            backups: self.parent.into_iter().collect(),
            process_started: Process::this().started,
            namespaces: self.host.namespaces.clone(),
            manifests: std::mem::take(&mut self.new_manifests),
            ended_us: None,
        };
        let path = line.paths().path(&LineObject::Pin(self.id.0, self.sequence))?;
        line.repository().create_record(&path, &pin).await?;
        self.sequence += 1;
        self.written = Instant::now();
        Ok(())
    }
}

/// How often the last record is tried again: one that was being written may come first.
const TRIES: u32 = 5;

/// Notes that an attempt of this process has ended: whoever comes next need not wait until it counts
/// as dead.
///
/// # Errors
/// A store that fails.
pub(crate) async fn give_up(line: &Line, id: BackupId) -> Result<()> {
    for _ in 0..TRIES {
        let attempts = line.attempts().await?;
        let Some(attempt) = attempts.into_iter().find(|attempt| attempt.id == id) else {
            return Ok(());
        };
        let newest = line.record(&attempt, attempt.newest_record).await?;
        // Of the same id there may be one elsewhere, which is why this one could not begin.
        let Some(newest) = newest.filter(is_own) else { return Ok(()) };
        let now_us = Timestamp::now().as_microsecond();
        let last = Pin {
            time_us: now_us,
            packs: Vec::new(),
            maps: Vec::new(),
            files: Page(Vec::new()),
            manifests: Vec::new(),
            ended_us: Some(now_us),
            ..newest
        };
        let path = line.paths().path(&LineObject::Pin(id.0, attempt.newest_record + 1))?;
        match line.repository().create_record(&path, &last).await {
            Err(error) if error.code() == Code::ObjectExists => {}
            written => return written,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use seawall_core::{BranchNumber, LineId, SystemId};
    use seawall_repo::keys::{KeyFile, Unlock};
    use seawall_repo::manifest::{Content, EntryKind};
    use seawall_repo::{CreateOptions, Repository};
    use seawall_store::{OpenOptions, open_or_create};

    use super::*;

    const PACK: Ulid = Ulid(1);

    async fn line(directory: &tempfile::TempDir) -> Line {
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let key = Unlock::KeyFile(KeyFile::generate().unwrap());
        let options = CreateOptions { unlock: &key, label: "first", now: Timestamp::now() };
        let store = open_or_create(&url, &OpenOptions::default()).await.unwrap();
        let repository = Repository::create(Arc::clone(&store), &options).await.unwrap();
        let id = LineId { system_id: SystemId(7), branch: BranchNumber(0) };
        repository.line(&"main".parse().unwrap(), id).unwrap()
    }

    fn entry(number: usize) -> Entry {
        Entry {
            path: format!("base/5/{number:06}").into_bytes().into(),
            kind: EntryKind::File,
            mode: 0o600,
            size_bytes: Some(8192),
            modified_us: Some(1),
            content: Some(Content::Blob { pack: PACK, frame: 0, offset: 0, hashes: vec![1; 8] }),
            link_target: None,
        }
    }

    #[tokio::test]
    async fn files_are_noted_once_their_pack_is_durable_in_records_that_fit_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let line = line(&directory).await;
        let id = BackupId::new(Timestamp::now(), 1).unwrap();
        let mut journal = Journal::begin(&line, id, Host::this()).await.unwrap();
        let files = 2 * ENTRIES_PER_RECORD + 1;
        (0..files).for_each(|number| journal.entry(entry(number)));
        assert!(journal.is_full());
        journal.write(&line).await.unwrap();
        assert!(!journal.is_full() && !journal.is_worth_keeping());
        journal.pack(PackInfo { id: PACK, length_bytes: 1, footer_hash: Default::default() });
        journal.write(&line).await.unwrap();
        assert!(journal.is_worth_keeping());
        let attempts = line.attempts().await.unwrap();
        let records = line.records(&attempts[0]).await.unwrap();
        let entries = records.iter().map(|record| record.files.0.len());
        let expected = [0, 0, ENTRIES_PER_RECORD, ENTRIES_PER_RECORD, 1];
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_told_as_life() {
        let directory = tempfile::tempdir().unwrap();
        let line = line(&directory).await;
        let id = BackupId::new(Timestamp::now(), 1).unwrap();
        let mut journal = Journal::begin(&line, id, Host::this()).await.unwrap();
        let wait = async {
            tokio::time::sleep(HEARTBEAT * 3 + HEARTBEAT / 2).await;
            Ok(7)
        };
        assert_eq!(journal.keep_alive(&line, wait).await.unwrap(), 7);
        let attempts = line.attempts().await.unwrap();
        assert_eq!((attempts[0].first_record, attempts[0].newest_record), (0, 3));
    }
}
