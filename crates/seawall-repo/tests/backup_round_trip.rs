//! A backup written to a real store and read back from nothing but the store and the key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use seawall_core::{BackupId, Code, LineId, Lsn, TimelineId, Ulid};
use seawall_repo::envelope::{Compressor, ObjectKind, ObjectSealer};
use seawall_repo::hash::FullBlockHash;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::manifest::{
    BackupInfo, BackupKind, BackupSource, Commit, Content, Entry, EntryKind, ManifestWriter, Page,
    Parts,
};
use seawall_repo::map::{BlockMapBuilder, MapBuilder, MapInfo, MapReader};
use seawall_repo::pack::{FrameBody, FramePayload, FrameReader, FrameTable, PackBuilder, PackInfo};
use seawall_repo::records::{About, Pin, PinRole};
use seawall_repo::{CreateOptions, Line, Repository};
use seawall_store::testing::{Latency, MemoryStore};
use seawall_store::{Metered, OpenOptions, Store, open_or_create};

fn now() -> Timestamp {
    "2026-01-02T02:00:00Z".parse().unwrap()
}

fn key() -> Unlock {
    Unlock::KeyFile(KeyFile::generate().unwrap())
}

async fn store(dir: &tempfile::TempDir) -> Arc<dyn Store> {
    let url = format!("file://{}", dir.path().display()).parse().unwrap();
    open_or_create(&url, &OpenOptions::default()).await.unwrap()
}

fn line_id() -> LineId {
    "7300000000000000000-0".parse().unwrap()
}

async fn new_line(repository: &Repository) -> Line {
    let line = repository.line(&"main".parse().unwrap(), line_id()).unwrap();
    line.create(&about()).await.unwrap();
    line
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

fn info(id: BackupId) -> BackupInfo {
    BackupInfo {
        id: id.0,
        generation: 0,
        kind: BackupKind::Full,
        source: BackupSource::Files,
        cluster: "main".to_owned(),
        system_id: line_id().system_id,
        branch: line_id().branch,
        major: 15,
        start_lsn: Lsn(0x200_0028),
        start_timeline: TimelineId(1),
        stop_lsn: Lsn(0x200_0138),
        stop_timeline: TimelineId(1),
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
        annotations: std::collections::BTreeMap::new(),
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

/// Two frames of random blocks, a zero block between, then a small file in a blob frame.
async fn write_backup(line: &Line, id: BackupId, blocks: &[u8], small: &[u8]) -> Parts {
    let keyring = line.keyring();
    let hasher = keyring.hasher();
    let mut compressor = Compressor::new(1).unwrap();
    let mut body = FrameBody::new();

    let pack_id = Ulid::from_parts(1_767_319_200_000, 1);
    let pack_path = line.paths().path(&LineObject::Pack(pack_id)).unwrap();
    let mut bytes = Vec::new();
    let mut pack = PackBuilder::begin(keyring, pack_id, &pack_path, &mut bytes).unwrap();
    let mut map = BlockMapBuilder::default();
    let mut hashes = Vec::new();
    for (index, frame) in blocks.chunks(16 * 8192).enumerate() {
        let full: Vec<_> = frame.chunks(8192).map(|block| hasher.block(block)).collect();
        hashes.extend(full.iter().map(FullBlockHash::short));
        let what = FramePayload::Base { path: b"base/1/1259", first_block: index as u32 * 16 };
        body.fill(what, frame, &mut compressor).unwrap();
        let number = pack.frame(&body, &full, &mut bytes).unwrap();
        map.frame(full.len() as u32, pack_id, number);
    }
    map.zero(1);
    hashes.push([0; 8]);
    let files = [(b"PG_VERSION".to_vec(), small.len() as u32)];
    body.fill(FramePayload::Blob { files: &files }, small, &mut compressor).unwrap();
    let blob = pack.frame(&body, &[hasher.block(small)], &mut bytes).unwrap();
    let pack_info = pack.finish(&mut bytes).unwrap();
    let mut writer = line.store().create_large(&pack_path).await.unwrap();
    writer.write(Bytes::from(bytes)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), pack_info.length_bytes);

    let map = map.finish(blocks.len() as u64 + 8192).unwrap();
    let map_id = Ulid::from_parts(1_767_319_200_000, 2);
    let map_path = line.paths().path(&LineObject::Map(map_id)).unwrap();
    let mut bytes = Vec::new();
    let mut maps = MapBuilder::begin(keyring, map_id, &map_path, &mut bytes).unwrap();
    let leaves = maps.add(&map, &hashes, &mut bytes).unwrap();
    let map_info = maps.finish(&mut bytes).unwrap();
    line.store().create(&map_path, bytes.into()).await.unwrap();

    let entry = |path: &[u8], size: usize, content| Entry {
        path: path.to_vec().into(),
        kind: EntryKind::File,
        mode: 0o600,
        size_bytes: Some(size as u64),
        modified_us: Some(0),
        content: Some(content),
        link_target: None,
    };
    let hashes = hasher.block(small).short().to_vec();
    let blob = Content::Blob { pack: pack_id, frame: blob, offset: 0, hashes };
    let packs = vec![pack_id];
    let entries = [
        entry(b"PG_VERSION", small.len(), blob),
        entry(b"base/1/1259", blocks.len() + 8192, Content::Mapped { leaves, packs }),
    ];
    let (parts, length) = write_manifest(line, 3, &entries, &[pack_info], &[map_info]).await;
    assert_eq!(parts.manifests[0].length_bytes, length);
    commit(line, id, &parts).await;
    parts
}

/// Writes a manifest of these entries. Gives what a commit says of it, and its length.
async fn write_manifest(
    line: &Line,
    number: u128,
    entries: &[Entry],
    packs: &[PackInfo],
    maps: &[MapInfo],
) -> (Parts, u64) {
    let id = Ulid::from_parts(1_767_319_200_000, number);
    let path = line.paths().path(&LineObject::Manifest(id)).unwrap();
    let mut bytes = Vec::new();
    let mut manifest = ManifestWriter::begin(line.keyring(), id, &path, &mut bytes).unwrap();
    for entry in entries {
        manifest.entry(entry, &mut bytes).unwrap();
        assert!(manifest.entry(entry, &mut bytes).is_err(), "paths come in order, once");
    }
    let parts = manifest.finish(packs, maps, &mut bytes).unwrap();
    let length = bytes.len() as u64;
    line.store().create(&path, bytes.into()).await.unwrap();
    (parts, length)
}

async fn commit(line: &Line, id: BackupId, parts: &Parts) {
    let path = line.paths().path(&LineObject::Backup(id, 0)).unwrap();
    let commit = Commit { info: info(id), parts: parts.clone() };
    line.repository().create_record(&path, &commit).await.unwrap();
}

#[tokio::test]
async fn a_backup_reads_back_with_store_and_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let id = BackupId::new(now(), 5).unwrap();
    let blocks: Vec<u8> =
        (0..20 * 8192u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    {
        let repository = Repository::create(store(&dir).await, &options).await.unwrap();
        let line = new_line(&repository).await;
        write_backup(&line, id, &blocks, b"15\n").await;
    }

    let repository = Repository::open(store(&dir).await, &key).await.unwrap();
    let (cluster, line_id) = repository.lines().await.unwrap().pop().unwrap();
    let line = repository.line(&cluster, line_id).unwrap();
    assert_eq!(line.about().await.unwrap(), Some(about()));
    let backups = line.backups().await.unwrap();
    assert_eq!(backups.len(), 1);
    assert_eq!(backups[0].info.as_ref().unwrap(), &info(id));

    let manifest = line.manifest(id).await.unwrap().unwrap();
    let entries = manifest.page(line.store(), 0).await.unwrap();
    let packs = manifest.packs(line.store()).await.unwrap();
    let pack_path = line.paths().path(&LineObject::Pack(packs[0].id)).unwrap();
    let table =
        FrameTable::read(line.store(), line.keyring(), &pack_path, &packs[0]).await.unwrap();
    let mut frames = table.fetch(line.store(), 0, table.frames()).await.unwrap();
    let mut reader = FrameReader::new().unwrap();

    let Some(Content::Blob { frame, .. }) = entries[0].content else { panic!("a blob") };
    assert_eq!(reader.open(&table, &mut frames, frame).unwrap(), b"15\n");
    let Some(Content::Mapped { leaves, .. }) = &entries[1].content else { panic!("a map") };
    let map_info = manifest.commit.parts.maps[0];
    let map_path = line.paths().path(&LineObject::Map(map_info.id)).unwrap();
    let maps = MapReader::read(line.store(), line.keyring(), &map_path, &map_info).await.unwrap();
    let map = maps.runs(line.store(), &leaves.runs).await.unwrap();
    assert_eq!(map.runs.len(), 2, "one run of frames and one of zeroes");
    let mut read = reader.open(&table, &mut frames, 0).unwrap().to_vec();
    read.extend_from_slice(reader.open(&table, &mut frames, 1).unwrap());
    assert_eq!(read, blocks);
    assert_eq!(maps.hashes(line.store(), &leaves.hashes).await.unwrap().len(), 21);
}

#[tokio::test]
async fn a_later_backup_reads_pages_of_an_older_one_s_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let repository = Repository::create(store(&dir).await, &options).await.unwrap();
    let line = new_line(&repository).await;
    let (first, second) = (BackupId::new(now(), 5).unwrap(), BackupId::new(now(), 6).unwrap());
    let older = write_backup(&line, first, &vec![1; 20 * 8192], b"15\n").await;

    let added = Entry {
        path: b"base/2".to_vec().into(),
        kind: EntryKind::Directory,
        mode: 0o700,
        size_bytes: None,
        modified_us: None,
        content: None,
        link_target: None,
    };
    let (mut parts, _) = write_manifest(&line, 4, &[added], &[], &[]).await;
    // The older manifest is this one's second, and its page comes first.
    parts.manifests.extend(&older.manifests);
    let mut page = older.pages[0].clone();
    page.manifest = 1;
    parts.pages.insert(0, page);
    let mut packs = older.pack_pages[0];
    packs.manifest = 1;
    parts.pack_pages.push(packs);
    parts.maps.clone_from(&older.maps);
    commit(&line, second, &parts).await;

    let read = async |id| {
        let reader = line.manifest(id).await.unwrap().unwrap();
        let mut entries = Vec::new();
        for page in 0..reader.pages() {
            entries.extend(reader.page(line.store(), page).await.unwrap());
        }
        (entries, reader.packs(line.store()).await.unwrap(), reader.commit.parts.maps)
    };
    let (before, after) = (read(first).await, read(second).await);
    assert_eq!((&after.1, &after.2), (&before.1, &before.2), "the same packs and maps");
    assert_eq!(&after.0[..2], &before.0[..], "the same files");
    assert_eq!(after.0[2].path(), b"base/2");

    // A page is what the commit says of it, or it is not read.
    for (number, spoil) in [
        (7, (|parts| parts.pages[0].hash[0] ^= 1) as fn(&mut Parts)),
        (8, |parts| parts.pages[0].counter = 1),
        (9, |parts| parts.pages[0].manifest = 2),
        (10, |parts| parts.pages.swap(0, 1)),
    ] {
        let id = BackupId::new(now(), number).unwrap();
        let mut parts = parts.clone();
        spoil(&mut parts);
        commit(&line, id, &parts).await;
        let reader = line.manifest(id).await.unwrap().unwrap();
        let error = reader.page(line.store(), 0).await.unwrap_err();
        assert_eq!(error.code(), Code::ObjectInconsistent, "{number}: {error}");
    }
    let mut parts = parts.clone();
    parts.manifests[1].length_bytes += 1;
    let id = BackupId::new(now(), 11).unwrap();
    commit(&line, id, &parts).await;
    let error = line.manifest(id).await.unwrap_err();
    assert_eq!(error.code(), Code::ObjectInconsistent, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_backup_of_many_manifests_waits_no_longer_for_them_than_for_one() {
    let far: Arc<dyn Store> =
        Arc::new(Latency::new(Arc::new(MemoryStore::new()), Duration::from_secs(1)));
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let line = new_line(&Repository::create(far, &options).await.unwrap()).await;
    let mut parts = Parts::default();
    for number in 0..20 {
        parts.manifests.extend(write_manifest(&line, number, &[], &[], &[]).await.0.manifests);
    }
    let open = async |number, parts: &Parts| {
        let id = BackupId::new(now(), number).unwrap();
        commit(&line, id, parts).await;
        let began = tokio::time::Instant::now();
        (line.manifest(id).await, began.elapsed())
    };
    let only = Parts { manifests: vec![parts.manifests[0]], ..Parts::default() };
    let (of_one, took_one) = open(100, &only).await;
    let (of_all, took_all) = open(101, &parts).await;
    assert_eq!(of_one.unwrap().unwrap().commit.parts.manifests.len(), 1);
    assert_eq!(of_all.unwrap().unwrap().commit.parts.manifests.len(), 20);
    assert_eq!(took_all, took_one);

    // Told of is the first with which something is wrong, whichever is seen first.
    let gone = Ulid::from_parts(1, 1);
    parts.manifests[5].length_bytes += 1;
    parts.manifests[9].id = gone;
    let error = open(102, &parts).await.0.unwrap_err();
    assert_eq!(error.code(), Code::ObjectInconsistent, "{error}");
    parts.manifests[3].id = gone;
    let error = open(103, &parts).await.0.unwrap_err();
    assert_eq!(error.code(), Code::ObjectMissing, "{error}");
}

#[tokio::test]
async fn two_listings_at_once_and_one_read_of_each_backup_tell_what_backups_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let counted = Arc::new(Metered::new(store(&dir).await));
    let store: Arc<dyn Store> = Arc::<Metered>::clone(&counted);
    let line = new_line(&Repository::create(store, &options).await.unwrap()).await;
    let ids: Vec<BackupId> = (0..40).map(|number| BackupId::new(now(), number).unwrap()).collect();
    let parts = Parts::default();
    for id in &ids[1..] {
        commit(&line, *id, &parts).await;
    }
    line.fence(ids[0], now(), "its process is gone").await.unwrap();
    let before = counted.counts().calls();
    let backups = line.backups().await.unwrap();
    assert_eq!(backups.iter().map(|backup| backup.id).collect::<Vec<_>>(), ids[1..]);
    assert!(backups.iter().all(|backup| backup.info.is_ok()));
    // Of backups, and of what is to go.
    assert_eq!(counted.counts().calls() - before, 2 + ids.len() as u64);
}

#[tokio::test]
async fn a_backup_of_the_format_before_is_refused_and_not_misread() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let repository = Repository::create(store(&dir).await, &options).await.unwrap();
    let line = new_line(&repository).await;
    let id = BackupId::new(now(), 5).unwrap();
    let path = line.paths().path(&LineObject::Backup(id, 0)).unwrap();
    let mut bytes = Vec::new();
    let keyring = line.keyring();
    let sealer = ObjectSealer::begin(keyring, ObjectKind::Manifest, &path, &mut bytes).unwrap();
    sealer.finish(b"a footer of another time", &mut bytes).unwrap();
    line.store().create(&path, bytes.clone().into()).await.unwrap();

    let name = ObjectName::parse(&path).unwrap();
    let summaries = line.backups().await.unwrap();
    for error in [
        line.manifest(id).await.unwrap_err(),
        summaries.into_iter().next().unwrap().info.unwrap_err(),
        repository.prove(&path, &name).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::UnknownFormat);
        assert!(error.message().contains("the format before this one"), "{error}");
    }
    // What only says so, and was not written there, is damage.
    let other = BackupId::new(now(), 6).unwrap();
    let moved = line.paths().path(&LineObject::Backup(other, 0)).unwrap();
    line.store().create(&moved, bytes.into()).await.unwrap();
    assert_eq!(line.manifest(other).await.unwrap_err().code(), Code::ObjectDamaged);
}

#[tokio::test]
async fn e65_a_wrong_key_is_told_at_once_and_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let right = key();
    let options = CreateOptions { unlock: &right, label: "first", now: now() };
    Repository::create(store(&dir).await, &options).await.unwrap();
    let error = Repository::open(store(&dir).await, &key()).await.unwrap_err();
    assert_eq!(error.code(), Code::WrongKey);
    let again = Repository::create(store(&dir).await, &options).await.unwrap_err();
    assert_eq!(again.code(), Code::RepositoryExists);
    let empty = tempfile::tempdir().unwrap();
    let none = Repository::open(store(&empty).await, &right).await.unwrap_err();
    assert_eq!(none.code(), Code::NoRepository);
}

#[tokio::test]
async fn after_a_rotation_old_and_new_objects_open_and_the_old_key_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (key(), key());
    let first = CreateOptions { unlock: &old, label: "old", now: now() };
    let repository = Repository::create(store(&dir).await, &first).await.unwrap();
    new_line(&repository).await;
    let second = CreateOptions { unlock: &new, label: "new", now: now() };
    repository.add_key(&second).await.unwrap();
    repository.rotate(&[second]).await.unwrap();

    let reopened = Repository::open(store(&dir).await, &new).await.unwrap();
    assert_eq!(reopened.keyring().current_epoch(), 2);
    let line = reopened.line(&"main".parse().unwrap(), line_id()).unwrap();
    assert!(line.about().await.unwrap().is_some(), "written under epoch 1");
    let error = Repository::open(store(&dir).await, &old).await.unwrap_err();
    assert_eq!(error.code(), Code::WrongKey);
    let slots = reopened.key_slots().await.unwrap();
    assert_eq!(slots.len(), 3);
    let (epoch, id, _) = slots[2].clone();
    assert_eq!(reopened.remove_key(epoch, id).await.unwrap_err().code(), Code::LastKey);
}

fn pin(role: PinRole) -> Pin {
    Pin {
        role,
        host: "db1".to_owned(),
        boot_id: "boot".to_owned(),
        process_id: 1,
        time_us: 0,
        purpose: "backup".to_owned(),
        start_lsn: Lsn(1),
        start_timeline: TimelineId(1),
        copied_until: Lsn(1),
        packs: Vec::new(),
        maps: Vec::new(),
        files: Page::default(),
        backups: Vec::new(),
        process_started: None,
        namespaces: None,
        manifests: Vec::new(),
        ended_us: None,
    }
}

#[tokio::test]
async fn an_attempt_is_seen_until_it_is_fenced_and_then_cannot_commit() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let repository = Repository::create(store(&dir).await, &options).await.unwrap();
    let line = new_line(&repository).await;
    let id = BackupId::new(now(), 9).unwrap();
    let pin = pin(PinRole::Writer);
    let path = line.paths().path(&LineObject::Pin(id.0, 0)).unwrap();
    repository.create_record(&path, &pin).await.unwrap();
    let attempts = line.attempts().await.unwrap();
    assert_eq!((attempts.len(), attempts[0].id), (1, id));
    assert_eq!(line.records(&attempts[0]).await.unwrap(), [pin]);

    line.fence(id, now(), "its process is gone").await.unwrap();
    let commit = line.paths().path(&LineObject::Backup(id, 0)).unwrap();
    let late = line.store().create(&commit, Bytes::from_static(b"late")).await;
    assert!(late.is_err(), "a late commit fails");
    assert!(line.backups().await.unwrap().is_empty(), "a tombstone is not a backup");
    line.sweep_pins().await.unwrap();
    assert!(line.attempts().await.unwrap().is_empty());
}

#[tokio::test]
async fn of_an_attempt_only_what_stands_before_a_damaged_record_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let repository = Repository::create(store(&dir).await, &options).await.unwrap();
    let line = new_line(&repository).await;
    let id = BackupId::new(now(), 9).unwrap();
    let path = |number| line.paths().path(&LineObject::Pin(id.0, number)).unwrap();
    for number in [0, 1, 2, 4] {
        repository.create_record(&path(number), &pin(PinRole::Writer)).await.unwrap();
    }
    let records = async || {
        let attempts = line.attempts().await.unwrap();
        assert_eq!((attempts[0].first_record, attempts[0].newest_record), (0, 4));
        line.records(&attempts[0]).await.unwrap().len()
    };
    assert_eq!(records().await, 3, "the fourth is missing, and the fifth counts from it");
    std::fs::write(dir.path().join(path(1).as_str()), "damaged").unwrap();
    assert_eq!(records().await, 1);
    std::fs::write(dir.path().join(path(0).as_str()), "damaged").unwrap();
    assert_eq!(records().await, 0, "it is still there to be fenced");
}

#[tokio::test]
async fn a_reader_s_pin_outlives_the_sweep_of_the_backups() {
    let dir = tempfile::tempdir().unwrap();
    let key = key();
    let options = CreateOptions { unlock: &key, label: "first", now: now() };
    let repository = Repository::create(store(&dir).await, &options).await.unwrap();
    let line = new_line(&repository).await;
    let id = BackupId::new(now(), 9).unwrap();
    line.fence(id, now(), "its process is gone").await.unwrap();
    let path = |number| line.paths().path(&LineObject::Pin(id.0, number)).unwrap();
    repository.create_record(&path(0), &pin(PinRole::Reader)).await.unwrap();
    repository.create_record(&path(1), &pin(PinRole::Writer)).await.unwrap();
    line.sweep_pins().await.unwrap();
    assert!(line.store().stat(&path(0)).await.is_ok(), "it explains what a head announces");
    assert!(line.store().stat(&path(1)).await.is_err());
}
