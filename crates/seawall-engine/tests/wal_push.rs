//! `archive_command`: what it takes, what it refuses, and when it says that it is done.

#[path = "../../seawall-repo/tests/archive_support/mod.rs"]
mod archive_support;

use std::fs;
use std::path::PathBuf;

use archive_support::wal::{SYSTEM_ID, WalWriter};
use archive_support::*;
use seawall_core::{BranchNumber, Code, LineId, Lsn, SystemId, Ulid};
use seawall_engine::restore::{RestoreRequest, Target, TimelineChoice};
use seawall_engine::restored::{
    Asked, Mode, PlannedBackup, Removals, RestorePlan, RestoreState, Stop, TargetAction,
};

use seawall_engine::wal::{PushReport, PushRequest, WalPlace, list, push};
use seawall_pgdata::PgMajor;

struct Setting {
    fixtures: Vec<Fixture>,
    pg_wal: tempfile::TempDir,
}

impl Setting {
    async fn new(repositories: usize) -> Self {
        let mut fixtures = Vec::new();
        for _ in 0..repositories {
            fixtures.push(Fixture::new().await);
        }
        Self { fixtures, pg_wal: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.pg_wal.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn request(&self, path: PathBuf) -> PushRequest {
        let place = |(number, fixture): (usize, &Fixture)| WalPlace {
            name: format!("repo{number}"),
            repository: fixture.archive.line().repository().clone(),
            compression_level: 1,
        };
        PushRequest {
            cluster: "main".parse().unwrap(),
            path,
            places: self.fixtures.iter().enumerate().map(place).collect(),
            system_id: None,
            branch: None,
            partial: false,
        }
    }

    async fn push(&self, name: &str, bytes: &[u8]) -> Result<PushReport, Code> {
        let request = self.request(self.file(name, bytes));
        push(&request).await.map_err(|error| error.code())
    }
}

fn log() -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(Lsn(3 * SEGMENT_BYTES + 300_000));
    log.switch();
    log
}

#[tokio::test]
async fn every_kind_of_file_reaches_every_repository() {
    let setting = Setting::new(2).await;
    let log = log();
    let report = setting.push(&file_name(1, 3), &segment(&log, 3)).await.unwrap();
    assert_eq!(report.places.len(), 2);
    for place in &report.places {
        assert_eq!(place.new_bytes, SEGMENT_BYTES);
        assert_eq!(place.wal.unwrap().end, Lsn(4 * SEGMENT_BYTES));
    }
    let again = setting.push(&file_name(1, 3), &segment(&log, 3)).await.unwrap();
    assert!(again.places.iter().all(|place| place.new_bytes == 0));
    let history = history_of_2(Lsn(0x40_0000));
    setting.push("00000002.history", history.as_bytes()).await.unwrap();
    let note = "START WAL LOCATION: 0/300028 (file 000000010000000000000003)\n\
                STOP WAL LOCATION: 0/300138 (file 000000010000000000000003)\n\
                CHECKPOINT LOCATION: 0/300060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
                START TIME: 2026-01-02 02:00:00 UTC\nLABEL: seawall\nSTART TIMELINE: 1\n\
                STOP TIME: 2026-01-02 02:00:01 UTC\nSTOP TIMELINE: 1\n";
    setting.push("000000010000000000000003.00000028.backup", note.as_bytes()).await.unwrap();
    for fixture in &setting.fixtures {
        let listing = list(&fixture.archive).await.unwrap();
        let [first, second] = listing.timelines.as_slice() else { panic!("{listing:?}") };
        assert_eq!(first.ranges[0].start, Lsn(0x30_0000));
        assert_eq!(first.gaps, []);
        assert_eq!(second.parent, Some(T1));
        assert_eq!(listing.damaged_histories, []);
    }
}

#[tokio::test]
async fn e1_nothing_empty_is_ever_archived() {
    let setting = Setting::new(1).await;
    for name in [
        "000000010000000000000003",
        "000000010000000000000003.partial",
        "00000002.history",
        "000000010000000000000003.00000028.backup",
    ] {
        assert_eq!(setting.push(name, b"").await, Err(Code::WalDamaged), "{name}");
    }
    assert_eq!(setting.fixtures[0].objects(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn other_files_and_files_that_cannot_be_read_are_told_apart() {
    let setting = Setting::new(1).await;
    for name in ["postgresql.conf", "000000010000000000000003.tmp", "archive_status"] {
        assert_eq!(setting.push(name, b"text").await, Err(Code::NotWal), "{name}");
    }
    let text = vec![b'x'; SEGMENT_BYTES as usize];
    assert_eq!(setting.push(&file_name(1, 3), &text).await, Err(Code::NotWal));
    let absent = setting.request(setting.pg_wal.path().join(file_name(1, 9)));
    assert_eq!(push(&absent).await.unwrap_err().code(), Code::LocalIo);
    let directory = setting.pg_wal.path().join(file_name(1, 8));
    fs::create_dir(&directory).unwrap();
    assert_eq!(push(&setting.request(directory)).await.unwrap_err().code(), Code::NotWal);
}

#[tokio::test]
async fn e21_wal_of_an_unknown_cluster_makes_no_line() {
    let setting = Setting::new(1).await;
    let mut bytes = segment(&log(), 3);
    bytes[24..32].copy_from_slice(&77u64.to_le_bytes());
    let path = setting.file(&file_name(1, 3), &bytes);
    let error = push(&setting.request(path)).await.unwrap_err();
    assert_eq!(error.code(), Code::WalWrongCluster);
    assert!(
        format!("{:?}", error.hint()).contains("Adopt { cluster: Some(ClusterName(\"main\""),
        "{error:?}"
    );
    let repository = setting.fixtures[0].archive.line().repository();
    assert_eq!(repository.lines().await.unwrap().len(), 1);

    let mut other = setting.request(setting.file(&file_name(1, 3), &segment(&log(), 3)));
    other.cluster = "other".parse().unwrap();
    assert_eq!(push(&other).await.unwrap_err().code(), Code::WalWrongCluster);
}

/// What a restore leaves in its directory.
fn restored(mode: Mode) -> RestoreState {
    let then = TargetAction::Promote;
    let request = RestoreRequest {
        target: Target::Latest,
        target_text: "latest".to_owned(),
        asked_at: jiff::Timestamp::UNIX_EPOCH,
        backup: None,
        timeline: TimelineChoice::Current,
        mode,
        then,
        into: "/restored".into(),
        tablespaces: Vec::new(),
        databases: Vec::new(),
        delta: None,
        starts: false,
    };
    let (start_lsn, stop_lsn) = (Lsn(0x20_0028), Lsn(0x20_0138));
    let backup = PlannedBackup {
        id: "backup".to_owned(),
        ulid: Ulid(1),
        generation: 0,
        start_lsn,
        stop_lsn,
        timeline: T1,
        finished_at: jiff::Timestamp::UNIX_EPOCH,
        cluster_bytes: 0,
        found_damaged: None,
    };
    let plan = RestorePlan {
        cluster: "main".parse().unwrap(),
        line: LineId { system_id: SYSTEM_ID, branch: BranchNumber(0) },
        mode,
        target: "latest".to_owned(),
        backup,
        timeline: T1,
        path: Vec::new(),
        stop: Stop::Consistent { lsn: stop_lsn },
        wal_end: stop_lsn,
        last_commit_kept: None,
        first_commit_left_out: None,
        removals: Removals::default(),
        left_behind: Vec::new(),
        then,
        left_out_databases: Vec::new(),
        ignores_invalid_pages: false,
        required: seawall_engine::restored::RequiredParameters::default(),
        settings: Vec::new(),
        asked_at: None,
        server: None,
        onto: None,
        warnings: Vec::new(),
    };
    RestoreState::new(Ulid(2), Asked::from(&request), plan)
}

#[tokio::test]
async fn e20_a_clone_never_archives_whatever_its_settings_and_a_restored_primary_does() {
    let setting = Setting::new(1).await;
    let data_directory = tempfile::tempdir().unwrap();
    fs::create_dir(data_directory.path().join("pg_wal")).unwrap();
    let path = data_directory.path().join("pg_wal").join(file_name(1, 3));
    fs::write(&path, segment(&log(), 3)).unwrap();
    let state = data_directory.path().join("seawall.restore");

    fs::write(&state, serde_json::to_vec(&restored(Mode::Clone)).unwrap()).unwrap();
    let error = push(&setting.request(path.clone())).await.unwrap_err();
    assert_eq!(error.code(), Code::WalWrongCluster);
    assert!(format!("{:?}", error.hint()).contains("Adopt"), "{error:?}");
    assert_eq!(setting.fixtures[0].objects(), Vec::<PathBuf>::new());

    fs::write(&state, serde_json::to_vec(&restored(Mode::Primary)).unwrap()).unwrap();
    push(&setting.request(path)).await.unwrap();
}

#[tokio::test]
async fn a_history_goes_to_the_line_of_the_caller() {
    let setting = Setting::new(1).await;
    let repository = setting.fixtures[0].archive.line().repository();
    let second = SystemId(77);
    let id = format!("{second}-0").parse().unwrap();
    let line = repository.line(&"main".parse().unwrap(), id).unwrap();
    line.create(&about(second, PgMajor::V15)).await.unwrap();

    let path = setting.file("00000002.history", history_of_2(Lsn(0x40_0000)).as_bytes());
    let mut request = setting.request(path);
    assert_eq!(push(&request).await.unwrap_err().code(), Code::WalWrongCluster);
    request.system_id = Some(SYSTEM_ID);
    push(&request).await.unwrap();
    assert!(setting.fixtures[0].archive.timeline_history(T2).await.unwrap().is_some());
    let other = seawall_repo::wal::WalArchive::open(line).await.unwrap();
    assert!(other.timeline_history(T2).await.unwrap().is_none());
}

#[tokio::test]
async fn one_failing_repository_fails_the_push_and_the_others_keep_theirs() {
    let setting = Setting::new(3).await;
    let log = log();
    let bytes = segment(&log, 3);
    let broken = setting.fixtures[1].directory.path().join("c/main/i");
    let aside = setting.fixtures[1].directory.path().join("aside");
    fs::rename(&broken, &aside).unwrap();
    let path = setting.file(&file_name(1, 3), &bytes);
    let error = push(&setting.request(path.clone())).await.unwrap_err();
    assert!(error.message().starts_with("repository repo1: "), "{error:?}");
    assert_eq!(setting.fixtures[0].objects().len(), 1);
    assert_eq!(setting.fixtures[2].objects().len(), 1);

    fs::remove_dir_all(&broken).ok();
    fs::rename(&aside, &broken).unwrap();
    let report = push(&setting.request(path)).await.unwrap();
    let new: Vec<u64> = report.places.iter().map(|place| place.new_bytes).collect();
    assert_eq!(new, [0, SEGMENT_BYTES, 0]);
    let mut nowhere = setting.request(setting.file(&file_name(1, 3), &bytes));
    nowhere.places.clear();
    assert_eq!(push(&nowhere).await.unwrap_err().code(), Code::NotConfigured);
}
