use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::io::Errno;

use super::*;

/// Writes down every sync in the order they come, with the names visible at that moment, and lets
/// them fail when told to.
#[derive(Debug)]
struct Recorder {
    root: PathBuf,
    events: Mutex<Vec<String>>,
    file_fails: Mutex<Option<Errno>>,
    directory_fails: Mutex<Option<Errno>>,
}

impl Recorder {
    async fn store(directory: &tempfile::TempDir) -> (Arc<Self>, FsStore) {
        let recorder = Arc::new(Self {
            root: directory.path().canonicalize().unwrap(),
            events: Mutex::default(),
            file_fails: Mutex::default(),
            directory_fails: Mutex::default(),
        });
        let syncs: Arc<dyn SyncCalls> = Arc::<Self>::clone(&recorder);
        let root = root_of(directory);
        let store = FsStore::open_with(&root, FsOptions::default(), syncs).await.unwrap();
        (recorder, store)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn record(&self, what: &str, fd: BorrowedFd<'_>) {
        let synced = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let files: Vec<String> = on_disk(&self.root)
            .iter()
            .filter(|path| path.is_file())
            .map(|path| self.shown(path))
            .collect();
        let event = format!("sync {what} {} while [{}]", self.shown(&synced), files.join(" "));
        self.events.lock().unwrap().push(event);
    }

    fn shown(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.root).unwrap();
        match path.to_str().unwrap() {
            "" => "root".to_owned(),
            name if name.ends_with(RESERVED_SUFFIX) => {
                path.with_file_name("UNFINISHED").display().to_string()
            }
            name => name.to_owned(),
        }
    }
}

impl SyncCalls for Recorder {
    fn file(&self, file: &File) -> io::Result<()> {
        self.record("file", file.as_fd());
        if let Some(errno) = *self.file_fails.lock().unwrap() {
            return Err(errno.into());
        }
        Kernel.file(file)
    }

    fn directory(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.record("directory", directory);
        if let Some(errno) = *self.directory_fails.lock().unwrap() {
            return Err(errno.into());
        }
        Kernel.directory(directory)
    }
}

/// The content is durable before the name exists, the name before success, and so is every
/// directory on the way to it.
#[tokio::test]
async fn e66_files_and_directories_are_synced_before_success() {
    let directory = tempfile::tempdir().unwrap();
    let (recorder, store) = Recorder::store(&directory).await;

    store.create(&path("c/main/one"), Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(
        recorder.take(),
        [
            "sync directory c while []",
            "sync directory root while []",
            "sync file c/main/UNFINISHED while [c/main/UNFINISHED]",
            "sync directory c/main while [c/main/one]",
        ]
    );

    // The directories are known to be durable by now.
    let mut writer = store.create_large(&path("c/main/two")).await.unwrap();
    writer.write(Bytes::from_static(b"22")).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(
        recorder.take(),
        [
            "sync file c/main/UNFINISHED while [c/main/UNFINISHED c/main/one]",
            "sync directory c/main while [c/main/one c/main/two]",
        ]
    );

    store.delete(&path("c/main/one")).await.unwrap();
    assert_eq!(recorder.take(), ["sync directory c/main while [c/main/two]"]);
}

/// Another process may have made a directory or an object a moment ago and not have synced it yet.
#[tokio::test]
async fn e66_what_another_process_made_is_synced_too() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("wal")).unwrap();
    std::fs::write(directory.path().join("wal/one"), "1").unwrap();
    let (recorder, store) = Recorder::store(&directory).await;

    let error = store.create(&path("wal/one"), Bytes::from_static(b"1")).await.unwrap_err();
    assert!(error.is_already_exists(), "{error:?}");
    let synced = ["sync directory root while [wal/one]", "sync directory wal while [wal/one]"];
    assert_eq!(recorder.take(), synced);

    let (recorder, store) = Recorder::store(&directory).await;
    store.make_durable(&path("wal/one")).await.unwrap();
    assert_eq!(recorder.take(), synced);
    for gone in ["wal/two", "elsewhere/one"] {
        assert!(store.make_durable(&path(gone)).await.unwrap_err().is_not_found());
    }
    assert!(!directory.path().join("elsewhere").exists(), "nothing is made by asking");
}

/// A directory that was removed as empty and made again is a new one.
#[tokio::test]
async fn e66_a_directory_made_again_is_synced_again() {
    let directory = tempfile::tempdir().unwrap();
    let (recorder, store) = Recorder::store(&directory).await;
    for _ in 0..2 {
        store.create(&path("pin/1"), Bytes::new()).await.unwrap();
        store.delete(&path("pin/1")).await.unwrap();
        assert!(!directory.path().join("pin").exists());
        let events = recorder.take();
        assert_eq!(events.first().map(String::as_str), Some("sync directory root while []"));
    }
}

/// After a failed sync the kernel calls the lost pages clean: a second sync of the same file would
/// succeed and mean nothing.
#[tokio::test]
async fn a_failed_file_sync_is_an_error_and_not_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (recorder, store) = Recorder::store(&directory).await;
    *recorder.file_fails.lock().unwrap() = Some(Errno::IO);

    let error = store.create(&path("a"), Bytes::from_static(b"lost")).await.unwrap_err();
    let StoreError::Io { doing: "syncing", source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(Errno::IO.raw_os_error()));
    let mut writer = store.create_large(&path("b")).await.unwrap();
    writer.write(Bytes::from_static(b"lost")).await.unwrap();
    writer.finish().await.unwrap_err();
    assert_eq!(recorder.take().len(), 2, "one sync for each, never two");
    assert_eq!(on_disk(directory.path()), [""; 0].map(PathBuf::from));

    // The disk is well again: new files are new.
    *recorder.file_fails.lock().unwrap() = None;
    store.create(&path("a"), Bytes::from_static(b"kept")).await.unwrap();
    assert_eq!(store.read(&path("a")).await.unwrap(), "kept");
}

/// A name that may vanish is not left for the next attempt to find and to take for stored.
#[tokio::test]
async fn after_a_failed_directory_sync_nothing_more_is_promised() {
    let directory = tempfile::tempdir().unwrap();
    let (recorder, store) = Recorder::store(&directory).await;
    store.create(&path("old"), Bytes::from_static(b"old")).await.unwrap();
    *recorder.directory_fails.lock().unwrap() = Some(Errno::IO);
    let error = store.create(&path("new"), Bytes::from_static(b"new")).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    assert_eq!(names(&store).await, ["old"]);

    *recorder.directory_fails.lock().unwrap() = None;
    let error = store.create(&path("new"), Bytes::from_static(b"new")).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    assert_eq!(store.read(&path("old")).await.unwrap(), "old");
}
