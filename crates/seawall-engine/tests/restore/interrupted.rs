use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_core::{Action, Code, ExitClass, Hint, NoProgress, Progress, Stage};
use seawall_engine::restore::{RestoreOptions, RestoreRequest, Target};
use seawall_engine::restored::{RestoreProgress, RestoreState, TablespaceMapping};
use seawall_testkit::ledger::Bound;
use seawall_testkit::{Ledger, faults};

use crate::house::{House, LIMIT};

/// Dies when so many files are written, or all.
pub struct DyingProgress {
    files: Option<AtomicU64>,
    writing: AtomicBool,
}

impl DyingProgress {
    pub fn after(files: u64) -> Arc<Self> {
        Arc::new(Self { files: Some(AtomicU64::new(files)), writing: AtomicBool::new(false) })
    }

    pub fn when_written() -> Arc<Self> {
        Arc::new(Self { files: None, writing: AtomicBool::new(false) })
    }
}

impl Progress for DyingProgress {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        self.writing.store(stage == Stage::Writing, Ordering::Relaxed);
        assert!(stage != Stage::Syncing || self.files.is_some(), "the restore dies here");
    }

    fn advance(&self, _: u64) {
        let Some(files) = self.files.as_ref().filter(|_| self.writing.load(Ordering::Relaxed))
        else {
            return;
        };
        let one_less = |left: u64| left.checked_sub(1);
        let left = files.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        assert!(left.is_ok(), "the restore dies here");
    }

    fn note(&self, _: &Hint) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn e24_a_restore_that_dies_cannot_start_and_the_same_command_completes_it() -> Result<()> {
    let house = House::new().await?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    house.backup().await?;
    running.wait_for(20, LIMIT)?;
    let log = running.stop()?;
    house.archive_everything().await?;

    let request = house.request("room", Target::Latest);
    let deaths = [
        DyingProgress::after(10),
        DyingProgress::after(300),
        DyingProgress::after(700),
        DyingProgress::when_written(),
    ];
    for (number, death) in deaths.into_iter().enumerate() {
        let died = house.restore_with(&request, &house.options(death)).await;
        ensure!(died.is_err(), "death {number}");
        ensure!(!house.room("room").join("global/pg_control").exists());
        let state = RestoreState::read(&house.room("room"))?.expect("a state");
        ensure!(state.progress == RestoreProgress::InProgress);
        house.give_away(&house.room("room"));
        ensure!(!house.starts("room")?, "it started after death {number}");
        house.take_back(&house.room("room"));
    }
    // It dies when all files are durable: the next one does not write them again.
    let obstacle = house.room("room").join("backup_label.seawall-tmp");
    fs::create_dir(&obstacle)?;
    ensure!(house.restore(&request).await.is_err());
    fs::remove_dir(&obstacle)?;
    let file = house.room("room").join("base/1/1259");
    let written = fs::metadata(&file)?.modified()?;

    // New WAL has arrived meanwhile: the plan that was begun with is kept.
    let planned = RestoreState::read(&house.room("room"))?.map(|state| state.plan);
    house.pg.psql("CREATE TABLE later ()")?;
    house.archive_everything().await?;
    let report = house.restore(&request).await?;
    ensure!(report.resumed && Some(report.plan) == planned);
    ensure!(fs::metadata(&file)?.modified()? == written, "a finished file was written again");
    house.prove("room", &log, &Bound::Everything)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e19_another_plan_is_refused_in_a_directory_that_was_begun() -> Result<()> {
    let house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    let request = house.request("room", Target::Latest);
    let died = house.restore_with(&request, &house.options(DyingProgress::after(60))).await;
    ensure!(died.is_err());
    let other = house.request("room", Target::BackupOnly);
    let refused = house.restore(&other).await.expect_err("another plan");
    ensure!(refused.code() == Code::OtherRestoreInterrupted, "{refused:?}");
    let discard = Action::Discard { directory: house.room("room").as_path().into() };
    let hint = refused.hint().expect("a way out");
    ensure!(hint.actions().any(|action| *action == discard), "{hint:?}");
    let first = house.restore(&request).await?;
    let again = house.restore(&request).await.expect_err("a finished restore");
    ensure!(again.code() == Code::DirectoryNotEmpty, "{again:?}");

    // A restored cluster that is backed up does not bring its state along.
    let second = house.restore(&house.request("second", Target::Latest)).await?;
    ensure!(first.restore_id != second.restore_id);
    let state = RestoreState::read(&house.room("second"))?.expect("a state");
    ensure!(state.progress == RestoreProgress::Complete && state.restore_id == second.restore_id);
    Ok(())
}

/// A cluster with a tablespace, its backup, and a request that puts the tablespace at `place`.
async fn house_with_tablespace() -> Result<(House, impl Fn(&House, &str, &Path) -> RestoreRequest)>
{
    let house = House::new().await?;
    let old = house.pg.scratch().join("space");
    house.pg.owner().create_dir(&old, 0o700)?;
    house.pg.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", old.display()))?;
    house.pg.psql("CREATE TABLE far TABLESPACE space AS SELECT generate_series(1, 50000) i")?;
    house.backup().await?;
    house.archive_everything().await?;
    let request = move |house: &House, room: &str, new: &Path| {
        let mapping = TablespaceMapping { old: old.clone(), new: new.to_owned() };
        RestoreRequest { tablespaces: vec![mapping], ..house.request(room, Target::Latest) }
    };
    Ok((house, request))
}

/// The largest file below a directory.
fn largest(directory: &Path) -> Result<PathBuf> {
    let files = walk(directory).into_iter();
    files.max_by_key(|path| path.metadata().map_or(0, |it| it.len())).context("a file")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_goes_on_leaves_a_tablespace_alone_that_another_restored_there() -> Result<()>
{
    let (house, request) = house_with_tablespace().await?;
    let place = house.room("space");
    let first = request(&house, "first", &place);
    let died = house.restore_with(&first, &house.options(DyingProgress::after(10))).await;
    ensure!(died.is_err());
    // Somebody gave up on it, and removed what was begun there.
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    house.restore(&request(&house, "second", &place)).await?;
    let file = largest(&place)?;
    fs::write(&file, "the second one's, which takes writes by now")?;

    let refused = house.restore(&first).await.expect_err("the second one's");
    ensure!(refused.code() == Code::DirectoryNotEmpty, "{refused:?}");
    let kept = fs::read(&file)?;
    ensure!(kept == b"the second one's, which takes writes by now", "it was overwritten");

    // What is its own it goes on with, and with nothing.
    fs::remove_dir_all(&place)?;
    let died = house.restore_with(&first, &house.options(DyingProgress::when_written())).await;
    ensure!(died.is_err() && largest(&place)?.metadata()?.len() > 100_000);
    let report = house.restore(&first).await?;
    ensure!(report.resumed);
    house.give_away(&place);
    ensure!(house.open("first")?.psql("SELECT count(*) FROM far")? == "50000");
    Ok(())
}

/// Waits where files are to be written, until it is let go.
#[derive(Default)]
struct HeldProgress {
    is_writing: AtomicBool,
    goes_on: AtomicBool,
}

impl Progress for HeldProgress {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        if stage == Stage::Writing {
            self.is_writing.store(true, Ordering::SeqCst);
            while !self.goes_on.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn advance(&self, _: u64) {}

    fn note(&self, _: &Hint) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_restores_at_once_into_one_tablespace_the_second_is_refused() -> Result<()> {
    let (house, request) = house_with_tablespace().await?;
    let place = house.room("space");
    fs::create_dir(&place)?;
    let held = Arc::new(HeldProgress::default());
    let options = house.options(Arc::clone(&held) as Arc<dyn Progress>);
    let (one, two) = (request(&house, "one", &place), request(&house, "two", &place));
    let first = house.restore_with(&one, &options);
    let second = async {
        while !held.is_writing.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let second = house.restore(&two).await;
        held.goes_on.store(true, Ordering::SeqCst);
        second
    };
    let (first, second) = tokio::join!(first, second);
    let refused = second.expect_err("two in one directory");
    let codes = [Code::DirectoryNotEmpty, Code::OtherRestoreInterrupted];
    ensure!(codes.contains(&refused.code()), "{refused:?}");
    first?;
    house.give_away(&place);
    ensure!(house.open("one")?.psql("SELECT count(*) FROM far")? == "50000");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e22_without_its_backup_label_a_restored_cluster_does_not_start() -> Result<()> {
    let house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    house.restore(&house.request("room", Target::Latest)).await?;
    let room = house.room("room");
    fs::rename(room.join("backup_label"), house.room("label"))?;
    ensure!(!house.starts("room")?, "it started without backup_label");
    fs::rename(room.join("recovery.signal"), house.room("signal"))?;
    ensure!(!house.starts("room")?, "it started without backup_label and recovery.signal");
    fs::rename(house.room("label"), room.join("backup_label"))?;
    fs::rename(house.room("signal"), room.join("recovery.signal"))?;
    house.open("room").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_short_or_damaged_is_found_before_a_byte_is_written() -> Result<()> {
    let house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    let request = house.request("room", Target::Latest);
    let pack = largest_pack(&house);
    let whole = fs::read(&pack)?;
    let middle = pack.metadata()?.len() / 2;

    fs::remove_file(&pack)?;
    let missing = house.restore(&request).await;
    ensure!(missing.as_ref().is_err_and(|it| it.code() == Code::ObjectMissing), "{missing:?}");
    fs::write(&pack, &whole[..whole.len() - 1])?;
    let short = house.restore(&request).await;
    ensure!(short.as_ref().is_err_and(|it| it.code() == Code::ObjectDamaged), "{short:?}");
    let beginning_is_gone = whole.get(4096..).unwrap_or_default();
    fs::write(&pack, beginning_is_gone)?;
    let short = house.restore(&request).await;
    ensure!(short.as_ref().is_err_and(|it| it.code() == Code::ObjectDamaged), "{short:?}");

    fs::write(&pack, &whole)?;
    faults::flip_bit(&pack, middle)?;
    let proves_first = RestoreOptions { proves_first: true, ..house.options(Arc::new(NoProgress)) };
    let damaged = house.restore_with(&request, &proves_first).await;
    ensure!(damaged.as_ref().is_err_and(|it| it.code() == Code::ObjectDamaged), "{damaged:?}");
    ensure!(!house.room("room").exists(), "something was written");

    fs::write(&pack, &whole)?;
    house.restore(&request).await?;
    house.open("room").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_is_met_while_files_are_written_leaves_what_cannot_start() -> Result<()> {
    let house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    let request = house.request("room", Target::Latest);
    let pack = largest_pack(&house);
    let middle = pack.metadata()?.len() / 2;
    faults::flip_bit(&pack, middle)?;
    let damaged = house.restore(&request).await.err().context("it was restored")?;
    ensure!(damaged.code() == Code::ObjectDamaged, "{damaged:?}");
    ensure!(damaged.exit_class() == ExitClass::Integrity);
    let hint = format!("{:?}", damaged.hint());
    ensure!(hint.contains("does not start") && hint.contains("Discard"), "{hint}");
    ensure!(!house.room("room").join("global/pg_control").exists());
    house.give_away(&house.room("room"));
    ensure!(!house.starts("room")?, "it started on half a backup");
    house.take_back(&house.room("room"));

    // Where something was written, all is proven before more is.
    let before = written(&house.room("room"))?;
    let again = house.restore(&request).await;
    ensure!(again.as_ref().is_err_and(|it| it.code() == Code::ObjectDamaged), "{again:?}");
    ensure!(written(&house.room("room"))? == before, "something was written");
    faults::flip_bit(&pack, middle)?;
    ensure!(house.restore(&request).await?.resumed);
    house.open("room").map(drop)
}

/// The files of a room, with their lengths.
fn written(room: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    walk(room).into_iter().map(|path| Ok((path.clone(), path.metadata()?.len()))).collect()
}

fn largest_pack(house: &House) -> PathBuf {
    let packs = walk(&house.repository)
        .into_iter()
        .filter(|path| path.display().to_string().contains("/pack/"));
    packs.max_by_key(|path| path.metadata().map_or(0, |it| it.len())).expect("a pack")
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
