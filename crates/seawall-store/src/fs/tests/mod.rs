mod directory;
mod durability;
mod kill;
mod writer;

use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::{OpenOptions, RESERVED_SUFFIX, suite};

pub(crate) async fn temporary_store() -> (tempfile::TempDir, FsStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStore::open(&root_of(&directory), FsOptions::default()).await.unwrap();
    (directory, store)
}

fn root_of(directory: &tempfile::TempDir) -> StoreDirectory {
    StoreDirectory::new(directory.path()).unwrap()
}

fn path(text: &str) -> ObjectPath {
    text.parse().unwrap()
}

async fn names(store: &FsStore) -> Vec<String> {
    let page = store.list(&ObjectPrefix::root(), None, 1000).await.unwrap();
    page.objects.into_iter().map(|object| object.path.to_string()).collect()
}

/// Every file and directory below a directory, as the filesystem has it.
fn on_disk(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(on_disk(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn unfinished_files(directory: &std::path::Path) -> Vec<PathBuf> {
    let is_unfinished = |path: &PathBuf| path.to_string_lossy().ends_with(RESERVED_SUFFIX);
    on_disk(directory).into_iter().filter(is_unfinished).collect()
}

/// The environment variable that tells a test it runs as the child of itself.
const CHILD: &str = "SEAWALL_STORE_TEST_CHILD";

/// Runs the test of this name again, in a process of its own, behind `prefix` (such as a shell).
fn this_test_again(name: &str, prefix: &[&str], directory: &std::path::Path) -> Command {
    let mut words: Vec<std::ffi::OsString> = prefix.iter().map(Into::into).collect();
    words.push(std::env::current_exe().unwrap().into());
    words.extend(["--exact", name, "--nocapture"].map(Into::into));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(CHILD, directory);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_every_promise_of_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU64::new(0);
    suite::run_all(|| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = directory.path().join(format!("store {number}"));
        async move {
            let url = StoreUrl::from_directory(&root).unwrap();
            crate::open_or_create(&url, &OpenOptions::default()).await.unwrap()
        }
    })
    .await;
    assert_eq!(unfinished_files(directory.path()), [""; 0].map(PathBuf::from));
}
