//! What several repositories hold makes one answer, and is asked for in few round trips.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{BackupId, BranchNumber, ClusterName, LineId, Lsn, SystemId, TimelineId, Ulid};
use seawall_engine::lines::{stored_lines, written_lines};
use seawall_engine::survey::{Choices, Depth, JobState, NamedRepository, survey};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::Page;
use seawall_repo::records::{About, Event, Pin, PinRole};
use seawall_repo::{CreateOptions, Line, Repository};
use seawall_store::testing::{Latency, MemoryStore};
use seawall_store::{Metered, Store};

fn cluster() -> ClusterName {
    "main".parse().unwrap()
}

fn id(branch: u32) -> LineId {
    LineId { system_id: SystemId(7), branch: BranchNumber(branch) }
}

/// A repository in which lines were made at these times: branch, microseconds.
async fn repository(store: Arc<dyn Store>, lines: &[(u32, i64)]) -> Repository {
    repository_with(&Unlock::KeyFile(KeyFile::generate().unwrap()), store, lines).await
}

async fn repository_with(key: &Unlock, store: Arc<dyn Store>, lines: &[(u32, i64)]) -> Repository {
    let options = CreateOptions { unlock: key, label: "first", now: Timestamp::now() };
    let repository = Repository::create(store, &options).await.unwrap();
    for (branch, created_us) in lines {
        let line = repository.line(&cluster(), id(*branch)).unwrap();
        line.create(&about(*branch, *created_us)).await.unwrap();
    }
    repository
}

fn about(branch: u32, created_us: i64) -> About {
    About {
        cluster: "main".to_owned(),
        system_id: SystemId(7),
        branch: BranchNumber(branch),
        major: 15,
        catalog_version: 202_209_061,
        control_version: 1300,
        block_bytes: 8192,
        relation_segment_blocks: 131_072,
        wal_segment_bytes: 16 << 20,
        wal_block_bytes: 8192,
        data_checksum_version: 1,
        created_us,
    }
}

fn named(name: &str, repository: Option<&Repository>) -> NamedRepository {
    NamedRepository { name: name.to_owned(), repository: repository.cloned() }
}

fn backup(number: u64) -> BackupId {
    BackupId(Ulid::from_parts(number * 1000, u128::from(number)))
}

/// The records of a backup that died long ago on another host.
async fn attempt(line: &Line, id: BackupId, records: u32) {
    for number in 0..records {
        let pin = Pin {
            role: PinRole::Writer,
            host: "db1".to_owned(),
            boot_id: "another".to_owned(),
            process_id: 1,
            time_us: i64::from(number),
            purpose: "backup".to_owned(),
            start_lsn: Lsn(1),
            start_timeline: TimelineId(1),
            copied_until: Lsn(1),
            packs: Vec::new(),
            maps: Vec::new(),
            files: Page::default(),
            manifests: Vec::new(),
            ended_us: None,
            backups: Vec::new(),
            process_started: None,
            namespaces: None,
        };
        let path = line.paths().path(&LineObject::Pin(id.0, number)).unwrap();
        line.repository().create_record(&path, &pin).await.unwrap();
    }
}

#[tokio::test]
async fn an_adoption_that_stopped_half_way_is_one_answer_whichever_repository_is_asked_first() {
    let adopted = repository(Arc::new(MemoryStore::new()), &[(0, 10), (1, 20)]).await;
    // Added later, by the server that was replaced.
    let other = repository(Arc::new(MemoryStore::new()), &[(0, 30)]).await;
    for places in [[&adopted, &other], [&other, &adopted]] {
        let repositories = places.map(|repository| named("one", Some(repository)));
        let seen = survey(&cluster(), &repositories, Depth::Wal).await;
        assert!(seen.problems.is_empty(), "{:?}", seen.problems);
        assert_eq!(seen.cluster.line, Some(id(1)));
        let mut known = Vec::new();
        for repository in places {
            known.push(stored_lines(repository, Some(&cluster())).await.unwrap());
        }
        let written = written_lines(&known).into_iter().flatten();
        assert_eq!(written.map(|line| line.id()).collect::<Vec<_>>(), [id(1)]);
    }
}

#[tokio::test]
async fn a_repository_that_is_away_hides_nothing_of_the_others_and_is_told() {
    let here = repository(Arc::new(MemoryStore::new()), &[(0, 10)]).await;
    let repositories = [named("primary", Some(&here)), named("offsite", None)];
    let seen = survey(&cluster(), &repositories, Depth::Wal).await.cluster;
    assert_eq!((seen.line, seen.system_identifier), (Some(id(0)), Some(SystemId(7))));
    assert_eq!(seen.unseen, ["offsite"]);
}

#[tokio::test]
async fn a_job_that_wrote_many_records_costs_no_more_than_one_that_wrote_few() {
    let mut reads = Vec::new();
    for records in [3, 50] {
        let store = Arc::new(Metered::new(Arc::new(MemoryStore::new())));
        let repository = repository(Arc::clone(&store) as Arc<dyn Store>, &[(0, 10)]).await;
        let line = repository.line(&cluster(), id(0)).unwrap();
        attempt(&line, backup(1), records).await;
        let before = store.counts().reads();
        let seen = survey(&cluster(), &[named("one", Some(&repository))], Depth::Wal).await;
        assert_eq!(seen.cluster.jobs[0].heard_of_at.as_microsecond(), i64::from(records) - 1);
        reads.push(store.counts().reads() - before);
    }
    assert_eq!(reads[0], reads[1]);
}

/// Each call takes 30 ms, on a clock that only such waits move on.
#[tokio::test(start_paused = true)]
async fn many_small_objects_far_away_are_read_in_little_time() {
    const MANY: u64 = 200;
    let (store, key) = (MemoryStore::new(), Unlock::KeyFile(KeyFile::generate().unwrap()));
    let here = repository_with(&key, Arc::new(store.clone()), &[(0, 10)]).await;
    let line = here.line(&cluster(), id(0)).unwrap();
    for number in 1..=MANY {
        let path = line.paths().path(&LineObject::Event(backup(number).0, 0)).unwrap();
        let event = Event {
            kind: "verified".to_owned(),
            time_us: 1,
            host: "db1".to_owned(),
            details: BTreeMap::new(),
            head: None,
        };
        line.repository().create_record(&path, &event).await.unwrap();
        line.fence(backup(number), Timestamp::now(), "it died").await.unwrap();
        attempt(&line, backup(MANY + number), 3).await;
    }
    let far = Arc::new(Latency::new(Arc::new(store.clone()), Duration::from_millis(30)));
    let metered = Arc::new(Metered::new(far));
    let far = Repository::open(Arc::clone(&metered) as Arc<dyn Store>, &key).await.unwrap();
    let began = tokio::time::Instant::now();
    let seen = survey(&cluster(), &[named("far", Some(&far))], Depth::Wal).await;
    assert!(seen.problems.is_empty(), "{:?}", seen.problems);
    let jobs = &seen.cluster.jobs;
    assert_eq!(jobs.len() as u64, MANY);
    assert!(jobs.iter().all(|job| job.state == JobState::Running), "its records are new");
    assert!(jobs.is_sorted_by_key(|job| job.id));
    let (took, calls) = (began.elapsed(), metered.counts().calls());
    assert!(took < Duration::from_secs(2), "{took:?} for {calls} calls");
}

#[tokio::test]
async fn a_line_that_does_not_say_what_it_is_hides_no_backup_of_another() {
    let here = repository(Arc::new(MemoryStore::new()), &[(0, 10), (1, 20)]).await;
    let spoilt = here.line(&cluster(), id(0)).unwrap();
    let about = spoilt.paths().path(&LineObject::About).unwrap();
    here.store().delete(&about).await.unwrap();
    here.store().create(&about, "spoilt".into()).await.unwrap();
    // Which of the two is written cannot be told; a backup that is named is of one of them.
    assert!(stored_lines(&here, Some(&cluster())).await.is_err());
    let choices = Choices::look(&[("here".to_owned(), here)], Some(&cluster())).await;
    assert!(choices.backups.is_empty() && choices.failures.is_empty(), "{choices:?}");
}
