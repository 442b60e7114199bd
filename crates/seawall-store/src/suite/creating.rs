use std::sync::Arc;

use bytes::Bytes;

use super::{names, path, patterned};
use crate::{ObjectPrefix, Store, StoreError};

const MIB: usize = 1 << 20;

pub(super) async fn what_was_created_can_be_read_back(store: Arc<dyn Store>) {
    let bytes = patterned(100_003, 1);
    store.create(&path("c/main/i/7-0/about"), bytes.clone()).await.unwrap();
    assert_eq!(store.read(&path("c/main/i/7-0/about")).await.unwrap(), bytes);
}

pub(super) async fn an_existing_object_is_never_overwritten(store: Arc<dyn Store>) {
    let object = path("format/1");
    store.create(&object, Bytes::from_static(b"first")).await.unwrap();
    for other in [&b"other"[..], b"a longer one", b"", b"first"] {
        let error = store.create(&object, Bytes::from_static(other)).await.unwrap_err();
        assert!(error.is_already_exists(), "{error:?}");
        assert_eq!(error.place().path(), "format/1");
        assert_eq!(error.place().url(), store.url());
    }
    assert_eq!(store.read(&object).await.unwrap(), "first");
}

/// Two writers race for one name all the time: two agents, a retry and its first attempt. The
/// winner's bytes are there whole, and every other one knows that it lost.
pub(super) async fn of_sixteen_creators_exactly_one_wins(store: Arc<dyn Store>) {
    for round in 0..8u64 {
        let object = path(&format!("race/{round}/name"));
        let creators = (0..16u64).map(|creator| {
            let (store, object) = (Arc::clone(&store), object.clone());
            tokio::spawn(async move {
                let bytes = patterned(10_000, creator);
                let outcome = if creator % 2 == 0 {
                    store.create(&object, bytes).await
                } else {
                    write_large(&*store, &object, &[bytes]).await
                };
                match outcome {
                    Ok(()) => Some(creator),
                    Err(error) if error.is_already_exists() => None,
                    Err(error) => panic!("a loser is told something else: {error:?}"),
                }
            })
        });
        let mut winners = Vec::new();
        for creator in creators.collect::<Vec<_>>() {
            winners.extend(creator.await.unwrap());
        }
        let [winner] = winners[..] else { panic!("winners: {winners:?}") };
        assert_eq!(store.read(&object).await.unwrap(), patterned(10_000, winner));
    }
}

pub(super) async fn a_large_object_is_invisible_before_it_is_finished(store: Arc<dyn Store>) {
    let object = path("pack/20300101/one");
    let mut writer = store.create_large(&object).await.unwrap();
    for part in 0..5 {
        writer.write(patterned(MIB, part)).await.unwrap();
        assert!(store.read(&object).await.unwrap_err().is_not_found());
        assert!(store.stat(&object).await.unwrap_err().is_not_found());
        assert_eq!(names(&*store, &ObjectPrefix::root(), 10).await, [""; 0]);
    }
    assert_eq!(writer.finish().await.unwrap(), 5 * MIB as u64);
    assert_eq!(names(&*store, &ObjectPrefix::root(), 10).await, [object.as_str()]);
}

pub(super) async fn a_large_object_keeps_the_order_of_its_parts(store: Arc<dyn Store>) {
    let object = path("pack/large");
    let lengths = [1, 4096, 7 * MIB + 13, 0, 8 * MIB, 3, 5 * MIB, 999];
    let parts: Vec<Bytes> =
        lengths.iter().zip(1..).map(|(length, seed)| patterned(*length, seed)).collect();
    write_large(&*store, &object, &parts).await.unwrap();
    let whole = parts.concat();
    assert!(whole.len() > 20_000_000);
    assert_eq!(store.stat(&object).await.unwrap().size_bytes, whole.len() as u64);
    assert!(store.read(&object).await.unwrap() == whole, "the bytes differ");
}

pub(super) async fn a_large_object_never_replaces_another(store: Arc<dyn Store>) {
    let object = path("backup/1/1");
    let mut late = store.create_large(&object).await.unwrap();
    late.write(patterned(100, 1)).await.unwrap();
    store.create(&object, Bytes::from_static(b"first")).await.unwrap();
    let error = late.finish().await.unwrap_err();
    assert!(error.is_already_exists(), "{error:?}");
    assert_eq!(store.read(&object).await.unwrap(), "first");
    assert_eq!(names(&*store, &ObjectPrefix::root(), 10).await, ["backup/1/1"]);
    // A store may notice when the large object is begun or only when it is finished.
    let error = write_large(&*store, &object, &[patterned(100, 2)]).await.unwrap_err();
    assert!(error.is_already_exists(), "{error:?}");
}

pub(super) async fn an_empty_object_is_an_object(store: Arc<dyn Store>) {
    store.create(&path("empty/small"), Bytes::new()).await.unwrap();
    write_large(&*store, &path("empty/large"), &[]).await.unwrap();
    for name in ["empty/small", "empty/large"] {
        assert_eq!(store.read(&path(name)).await.unwrap(), "", "{name}");
        assert_eq!(store.read_range(&path(name), 0..0).await.unwrap(), "", "{name}");
        assert_eq!(store.stat(&path(name)).await.unwrap().size_bytes, 0, "{name}");
    }
    assert_eq!(names(&*store, &ObjectPrefix::root(), 10).await, ["empty/large", "empty/small"]);
}

pub(super) async fn an_abandoned_large_object_leaves_nothing(store: Arc<dyn Store>) {
    let object = path("pack/abandoned");
    let mut writer = store.create_large(&object).await.unwrap();
    writer.write(patterned(9 * MIB, 1)).await.unwrap();
    writer.abort().await;
    let mut writer = store.create_large(&object).await.unwrap();
    writer.write(patterned(100, 1)).await.unwrap();
    drop(writer);
    assert!(store.read(&object).await.unwrap_err().is_not_found());
    assert_eq!(names(&*store, &ObjectPrefix::root(), 10).await, [""; 0]);
    store.create(&object, Bytes::from_static(b"later")).await.unwrap();
    assert_eq!(store.read(&object).await.unwrap(), "later");
}

pub(super) async fn a_deleted_object_is_gone_and_its_name_free(store: Arc<dyn Store>) {
    let (object, neighbour) = (path("pin/1/1"), path("pin/2/1"));
    store.create(&object, Bytes::from_static(b"one")).await.unwrap();
    store.create(&neighbour, Bytes::from_static(b"two")).await.unwrap();
    store.delete(&object).await.unwrap();
    assert!(store.read(&object).await.unwrap_err().is_not_found());
    assert_eq!(names(&*store, &ObjectPrefix::root(), 10).await, ["pin/2/1"]);
    store.delete(&object).await.expect("a delete can be repeated");
    store.delete(&path("never/was")).await.expect("what was never there is deleted already");
    store.create(&object, Bytes::from_static(b"again")).await.unwrap();
    assert_eq!(store.read(&object).await.unwrap(), "again");
    assert_eq!(store.read(&neighbour).await.unwrap(), "two");
}

pub(super) async fn many_objects_are_deleted_at_once(store: Arc<dyn Store>) {
    let names: Vec<String> = (0..1_003).map(|n| format!("pin/{}/{n}", n % 7)).collect();
    for name in &names {
        store.create(&path(name), Bytes::new()).await.unwrap();
    }
    let (kept, deleted) = names.split_at(3);
    let mut paths: Vec<_> = deleted.iter().map(|name| path(name)).collect();
    paths.insert(500, path("never/was"));
    store.delete_many(&paths).await.unwrap();
    assert_eq!(self::names(&*store, &ObjectPrefix::root(), 10).await, kept);
    store.delete_many(&paths).await.expect("a delete can be repeated");
    store.delete_many(&[]).await.expect("nothing is deleted already");
    assert_eq!(self::names(&*store, &ObjectPrefix::root(), 10).await, kept);
}

async fn write_large(
    store: &dyn Store,
    object: &crate::ObjectPath,
    parts: &[Bytes],
) -> Result<(), StoreError> {
    let mut writer = store.create_large(object).await?;
    for part in parts {
        writer.write(part.clone()).await?;
    }
    let size_bytes = writer.finish().await?;
    assert_eq!(size_bytes, parts.iter().map(|part| part.len() as u64).sum::<u64>());
    Ok(())
}
