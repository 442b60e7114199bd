use std::sync::Arc;

use bytes::Bytes;

use super::{names, path, patterned};
use crate::{ObjectPrefix, Store, StoreError};

pub(super) async fn a_missing_object_is_not_found(store: Arc<dyn Store>) {
    store.create(&path("c/main/about"), Bytes::from_static(b"here")).await.unwrap();
    for name in ["nothing", "c/nothing", "c/main/nothing", "c/other/about", "d/e/f/g"] {
        let object = path(name);
        let errors = [
            store.read(&object).await.map(|_| ()).unwrap_err(),
            store.read_range(&object, 0..0).await.map(|_| ()).unwrap_err(),
            store.read_range(&object, 0..1).await.map(|_| ()).unwrap_err(),
            store.read_end(&object, 1).await.map(|_| ()).unwrap_err(),
            store.stat(&object).await.map(|_| ()).unwrap_err(),
            store.make_durable(&object).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_not_found(), "{name}: {error:?}");
            assert_eq!(error.place().path(), name);
        }
    }
}

pub(super) async fn a_range_is_exact_or_an_error(store: Arc<dyn Store>) {
    let object = path("ranges");
    let bytes = patterned(100_000, 7);
    store.create(&object, bytes.clone()).await.unwrap();
    for limit_bytes in [100_000, 100_001, u64::MAX] {
        assert_eq!(store.read_within(&object, limit_bytes).await.unwrap(), bytes);
    }
    for limit_bytes in [0, 1, 99_999] {
        let error = store.read_within(&object, limit_bytes).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLong { size_bytes: 100_000, .. }), "{error:?}");
    }
    for range in [0..1, 0..100_000, 1..2, 4095..4097, 99_999..100_000, 500..500, 100_000..100_000] {
        let expected = bytes.slice(range.start as usize..range.end as usize);
        assert_eq!(store.read_range(&object, range.clone()).await.unwrap(), expected, "{range:?}");
    }
    for range in [0..100_001, 99_999..100_001, 100_000..100_001, 200_000..200_001, 0..u64::MAX] {
        let error = store.read_range(&object, range.clone()).await.unwrap_err();
        assert!(
            matches!(error, StoreError::RangeBeyondEnd { size_bytes: 100_000, .. }),
            "{range:?}: {error:?}"
        );
    }
}

pub(super) async fn the_end_of_an_object_comes_with_its_length(store: Arc<dyn Store>) {
    let bytes = patterned(100_000, 8);
    store.create(&path("end"), bytes.clone()).await.unwrap();
    store.create(&path("empty"), Bytes::new()).await.unwrap();
    for wanted in [0, 1, 4_097, 99_999, 100_000, 100_001, u64::MAX] {
        let offset = 100_000u64.saturating_sub(wanted);
        let end = store.read_end(&path("end"), wanted).await.unwrap();
        assert_eq!((end.size_bytes, end.offset()), (100_000, offset), "{wanted}");
        assert!(end.bytes == bytes[offset as usize..], "the last {wanted} bytes differ");
        let end = store.read_end(&path("empty"), wanted).await.unwrap();
        assert_eq!((end.size_bytes, end.offset(), end.bytes.len()), (0, 0, 0), "{wanted}");
    }
}

pub(super) async fn many_readers_see_the_same_bytes(store: Arc<dyn Store>) {
    let object = path("pack/shared");
    let bytes = patterned(3 << 20, 3);
    store.create(&object, bytes.clone()).await.unwrap();
    let readers: Vec<_> = (0..16u64)
        .map(|reader| {
            let (store, object, bytes) = (Arc::clone(&store), object.clone(), bytes.clone());
            tokio::spawn(async move {
                for step in 0..8u64 {
                    let start = (reader * 100_003 + step * 9_973) % (2 << 20);
                    let end = start + 64 * 1024;
                    let got = store.read_range(&object, start..end).await.unwrap();
                    assert!(got == bytes[start as usize..end as usize], "{start}..{end} differs");
                }
                assert!(store.read(&object).await.unwrap() == bytes, "the whole differs");
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
}

pub(super) async fn every_allowed_name_is_kept_as_it_is(store: Arc<dyn Store>) {
    let long = "n".repeat(140);
    let deep = vec!["d".repeat(69); 10].join("/");
    let mut expected = vec![
        "a",
        "A",
        ".hidden/x",
        "-dash/-n",
        "_/_",
        "...",
        "0000000100000000000000AB.partial",
        &long,
        &deep,
    ];
    for name in &expected {
        store.create(&path(name), Bytes::copy_from_slice(name.as_bytes())).await.unwrap();
    }
    for name in &expected {
        assert_eq!(store.read(&path(name)).await.unwrap(), name.as_bytes(), "{name}");
    }
    expected.sort_unstable();
    assert_eq!(names(&*store, &ObjectPrefix::root(), 100).await, expected);
}

/// Ages are taken from the store's clock, so that clock has to move forward between objects.
pub(super) async fn the_store_knows_size_and_age(store: Arc<dyn Store>) {
    store.create(&path("old"), patterned(12_345, 1)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    store.create(&path("young"), patterned(1, 1)).await.unwrap();
    let old = store.stat(&path("old")).await.unwrap();
    let young = store.stat(&path("young")).await.unwrap();
    assert_eq!((old.path.as_str(), old.size_bytes, young.size_bytes), ("old", 12_345, 1));
    assert!(old.modified < young.modified, "{} and {}", old.modified, young.modified);
    let listed = store.list(&ObjectPrefix::root(), None, 10).await.unwrap();
    assert_eq!(listed.objects, [old, young]);
}
