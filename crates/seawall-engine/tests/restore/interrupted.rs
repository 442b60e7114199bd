use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Result, ensure};
use seawall_core::{Code, Hint, Progress, Stage};
use seawall_engine::restore::{RestoreProgress, RestoreState, Target};
use seawall_testkit::Ledger;
use seawall_testkit::ledger::Bound;

use crate::house::{House, LIMIT};

/// Dies when so many files are written, or all.
struct DyingProgress {
    files: Option<AtomicU64>,
    writing: AtomicBool,
}

impl DyingProgress {
    fn after(files: u64) -> Arc<Self> {
        Arc::new(Self { files: Some(AtomicU64::new(files)), writing: AtomicBool::new(false) })
    }

    fn when_written() -> Arc<Self> {
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
async fn damage_is_found_before_a_byte_is_written() -> Result<()> {
    let house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    let packs = walk(&house.repository)
        .into_iter()
        .filter(|path| path.display().to_string().contains("/pack/"));
    let pack = packs.max_by_key(|path| path.metadata().map_or(0, |it| it.len())).expect("a pack");
    let middle = pack.metadata()?.len() / 2;
    seawall_testkit::faults::flip_bit(&pack, middle)?;
    let damaged = house.restore(&house.request("room", Target::Latest)).await;
    ensure!(damaged.as_ref().is_err_and(|it| it.code() == Code::ObjectDamaged), "{damaged:?}");
    seawall_testkit::faults::flip_bit(&pack, middle)?;
    let kept = pack.with_extension("kept");
    fs::rename(&pack, &kept)?;
    let missing = house.restore(&house.request("room", Target::Latest)).await;
    ensure!(missing.as_ref().is_err_and(|it| it.code() == Code::ObjectMissing), "{missing:?}");
    ensure!(!house.room("room").exists(), "something was written");
    fs::rename(&kept, &pack)?;
    house.restore(&house.request("room", Target::Latest)).await?;
    house.open("room").map(drop)
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
