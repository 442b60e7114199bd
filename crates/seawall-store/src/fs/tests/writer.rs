use std::process::Command;

use super::*;

/// A caller that gave up waiting does not know how much of its part was taken: the object cannot
/// be finished with a hole in it.
#[tokio::test]
async fn an_interrupted_write_spoils_the_object() {
    let (directory, store) = temporary_store().await;
    let mut writer = store.create_large(&path("pack/a")).await.unwrap();
    let more_than_fits_in_flight = Bytes::from(vec![7; 64 << 20]);
    tokio::select! {
        biased;
        _ = writer.write(more_than_fits_in_flight) => panic!("64 MiB cannot be taken at once"),
        () = std::future::ready(()) => {}
    }
    writer.write(Bytes::from_static(b"on")).await.unwrap_err();
    writer.finish().await.unwrap_err();
    assert_eq!(names(&store).await, [""; 0]);
    store.create(&path("pack/a"), Bytes::from_static(b"again")).await.unwrap();
    drop(directory);
}

/// What happens to the child below: nothing that does not fit is visible or left over, the error
/// says that the store is full, and there is room again afterwards.
async fn fill_a_small_disk(directory: &std::path::Path, expect_full: bool) {
    let root = StoreDirectory::new(directory).unwrap();
    let store = FsStore::open(&root, FsOptions::default()).await.unwrap();
    let too_much = Bytes::from(vec![1; 3 << 20]);
    let check = |error: StoreError| {
        let is_expected = if expect_full {
            matches!(error, StoreError::Full { .. })
        } else {
            matches!(error, StoreError::Io { doing: "writing", .. })
        };
        assert!(is_expected, "{error:?}");
    };
    check(store.create(&path("small"), too_much.clone()).await.unwrap_err());
    let mut writer = store.create_large(&path("large")).await.unwrap();
    let error = loop {
        if let Err(error) = writer.write(too_much.clone()).await {
            writer.abort().await;
            break error;
        }
    };
    check(error);
    assert_eq!(names(&store).await, [""; 0]);
    assert_eq!(unfinished_files(directory), [""; 0].map(PathBuf::from));
    store.create(&path("fits"), Bytes::from(vec![1; 1 << 19])).await.unwrap();
    println!("the small disk was filled");
}

/// A tmpfs of 1 MiB in a mount namespace of its own; where the kernel does not allow one, a limit
/// on the size of files, which fails writes half-way too (`EFBIG`).
#[tokio::test]
async fn a_full_disk_is_reported_and_leaves_nothing_behind() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let expect_full = std::env::var_os("SEAWALL_STORE_TEST_LIMIT").is_none();
        return fill_a_small_disk(directory.as_ref(), expect_full).await;
    }
    let name = "fs::tests::writer::a_full_disk_is_reported_and_leaves_nothing_behind";
    let directory = tempfile::tempdir().unwrap();
    let mount = r#"mount -t tmpfs -o size=1m,mode=0777 none "$SEAWALL_STORE_TEST_CHILD""#;
    let namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];
    let possible = Command::new(namespace[0])
        .args(&namespace[1..])
        .arg(mount)
        .env(CHILD, directory.path())
        .output()
        .is_ok_and(|probe| probe.status.success());
    let mut command = if possible {
        let script = format!(r#"{mount} && exec "$0" "$@""#);
        let prefix = [&namespace[..], &[script.as_str()]].concat();
        this_test_again(name, &prefix, directory.path())
    } else {
        let limited = r#"trap '' XFSZ; ulimit -f 2048; exec "$0" "$@""#;
        let mut command = this_test_again(name, &["sh", "-c", limited], directory.path());
        command.env("SEAWALL_STORE_TEST_LIMIT", "1");
        command
    };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("the small disk was filled"), "{said}");
}
