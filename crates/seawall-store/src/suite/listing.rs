use std::sync::Arc;

use bytes::Bytes;

use super::{all, below, names, path};
use crate::{ListPage, ObjectPath, ObjectPrefix, Store};

/// In byte order: `-` and `.` sort before `/`, digits and letters after it.
const NASTY: [&str; 14] = [
    "a-/x",
    "a-b/c",
    "a-b/d-/e",
    "a-b/d/e",
    "a.b",
    "a.b.c/d",
    "a/-",
    "a/b",
    "a/b.c",
    "a/b0/c",
    "a0/b",
    "aB",
    "a_/b",
    "b/a/a/a/a/a",
];

async fn fill(store: &dyn Store, names: &[&str]) {
    for name in names {
        store.create(&path(name), Bytes::copy_from_slice(name.as_bytes())).await.unwrap();
    }
}

pub(super) async fn an_empty_store_lists_nothing(store: Arc<dyn Store>) {
    let nothing = ListPage { objects: Vec::new(), next: None };
    assert_eq!(store.list(&ObjectPrefix::root(), None, 10).await.unwrap(), nothing);
    assert_eq!(store.list(&below("c/main"), None, 10).await.unwrap(), nothing);
    assert_eq!(store.list(&below("c"), Some(&path("c/x")), 10).await.unwrap(), nothing);
}

pub(super) async fn a_listing_is_in_byte_order_of_whole_paths(store: Arc<dyn Store>) {
    let mut shuffled = NASTY;
    shuffled.reverse();
    shuffled.swap(1, 9);
    fill(&*store, &shuffled).await;
    for limit in [1, 2, 3, 5, NASTY.len(), 100] {
        assert_eq!(names(&*store, &ObjectPrefix::root(), limit).await, NASTY, "pages of {limit}");
    }
}

pub(super) async fn a_prefix_ends_at_a_slash(store: Arc<dyn Store>) {
    fill(&*store, &NASTY).await;
    assert_eq!(names(&*store, &below("a"), 2).await, ["a/-", "a/b", "a/b.c", "a/b0/c"]);
    assert_eq!(names(&*store, &below("a-b"), 2).await, ["a-b/c", "a-b/d-/e", "a-b/d/e"]);
    assert_eq!(names(&*store, &below("a-b/d"), 2).await, ["a-b/d/e"]);
    assert_eq!(names(&*store, &below("b/a/a"), 2).await, ["b/a/a/a/a/a"]);
}

/// A listing goes on after any path, whether it exists, is a directory, or lies outside.
pub(super) async fn pages_can_start_anywhere(store: Arc<dyn Store>) {
    fill(&*store, &NASTY).await;
    let mut starts: Vec<ObjectPath> = NASTY.iter().map(|name| path(name)).collect();
    starts.extend(["-", "a", "a-b/d", "a/b0", "a/b0/zz", "a/z", "a1", "b", "zz"].map(path));
    for prefix in [ObjectPrefix::root(), below("a"), below("a-b"), below("b/a")] {
        for start in &starts {
            let expected: Vec<&str> = NASTY
                .into_iter()
                .filter(|name| prefix.strip(&path(name)).is_some() && *name > start.as_str())
                .collect();
            let objects = all(&*store, &prefix, Some(start.clone()), 2).await;
            let got: Vec<&str> = objects.iter().map(|object| object.path.as_str()).collect();
            assert_eq!(got, expected, "below \"{prefix}\" after {start}");
        }
    }
}

pub(super) async fn children_are_the_first_components_below_a_prefix(store: Arc<dyn Store>) {
    let nothing = [""; 0];
    assert_eq!(store.list_children(&ObjectPrefix::root()).await.unwrap(), nothing);
    fill(&*store, &NASTY).await;
    store.create(&path("x/y/z"), Bytes::new()).await.unwrap();
    store.delete(&path("x/y/z")).await.unwrap();
    let mut unfinished = store.create_large(&path("u/v/w")).await.unwrap();
    unfinished.write(Bytes::from_static(b"half")).await.unwrap();
    for (prefix, children) in [
        (ObjectPrefix::root(), &["a", "a-", "a-b", "a.b", "a.b.c", "a0", "aB", "a_", "b"][..]),
        (below("a"), &["-", "b", "b.c", "b0"]),
        (below("a-b"), &["c", "d", "d-"]),
        (below("b/a"), &["a"]),
        (below("x"), &[]),
        (below("u"), &[]),
        (below("nothing"), &[]),
    ] {
        assert_eq!(store.list_children(&prefix).await.unwrap(), children, "below {prefix}");
    }
    unfinished.abort().await;
}

pub(super) async fn thousands_of_objects_are_listed_once_each(store: Arc<dyn Store>) {
    const SEPARATORS: [&str; 4] = ["/", "-", "./", "0/"];
    let mut expected: Vec<String> =
        (0..3_200usize).map(|n| format!("w/{}{}{}", n / 400, SEPARATORS[n % 4], n)).collect();
    let creators: Vec<_> = expected
        .chunks(50)
        .map(|chunk| {
            let (store, chunk) = (Arc::clone(&store), chunk.to_vec());
            tokio::spawn(async move {
                for name in &chunk {
                    store
                        .create(&path(name), Bytes::copy_from_slice(name.as_bytes()))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for creator in creators {
        creator.await.unwrap();
    }
    expected.sort_unstable();
    for limit in [7_000, 1_000, 97] {
        assert_eq!(names(&*store, &below("w"), limit).await, expected, "pages of {limit}");
    }
    let objects = all(&*store, &below("w"), None, 1_000).await;
    assert!(objects.iter().all(|object| object.size_bytes == object.path.as_str().len() as u64));
}
