//! Pruning beside backups and restores of a real server.

#[path = "restore/house.rs"]
#[allow(dead_code, reason = "it is the house of the restore tests")]
mod house;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use house::House;
use jiff::SignedDuration;
use seawall_core::{BackupId, Code, Hint, Lsn, NoProgress, Progress, Stage, TimelineId};
use seawall_engine::Crew;
use seawall_engine::backup::BackupReport;
use seawall_engine::prune::{Going, PruneReport, PruneRequest, run};
use seawall_engine::restore::{RestoreOptions, Target, plan_restore};
use seawall_engine::verify::{self, VerifyRequest};
use seawall_repo::wal::LsnRange;
use seawall_repo::{Line, Repository};
use seawall_store::{OpenOptions, StoreUrl, open};
use seawall_testkit::StopMode;

/// Tells when the stage it waits for has begun.
struct Reached(Stage, tokio::sync::Notify);

impl Progress for Reached {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        if stage == self.0 {
            self.1.notify_one();
        }
    }

    fn advance(&self, _: u64) {}

    fn note(&self, _: &Hint) {}
}

/// Lets all that is in the repository be so much older, by its clock.
fn age(directory: &Path, by: Duration) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => age(&path, by)?,
            Ok(metadata) => {
                let file = fs::File::options().append(true).open(&path)?;
                file.set_modified(metadata.modified()? - by)?;
            }
            // What a running backup replaces.
            Err(_) => {}
        }
    }
    Ok(())
}

const HOUR: Duration = Duration::from_secs(3600);

/// The line as another host sees it.
async fn elsewhere(house: &House) -> Result<Line> {
    let url = StoreUrl::from_directory(&house.repository)?;
    let store = open(&url, &OpenOptions::default()).await?;
    let repository = Repository::open(store, &house.key).await?;
    Ok(repository.line(house.line.cluster(), house.line.id())?)
}

/// A policy would let the backup go, and the WAL from it to the next one.
fn going(backup: &BackupReport, next: Option<&BackupReport>) -> Going {
    let segment = |lsn: Lsn| Lsn(lsn.0 & !((16 << 20) - 1));
    let wal = next.map(|next| {
        let range = LsnRange { start: segment(backup.start_lsn), end: segment(next.start_lsn) };
        (TimelineId(1), range)
    });
    Going { backups: [backup.id].into(), wal: wal.into_iter().collect() }
}

async fn prune(line: &Line, going: &Going) -> Result<PruneReport> {
    let request = PruneRequest { grace: SignedDuration::from_hours(24) };
    Ok(run(line, going, request, &NoProgress).await?)
}

async fn findings(line: &Line) -> Result<Vec<verify::Finding>> {
    let request = VerifyRequest { sample_percent: 100, jobs: 2, ..VerifyRequest::default() };
    Ok(verify::run(line.repository(), &request, &NoProgress).await?.findings)
}

#[tokio::test(flavor = "multi_thread")]
async fn e43_a_backup_runs_on_one_host_while_another_host_deletes_what_is_old() -> Result<()> {
    let house = House::new().await?;
    let first = house.backup().await?;
    house.pg.psql("CREATE TABLE t AS SELECT g FROM generate_series(1, 50000) g")?;
    house.archive_everything().await?;
    let second = house.backup().await?;
    age(&house.repository, 2 * HOUR)?;
    let goes = going(&first, Some(&second));
    let other = elsewhere(&house).await?;

    let (copying, crew) =
        (Reached(Stage::Copying, tokio::sync::Notify::new()), Crew::new("4MB/s".parse()?));
    let third = house.backup_by(crew, &copying);
    let pruning = async {
        copying.1.notified().await;
        let condemned = prune(&other, &goes).await?;
        ensure!(condemned.condemned.backups == [first.id.to_string()], "{condemned:?}");
        ensure!(condemned.condemned.wal.objects > 0, "{condemned:?}");
        age(&house.repository.join("c/main/i").join(other.id().to_string()).join("gc"), 25 * HOUR)?;
        let deleted = prune(&other, &goes).await?;
        ensure!(deleted.deleted.backups == [first.id.to_string()], "{deleted:?}");
        ensure!(!other.attempts().await?.is_empty(), "the backup ended too early to tell");
        Ok(deleted)
    };
    let (third, deleted) = tokio::join!(third, pruning);
    let (third, deleted) = (third?, deleted?);
    ensure!(deleted.deleted.all.bytes > deleted.deleted.wal.bytes, "{deleted:?}");
    let backups = house.line.backups().await?;
    let ids: Vec<BackupId> = backups.iter().map(|backup| backup.id).collect();
    ensure!(ids == [second.id, third.id], "{ids:?}");
    house.archive_everything().await?;
    let found = findings(&other).await?;
    ensure!(found.is_empty(), "{found:?}");
    // Each of them comes back, the older one through the log to the end.
    for (room, id) in [("second", second.id), ("third", third.id)] {
        let mut request = house.request(room, Target::Latest);
        request.backup = Some(id);
        house.restore(&request).await?;
        let mut restored = house.open(room)?;
        ensure!(restored.psql("SELECT count(*) FROM t")? == "50000");
        restored.stop(StopMode::Fast)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_restored_stays_until_the_restore_has_ended() -> Result<()> {
    let house = House::new().await?;
    let first = house.backup().await?;
    let second = house.backup().await?;
    age(&house.repository, 2 * HOUR)?;
    let (other, goes) = (elsewhere(&house).await?, going(&first, Some(&second)));
    let mut request = house.request("restored", Target::BackupOnly);
    request.backup = Some(first.id);
    let writing = Arc::new(Reached(Stage::Writing, tokio::sync::Notify::new()));
    let slow = RestoreOptions {
        crew: Crew::new("4MB/s".parse()?),
        ..house.options(Arc::<Reached>::clone(&writing))
    };
    let restore = house.restore_with(&request, &slow);
    let pruning = async {
        writing.1.notified().await;
        let report = prune(&other, &goes).await?;
        let has_readers = !other.pins().await?.is_empty();
        ensure!(has_readers, "the restore ended too early to tell");
        ensure!(report.condemned.all.objects == 0, "{report:?}");
        anyhow::Ok(())
    };
    let (restored, pruned) = tokio::join!(restore, pruning);
    restored?;
    pruned?;
    ensure!(other.pins().await?.is_empty(), "it has ended");
    house.open("restored")?.stop(StopMode::Fast)?;

    // From now on it goes, and nobody begins to read it.
    let report = prune(&other, &goes).await?;
    ensure!(report.condemned.backups == [first.id.to_string()], "{report:?}");
    let mut again = house.request("again", Target::BackupOnly);
    again.backup = Some(first.id);
    let refused = plan_restore(&house.line, &house.wal, &again).await.err().context("refused")?;
    ensure!(refused.code() == Code::Condemned, "{refused}");
    again.backup = None;
    let planned = plan_restore(&house.line, &house.wal, &again).await?;
    ensure!(planned.plan().backup.ulid == second.id.0, "the other one is there");
    let found = findings(&other).await?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}
