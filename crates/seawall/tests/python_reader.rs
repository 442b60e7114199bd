//! The reader in `docs/reader/`, written from `docs/format.md` alone, restores what `seawall`
//! wrote: the specification says enough.

#[path = "support/older_pages.rs"]
mod older_pages;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use older_pages::put_before;
use seawall_core::BackupId;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{BackupInfo, Commit, Entry, EntryKind, ManifestWriter};
use seawall_repo::{Repository, new_ulid};
use seawall_store::OpenOptions;
use seawall_testkit::ledger::Bound;
use seawall_testkit::process::{self, Output};
use seawall_testkit::{
    Ledger, Owner, PgBin, PgCluster, StopMode, TestDir, cache_directory, oracles,
};
use support::{LIMIT, Protected, archive_everything, open_restored, prove_restored};

/// The reader, on its own: a copy of its one file, and the Python that `cargo xtask setup` made.
struct Reader {
    python: PathBuf,
    script: PathBuf,
    repository: PathBuf,
    key: PathBuf,
    _directory: TestDir,
}

impl Reader {
    fn of(house: &Protected) -> Result<Self> {
        let python = cache_directory()?.join("reader/bin/python");
        ensure!(python.is_file(), "no {}: run `cargo xtask setup`", python.display());
        let directory = TestDir::new()?;
        let script = directory.join("seawall_reader.py");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reader/seawall_reader.py");
        fs::copy(source, &script)?;
        let (repository, key) = (house.places.repository.clone(), house.places.key.clone());
        Ok(Self { python, script, repository, key, _directory: directory })
    }

    fn run(&self, task: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Owner::of_servers()?.command(&self.python);
        command.arg("-B").arg(&self.script).arg(task).arg(&self.repository);
        command.arg("--key").arg(&self.key).args(arguments);
        process::run(&mut command, None, LIMIT)
    }

    fn restore(&self, into: &Path, arguments: &[&str]) -> Result<Output> {
        let into = into.to_str().context("a path of the test's own")?;
        self.run("restore", &[&["--into", into], arguments].concat())
    }
}

/// A server on a directory the reader made; it must not archive where it came from, and accepts
/// that tablespaces are where the reader puts them.
fn open_trial(directory: &Path) -> Result<PgCluster> {
    let major = PgBin::default_major()?;
    let trial = PgCluster::open(major, directory).config("archive_mode", "off");
    trial.config("allow_in_place_tablespaces", "on").start()
}

#[test]
fn storage_and_key_alone_bring_a_cluster_back_without_seawall() -> Result<()> {
    let mut house = Protected::start()?;
    let space = house.room("space");
    house.pg.owner().create_dir(&space, 0o700)?;
    house.pg.psql(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", space.display()))?;
    house.pg.psql(
        "CREATE TABLE far TABLESPACE elsewhere AS SELECT n, md5(n::text) AS t \
         FROM generate_series(1, 20000) AS n; CREATE INDEX ON far (t)",
    )?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    let backup = house.backup()?;
    running.wait_for(20, LIMIT)?;
    let log = running.stop()?;
    house.pg.psql("UPDATE far SET t = 'changed' WHERE n % 7 = 0")?;
    let expected = house.pg.psql("SELECT count(*), sum(hashtext(t)) FROM far")?;
    let oid = house.pg.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere'")?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Immediate)?;

    let reader = Reader::of(&house)?;
    let listed = reader.run("list", &[])?.success()?.stdout;
    ensure!(listed.lines().count() == 1 && listed.contains("PostgreSQL"), "{listed}");
    let id = listed.split_whitespace().next().context("no id")?.to_owned();
    let moved = format!("{oid}={}", house.room("moved").display());
    let ways = [vec![], vec!["--backup", &id, "--map-tablespace", &moved]];
    for (room, arguments) in ["inside", "mapped"].into_iter().zip(ways) {
        reader.restore(&house.room(room), &arguments)?.success()?;
        let mut restored = open_trial(&house.room(room))?;
        let found = restored.psql("SELECT count(*), sum(hashtext(t)) FROM far")?;
        ensure!(found == expected, "{room}: {found}, not {expected}; {backup}");
        prove_restored(&mut restored, &log, &Bound::Everything).context(room)?;
    }
    ensure!(house.room("mapped/pg_tblspc").join(&oid).is_symlink());
    let again = reader.restore(&house.room("inside"), &[])?;
    ensure!(again.stderr.contains("refused: "), "{}", again.stderr);
    Ok(())
}

#[test]
fn a_newer_timeline_begins_with_what_its_parent_wrote() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(20, LIMIT)?;
    running.stop()?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Immediate)?;
    house.restore("primary", ["--to", &moment.time, "--as", "primary"]).succeed()?;
    let mut primary = open_restored(&house.room("primary"))?;
    primary.psql("CREATE TABLE second AS SELECT generate_series(1, 1000) AS n")?;
    archive_everything(&primary)?;
    let rows = primary.psql("SELECT count(*) FROM ledger")?;
    primary.stop(StopMode::Immediate)?;

    let reader = Reader::of(&house)?;
    let room = house.room("second");
    reader.restore(&room, &[])?.success()?;
    fs::write(room.join("recovery.signal"), "")?;
    house.pg.owner().chown(&room.join("recovery.signal"))?;
    let restored = PgCluster::open(PgBin::default_major()?, &room)
        .config("archive_mode", "off")
        .config("restore_command", "false");
    let mut restored = restored.start()?;
    restored.wait_promoted(LIMIT)?;
    ensure!(restored.psql("SELECT count(*) FROM second")? == "1000");
    ensure!(restored.psql("SELECT count(*) FROM ledger")? == rows);
    ensure!(restored.psql("SELECT timeline_id FROM pg_control_checkpoint()")? == "3");
    oracles::amcheck(restored.connection())?;
    restored.stop(StopMode::Fast)
}

/// A second backup of the same bytes: its own manifest has one directory, and all else is read from
/// pages of the first one's.
fn backup_that_reuses_pages(house: &Protected) -> Result<BackupId> {
    let key = Unlock::KeyFile(KeyFile::parse(&fs::read_to_string(&house.places.key)?)?);
    let url = format!("file://{}", house.places.repository.display()).parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    runtime.block_on(async {
        let store = seawall_store::open(&url, &OpenOptions::default()).await?;
        let repository = Repository::open(store, &key).await?;
        let (cluster, line) = repository.lines().await?.pop().context("a line")?;
        let line = repository.line(&cluster, line)?;
        let first = line.backups().await?.pop().context("a backup")?.id;
        let older = line.manifest(first).await?.context("a backup")?.commit;

        let added = Entry {
            path: b"zz_added".to_vec().into(),
            kind: EntryKind::Directory,
            mode: 0o700,
            size_bytes: None,
            modified_us: None,
            content: None,
            link_target: None,
        };
        let (id, mut bytes) = (new_ulid(Timestamp::now())?, Vec::new());
        let path = line.paths().path(&LineObject::Manifest(id))?;
        let mut manifest = ManifestWriter::begin(line.keyring(), id, &path, &mut bytes)?;
        manifest.entry(&added, &mut bytes)?;
        let mut parts = manifest.finish(&[], &[], &mut bytes)?;
        line.store().create(&path, bytes.into()).await?;

        put_before(&mut parts, older.parts);
        let id = BackupId(new_ulid(Timestamp::now())?);
        let info = BackupInfo { id: id.0, parent: Some(first.0), head: None, ..older.info };
        let path = line.paths().path(&LineObject::Backup(id, 0))?;
        repository.create_record(&path, &Commit { info, parts }).await?;
        Ok(id)
    })
}

#[test]
fn a_backup_is_read_from_pages_of_an_older_one_s_manifest() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE kept AS SELECT generate_series(1, 20000) AS n")?;
    house.backup()?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Immediate)?;
    let second = backup_that_reuses_pages(&house)?;
    house.pg.owner().chown_all(&house.places.repository)?;

    let verified = house.command(["verify"]).succeed()?.stdout;
    ensure!(verified.contains(&second.to_string()), "{verified}");
    let ulid = second.0.to_string();
    Reader::of(&house)?.restore(&house.room("by-python"), &["--backup", &ulid])?.success()?;
    house.restore("by-seawall", ["--backup", &second.to_string()]).succeed()?;
    for (room, restored) in [
        ("by-python", open_trial(&house.room("by-python"))?),
        ("by-seawall", open_restored(&house.room("by-seawall"))?),
    ] {
        ensure!(house.room(room).join("zz_added").is_dir(), "{room}");
        ensure!(restored.psql("SELECT count(*) FROM kept")? == "20000", "{room}");
    }
    Ok(())
}

#[test]
fn the_reader_names_what_is_damaged_and_refuses_a_wrong_key() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Immediate)?;
    let reader = Reader::of(&house)?;

    let objects = house.objects()?;
    for part in ["/pack/", "/map/", "/manifest/", "/backup/", "/wal/hot/", "format/1"] {
        let of_part = |(path, _): &&(PathBuf, Vec<u8>)| path.to_string_lossy().contains(part);
        let (path, bytes) = objects.iter().rfind(of_part).with_context(|| part.to_owned())?;
        let mut damaged = bytes.clone();
        *damaged.get_mut(bytes.len() / 2).context("an empty object")? ^= 1;
        fs::write(path, damaged)?;
        let output = reader.restore(&house.room(&part.replace('/', "-")), &[])?;
        let name = path.strip_prefix(&house.places.repository)?.display().to_string();
        let told = output.stderr.contains("damaged: ") && output.stderr.contains(&name);
        ensure!(told && output.code() == Some(1), "{part}: {}", output.stderr);
        fs::write(path, bytes)?;
    }

    let other = Reader { key: reader.script.with_extension("key"), ..reader };
    fs::write(&other.key, format!("seawall-key-1-{}-66687aad\n", "0".repeat(64)))?;
    let output = other.run("list", &[])?;
    ensure!(output.stderr.contains("refused: wrong key"), "{}", output.stderr);
    Ok(())
}
