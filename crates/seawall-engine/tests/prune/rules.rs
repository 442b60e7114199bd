//! What goes, what stays, and when.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{BackupId, Code, ExitClass, Ulid};
use seawall_engine::prune::{Going, PruneRequest, run};
use seawall_repo::layout::LineObject;
use seawall_repo::new_ulid;
use seawall_repo::records::PinRole;
use seawall_store::ObjectPath;

use super::house::{House, going, pin, range};

/// An id that nothing has yet.
fn new_id() -> BackupId {
    BackupId(new_ulid(Timestamp::now()).unwrap())
}

#[tokio::test]
async fn what_goes_is_condemned_first_and_deleted_when_its_grace_has_passed() {
    let house = House::new().await;
    let files = [house.file(1).await, house.file(2).await, house.file(3).await];
    let (first, second) = (house.backup(1, &files[..2]).await, house.backup(2, &files[1..]).await);
    house.event(first, 0, "verified").await;
    house.event(second, 0, "verified").await;
    house.wal(1).await;
    house.wal(2).await;
    house.pass(1);
    let goes = going(&[first], &[1]);
    let report = house.prune(&goes).await.unwrap();
    assert_eq!(report.deleted.all.objects, 0);
    assert_eq!(report.condemned.backups, [first.to_string()]);
    // Commit, manifest, map and pack, a range, an event.
    assert_eq!((report.condemned.all.objects, report.condemned.wal.objects), (6, 1));
    assert!(report.goes_at.unwrap() > Timestamp::now());
    let line = house.line().await;
    assert_eq!(line.backups().await.unwrap().len(), 1, "nobody begins to use it");
    assert_eq!(line.all_backups().await.unwrap().len(), 2);
    house.read(first).await.unwrap();
    assert_eq!(house.findings().await, []);

    house.pass(23);
    let report = house.prune(&goes).await.unwrap();
    assert_eq!((report.deleted.all.objects, report.condemned.all.objects), (0, 0));
    house.pass(2);
    let report = house.prune(&goes).await.unwrap();
    assert_eq!(report.deleted.all.objects, 6);
    assert_eq!(report.deleted.backups, [first.to_string()]);
    assert!(report.deleted.all.bytes > report.deleted.wal.bytes);
    assert_eq!((report.waiting, report.goes_at), (0, None));
    assert_eq!(house.line().await.heads().await.unwrap().len(), 1, "one stands for all");
    house.read(second).await.unwrap();
    assert_eq!(house.findings().await, []);
    assert!(!house.objects().await.iter().any(|object| matches!(object, LineObject::Gc(..))));
    assert!(!house.is_there(&LineObject::Pack(files[0].pack.id)).await);
    assert!(house.is_there(&LineObject::Pack(files[1].pack.id)).await, "the other needs it");
}

#[tokio::test]
async fn what_is_held_while_it_waits_stays_whole_and_can_be_used_again() {
    let house = House::new().await;
    let file = house.file(1).await;
    let first = house.backup(1, &[file]).await;
    let second = house.backup(2, &[house.file(2).await]).await;
    house.wal(1).await;
    house.pass(1);
    let goes = going(&[first], &[1]);
    house.prune(&goes).await.unwrap();
    house.event(first, 0, "hold").await;
    // Whoever planned had not seen it.
    let report = house.prune(&goes).await.unwrap();
    assert_eq!(report.spared, [first.to_string()]);
    assert_eq!(house.line().await.backups().await.unwrap().len(), 2);
    house.pass(30);
    house.prune(&goes).await.unwrap();
    house.read(first).await.unwrap();
    assert!(house.is_there(&LineObject::WalHot(range(1))).await, "it is nothing without");
    assert_eq!(house.findings().await, []);

    house.event(first, 9, "release").await;
    house.pass(1);
    house.prune(&goes).await.unwrap();
    house.pass(25);
    let report = house.prune(&goes).await.unwrap();
    assert_eq!(report.deleted.backups, [first.to_string()]);
    house.read(second).await.unwrap();
    assert_eq!(house.findings().await, []);
}

#[tokio::test]
async fn what_the_policy_wants_again_is_spared() {
    let house = House::new().await;
    let first = house.backup(1, &[house.file(1).await]).await;
    house.pass(1);
    house.prune(&going(&[first], &[])).await.unwrap();
    house.pass(25);
    let report = house.prune(&Going::default()).await.unwrap();
    assert_eq!(report.spared, [first.to_string()]);
    house.read(first).await.unwrap();
    assert_eq!(house.line().await.backups().await.unwrap().len(), 1);
    assert_eq!(house.findings().await, []);
}

#[tokio::test]
async fn what_a_running_backup_or_reader_names_stays_and_what_it_has_not_named_yet_too() {
    let house = House::new().await;
    let listed = house.file(1).await;
    let (read, led_on_from) = (
        house.backup(1, &[house.file(2).await]).await,
        house.backup(2, &[house.file(3).await]).await,
    );
    let (writer, reader) = (new_id(), new_id());
    house.pass(1);
    house.pin(writer, 0, &pin(PinRole::Writer, &[], &[led_on_from])).await;
    let unlisted = house.file(4).await;
    house.pin(writer, 1, &pin(PinRole::Writer, std::slice::from_ref(&listed), &[])).await;
    house.pin(reader, 0, &pin(PinRole::Reader, &[], &[read])).await;
    let report = house.prune(&going(&[read, led_on_from], &[])).await.unwrap();
    assert_eq!(report.condemned.all.objects, 0, "{report:?}");

    // The writer goes on; the reader died, and what it read goes.
    house.pass(30);
    house.pin(writer, 2, &pin(PinRole::Writer, std::slice::from_ref(&unlisted), &[])).await;
    let report = house.prune(&going(&[read, led_on_from], &[])).await.unwrap();
    assert_eq!(report.condemned.backups, [read.to_string()], "{report:?}");
    assert!(!house.is_there(&LineObject::Pin(reader.0, 0)).await);
    house.publish(writer, 3, &[listed, unlisted]).await.unwrap();
    house.pass(25);
    house.prune(&going(&[read, led_on_from], &[])).await.unwrap();
    house.read(writer).await.unwrap();
    assert!(!house.is_there(&LineObject::Pin(writer.0, 0)).await, "it is published");
    assert_eq!(house.findings().await, []);
}

#[tokio::test]
async fn an_attempt_that_died_keeps_what_it_finished_for_a_day_and_is_fenced_then() {
    let house = House::new().await;
    house.backup(1, &[house.file(1).await]).await;
    let attempt = new_id();
    house.pin(attempt, 0, &pin(PinRole::Writer, &[], &[])).await;
    let (listed, unlisted) = (house.file(2).await, house.file(3).await);
    house.pin(attempt, 1, &pin(PinRole::Writer, std::slice::from_ref(&listed), &[])).await;
    house.pass(23);
    let report = house.prune(&Going::default()).await.unwrap();
    assert_eq!(report.condemned.all.objects, 0, "somebody may go on with it");
    assert_eq!(house.line().await.attempts().await.unwrap().len(), 1);
    house.pass(2);
    let report = house.prune(&Going::default()).await.unwrap();
    assert_eq!(report.fenced, [attempt.to_string()]);
    assert_eq!(report.condemned.all.objects, 4);
    assert!(house.line().await.attempts().await.unwrap().is_empty());
    // It only stood still.
    let late = house.publish(attempt, 2, &[listed.clone(), unlisted]).await.unwrap_err();
    assert_eq!(late.code(), Code::ObjectExists);
    house.pass(25);
    // And of what it wrote at last, its manifest, the next run learns.
    house.prune(&Going::default()).await.unwrap();
    house.pass(25);
    house.prune(&Going::default()).await.unwrap();
    assert!(!house.is_there(&LineObject::Pack(listed.pack.id)).await);
    let manifests = house.objects().await;
    let manifests = manifests.iter().filter(|it| matches!(it, LineObject::Manifest(_)));
    assert_eq!(manifests.count(), 1);
    assert!(house.is_there(&LineObject::Backup(attempt, 0)).await, "the fence stays");
}

#[tokio::test]
async fn beside_what_is_not_known_or_cannot_be_read_nothing_is_deleted() {
    let house = House::new().await;
    let (first, second) = (
        house.backup(1, &[house.file(1).await]).await,
        house.backup(2, &[house.file(2).await]).await,
    );
    house.pass(1);
    house.prune(&going(&[first], &[])).await.unwrap();
    house.pass(25);
    let line = house.line().await;
    let there: Vec<ObjectPath> = ["a-later-thing", "c/main/i/7300000000000000000-0/pack/x"]
        .map(|name| name.parse().unwrap())
        .into();
    for name in there {
        line.store().create(&name, "?".into()).await.unwrap();
        let refused = house.prune(&going(&[first], &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::UnknownObject, "{name}");
        line.store().delete(&name).await.unwrap();
    }
    let third = LineObject::Backup(new_id(), 0);
    house.create(&third).await;
    let refused = house.prune(&going(&[first], &[])).await.unwrap_err();
    assert_eq!(refused.exit_class(), ExitClass::Integrity, "{refused}");
    house.read(first).await.unwrap();
    // One that is to go itself may be damaged.
    let LineObject::Backup(damaged, _) = third else { unreachable!() };
    house.prune(&going(&[first, damaged], &[])).await.unwrap();
    house.pass(25);
    house.prune(&going(&[first, damaged], &[])).await.unwrap();
    assert!(!house.is_there(&third).await);
    house.read(second).await.unwrap();
}

#[tokio::test]
async fn one_prune_of_a_line_runs_at_a_time_and_one_that_died_is_no_hindrance() {
    let house = House::new().await;
    house.backup(1, &[house.file(1).await]).await;
    let other = new_id();
    house.pin(other, 0, &pin(PinRole::Collector, &[], &[])).await;
    let refused = house.prune(&Going::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PruneRunning);
    house.pass(1);
    house.prune(&Going::default()).await.unwrap();
    assert!(!house.objects().await.iter().any(|object| matches!(object, LineObject::Pin(..))));
}

#[tokio::test]
async fn many_heads_become_one_also_where_nothing_goes() {
    let house = House::new().await;
    let backup = house.backup(1, &[house.file(1).await]).await;
    for number in 0..101 {
        house.event(backup, number, "verified").await;
    }
    house.prune(&Going::default()).await.unwrap();
    assert_eq!(house.line().await.heads().await.unwrap().len(), 1);
    assert_eq!(house.findings().await, []);
}

/// A million objects that nobody needs, in a line that has a backup.
#[tokio::test]
async fn a_million_objects_are_condemned_within_ten_seconds_and_little_memory() {
    let house = House::new().await;
    house.backup(1, &[house.file(1).await]).await;
    let line = house.line().await;
    let began = Timestamp::now();
    for number in 0..1_000_000_u128 {
        let id = Ulid::from_parts(u64::try_from(began.as_millisecond()).unwrap(), number);
        let path = line.paths().path(&LineObject::Pack(id)).unwrap();
        line.store().create(&path, bytes::Bytes::new()).await.unwrap();
    }
    house.pass(1);
    let before = resident_bytes("VmRSS");
    let began = processor_time();
    let line = house.line_over(Arc::new(house.store.clone())).await.unwrap();
    let progress = seawall_core::NoProgress;
    let report = run(&line, &Going::default(), PruneRequest::default(), &progress).await.unwrap();
    let took = processor_time() - began;
    let more = resident_bytes("VmHWM").saturating_sub(before);
    assert_eq!(report.condemned.all.objects, 1_000_000);
    eprintln!("{took:?}, {} MB more", more / 1_000_000);
    assert!(took.as_secs() < 10, "{took:?}");
    // The store of this test keeps the condemnations in memory too: some 45 MB of names.
    assert!(more < 150_000_000, "{} MB", more / 1_000_000);
}

/// What this process has used: how long it takes on a busy machine is another matter.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn resident_bytes(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    let kb: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kb * 1024
}
