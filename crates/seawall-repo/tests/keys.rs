//! Keys that come and go: whoever decides on them at the same moment as somebody else is told.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use seawall_core::{Code, LineId, Ulid};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::{About, Head};
use seawall_repo::{CreateOptions, Line, Repository};
use seawall_store::{OpenOptions, Store, open, open_or_create};

/// A repository with one key and one line.
struct House {
    directory: tempfile::TempDir,
    key: Unlock,
}

fn key() -> Unlock {
    Unlock::KeyFile(KeyFile::generate().unwrap())
}

fn options(unlock: &Unlock) -> CreateOptions<'_> {
    CreateOptions { unlock, label: "test", now: "2026-01-02T02:00:00Z".parse().unwrap() }
}

fn about(line: LineId) -> About {
    About {
        cluster: "main".to_owned(),
        system_id: line.system_id,
        branch: line.branch,
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

impl House {
    async fn new() -> Self {
        let house = Self { directory: tempfile::tempdir().unwrap(), key: key() };
        let url = format!("file://{}", house.directory.path().display()).parse().unwrap();
        let store = open_or_create(&url, &OpenOptions::default()).await.unwrap();
        let repository = Repository::create(store, &options(&house.key)).await.unwrap();
        Self::line(&repository).create(&about(Self::line(&repository).id())).await.unwrap();
        house
    }

    fn line(repository: &Repository) -> Line {
        let id = "7300000000000000000-0".parse().unwrap();
        repository.line(&"main".parse().unwrap(), id).unwrap()
    }

    async fn store(&self) -> Arc<dyn Store> {
        open(
            &format!("file://{}", self.directory.path().display()).parse().unwrap(),
            &OpenOptions::default(),
        )
        .await
        .unwrap()
    }

    async fn open_with(&self, unlock: &Unlock) -> seawall_core::Result<Repository> {
        Repository::open(self.store().await, unlock).await
    }

    async fn open(&self) -> Repository {
        self.open_with(&self.key).await.unwrap()
    }

    fn remove(&self, name: &str) {
        let path = self.directory.path().join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    fn slots_of(&self, epoch: u32) -> usize {
        fs::read_dir(self.directory.path().join(format!("keys/{epoch}"))).map_or(0, Iterator::count)
    }
}

/// Writes something: a head.
async fn write_head(repository: &Repository) -> seawall_core::Result<Ulid> {
    let next = "format/1".parse().unwrap();
    House::line(repository).write_head(&next, Timestamp::UNIX_EPOCH).await
}

#[tokio::test]
async fn of_two_rotations_at_once_one_wins_and_the_other_is_told() {
    let house = House::new().await;
    let (one, other) = (house.open().await, house.open().await);
    let won = one.rotate(&[options(&house.key)]).await.unwrap();
    let lost = other.rotate(&[options(&house.key)]).await.unwrap_err();
    assert_eq!(lost.code(), Code::KeysChanged);
    // What the winner writes is what everybody reads.
    write_head(&won).await.unwrap();
    let opened = house.open().await;
    assert_eq!(opened.keyring().current_epoch(), 2);
    assert_eq!(House::line(&opened).heads().await.unwrap().len(), 2);
    assert_eq!((opened.key_slots().await.unwrap().len(), house.slots_of(2)), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotations_that_race_begin_one_epoch_each_time() {
    let house = House::new().await;
    let handles: Vec<Repository> =
        [house.open().await, house.open().await, house.open().await].into();
    let key = Arc::new(house.key.clone());
    let races = handles.into_iter().map(|repository| {
        let key = Arc::clone(&key);
        tokio::spawn(async move { repository.rotate(&[options(&key)]).await.map(drop) })
    });
    let mut won = 0;
    for race in races.collect::<Vec<_>>() {
        match race.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error.code(), Code::KeysChanged, "{error}"),
        }
    }
    assert_eq!((won, house.open().await.keyring().current_epoch()), (1, 2));
    assert_eq!(house.slots_of(2), 1, "who lost leaves nothing");
}

#[tokio::test]
async fn who_opened_before_a_rotation_is_told_of_it_and_not_of_damage() {
    let house = House::new().await;
    let before = house.open().await;
    before.add_key(&options(&key())).await.unwrap();
    let (epoch, id, _) = before.key_slots().await.unwrap().remove(0);
    house.open().await.rotate(&[options(&house.key)]).await.unwrap();
    assert_eq!(before.key_slots().await.unwrap_err().code(), Code::KeysChanged);
    assert_eq!(before.remove_key(epoch, id).await.unwrap_err().code(), Code::KeysChanged);
    assert!(!house.directory.path().join("removals").exists(), "an intention was left");
    assert_eq!(before.prove_newest_epoch().await.unwrap_err().code(), Code::KeysChanged);
    // A verification that is under way meets the new epoch's objects.
    let path = "epochs/2".parse().unwrap();
    before.prove(&path, &ObjectName::parse(&path).unwrap()).await.unwrap();
    let after = house.open().await;
    after.remove_key(epoch, id).await.unwrap();
    after.prove_newest_epoch().await.unwrap();
}

#[tokio::test]
async fn what_others_write_after_a_rotation_is_read_by_who_opened_before_it() {
    let house = House::new().await;
    let before = house.open().await;
    let path = |head| House::line(&before).paths().path(&LineObject::Head(head)).unwrap();
    let head = path(
        write_head(&house.open().await.rotate(&[options(&house.key)]).await.unwrap())
            .await
            .unwrap(),
    );
    let read = before.read_record::<Head>(&head).await.unwrap();
    assert_eq!(read.next, "format/1");
    before.prove(&head, &ObjectName::parse(&head).unwrap()).await.unwrap();
    // What it writes itself goes on under the keys it began with.
    assert_eq!(before.keyring().current_epoch(), 1);
    let own = path(write_head(&before).await.unwrap());
    house.open().await.read_record::<Head>(&own).await.unwrap();
    assert_eq!(before.with_newest_keys().await.unwrap().keyring().current_epoch(), 2);
}

#[tokio::test]
async fn an_epoch_whose_keys_were_not_carried_over_is_not_one_whose_keys_are_gone() {
    let house = House::new().await;
    let (before, later) = (house.open().await, house.open().await);
    let other = key();
    let rotated = before.rotate(&[options(&other)]).await.unwrap();
    let head = LineObject::Head(write_head(&rotated).await.unwrap());
    let head = House::line(&before).paths().path(&head).unwrap();
    let locked = before.read_record::<Head>(&head).await.unwrap_err();
    assert_eq!(locked.code(), Code::WrongKey, "{locked}");
    assert!(locked.message().contains("was rotated at 2026-01-02 02:00:00Z"), "{locked}");
    house.remove("keys/2");
    let gone = later.read_record::<Head>(&head).await.unwrap_err();
    assert_eq!(gone.code(), Code::KeyEpochGone, "{gone}");
}

#[tokio::test]
async fn what_a_rotation_left_that_died_before_it_began_its_epoch_opens_nothing() {
    let house = House::new().await;
    house.open().await.rotate(&[options(&house.key)]).await.unwrap();
    let left =
        fs::read_dir(house.directory.path().join("keys/2")).unwrap().next().unwrap().unwrap();
    let bytes = fs::read(left.path()).unwrap();
    // As it was before: the slot, and no epoch. The head of its line came last.
    house.remove("epochs/2");
    house.remove("c/main/i/7300000000000000000-0/head");
    let repository = house.open().await;
    assert_eq!(repository.keyring().current_epoch(), 1);
    assert_eq!(repository.key_slots().await.unwrap().len(), 1);
    let rotated = repository.rotate(&[options(&house.key)]).await.unwrap();
    assert_eq!(rotated.keyring().current_epoch(), 2);
    assert_eq!(fs::read(left.path()).unwrap(), bytes, "nobody touched it");
    assert_eq!((house.slots_of(2), house.open().await.key_slots().await.unwrap().len()), (2, 2));
}

#[tokio::test]
async fn a_key_that_is_added_while_another_epoch_begins_is_not_said_to_open_it() {
    let house = House::new().await;
    let adding = house.open().await;
    house.open().await.rotate(&[options(&house.key)]).await.unwrap();
    let another = key();
    let refused = adding.add_key(&options(&another)).await.unwrap_err();
    assert_eq!(refused.code(), Code::KeysChanged);
    assert_eq!(house.slots_of(1), 1, "its slot is gone again");
    house.open().await.add_key(&options(&another)).await.unwrap();
    house.open_with(&another).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_who_remove_the_last_two_keys_at_once_leave_one() {
    for _ in 0..20 {
        let house = House::new().await;
        let another = key();
        house.open().await.add_key(&options(&another)).await.unwrap();
        let slots = house.open().await.key_slots().await.unwrap();
        // Both are open before either key goes.
        let handles = [house.open().await, house.open().await];
        let removals: Vec<_> = slots
            .into_iter()
            .zip(handles)
            .map(|((epoch, id, _), repository)| {
                tokio::spawn(async move { repository.remove_key(epoch, id).await })
            })
            .collect();
        assert_eq!(removals.len(), 2);
        for removal in removals {
            if let Err(error) = removal.await.unwrap() {
                assert_eq!(error.code(), Code::LastKey, "{error}");
            }
        }
        assert!(house.slots_of(1) >= 1, "the data is lost");
        assert!(!house.directory.path().join("removals").exists(), "an intention was left");
    }
}

#[tokio::test]
async fn without_the_newest_epoch_nothing_is_written_and_older_objects_are_read() {
    for gone in [&["keys/2"][..], &["keys/2", "epochs/2"], &["epochs/2"]] {
        let house = House::new().await;
        house.open().await.rotate(&[options(&house.key)]).await.unwrap();
        gone.iter().for_each(|name| house.remove(name));
        let repository = house.open().await;
        let line = House::line(&repository);
        assert_eq!(line.about().await.unwrap(), Some(about(line.id())), "written under epoch 1");
        assert_eq!(
            write_head(&repository).await.unwrap_err().code(),
            Code::KeyEpochGone,
            "{gone:?}"
        );
        for refused in [
            repository.rotate(&[options(&house.key)]).await.map(drop),
            repository.add_key(&options(&house.key)).await.map(drop),
        ] {
            assert_eq!(refused.unwrap_err().code(), Code::KeyEpochGone, "{gone:?}");
        }
    }
}

#[tokio::test]
async fn a_damaged_beginning_of_an_epoch_does_not_lock_anybody_out() {
    let house = House::new().await;
    house.open().await.rotate(&[options(&house.key)]).await.unwrap();
    fs::write(house.directory.path().join("epochs/2"), "damaged").unwrap();
    let repository = house.open().await;
    assert_eq!(repository.keyring().current_epoch(), 2);
    write_head(&repository).await.unwrap();
    // Without any slot that tells, nothing is taken for what it may not be.
    let slots = house.directory.path().join("keys/2");
    let slot = fs::read_dir(slots).unwrap().next().unwrap().unwrap().path();
    fs::write(slot, "damaged too").unwrap();
    assert_eq!(house.open_with(&house.key).await.unwrap_err().code(), Code::ObjectDamaged);
}

#[tokio::test]
async fn what_is_longer_than_such_an_object_can_be_is_not_read() {
    let house = House::new().await;
    let oversized = |name: &str| {
        let path = house.directory.path().join(name);
        fs::File::options().write(true).create(true).truncate(false).open(path).unwrap()
    };
    // A hole takes no room, and would take all memory of whoever reads it.
    for name in ["keys/1/01JZZZZZZZZZZZZZZZZZZZZZZZ", "epochs/1"] {
        let path = house.directory.path().join(name);
        let before = fs::read(&path).ok();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        oversized(name).set_len(1 << 30).unwrap();
        let error = Repository::open(house.store().await, &house.key).await.unwrap_err();
        assert_eq!(error.code(), Code::ObjectDamaged, "{name}");
        assert!(error.message().contains("has at most 1048576"), "{error:?}");
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    Repository::open(house.store().await, &house.key).await.unwrap();
}
