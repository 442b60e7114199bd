use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, Ulid};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::records::{Event, Record as _};
use seawall_repo::{CreateOptions, Line, Repository};
use seawall_store::testing::MemoryStore;

use super::{Said, Standing, Standings, record, standings};

async fn line() -> Line {
    let unlock = Unlock::KeyFile(KeyFile::generate().unwrap());
    let options = CreateOptions { unlock: &unlock, label: "test", now: Timestamp::now() };
    let repository = Repository::create(Arc::new(MemoryStore::new()), &options).await.unwrap();
    repository.line(&"main".parse().unwrap(), "7-0".parse().unwrap()).unwrap()
}

fn backup() -> BackupId {
    BackupId(Ulid(7))
}

async fn say(line: &Line, said: Said) -> Standing {
    record(line, backup(), &said, Timestamp::now()).await.unwrap();
    let Standings { mut known, unread, undecided } = standings(line).await;
    assert!(unread.is_none() && undecided.is_none(), "{unread:?} {undecided:?}");
    known.remove(&backup()).unwrap_or_default()
}

fn hold() -> Said {
    Said::Hold { until: None, reason: Some("audit".to_owned()) }
}

fn notes(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(name, note)| ((*name).to_owned(), (*note).to_owned())).collect()
}

#[tokio::test]
async fn the_last_of_hold_and_release_counts_and_a_hold_takes_a_wish_back() {
    let (line, now) = (line().await, Timestamp::now());
    let standing = say(&line, hold()).await;
    assert_eq!(standing.hold_at(now).and_then(|hold| hold.reason.as_deref()), Some("audit"));
    assert!(say(&line, Said::Release).await.hold_at(now).is_none());
    assert!(say(&line, Said::DeleteIntent).await.is_asked_to_go_at(now));
    let standing = say(&line, hold()).await;
    assert!(standing.delete_asked_at.is_none() && standing.hold_at(now).is_some());
    // Asked for by one who did not see the hold: it wins, as long as it holds.
    assert!(!say(&line, Said::DeleteIntent).await.is_asked_to_go_at(now));
    assert!(say(&line, Said::Release).await.is_asked_to_go_at(now));
}

#[tokio::test]
async fn a_hold_until_a_time_ends_then() {
    let (line, now) = (line().await, Timestamp::now());
    let until = now + SignedDuration::from_hours(1);
    let standing = say(&line, Said::Hold { until: Some(until), reason: None }).await;
    assert!(standing.hold_at(now).is_some());
    assert!(standing.hold_at(until).is_none());
}

#[tokio::test]
async fn notes_are_made_replaced_and_taken_away() {
    let line = line().await;
    say(&line, Said::Annotate(notes(&[("who", "a"), ("why", "b")]))).await;
    say(&line, Said::Verified).await;
    let standing = say(&line, Said::Annotate(notes(&[("why", ""), ("who", "c")]))).await;
    assert!(standing.verdict.is_some());
    let made_with = notes(&[("why", "first"), ("where", "here")]);
    assert_eq!(standing.annotated(&made_with), notes(&[("where", "here"), ("who", "c")]));
}

#[tokio::test]
async fn what_is_said_at_the_same_time_is_all_said() {
    let line = line().await;
    let said: Vec<Said> =
        (0..5).map(|n| Said::Annotate(notes(&[(&format!("k{n}"), "v")]))).collect();
    let now = Timestamp::now();
    let all = said.iter().map(|said| record(&line, backup(), said, now));
    for said in futures_util::future::join_all(all).await {
        said.unwrap();
    }
    let standing = standings(&line).await.known.remove(&backup()).unwrap();
    assert_eq!(standing.annotations.len(), 5);
}

#[tokio::test]
async fn what_cannot_be_read_or_understood_may_be_a_hold() {
    let line = line().await;
    say(&line, Said::Verified).await;
    let path = |number| line.paths().path(&LineObject::Event(backup().0, number)).unwrap();
    line.store().create(&path(1), "no event".into()).await.unwrap();
    let undecided = standings(&line).await.undecided.unwrap();
    assert_eq!(undecided.code(), Code::ObjectDamaged);
    // One that came later tells.
    record(&line, backup(), &hold(), Timestamp::now()).await.unwrap();
    let told = standings(&line).await;
    assert!(told.undecided.is_none() && told.known[&backup()].hold.is_some());
    let later = Event {
        kind: "lock".to_owned(),
        time_us: 0,
        host: "h".to_owned(),
        details: BTreeMap::new(),
        head: None,
    };
    let sealed = later.seal(line.keyring(), &path(3)).unwrap();
    line.store().create(&path(3), sealed.into()).await.unwrap();
    assert_eq!(standings(&line).await.undecided.unwrap().code(), Code::UnknownFormat);
}
