use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::*;

const SMALL_BYTES: usize = 30_000;

/// Keeps a large object open and creates small ones, telling of each that it is stored.
async fn write_until_killed(directory: &std::path::Path) {
    let root = StoreDirectory::new(directory).unwrap();
    let store = FsStore::open(&root, FsOptions::default()).await.unwrap();
    let mut large = store.create_large(&path("pack/large")).await.unwrap();
    for number in 0.. {
        large.write(Bytes::from(vec![9; 1 << 20])).await.unwrap();
        let object = path(&format!("small/{number}"));
        store.create(&object, Bytes::from(vec![7; SMALL_BYTES])).await.unwrap();
        println!("stored {object}");
    }
}

/// Power cannot be cut in a test; a process can be killed. What it was told is stored is there and
/// whole, what was under way is invisible, and the rest can be swept.
#[tokio::test]
async fn a_killed_writer_leaves_whole_objects_and_sweepable_files() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return write_until_killed(directory.as_ref()).await;
    }
    let name = "fs::tests::kill::a_killed_writer_leaves_whole_objects_and_sweepable_files";
    let (directory, store) = temporary_store().await;
    let mut child =
        this_test_again(name, &[], directory.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stored = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(object) = line.unwrap().split("stored ").nth(1) {
            stored.push(object.to_owned());
        }
        if stored.len() == 12 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(stored.len() >= 12, "{stored:?}");

    let visible = names(&store).await;
    assert!(!visible.iter().any(|name| name.starts_with("pack/")), "{visible:?}");
    assert!(stored.iter().all(|name| visible.contains(name)), "{stored:?} of {visible:?}");
    for name in &visible {
        assert!(
            store.read(&path(name)).await.unwrap() == vec![7; SMALL_BYTES],
            "{name} is damaged"
        );
    }
    let left = unfinished_files(directory.path());
    assert!(!left.is_empty(), "the child was not killed while it wrote");
    assert!(store.read(&path("pack/large")).await.unwrap_err().is_not_found());

    let swept = store.sweep_temporary(Duration::ZERO).await.unwrap();
    assert_eq!(swept.files, left.len() as u64);
    assert_eq!(unfinished_files(directory.path()), [""; 0].map(PathBuf::from));
    assert_eq!(names(&store).await, visible);
    store.create(&path("pack/large"), Bytes::from_static(b"at last")).await.unwrap();
}
