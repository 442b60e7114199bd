//! A line with backups that share what they store, made without a server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use seawall_core::{BackupId, Code, LineId, Lsn, NoProgress, Result, TimelineId, Ulid};
use seawall_engine::prune::{Going, PruneReport, PruneRequest, run};
use seawall_engine::verify::{self, VerifyRequest};
use seawall_repo::envelope::Compressor;
use seawall_repo::hash::FullBlockHash;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::{LineObject, ObjectName, WalRangeName};
use seawall_repo::manifest::{
    BackupInfo, BackupKind, BackupSource, Commit, Content, Entry, EntryKind, ManifestWriter, Page,
};
use seawall_repo::map::{BlockMapBuilder, MapBuilder, MapInfo, MapReader};
use seawall_repo::pack::{FrameBody, FramePayload, FrameReader, FrameTable, PackBuilder, PackInfo};
use seawall_repo::records::{About, Event, Pin, PinRole};
use seawall_repo::wal::LsnRange;
use seawall_repo::{CreateOptions, Line, Repository, new_ulid};
use seawall_store::testing::MemoryStore;
use seawall_store::{ObjectPath, ObjectPrefix, Store};

/// What is stored of a file.
#[derive(Debug, Clone)]
pub struct Stored {
    pub entry: Entry,
    pub pack: PackInfo,
    pub map: MapInfo,
}

/// A repository in memory.
pub struct House {
    pub store: MemoryStore,
    key: Unlock,
}

/// Bytes of a WAL range in these tests.
const RANGE: u64 = 1 << 24;

impl House {
    pub async fn new() -> Self {
        let store = MemoryStore::new();
        let key = Unlock::KeyFile(KeyFile::generate().unwrap());
        let options = CreateOptions { unlock: &key, label: "test", now: Timestamp::now() };
        Repository::create(Arc::new(store.clone()), &options).await.unwrap();
        let house = Self { store, key };
        house.line().await.create(&about()).await.unwrap();
        house
    }

    /// The line, seen by a process of its own.
    pub async fn line(&self) -> Line {
        self.line_over(Arc::new(self.store.clone())).await.unwrap()
    }

    pub async fn line_over(&self, store: Arc<dyn Store>) -> Result<Line> {
        let repository = Repository::open(store, &self.key).await?;
        repository.line(&"main".parse().unwrap(), line_id())
    }

    /// Prunes as a process of its own that asks `store`.
    pub async fn prune_over(&self, store: Arc<dyn Store>, going: &Going) -> Result<PruneReport> {
        let line = self.line_over(store).await?;
        run(&line, going, PruneRequest::default(), &NoProgress).await
    }

    pub async fn prune(&self, going: &Going) -> Result<PruneReport> {
        self.prune_over(Arc::new(self.store.clone()), going).await
    }

    /// What this one has now, in a repository of its own.
    pub fn fork(&self) -> Self {
        Self { store: self.store.fork(), key: self.key.clone() }
    }

    pub fn pass(&self, hours: u64) {
        self.store.age(Duration::from_secs(hours * 3600));
    }

    /// Stores a file of one page.
    pub async fn file(&self, number: u32) -> Stored {
        let line = self.line().await;
        let (keyring, hasher) = (line.keyring(), line.keyring().hasher());
        let path = format!("base/1/{number:06}").into_bytes();
        let block: Vec<u8> = (0..8192_u32).map(|at| (at * 31 + number * 7) as u8).collect();
        let id = new_ulid(Timestamp::now()).unwrap();
        let at = self.path(&line, &LineObject::Pack(id));
        let mut bytes = Vec::new();
        let mut pack = PackBuilder::begin(keyring, id, &at, &mut bytes).unwrap();
        let full: Vec<FullBlockHash> = vec![hasher.block(&block)];
        let mut body = FrameBody::new();
        let what = FramePayload::Base { path: &path, first_block: 0 };
        body.fill(what, &block, &mut Compressor::new(1).unwrap()).unwrap();
        let frame = pack.frame(&body, &full, &mut bytes).unwrap();
        let pack = pack.finish(&mut bytes).unwrap();
        line.store().create(&at, Bytes::from(bytes)).await.unwrap();

        let mut map = BlockMapBuilder::default();
        map.frame(1, id, frame);
        let map = map.finish(8192).unwrap();
        let map_id = new_ulid(Timestamp::now()).unwrap();
        let at = self.path(&line, &LineObject::Map(map_id));
        let mut bytes = Vec::new();
        let mut maps = MapBuilder::begin(keyring, map_id, &at, &mut bytes).unwrap();
        let leaves = maps.add(&map, &[full[0].short()], &mut bytes).unwrap();
        let map = maps.finish(&mut bytes).unwrap();
        line.store().create(&at, bytes.into()).await.unwrap();
        let content = Some(Content::Mapped { leaves, packs: vec![id] });
        let entry = Entry {
            path: path.into(),
            kind: EntryKind::File,
            mode: 0o600,
            size_bytes: Some(8192),
            modified_us: Some(0),
            content,
            link_target: None,
        };
        Stored { entry, pack, map }
    }

    /// Publishes a backup of these files, as the `number`th, and gives its id.
    pub async fn backup(&self, number: u64, files: &[Stored]) -> BackupId {
        let id = BackupId::new(Timestamp::now(), u128::from(number)).unwrap();
        self.publish(id, number, files).await.unwrap();
        id
    }

    /// Publishes a backup. One that was fenced cannot be.
    pub async fn publish(&self, id: BackupId, number: u64, files: &[Stored]) -> Result<()> {
        let line = self.line().await;
        let manifest = new_ulid(Timestamp::now()).unwrap();
        let at = self.path(&line, &LineObject::Manifest(manifest));
        let mut bytes = Vec::new();
        let mut writer = ManifestWriter::begin(line.keyring(), manifest, &at, &mut bytes).unwrap();
        let mut files: Vec<&Stored> = files.iter().collect();
        files.sort_by_key(|file| file.entry.path.to_vec());
        for file in &files {
            writer.entry(&file.entry, &mut bytes).unwrap();
        }
        let packs: Vec<PackInfo> = files.iter().map(|file| file.pack).collect();
        let maps: Vec<MapInfo> = files.iter().map(|file| file.map).collect();
        let parts = writer.finish(&packs, &maps, &mut bytes).unwrap();
        line.store().create(&at, bytes.into()).await.unwrap();
        let commit = self.path(&line, &LineObject::Backup(id, 0));
        let head = line.write_head(&commit, Timestamp::now()).await?;
        let info = BackupInfo { head: Some(head), ..info(id, number) };
        line.repository().create_record(&commit, &Commit { info, parts }).await
    }

    /// Writes a record of a pin.
    pub async fn pin(&self, id: BackupId, number: u32, pin: &Pin) {
        let line = self.line().await;
        let path = self.path(&line, &LineObject::Pin(id.0, number));
        line.repository().create_record(&path, pin).await.unwrap();
    }

    pub async fn event(&self, id: BackupId, number: u32, kind: &str) {
        let line = self.line().await;
        let path = self.path(&line, &LineObject::Event(id.0, number));
        let head = line.write_head(&path, Timestamp::now()).await.unwrap();
        let event = Event {
            kind: kind.to_owned(),
            time_us: 0,
            host: "db1".to_owned(),
            details: BTreeMap::new(),
            head: Some(head),
        };
        line.repository().create_record(&path, &event).await.unwrap();
    }

    /// Stores as the WAL of the `number`th backup what only names tell of.
    pub async fn wal(&self, number: u64) {
        let line = self.line().await;
        let path = self.path(&line, &LineObject::WalHot(range(number)));
        line.store().create(&path, "not read here".into()).await.unwrap();
    }

    fn path(&self, line: &Line, object: &LineObject) -> ObjectPath {
        line.paths().path(object).unwrap()
    }

    pub async fn create(&self, object: &LineObject) {
        let line = self.line().await;
        line.store().create(&self.path(&line, object), "there".into()).await.unwrap();
    }

    pub async fn is_there(&self, object: &LineObject) -> bool {
        let line = self.line().await;
        line.store().stat(&self.path(&line, object)).await.is_ok()
    }

    /// Everything that is in the line.
    pub async fn objects(&self) -> Vec<LineObject> {
        let page = self.store.list(&ObjectPrefix::root(), None, 10_000).await.unwrap();
        assert!(page.next.is_none());
        let names = page.objects.iter().map(|object| ObjectName::parse(&object.path));
        names
            .filter_map(|name| match name {
                Some(ObjectName::Line(_, _, object)) => Some(object),
                _ => None,
            })
            .collect()
    }

    /// Reads all of a backup, and gives what it needs.
    pub async fn read(&self, id: BackupId) -> Result<BTreeSet<Ulid>> {
        let line = self.line().await;
        let (store, keyring) = (line.store(), line.keyring());
        let manifest = line.manifest(id).await?.expect("a commit");
        let mut needed: BTreeSet<Ulid> =
            manifest.commit.parts.manifests.iter().map(|info| info.id).collect();
        for page in 0..manifest.pages() {
            manifest.page(store, page).await?;
        }
        for pack in manifest.packs(store).await? {
            let path = self.path(&line, &LineObject::Pack(pack.id));
            let table = FrameTable::read(store, keyring, &path, &pack).await?;
            let mut frames = table.fetch(store, 0, table.frames()).await?;
            for frame in 0..table.frames() {
                FrameReader::new()?.open(&table, &mut frames, frame)?;
            }
            needed.insert(pack.id);
        }
        for map in &manifest.commit.parts.maps {
            let path = self.path(&line, &LineObject::Map(map.id));
            MapReader::read(store, keyring, &path, map).await?;
            needed.insert(map.id);
        }
        Ok(needed)
    }

    /// What a verification finds. The WAL of these tests has names and no content.
    pub async fn findings(&self) -> Vec<verify::Finding> {
        let request = VerifyRequest { sample_percent: 100, jobs: 1, ..VerifyRequest::default() };
        let line = self.line().await;
        let report = verify::run(line.repository(), &request, &NoProgress).await.unwrap();
        let is_of_wal = |finding: &verify::Finding| {
            let is_range = finding.object.contains("/wal/hot/") && !finding.object.ends_with('/');
            is_range || matches!(finding.code, Code::WalGap | Code::WalMissing | Code::WalDamaged)
        };
        let mut findings = report.findings;
        findings.retain(|finding| !is_of_wal(finding) && finding.code != Code::ObjectDamaged);
        findings
    }
}

/// What a policy would say: these backups go, and the WAL of these.
pub fn going(backups: &[BackupId], wal: &[u64]) -> Going {
    let wal = wal.iter().map(|number| {
        let WalRangeName { timeline, start, end, .. } = range(*number);
        (timeline, LsnRange { start, end })
    });
    Going { backups: backups.iter().copied().collect(), wal: wal.collect() }
}

pub fn range(number: u64) -> WalRangeName {
    let start = Lsn((number + 1) * RANGE);
    WalRangeName { timeline: TimelineId(1), segment: start, start, end: Lsn(start.0 + RANGE) }
}

pub fn line_id() -> LineId {
    "7300000000000000000-0".parse().unwrap()
}

/// A record of a process of another host, of which nothing but its silence tells that it died.
pub fn pin(role: PinRole, files: &[Stored], backups: &[BackupId]) -> Pin {
    Pin {
        role,
        host: "elsewhere".to_owned(),
        boot_id: "1".to_owned(),
        process_id: 7,
        time_us: Timestamp::now().as_microsecond(),
        purpose: "test".to_owned(),
        start_lsn: Lsn::INVALID,
        start_timeline: TimelineId(0),
        copied_until: Lsn::INVALID,
        packs: files.iter().map(|file| file.pack).collect(),
        maps: files.iter().map(|file| file.map).collect(),
        files: Page(files.iter().map(|file| file.entry.clone()).collect()),
        backups: backups.iter().map(|id| id.0).collect(),
        process_started: None,
        namespaces: None,
        manifests: Vec::new(),
        ended_us: None,
    }
}

fn about() -> About {
    About {
        cluster: "main".to_owned(),
        system_id: line_id().system_id,
        branch: line_id().branch,
        major: 15,
        catalog_version: 202_209_061,
        control_version: 1300,
        block_bytes: 8192,
        relation_segment_blocks: 131_072,
        wal_segment_bytes: 16 << 20,
        wal_block_bytes: 8192,
        data_checksum_version: 1,
        created_us: 0,
    }
}

fn info(id: BackupId, number: u64) -> BackupInfo {
    let WalRangeName { start, end, timeline, .. } = range(number);
    BackupInfo {
        id: id.0,
        generation: 0,
        kind: BackupKind::Full,
        source: BackupSource::Files,
        cluster: "main".to_owned(),
        system_id: line_id().system_id,
        branch: line_id().branch,
        major: 15,
        start_lsn: Lsn(start.0 + 40),
        start_timeline: timeline,
        stop_lsn: Lsn(end.0 - 8),
        stop_timeline: timeline,
        started_us: 1,
        finished_us: 2,
        from_standby: false,
        backup_label: b"START WAL LOCATION\n".to_vec().into(),
        tablespace_map: Vec::new().into(),
        pg_control: vec![7; 8192].into(),
        external_files: Vec::new(),
        left_out: Vec::new(),
        page_errors: Vec::new(),
        page_error_count: 0,
        required_features: Vec::new(),
        cluster_bytes: 0,
        read_bytes: 0,
        stored_bytes: 0,
        files: 2,
        parent: None,
        annotations: BTreeMap::new(),
        head: None,
        program: "test".to_owned(),
        data_checksums: true,
        wal_segment_bytes: 16 << 20,
        relation_segment_blocks: 131_072,
        databases: None,
        incidents: None,
        audit: None,
    }
}
