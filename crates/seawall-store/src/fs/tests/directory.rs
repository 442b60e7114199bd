use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, mknodat};
use seawall_core::{Code, Error};

use super::*;

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_missing_directory_is_not_an_empty_store() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("not mounted");
    let url = StoreUrl::from_directory(&root).unwrap();
    let error = Error::from(crate::open(&url, &OpenOptions::default()).await.unwrap_err());
    assert_eq!(error.code(), Code::ObjectMissing);
    assert!(error.message().starts_with("the store file:///"), "{error:?}");
    assert!(format!("{:?}", error.hint()).contains("mounted"), "{error:?}");
    assert!(!root.exists());

    std::fs::write(&root, "a file").unwrap();
    let error = crate::open(&url, &OpenOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotAnObject { .. }), "{error:?}");
}

#[tokio::test]
async fn files_and_directories_have_the_modes_asked_for_whatever_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    let open = FsOptions { file_mode: 0o666, directory_mode: 0o777 };
    for (name, options) in [("private", FsOptions::default()), ("shared", open)] {
        let root = directory.path().join(name).join("repository");
        let root = StoreDirectory::new(&root).unwrap();
        FsStore::make_root(&root, options).await.unwrap();
        let store = FsStore::open(&root, options).await.unwrap();
        let root = root.path();
        store.create(&path("c/small"), Bytes::new()).await.unwrap();
        store.create_large(&path("c/large")).await.unwrap().finish().await.unwrap();
        for made in [root.parent().unwrap(), root, &root.join("c")] {
            assert_eq!(mode_of(made), options.directory_mode, "{made:?}");
        }
        for made in ["c/small", "c/large"] {
            assert_eq!(mode_of(&root.join(made)), options.file_mode, "{name} {made}");
        }
    }
}

#[tokio::test]
async fn the_root_may_be_a_symbolic_link() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("disk")).unwrap();
    symlink("disk", directory.path().join("repository")).unwrap();
    let url = StoreUrl::from_directory(&directory.path().join("repository")).unwrap();
    let store = crate::open_or_create(&url, &OpenOptions::default()).await.unwrap();
    store.create(&path("a/b"), Bytes::from_static(b"b")).await.unwrap();
    assert_eq!(std::fs::read(directory.path().join("disk/a/b")).unwrap(), b"b");
}

type Make = fn(&Path, &Path);

/// Something other than a file under an object's name: refused by every call, and left alone.
#[tokio::test]
async fn links_pipes_and_directories_are_not_objects() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let kinds: [(&str, Make); 5] = [
        ("a symbolic link", |at, outside| symlink(outside.join("secret"), at).unwrap()),
        ("a symbolic link", |at, _| symlink("nowhere", at).unwrap()),
        ("a named pipe", |at, _| mknodat(CWD, at, FileType::Fifo, 0o600.into(), 0).unwrap()),
        ("a socket", |at, _| drop(std::os::unix::net::UnixListener::bind(at).unwrap())),
        ("a directory", |at, _| std::fs::create_dir(at).unwrap()),
    ];
    for (found, make) in kinds {
        let (directory, store) = temporary_store().await;
        make(&directory.path().join("odd"), outside.path());
        let odd = path("odd");
        let mut errors = vec![
            store.read(&odd).await.map(|_| ()).unwrap_err(),
            store.read_range(&odd, 0..1).await.map(|_| ()).unwrap_err(),
            store.stat(&odd).await.map(|_| ()).unwrap_err(),
            store.delete(&odd).await.unwrap_err(),
        ];
        if found != "a directory" {
            errors.push(store.list(&ObjectPrefix::root(), None, 9).await.map(|_| ()).unwrap_err());
        }
        for error in errors {
            assert!(matches!(error, StoreError::NotAnObject { .. }), "{found}: {error:?}");
            assert!(error.to_string().contains(found), "{error}");
        }
        let error = store.create(&odd, Bytes::from_static(b"x")).await.unwrap_err();
        assert!(error.is_already_exists(), "{found}: {error:?}");
        assert!(directory.path().join("odd").symlink_metadata().is_ok(), "{found} was removed");
    }
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn a_link_to_another_directory_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let (directory, store) = temporary_store().await;
    symlink(outside.path(), directory.path().join("out")).unwrap();
    let through = path("out/secret");
    let errors = [
        store.read(&through).await.map(|_| ()).unwrap_err(),
        store.stat(&through).await.map(|_| ()).unwrap_err(),
        store.delete(&through).await.unwrap_err(),
        store.create(&path("out/new"), Bytes::new()).await.unwrap_err(),
        store.create(&path("out/deep/new"), Bytes::new()).await.unwrap_err(),
        store.list(&ObjectPrefix::below(path("out")), None, 9).await.map(|_| ()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::NotAnObject { .. }), "{error:?}");
    }
    assert_eq!(on_disk(outside.path()), [outside.path().join("secret")]);
}

/// A volume's `lost+found` and an editor's droppings are no objects, and no reason to fail.
#[tokio::test]
async fn names_no_object_can_have_are_passed_over() {
    let (directory, store) = temporary_store().await;
    std::fs::create_dir(directory.path().join("lost+found")).unwrap();
    std::fs::write(directory.path().join("lost+found/#1"), "x").unwrap();
    std::fs::write(directory.path().join("notes of mine~"), "x").unwrap();
    std::fs::write(directory.path().join(format!("x{RESERVED_SUFFIX}")), "x").unwrap();
    store.create(&path("object"), Bytes::new()).await.unwrap();
    assert_eq!(names(&store).await, ["object"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_directories_go_and_creators_do_not_notice() {
    let (directory, store) = temporary_store().await;
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let object = path(&format!("pin/writer/{task}"));
                for round in 0..50 {
                    let result = store.create(&object, Bytes::from(vec![task; round])).await;
                    result.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
                    assert_eq!(store.read(&object).await.unwrap().len(), round);
                    store.delete(&object).await.unwrap();
                }
            })
        })
        .collect();
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        store.list(&ObjectPrefix::root(), None, 100).await.unwrap();
        store.sweep_temporary(Duration::from_secs(86_400)).await.unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(on_disk(directory.path()), [""; 0].map(PathBuf::from));
}

/// Leftovers of killed writers go once they are old; everything else stays.
#[tokio::test]
async fn a_sweep_removes_old_unfinished_files_only() {
    let (directory, store) = temporary_store().await;
    store.create(&path("pack/a"), Bytes::from_static(b"a")).await.unwrap();
    let root = directory.path();
    let names = ["old", "young"].map(|name| root.join(format!("pack/{name}{RESERVED_SUFFIX}")));
    for name in &names {
        std::fs::write(name, "1234567").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(90_000);
    let old = std::fs::File::options().write(true).open(&names[0]).unwrap();
    old.set_modified(long_ago).unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(store.sweep_temporary(day).await.unwrap(), Swept { files: 1, bytes: 7 });
    assert_eq!(store.sweep_temporary(day).await.unwrap(), Swept::default());
    assert_eq!(unfinished_files(root), [names[1].clone()]);
    assert_eq!(store.sweep_temporary(Duration::MAX).await.unwrap(), Swept::default());
    assert_eq!(store.read(&path("pack/a")).await.unwrap(), "a");
}

/// A writer so slow that it was swept away fails; it does not publish something else.
#[tokio::test]
async fn a_swept_writer_fails_cleanly() {
    let (directory, store) = temporary_store().await;
    let mut writer = store.create_large(&path("pack/slow")).await.unwrap();
    writer.write(Bytes::from_static(b"slow")).await.unwrap();
    for name in unfinished_files(directory.path()) {
        std::fs::remove_file(name).unwrap();
    }
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(error, StoreError::Io { doing: "publishing", .. }), "{error:?}");
    assert_eq!(names(&store).await, [""; 0]);
}
