//! What is to go: who may rely on what, and what heads say of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, ExitClass, LineId, Lsn, TimelineId, Ulid};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::Page;
use seawall_repo::records::{Condemnation, Decision, Head, Pin, PinRole};
use seawall_repo::{CreateOptions, Line, Repository, new_ulid};
use seawall_store::testing::MemoryStore;

async fn house() -> (MemoryStore, Line) {
    let store = MemoryStore::new();
    let key = Unlock::KeyFile(KeyFile::generate().unwrap());
    let options = CreateOptions { unlock: &key, label: "test", now: Timestamp::now() };
    let repository = Repository::create(Arc::new(store.clone()), &options).await.unwrap();
    let line: LineId = "7-0".parse().unwrap();
    (store, repository.line(&"main".parse().unwrap(), line).unwrap())
}

fn backup(number: u128) -> BackupId {
    BackupId::new(Timestamp::UNIX_EPOCH, number).unwrap()
}

async fn condemn(line: &Line, objects: &[LineObject]) -> Ulid {
    let id = new_ulid(Timestamp::now()).unwrap();
    let names = objects.iter().map(|object| line.paths().name(object).unwrap()).collect();
    let condemnation = Condemnation { time_us: 0, names, grace_s: 3600 };
    let path = line.paths().path(&LineObject::Gc(id, LineObject::CONDEMNED)).unwrap();
    line.repository().create_record(&path, &condemnation).await.unwrap();
    id
}

async fn decide(line: &Line, id: Ulid, spared: &[LineObject]) {
    let spared = spared.iter().map(|object| line.paths().name(object).unwrap()).collect();
    let path = line.paths().path(&LineObject::Gc(id, LineObject::DECIDED)).unwrap();
    let decision = Decision { time_us: 0, spared };
    line.repository().create_record(&path, &decision).await.unwrap();
}

async fn relied_on(line: &Line, object: &LineObject) -> Result<(), Code> {
    let refused = line.refuse_condemned(std::iter::once(object.clone())).await;
    refused.map_err(|error| error.code())
}

#[tokio::test]
async fn nobody_relies_on_what_is_condemned_until_it_is_spared() {
    let (store, line) = house().await;
    let (going, spared, other) =
        (LineObject::Pack(Ulid(1)), LineObject::Backup(backup(1), 0), LineObject::Map(Ulid(1)));
    let id = condemn(&line, &[going.clone(), spared.clone()]).await;
    assert_eq!(relied_on(&line, &going).await, Err(Code::Condemned));
    assert_eq!(relied_on(&line, &spared).await, Err(Code::Condemned));
    assert_eq!(relied_on(&line, &other).await, Ok(()));
    let before = line.condemnations().await.unwrap();
    assert!(before.contains(&going) && !before.is_decided(&going));

    // What counts is when the store says that it was written.
    store.age(Duration::from_secs(7200));
    let later = condemn(&line, std::slice::from_ref(&other)).await;
    let both = line.condemnations().await.unwrap();
    let since = |id| both.0.iter().find(|one| one.id == id).unwrap().since;
    assert!(since(later) >= before.0[0].until() + SignedDuration::from_secs(3600));

    decide(&line, id, std::slice::from_ref(&spared)).await;
    let after = line.condemnations().await.unwrap();
    assert!(after.is_decided(&going) && !after.is_decided(&other) && !after.contains(&spared));
    assert_eq!(relied_on(&line, &going).await, Err(Code::Condemned));
    assert_eq!(relied_on(&line, &spared).await, Ok(()));

    // The decision goes last, and alone says nothing.
    let path = line.paths().path(&LineObject::Gc(id, LineObject::CONDEMNED)).unwrap();
    line.store().delete(&path).await.unwrap();
    assert_eq!(relied_on(&line, &going).await, Ok(()), "now it is looked for, and gone");
}

#[tokio::test]
async fn a_condemnation_of_what_is_not_known_is_refused() {
    let (_, line) = house().await;
    condemn(&line, &[LineObject::About]).await;
    assert_eq!(line.condemnations().await.unwrap_err().code(), Code::UnknownFormat);
}

#[tokio::test]
async fn a_head_leaves_out_what_is_to_go_and_one_that_replaces_others_what_was_decided() {
    let (_, line) = house().await;
    let objects: Vec<LineObject> =
        (0..3).map(|number| LineObject::Event(backup(number).0, 0)).collect();
    for object in &objects {
        let path = line.paths().path(object).unwrap();
        line.store().create(&path, "event".into()).await.unwrap();
    }
    let listed = async |id| {
        let path = line.paths().path(&LineObject::Head(id)).unwrap();
        let head: Head = line.repository().read_record(&path).await.unwrap();
        head.events.len()
    };
    let next = line.paths().path(&LineObject::Event(Ulid(0), 0)).unwrap();
    assert_eq!(listed(line.write_head(&next, Timestamp::now()).await.unwrap()).await, 3);
    let decided = condemn(&line, &objects[..1]).await;
    decide(&line, decided, &[]).await;
    condemn(&line, &objects[1..2]).await;
    assert_eq!(listed(line.write_head(&next, Timestamp::now()).await.unwrap()).await, 1);
    let replacing = line.replace_heads(Timestamp::now()).await.unwrap();
    assert_eq!(listed(replacing).await, 2);
    assert_eq!(line.heads().await.unwrap(), [replacing]);
}

#[tokio::test]
async fn a_backup_that_is_to_go_is_none_that_can_be_used() {
    let (_, line) = house().await;
    let path = line.paths().path(&LineObject::Backup(backup(1), 0)).unwrap();
    line.store().create(&path, "a commit that cannot be read".into()).await.unwrap();
    assert_eq!(line.backups().await.unwrap().len(), 1);
    condemn(&line, &[LineObject::Backup(backup(1), 0)]).await;
    assert!(line.backups().await.unwrap().is_empty());
    let all = line.all_backups().await.unwrap();
    assert_eq!(all.len(), 1);
    assert!(all[0].goes_at.unwrap() > Timestamp::now() + SignedDuration::from_mins(59));

    // One that cannot be read keeps no other from being used, and nothing from being told.
    let damaged = line.paths().path(&LineObject::Gc(Ulid(1), LineObject::CONDEMNED)).unwrap();
    line.store().create(&damaged, "no condemnation".into()).await.unwrap();
    assert_eq!(line.condemnations().await.unwrap_err().exit_class(), ExitClass::Integrity);
    assert!(line.backups().await.unwrap().is_empty());
    line.write_head(&path, Timestamp::now()).await.unwrap();
    assert!(line.replace_heads(Timestamp::now()).await.is_err());
}

#[tokio::test]
async fn who_reads_is_no_backup_that_began() {
    let (_, line) = house().await;
    for (id, role) in [(1, PinRole::Writer), (2, PinRole::Reader), (3, PinRole::Collector)] {
        let pin = Pin {
            role,
            host: "db1".to_owned(),
            boot_id: String::new(),
            process_id: 1,
            time_us: 0,
            purpose: "test".to_owned(),
            start_lsn: Lsn::INVALID,
            start_timeline: TimelineId(0),
            copied_until: Lsn::INVALID,
            packs: Vec::new(),
            maps: Vec::new(),
            files: Page::default(),
            backups: Vec::new(),
            process_started: None,
            namespaces: None,
            manifests: Vec::new(),
            ended_us: None,
        };
        let path = line.paths().path(&LineObject::Pin(backup(id).0, 0)).unwrap();
        line.repository().create_record(&path, &pin).await.unwrap();
    }
    let attempts: Vec<BackupId> =
        line.attempts().await.unwrap().into_iter().map(|attempt| attempt.id).collect();
    assert_eq!(attempts, [backup(1)]);
    assert_eq!(line.pins().await.unwrap().len(), 3);
}
