//! Restores onto a directory that holds the cluster, or what is left of it. The oracle is a restore of
//! the same into an empty directory, file by file and byte by byte, and then PostgreSQL itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_core::{Code, Hint, NoProgress, Progress, Stage};
use seawall_engine::restore::{
    Delta, DeltaReport, Discard, Point, RestoreReport, RestoreRequest, Target,
};
use seawall_engine::restored::{RestoreProgress, RestoreState, TablespaceMapping};
use seawall_testkit::faults::{Random, SmallDisk};
use seawall_testkit::ledger::{self, Bound, LedgerLog};
use seawall_testkit::{Ledger, PgCluster, StopMode, faults, oracles};

use crate::house::{House, LIMIT};
use crate::interrupted::DyingProgress;

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
enum Thing {
    Directory { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Link { target: PathBuf },
    Other,
}

/// What a restore says of itself: it has an id, times and places of its own.
const NOTES: [&str; 3] = ["seawall.restore", "seawall.tablespace", "backup_manifest"];

/// Everything below a directory, by its path.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Thing>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let mode = metadata.mode() & 0o7777;
            let thing = if metadata.is_dir() {
                waiting.push(path.clone());
                Thing::Directory { mode }
            } else if metadata.is_file() {
                Thing::File { mode, bytes: fs::read(&path)? }
            } else if metadata.is_symlink() {
                Thing::Link { target: fs::read_link(&path)? }
            } else {
                Thing::Other
            };
            let below = path.strip_prefix(root)?.to_owned();
            if !NOTES.iter().any(|note| below.ends_with(note)) {
                found.insert(below, thing);
            }
        }
    }
    Ok(found)
}

/// Proves that two directories hold the same, links to tablespaces apart.
fn same(delta: &Path, full: &Path) -> Result<()> {
    let (mut delta, mut full) = (tree(delta)?, tree(full)?);
    for found in [&mut delta, &mut full] {
        found.retain(|path, thing| {
            let is_link = matches!(thing, Thing::Link { .. });
            !(path.ends_with("tablespace_map") || is_link && path.starts_with("pg_tblspc"))
        });
    }
    let names = |tree: &BTreeMap<PathBuf, Thing>| tree.keys().cloned().collect::<Vec<_>>();
    let (here, there) = (names(&delta), names(&full));
    let surplus: Vec<_> = here.iter().filter(|path| !full.contains_key(*path)).collect();
    let missing: Vec<_> = there.iter().filter(|path| !delta.contains_key(*path)).collect();
    ensure!(surplus.is_empty() && missing.is_empty(), "surplus {surplus:?}, missing {missing:?}");
    for (path, thing) in &delta {
        ensure!(full.get(path) == Some(thing), "{} differs", path.display());
    }
    Ok(())
}

impl House {
    /// A request that goes onto the server's own directory.
    fn onto(&self, target: Target) -> RestoreRequest {
        RestoreRequest {
            into: self.pg.data_directory().to_owned(),
            delta: Some(Delta::default()),
            ..self.request("unused", target)
        }
    }

    async fn delta(&self, request: &RestoreRequest) -> seawall_core::Result<RestoreReport> {
        self.take_back(&request.into);
        self.restore(request).await
    }

    /// Stops the server; what it archives last is stored by then.
    async fn stop(&mut self) -> Result<()> {
        self.pg.stop(StopMode::Fast)?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(())
    }
}

fn open(house: &House, directory: &Path) -> Result<PgCluster> {
    // Syncing a directory that has just been synced is most of what a small recovery does.
    let server = PgCluster::open(house.pg.bin().major(), directory).config("fsync", "off");
    let mut pg = server.start()?;
    pg.wait_promoted(LIMIT)?;
    Ok(pg)
}

/// Starts a server on a directory, and proves its rows, indexes and checksums.
fn prove(house: &House, directory: &Path, log: &LedgerLog, bound: &Bound) -> Result<()> {
    if directory.join("backup_manifest").exists()
        && house.pg.bin().client("pg_verifybackup").is_ok()
    {
        oracles::pg_verifybackup(house.pg.bin(), directory)?;
    }
    let mut restored = open(house, directory)?;
    let rows = ledger::read_rows(restored.connection())?;
    log.verify_prefix(&rows, bound)?;
    oracles::amcheck(restored.connection())?;
    restored.stop(StopMode::Fast)?;
    if house.pg.bin().program("pg_checksums").is_ok() {
        oracles::pg_checksums(house.pg.bin(), directory)?;
    }
    Ok(())
}

fn report(restored: &RestoreReport) -> Result<DeltaReport> {
    restored.delta.context("it went onto what was there")
}

/// A cluster with a tablespace and tables of every fate, its backup, and what a server did since.
async fn diverged(major: u16) -> Result<(House, LedgerLog, Vec<(Target, Bound)>, [PathBuf; 2])> {
    let house = House::with(PgCluster::builder(major)).await?;
    let space = |name: &str| -> Result<PathBuf> {
        let place = house.pg.scratch().join(name);
        house.pg.owner().create_dir(&place, 0o700)?;
        Ok(place)
    };
    let spaces = [space("space")?, space("later")?];
    house.pg.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", spaces[0].display()))?;
    house.pg.psql(
        "CREATE TABLE far TABLESPACE space AS SELECT generate_series(1, 20000) i;
         CREATE TABLE grows AS SELECT generate_series(1, 1000) i;
         CREATE TABLE shrinks AS SELECT generate_series(1, 100000) i;
         CREATE TABLE dropped AS SELECT generate_series(1, 10000) i;
         CREATE TABLE changed AS SELECT i, 'before' was FROM generate_series(1, 200000) i;
         CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000) i",
    )?;
    house.pg.psql("CREATE DATABASE gone")?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    let backup = house.backup().await?;
    running.wait_for(20, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(20, LIMIT)?;
    house.pg.psql(&format!("CREATE TABLESPACE later LOCATION '{}'", spaces[1].display()))?;
    house.pg.psql(
        "INSERT INTO grows SELECT generate_series(1, 200000);
         DELETE FROM shrinks WHERE i > 100;
         DROP TABLE dropped;
         UPDATE changed SET was = 'after' WHERE i % 1000 = 0;
         UPDATE far SET i = i + 1 WHERE i % 500 = 0;
         CREATE TABLE fresh TABLESPACE later AS SELECT generate_series(1, 50000) i",
    )?;
    house.pg.psql("VACUUM shrinks")?;
    house.pg.psql("DROP DATABASE gone")?;
    house.pg.psql("CREATE DATABASE newcomer")?;
    let log = running.stop()?;
    house.archive_everything().await?;
    let targets = vec![
        (Target::BackupOnly, Bound::Lsn(backup.stop_lsn)),
        (Target::To(Point::Time(moment.time.parse()?)), Bound::Time(moment.time_us)),
        (Target::Latest, Bound::Everything),
    ];
    Ok((house, log, targets, spaces))
}

/// Where a full restore beside it has its tablespace.
fn mapped(house: &House, name: &str, space: &Path) -> Vec<TablespaceMapping> {
    vec![TablespaceMapping { old: space.to_owned(), new: house.room(name) }]
}

async fn every_target(major: u16, which: std::ops::RangeFrom<usize>) -> Result<()> {
    let (mut house, log, targets, spaces) = diverged(major).await?;
    house.stop().await?;
    for space in &spaces {
        house.take_back(space);
    }
    for (number, (target, bound)) in targets.into_iter().enumerate().skip(which.start) {
        let request = house.onto(target.clone());
        let onto = house.delta(&request).await?;
        for space in &spaces {
            ensure!(space.is_dir(), "{} is gone", space.display());
        }
        ensure!(onto.plan.onto.as_ref().is_some_and(|onto| onto.files > 500), "{:?}", onto.plan);
        let delta = report(&onto)?;
        ensure!(delta.written_bytes < delta.compared_bytes / 2, "{delta:?}");
        let full = RestoreRequest {
            tablespaces: mapped(&house, &format!("space{number}"), &spaces[0]),
            ..house.request(&format!("full{number}"), target)
        };
        house.restore(&full).await?;
        same(&request.into, &full.into)?;
        same(&spaces[0], &house.room(&format!("space{number}")))?;
        house.give_away(&spaces[0]);
        house.give_away(&spaces[1]);
        prove(&house, &request.into, &log, &bound)?;
        for space in &spaces {
            house.take_back(space);
        }
        // What replay made there would be in the way of the next one's.
        fs::remove_dir_all(&full.into)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_did_since_is_undone_to_every_target_as_if_into_an_empty_directory()
-> Result<()> {
    every_target(15, 0..).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_of_18_did_since_is_undone_to_the_end_of_the_archive() -> Result<()> {
    every_target(18, 2..).await
}

/// A stopped cluster with a backup, and a full restore of that backup beside it.
async fn stopped() -> Result<(House, RestoreRequest, PathBuf)> {
    let mut house = House::new().await?;
    house.pg.psql("CREATE TABLE large AS SELECT generate_series(1, 200000) i")?;
    house.pg.psql("CREATE TABLE small AS SELECT generate_series(1, 100) i")?;
    house.backup().await?;
    house.archive_everything().await?;
    house.stop().await?;
    let full = house.request("full", Target::BackupOnly);
    house.restore(&full).await?;
    house.take_back(&full.into);
    let request = house.onto(Target::BackupOnly);
    Ok((house, request, full.into))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_major_a_server_s_directory_becomes_what_a_full_restore_makes() -> Result<()> {
    for major in 12..=18 {
        let mut house = House::with(PgCluster::builder(major).without_fsync()).await?;
        house.pg.psql("CREATE TABLE t AS SELECT generate_series(1, 20000) i")?;
        house.backup().await?;
        house.pg.psql("DELETE FROM t WHERE i > 100; CREATE TABLE later AS TABLE t")?;
        house.pg.psql("VACUUM t")?;
        house.archive_everything().await?;
        house.pg.stop(StopMode::Fast)?;
        let request = house.onto(Target::BackupOnly);
        let onto = house.delta(&request).await.with_context(|| format!("on {major}"))?;
        ensure!(onto.plan.onto.is_some_and(|onto| onto.removed.count > 0), "on {major}");
        let full = house.request("full", Target::BackupOnly);
        house.restore(&full).await?;
        house.take_back(&full.into);
        house.take_back(&request.into);
        same(&request.into, &full.into).with_context(|| format!("on {major}"))?;
        house.give_away(&request.into);
        let restored = open(&house, &request.into)?;
        ensure!(restored.psql("SELECT count(*) FROM t")? == "20000", "on {major}");
        ensure!(restored.psql("SELECT to_regclass('later') IS NULL")? == "t", "on {major}");
    }
    Ok(())
}

/// The file of a table, relative to the data directory.
fn largest(root: &Path) -> Result<PathBuf> {
    let files = tree(root)?.into_iter().filter_map(|(path, thing)| match thing {
        Thing::File { bytes, .. } if path.starts_with("base") => Some((bytes.len(), path)),
        _ => None,
    });
    files.max().map(|(_, path)| path).context("a table")
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_directory_is_made_right_and_what_is_the_user_s_stays()
-> Result<()> {
    let (house, request, full) = stopped().await?;
    let root = &request.into;
    let at = |name: &str| root.join(name);
    let large = root.join(largest(&full)?);
    let database = large.parent().context("a database")?.to_owned();
    let relation = |number: u32| database.join(number.to_string());
    let precious = house.room("precious");
    fs::create_dir(&precious)?;
    fs::write(precious.join("file"), "precious")?;
    fs::hard_link(relation(1259), precious.join("copy"))?;

    // Blocks, lengths, kinds, modes.
    faults::flip_bit(&large, 3 * 8192 + 77)?;
    fs::OpenOptions::new().append(true).open(relation(2619))?.set_len(3 << 20)?;
    faults::truncate(&relation(1255), 8192 + 100)?;
    faults::flip_bit(&relation(1259), 100)?;
    fs::remove_file(relation(1249))?;
    for (number, kind) in [(2604, "directory"), (2606, "link"), (2608, "pipe"), (2609, "empty")] {
        let place = relation(number);
        fs::remove_file(&place)?;
        match kind {
            "directory" => fs::create_dir_all(place.join("with/something"))?,
            "link" => std::os::unix::fs::symlink(precious.join("file"), &place)?,
            "pipe" => nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU)?,
            _ => fs::write(&place, "")?,
        }
    }
    for (place, mode) in [(relation(2610), 0o644), (at("global"), 0o777), (at("PG_VERSION"), 0)] {
        fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
    }
    fs::remove_dir_all(at("base/1"))?;
    std::os::unix::fs::symlink(&precious, at("base/1"))?;
    fs::remove_dir_all(at("pg_multixact"))?;

    // What PostgreSQL would take for its own.
    let strays = [
        "pg_twophase/00000999",
        "pg_xact/0FFF",
        "global/99999",
        "base/99999/1259",
        "pg_replslot/slot/state",
        "pg_wal/00000099.history",
        "pg_wal/archive_status/00000099.history.ready",
        "pg_stat_tmp/x",
        "pg_logical/snapshots/0-1.snap",
        "backup_label",
        "tablespace_map",
        "standby.signal",
        "recovery.conf",
        "promote",
        "seawall.promote",
        "seawall.line",
    ];
    let users = ["log/server.log", "conf.d/mine.conf", "mine"];
    for stray in strays.iter().chain(&users) {
        let place = at(stray);
        fs::create_dir_all(place.parent().context("a parent")?)?;
        fs::write(place, "stray")?;
    }
    fs::write(at("postmaster.pid"), "2147483646\n/x\n")?;
    fs::write(relation(99_999), "stray")?;

    let onto = house.delta(&request).await?;
    let planned = onto.plan.onto.clone().context("it went onto what was there")?;
    for stray in ["pg_twophase/00000999", "base/99999", "promote", "pg_replslot/slot"] {
        ensure!(planned.removed.paths.iter().any(|path| path == stray), "{stray}: {planned:?}");
    }
    ensure!(planned.stays.paths == ["conf.d", "log", "mine"], "{:?}", planned.stays);
    house.take_back(root);
    for user in users {
        ensure!(fs::read(at(user))? == b"stray", "{user} was touched");
    }
    for user in ["log", "conf.d"] {
        fs::remove_dir_all(at(user))?;
    }
    fs::remove_file(at("mine"))?;
    same(root, &full)?;
    ensure!(fs::read(precious.join("file"))? == b"precious", "it was written through a link");
    ensure!(fs::read_dir(&precious)?.count() == 2, "it was cleared through a link");
    let mut copy = fs::read(precious.join("copy"))?;
    copy[100] ^= 1;
    ensure!(copy == fs::read(full.join(relation(1259).strip_prefix(root)?))?, "the copy changed");
    house.give_away(root);
    let restored = open(&house, root)?;
    ensure!(restored.psql("SELECT count(*) FROM large")? == "200000");
    Ok(())
}

/// Damages a directory in a way that depends on the seed alone.
fn damage(root: &Path, random: &mut Random) -> Result<()> {
    let paths: Vec<PathBuf> = tree(root)?.into_keys().collect();
    for _ in 0..=random.below(40) {
        let number = random.below(paths.len() as u64) as usize;
        let Some(place) = paths.get(number).map(|path| root.join(path)) else { continue };
        let Ok(found) = fs::symlink_metadata(&place) else { continue };
        let length = found.len();
        match (found.is_file(), random.below(8)) {
            (true, 0 | 1) if length > 0 => faults::flip_bit(&place, random.below(length))?,
            (true, 2) if length > 0 => faults::truncate(&place, random.below(length))?,
            (true, 3) => fs::write(&place, vec![7; random.below(100_000) as usize])?,
            (true, 4) => {
                let file = fs::OpenOptions::new().write(true).open(&place)?;
                file.set_len(length + random.below(1 << 20))?;
            }
            (true, 5) => fs::remove_file(&place)?,
            (true, 6) => {
                fs::remove_file(&place)?;
                fs::create_dir(&place)?;
            }
            (false, 7) if place.starts_with(root.join("base")) => fs::remove_dir_all(&place)?,
            _ => fs::write(place.with_extension("999"), "stray").unwrap_or_default(),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_damage_heals_to_what_a_full_restore_makes() -> Result<()> {
    let (house, request, full) = stopped().await?;
    let rounds = std::env::var("SEAWALL_SOAK").ok().and_then(|text| text.parse().ok());
    for seed in 0..rounds.unwrap_or(6) {
        damage(&request.into, &mut Random::new(seed))?;
        let forced = RestoreRequest { delta: Some(Delta { force: true }), ..request.clone() };
        house.take_back(&request.into);
        let mut options = house.options(Arc::new(NoProgress));
        if seed % 2 == 0 {
            // What was compared is known to be unchanged, and not compared again.
            tokio::time::sleep(Duration::from_millis(1300)).await;
        } else {
            // Of what was compared nothing can be kept.
            options.memory_bytes = 1;
        }
        let onto = house.restore_with(&forced, &options).await;
        let onto = report(&onto.with_context(|| format!("seed {seed}"))?)?;
        let cluster_bytes = 30 << 20;
        ensure!(seed % 2 == 1 || onto.compared_bytes < cluster_bytes, "seed {seed}: {onto:?}");
        house.take_back(&request.into);
        let strays: Vec<PathBuf> = tree(&request.into)?.into_keys().collect();
        // What is no place of PostgreSQL's is the user's.
        for stray in strays.iter().filter(|path| path.extension().is_some_and(|it| it == "999")) {
            ensure!(stray.components().count() == 1, "seed {seed}: {}", stray.display());
            fs::remove_file(request.into.join(stray))?;
        }
        same(&request.into, &full).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e24_one_that_dies_cannot_start_and_the_same_command_completes_it() -> Result<()> {
    let (house, request, full) = stopped().await?;
    let root = &request.into;
    let before = tree(root)?;
    let deaths: [Arc<dyn Progress>; 4] = [
        DyingProgress::after(0),
        DyingProgress::after(3),
        DyingProgress::after(20),
        DyingProgress::when_written(),
    ];
    for (number, death) in deaths.into_iter().enumerate() {
        for (path, thing) in &before {
            if let Thing::File { .. } = thing
                && path.starts_with("base")
            {
                fs::write(root.join(path), "not the cluster's").unwrap_or_default();
            }
        }
        house.take_back(root);
        let died = house.restore_with(&request, &house.options(death)).await;
        ensure!(died.is_err(), "death {number}");
        ensure!(!root.join("global/pg_control").exists(), "death {number}");
        let state = RestoreState::read(root)?.context("a note")?;
        ensure!(state.progress == RestoreProgress::InProgress, "death {number}");
        house.give_away(root);
        let mut pg = PgCluster::open(house.pg.bin().major(), root).create()?;
        ensure!(pg.start().is_err(), "it started after death {number}");
        house.take_back(root);
    }
    // Without the flag it is somebody else's, and it is nobody's to be removed.
    let plain = RestoreRequest { delta: None, ..request.clone() };
    let refused = house.restore(&plain).await.expect_err("it was begun as another");
    ensure!(refused.code() == Code::OtherRestoreInterrupted, "{refused:?}");
    let kept = Discard::look(root).expect_err("the cluster's own directory");
    ensure!(kept.code() == Code::NotDiscardable, "{kept:?}");
    let onto = house.delta(&request).await?;
    ensure!(onto.resumed);
    house.take_back(root);
    same(root, &full)?;
    house.give_away(root);
    open(&house, root).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn e57_what_may_not_be_the_cluster_s_or_is_in_use_is_refused_and_left_as_it_is() -> Result<()>
{
    let mut house = House::new().await?;
    let space = house.pg.scratch().join("space");
    house.pg.owner().create_dir(&space, 0o700)?;
    house.pg.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()))?;
    house.pg.psql("CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 10000) i")?;
    house.backup().await?;
    house.archive_everything().await?;
    let request = house.onto(Target::BackupOnly);
    let forced = |request: &RestoreRequest| RestoreRequest {
        delta: Some(Delta { force: true }),
        ..request.clone()
    };
    let code =
        async |request: &RestoreRequest| house.restore(request).await.err().map(|it| it.code());

    // It runs, and is asked for by whoever may do everything.
    ensure!(code(&forced(&request)).await == Some(Code::PostmasterRunning));
    fs::rename(request.into.join("postmaster.pid"), house.room("pid"))?;
    ensure!(code(&forced(&request)).await == Some(Code::PostmasterRunning), "without its note");
    fs::rename(house.room("pid"), request.into.join("postmaster.pid"))?;
    // A copy of it has links to tablespaces that are in use.
    let copy = RestoreRequest { into: house.room("copy"), ..request.clone() };
    copy_of(&request.into, &copy.into)?;
    house.take_back(&copy.into);
    fs::remove_file(copy.into.join("postmaster.pid"))?;
    ensure!(code(&forced(&copy)).await == Some(Code::PostmasterRunning), "its tablespace");
    ensure!(copy.into.join("global/pg_control").exists(), "something was written");
    ensure!(house.pg.psql("SELECT count(*) FROM t")? == "10000");

    let some = RestoreRequest { databases: vec!["postgres".into()], ..request.clone() };
    ensure!(code(&some).await == Some(Code::Usage));
    let foreign = RestoreRequest { into: house.room("foreign"), ..request.clone() };
    fs::create_dir(&foreign.into)?;
    fs::write(foreign.into.join("thesis.tex"), "x")?;
    ensure!(code(&forced(&foreign)).await == Some(Code::DirectoryNotEmpty));

    let other = PgCluster::builder(house.pg.bin().major()).own_system_identifier();
    let mut other = other.start()?;
    other.stop(StopMode::Fast)?;
    house.take_back(other.data_directory());
    let mapping = TablespaceMapping { old: space, new: house.room("space") };
    let other = RestoreRequest {
        into: other.data_directory().to_owned(),
        tablespaces: vec![mapping],
        ..request.clone()
    };
    let before = tree(&other.into)?;
    ensure!(code(&other).await == Some(Code::ClusterMismatch));
    fs::rename(other.into.join("global/pg_control"), house.room("control"))?;
    ensure!(code(&other).await == Some(Code::DirectoryNotEmpty), "nothing tells whose it is");
    fs::rename(house.room("control"), other.into.join("global/pg_control"))?;
    ensure!(tree(&other.into)? == before, "something was written");
    house.restore(&forced(&other)).await?;
    house.give_away(&house.room("space"));
    ensure!(open(&house, &other.into)?.psql("SELECT count(*) FROM t")? == "10000");
    house.stop().await
}

fn copy_of(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_is_not_archived_is_not_removed_unless_it_is_given_up() -> Result<()> {
    let mut house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    house.pg.psql("CREATE TABLE committed_last ()")?;
    house.pg.kill9()?;
    let request = house.onto(Target::Latest);
    let before = tree(&request.into)?;
    let refused = house.delta(&request).await.expect_err("the last commit is nowhere else");
    ensure!(refused.code() == Code::DirectoryNotEmpty, "{refused:?}");
    ensure!(refused.message().contains("not archived"), "{refused:?}");
    ensure!(tree(&request.into)? == before, "something was written");
    let forced = RestoreRequest { delta: Some(Delta { force: true }), ..request.clone() };
    let onto = house.delta(&forced).await?;
    ensure!(format!("{:?}", onto.plan.warnings).contains("not archived"));
    let restored = open(&house, &request.into)?;
    ensure!(restored.psql("SELECT to_regclass('committed_last') IS NULL")? == "t");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_is_proven_before_a_byte_is_written_and_nothing_else_is_read() -> Result<()>
{
    let (house, request, full) = stopped().await?;
    let root = &request.into;
    house.take_back(root);
    let large = largest(&full)?;
    let packs = packs(&house).into_iter().map(|path| Ok((fs::read(&path)?, path)));
    let packs = packs.collect::<Result<Vec<_>>>()?;
    faults::flip_bit(&root.join(&large), 8192)?;
    for (whole, pack) in &packs {
        // The header and the table stay as they are.
        for offset in (4096..whole.len() - 65_536).step_by(4096) {
            faults::flip_bit(pack, offset as u64)?;
        }
    }
    let before = tree(root)?;
    let damaged = house.restore(&request).await.expect_err("a block that differs is damaged");
    ensure!(damaged.code() == Code::ObjectDamaged, "{damaged:?}");
    ensure!(tree(root)? == before, "something was written");
    for (whole, pack) in &packs {
        fs::write(pack, whole)?;
    }
    let onto = house.restore(&request).await?;
    ensure!(report(&onto)?.fetched_bytes < 200_000, "{:?}", onto.delta);
    house.take_back(root);
    same(root, &full)
}

/// The packs of a repository that are of some size.
fn packs(house: &House) -> Vec<PathBuf> {
    let mut packs = Vec::new();
    let mut waiting = vec![house.repository.clone()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.display().to_string().contains("/pack/")
                && path.metadata().is_ok_and(|it| it.len() > 200_000)
            {
                packs.push(path);
            }
        }
    }
    packs
}

/// Fills the disk when files are to be written.
struct Filling(PathBuf);

impl Progress for Filling {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        if stage == Stage::Writing {
            let mut ballast = fs::File::create(&self.0).expect("a file");
            while ballast.write_all(&[1; 4096]).is_ok() {}
        }
    }

    fn advance(&self, _: u64) {}

    fn note(&self, _: &Hint) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn e52_a_full_disk_is_told_before_or_meanwhile_and_the_same_command_goes_on() -> Result<()> {
    let (house, request, full) = stopped().await?;
    let disk = SmallDisk::mount(160)?;
    let request = RestoreRequest { into: disk.path().join("data"), ..request };
    copy_of(house.pg.data_directory(), &request.into)?;
    house.take_back(&request.into);
    let large = largest(&full)?;
    fs::remove_file(request.into.join(&large))?;
    // Else what is removed makes room.
    fs::remove_dir_all(request.into.join("pg_wal"))?;
    let ballast = disk.path().join("ballast");
    let filling = house.options(Arc::new(Filling(ballast.clone())));
    let full_disk = house.restore_with(&request, &filling).await.expect_err("the disk is full");
    ensure!(full_disk.code() == Code::TargetDiskFull, "{full_disk:?}");
    ensure!(!request.into.join("global/pg_control").exists());
    let told = house.restore(&request).await.expect_err("the disk is full");
    ensure!(told.code() == Code::TargetDiskFull, "{told:?}");
    fs::remove_file(&ballast)?;
    house.take_back(&request.into);
    ensure!(house.restore(&request).await?.resumed);
    house.take_back(&request.into);
    same(&request.into, &full)
}
