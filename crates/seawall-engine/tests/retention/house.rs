//! A repository with backups that nobody took: their commits alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use seawall_core::{BackupId, BranchNumber, LineId, Lsn, SystemId, TimelineId, Ulid};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{BackupInfo, BackupKind, BackupSource, Commit, Page, Parts};
use seawall_repo::records::{About, Pin, PinRole};
use seawall_repo::{CreateOptions, Line, Repository};
use seawall_store::Store;

pub const SEGMENT: u64 = 16 << 20;

const ID: LineId = LineId { system_id: SystemId(7), branch: BranchNumber(0) };

pub async fn line_in(store: Arc<dyn Store>) -> Line {
    let key = Unlock::KeyFile(KeyFile::generate().unwrap());
    let options = CreateOptions { unlock: &key, label: "first", now: Timestamp::now() };
    let repository = Repository::create(store, &options).await.unwrap();
    let line = repository.line(&"main".parse().unwrap(), ID).unwrap();
    let about = About {
        cluster: "main".to_owned(),
        system_id: ID.system_id,
        branch: ID.branch,
        major: 15,
        catalog_version: 202_209_061,
        control_version: 1300,
        block_bytes: 8192,
        relation_segment_blocks: 131_072,
        wal_segment_bytes: 16 << 20,
        wal_block_bytes: 8192,
        data_checksum_version: 1,
        created_us: 0,
    };
    line.create(&about).await.unwrap();
    line
}

pub fn backup_id(number: u64) -> BackupId {
    BackupId(Ulid::from_parts(number * 1000, u128::from(number)))
}

/// A backup that begins in that segment of timeline 1.
pub async fn commit(line: &Line, number: u64, segment: u64) {
    let id = backup_id(number);
    let start = Lsn(segment * SEGMENT + 0x28);
    let info = BackupInfo {
        id: id.0,
        generation: 0,
        kind: BackupKind::Full,
        source: BackupSource::Files,
        cluster: "main".to_owned(),
        system_id: ID.system_id,
        branch: ID.branch,
        major: 15,
        start_lsn: start,
        start_timeline: TimelineId(1),
        stop_lsn: Lsn(start.0 + 0x110),
        stop_timeline: TimelineId(1),
        started_us: 1,
        finished_us: 2,
        from_standby: false,
        backup_label: b"START WAL LOCATION\n".to_vec().into(),
        tablespace_map: Vec::new().into(),
        pg_control: Vec::new().into(),
        external_files: Vec::new(),
        left_out: Vec::new(),
        page_errors: Vec::new(),
        page_error_count: 0,
        required_features: Vec::new(),
        cluster_bytes: 0,
        read_bytes: 0,
        stored_bytes: 1000,
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
    };
    let path = line.paths().path(&LineObject::Backup(id, 0)).unwrap();
    let commit = Commit { info, parts: Parts::default() };
    line.repository().create_record(&path, &commit).await.unwrap();
}

/// A record of somebody on another host, heard of just now.
pub async fn pin(line: &Line, id: BackupId, role: PinRole, backups: Vec<Ulid>) {
    let pin = Pin {
        role,
        host: "db1".to_owned(),
        boot_id: "another".to_owned(),
        process_id: 1,
        time_us: 1,
        purpose: "backup".to_owned(),
        start_lsn: Lsn(5 * SEGMENT),
        start_timeline: TimelineId(1),
        copied_until: Lsn(5 * SEGMENT),
        packs: Vec::new(),
        maps: Vec::new(),
        files: Page::default(),
        manifests: Vec::new(),
        ended_us: None,
        backups,
        process_started: None,
        namespaces: None,
    };
    let path = line.paths().path(&LineObject::Pin(id.0, 0)).unwrap();
    line.repository().create_record(&path, &pin).await.unwrap();
}
