use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{Code, Lsn, TimelineId};
use seawall_engine::mark::{Mark, look_before_delete, mark};
use seawall_engine::retention::{facts, plan_line, plan_to_act};
use seawall_engine::survey::{Choices, CopyAt, find_backup};
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::records::PinRole;
use seawall_repo::retention::Policy;
use seawall_store::testing::MemoryStore;

use super::house::{SEGMENT, backup_id, commit, line_in, pin};

async fn line_with(backups: u64) -> Line {
    let line = line_in(Arc::new(MemoryStore::new())).await;
    for number in 1..=backups {
        commit(&line, number, number).await;
    }
    line
}

async fn copies(line: &Line, number: u64) -> Vec<CopyAt> {
    let opened = [("primary".to_owned(), line.repository().clone())];
    let choices = Choices::look(&opened, None).await;
    find_backup(&backup_id(number).to_string(), choices.backups).unwrap().backup.what
}

fn last_one() -> Policy {
    Policy { last: std::num::NonZeroU32::new(1), ..Policy::none() }
}

async fn refusal(line: &Line) -> String {
    let error = plan_line(line, &last_one(), Timestamp::now()).await.unwrap_err();
    assert_eq!(error.code(), Code::PruneRefused);
    error.chain()
}

#[tokio::test]
async fn what_is_not_known_is_named_and_nothing_is_planned() {
    let line = line_with(2).await;
    assert!(plan_line(&line, &last_one(), Timestamp::now()).await.is_ok());
    for stranger in ["lock", "c/main/i/7-0/extra/x", "c/main/i/7-0/backup/x"] {
        let path = stranger.parse().unwrap();
        line.store().create(&path, "x".into()).await.unwrap();
        let told = refusal(&line).await;
        let named = stranger.strip_suffix("/x").filter(|it| it.ends_with("extra"));
        assert!(told.contains(named.unwrap_or(stranger)), "{told}");
        line.store().delete(&path).await.unwrap();
    }
    let damaged = line.paths().path(&LineObject::Backup(backup_id(3), 0)).unwrap();
    line.store().create(&damaged, "no commit".into()).await.unwrap();
    assert!(refusal(&line).await.contains(&backup_id(3).to_string()));
    // It is asked to go, and in the way no more.
    mark(&copies(&line, 3).await, backup_id(3), &Mark::Delete).await.remove(0).outcome.unwrap();
    let plan = plan_line(&line, &last_one(), Timestamp::now()).await.unwrap();
    assert_eq!(plan.going().count(), 2);
    let event = line.paths().path(&LineObject::Event(backup_id(1).0, 0)).unwrap();
    line.store().create(&event, "no event".into()).await.unwrap();
    assert!(refusal(&line).await.contains("held is not known"));
}

#[tokio::test]
async fn jobs_that_live_are_known_with_what_they_use_and_one_that_is_published_is_not() {
    let line = line_with(2).await;
    pin(&line, backup_id(9), PinRole::Writer, vec![backup_id(1).0]).await;
    pin(&line, backup_id(8), PinRole::Reader, vec![backup_id(2).0]).await;
    pin(&line, backup_id(2), PinRole::Writer, Vec::new()).await;
    let now = Timestamp::now();
    let known = facts(&line, now).await.unwrap();
    let used = |number| known.pins.iter().find(|pin| pin.id == backup_id(number).0);
    let writer = used(9).unwrap();
    assert!(writer.lives && writer.backups == [backup_id(1)]);
    assert_eq!(writer.from, Some((TimelineId(1), Lsn(5 * SEGMENT))));
    assert_eq!(used(8).unwrap().backups, [backup_id(2)]);
    assert!(used(2).is_none(), "its backup is there");
    // Silent for long.
    let later = now + SignedDuration::from_hours(1);
    assert!(facts(&line, later).await.unwrap().pins.iter().all(|pin| !pin.lives));
    let unread = line.paths().path(&LineObject::Pin(backup_id(7).0, 0)).unwrap();
    line.store().create(&unread, "no pin".into()).await.unwrap();
    assert!(refusal(&line).await.contains(&backup_id(7).0.to_string()));
}

#[tokio::test]
async fn the_time_is_never_before_what_the_store_has_written() {
    let line = line_with(1).await;
    let known = facts(&line, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(known.now, known.backups[0].written);
}

#[tokio::test]
async fn whoever_acts_goes_by_the_clock_of_the_store() {
    let (store, month) = (MemoryStore::new(), Duration::from_secs(30 * 86_400));
    let line = line_in(Arc::new(store.clone())).await;
    for number in 1..=2 {
        commit(&line, number, number).await;
    }
    store.age(month);
    commit(&line, 3, 3).await;
    store.age(month);
    let policy = Policy { age: Some(SignedDuration::from_hours(40 * 24)), ..Policy::none() };
    // The clock at hand is two months behind: as far as it knows, the first two are a month old.
    let looked = plan_line(&line, &policy, Timestamp::now()).await.unwrap();
    assert_eq!(looked.going().count(), 0);
    let acts = plan_to_act(&line, &policy).await.unwrap();
    assert_eq!(acts.going().count(), 2);
    assert!(line.pins().await.unwrap().is_empty(), "it leaves nothing");
}

#[tokio::test]
async fn one_that_is_held_or_the_last_good_one_is_not_deleted_just_so() {
    let line = line_with(3).await;
    let of = async |number| (copies(&line, number).await, backup_id(number));
    let (third, id) = of(3).await;
    assert!(look_before_delete(&third, id).await.unwrap().is_some());
    let (first, id) = of(1).await;
    assert!(look_before_delete(&first, id).await.unwrap().is_none());
    let hold = Mark::Hold { until: None, reason: Some("audit".to_owned()) };
    mark(&first, id, &hold).await.remove(0).outcome.unwrap();
    let refused = look_before_delete(&first, id).await.unwrap_err();
    assert_eq!(refused.code(), Code::BackupKept);
    assert!(refused.chain().contains("audit"));
    // What was looked at before is looked at again.
    let late = mark(&first, id, &Mark::Delete).await.remove(0).outcome.unwrap_err();
    assert_eq!(late.code(), Code::BackupKept);
}
