//! `wal fetch` runs as `restore_command`, where an exit status of 1 to 125 means "there is no such
//! WAL": recovery ends there, and the server may be promoted. Whatever is not proof must stop it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use seawall_core::{BranchNumber, LineId, SystemId};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::records::About;
use seawall_repo::{CreateOptions, Repository};

const SEGMENT: &str = "000000010000000000000001";

/// Runs `seawall wal fetch …` and gives its exit status and standard error.
fn fetch(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.env_clear().current_dir(std::env::temp_dir()).args(["wal", "fetch"]).args(arguments);
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A repository with an empty line of cluster `main`, and its key.
fn repository(directory: &Path) -> KeyFile {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = directory.join("repository").display().to_string().parse().unwrap();
        let store = seawall_store::open_or_create(&url, &seawall_store::OpenOptions::default())
            .await
            .unwrap();
        let key = KeyFile::generate().unwrap();
        let unlock = Unlock::KeyFile(key.clone());
        let now = jiff::Timestamp::now();
        let options = CreateOptions { unlock: &unlock, label: "test", now };
        let repository = Repository::create(Arc::clone(&store), &options).await.unwrap();
        let id = LineId { system_id: SystemId(7), branch: BranchNumber(0) };
        let line = repository.line(&"main".parse().unwrap(), id).unwrap();
        line.create(&about()).await.unwrap();
        key
    })
}

fn about() -> About {
    About {
        cluster: "main".to_owned(),
        system_id: SystemId(7),
        branch: BranchNumber(0),
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

fn config(directory: &Path, key: &str) -> String {
    let path = directory.join("seawall.toml");
    let text = format!(
        "[cluster.main]\nrepositories = [\"primary\"]\n[repository.primary]\n\
         url = \"{}/repository\"\nkey = {{ file = \"{key}\" }}\n",
        directory.display()
    );
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    // A key that others can read is told of.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn nothing_but_proof_has_a_status_that_postgres_takes_for_the_end() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path();
    let key = repository(room);
    let right = write(room, "right.key", &key.line());
    let wrong = write(room, "wrong.key", &KeyFile::generate().unwrap().line());
    let garbage = write(room, "garbage.key", "not a key");
    let unknown_key = write(room, "unknown.toml", "retention = 3\n");
    let not_toml = write(room, "not.toml", "[[[\n");
    let good = config(room, &right);
    let url = format!("file://{}/repository", room.display());
    let elsewhere = format!("file://{}/elsewhere", room.display());
    let destination = room.join("RECOVERYXLOG").display().to_string();
    let to = destination.as_str();

    let cases: &[(&str, &[&str])] = &[
        ("no arguments", &[]),
        ("one argument", &[SEGMENT]),
        ("an unknown flag", &[SEGMENT, to, "--no-such-flag"]),
        ("a malformed cluster", &[SEGMENT, to, "--cluster", "NOT A NAME"]),
        ("no configuration", &[SEGMENT, to]),
        ("a configuration that is not there", &[SEGMENT, to, "--config", "/nonexistent"]),
        ("a configuration that is a directory", &[SEGMENT, to, "--config", "/"]),
        ("an unknown key in it", &[SEGMENT, to, "--config", &unknown_key]),
        ("a configuration that is not TOML", &[SEGMENT, to, "--config", &not_toml]),
        ("no such cluster", &[SEGMENT, to, "--config", &good, "--cluster", "other"]),
        ("no such repository", &[SEGMENT, to, "--config", &good, "--repo", "other"]),
        ("no such kit", &[SEGMENT, to, "--kit", "/nonexistent"]),
        ("a key that is not there", &[SEGMENT, to, "--repo", &url, "--key", "/nonexistent"]),
        ("a key that is none", &[SEGMENT, to, "--repo", &url, "--key", &garbage]),
        ("the wrong key", &[SEGMENT, to, "--repo", &url, "--key", &wrong]),
        ("no repository there", &[SEGMENT, to, "--repo", &elsewhere, "--key", &right]),
        ("no store there", &[SEGMENT, to, "--repo", "file:///nonexistent/x", "--key", &right]),
        ("a URL of another kind", &[SEGMENT, to, "--repo", "s3://bucket/x", "--key", &right]),
        ("a name that is no WAL", &["hello", to, "--config", &good]),
        ("WAL that ought to be there", &[SEGMENT, to, "--config", &good]),
    ];
    for (what, arguments) in cases {
        let (status, stderr) = fetch(arguments);
        assert!((200..=255).contains(&status), "{what} ended with {status}: {stderr}");
        assert!(stderr.contains("error:"), "{what}: {stderr}");
    }
    assert!(!Path::new(to).exists());
}

#[test]
fn what_is_proven_not_to_exist_ends_with_status_1() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path();
    let key = repository(room);
    let good = config(room, &write(room, "right.key", &key.line()));
    let destination = room.join("RECOVERYHISTORY").display().to_string();
    let (status, stderr) = fetch(&["00000002.history", &destination, "--config", &good]);
    assert_eq!(status, 1, "{stderr}");
    // Every recovery ends like this: PostgreSQL's log is not to speak of an error.
    assert_eq!(stderr, "seawall: 00000002.history is not archived\n");
    // A standby asks again; it does not end recovery.
    let (status, stderr) = fetch(&[SEGMENT, &destination, "--config", &good, "--standby"]);
    assert_eq!(status, 1, "{stderr}");
}

/// PostgreSQL chooses its timeline once, as it starts; and whatever else it may do with an answer, a
/// server that is not there has no use for one.
#[test]
fn a_store_that_is_away_hides_nothing_from_a_standby_that_starts_or_has_died() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path();
    let key = repository(room);
    let good = config(room, &write(room, "right.key", &key.line()));
    fs::rename(room.join("repository"), room.join("away")).unwrap();
    for (directory, pid) in [("starting", std::process::id()), ("dead", 2_147_483_646)] {
        fs::create_dir_all(room.join(directory).join("pg_wal")).unwrap();
        let text = format!("{pid}\n/data\n1700000000\n5433\n/run/pg\n*\n 1 2\nstarting\n");
        fs::write(room.join(directory).join("postmaster.pid"), text).unwrap();
    }
    std::thread::scope(|scope| {
        for (directory, name) in
            [("starting", "00000002.history"), ("dead", "00000002.history"), ("dead", SEGMENT)]
        {
            let good = &good;
            scope.spawn(move || {
                let to = room.join(directory).join("pg_wal/RECOVERYHISTORY").display().to_string();
                let (status, stderr) = fetch(&[name, &to, "--config", good, "--standby"]);
                assert!(status > 200, "{directory} {name}: {status} {stderr}");
            });
        }
    });
}

/// It is asked for when nothing may stop recovery any more.
#[test]
fn the_first_timeline_has_no_history_whatever_is_wrong() {
    let (status, stderr) = fetch(&["00000001.history", "RECOVERYHISTORY", "--config", "/nowhere"]);
    assert_eq!(status, 1, "{stderr}");
}
