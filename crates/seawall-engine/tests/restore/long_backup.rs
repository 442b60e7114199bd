//! A backup that takes days, by the clock of the store, beside what others do in the same repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join;
use seawall_core::{Code, Error, NoProgress};
use seawall_engine::Crew;
use seawall_engine::backup::{self, BackupRequest};
use seawall_engine::restore::{RestoreRequest, Target};
use seawall_engine::verify::{self, VerifyRequest};
use seawall_repo::{Line, Repository};
use seawall_store::testing::{Call, Faulty};
use seawall_store::{OpenOptions, Store, StoreUrl, open};
use seawall_testkit::StopMode;

use crate::house::{House, LIMIT, destination};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A store that stands still at some moments of a backup until it is told to go on.
struct Moments {
    /// What it would do next, by the path of an object.
    reached: Receiver<String>,
    go_on: Sender<()>,
}

impl Moments {
    /// Before the first pack is finished, and before the commit is made.
    fn of(store: Arc<dyn Store>) -> (Self, Arc<dyn Store>) {
        let (tell, reached) = channel();
        let (go_on, wait) = channel();
        let (wait, first) = (Mutex::new((tell, wait)), Mutex::new(true));
        let faulty = Faulty::new(store).choose(move |call, place, _| {
            let stops = match call {
                Call::Finish if place.path().contains("/pack/") => {
                    std::mem::take(&mut *first.lock().expect("no panic"))
                }
                Call::Create => place.path().contains("/backup/"),
                _ => false,
            };
            if stops {
                tokio::task::block_in_place(|| {
                    let channels = wait.lock().expect("no panic");
                    channels.0.send(place.path().to_owned()).expect("somebody waits");
                    channels.1.recv_timeout(LIMIT).expect("to go on");
                });
            }
            None
        });
        (Self { reached, go_on }, Arc::new(faulty))
    }

    fn wait_for(&self, kind: &str) -> Result<()> {
        let reached = tokio::task::block_in_place(|| self.reached.recv_timeout(LIMIT))?;
        ensure!(reached.contains(kind), "it came to {reached}, not to {kind}");
        Ok(())
    }
}

/// Lets everything in a repository get older, by the clock of the store.
fn age(directory: &Path, by: Duration) -> Result<()> {
    for path in files(directory)? {
        let file = fs::File::open(&path)?;
        file.set_modified(file.metadata()?.modified()? - by)?;
    }
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(within) = directories.pop() {
        for entry in fs::read_dir(within)? {
            let path = entry?.path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

/// Packs that are being written.
fn unfinished_packs(house: &House) -> Result<Vec<PathBuf>> {
    let is_unfinished = |path: &PathBuf| {
        let path = path.to_string_lossy();
        path.contains("/pack/") && path.ends_with(".seawall-tmp")
    };
    Ok(files(&house.repository)?.into_iter().filter(is_unfinished).collect())
}

async fn verify_all(house: &House) -> Result<()> {
    let request = VerifyRequest { sample_percent: 100, jobs: 2, ..VerifyRequest::default() };
    let report = verify::run(house.line.repository(), &request, &NoProgress).await?;
    ensure!(report.findings.is_empty(), "{:#?}", report.findings);
    Ok(())
}

/// Days in which others work in the repository, and somebody begins the same backup again.
async fn days_pass(house: &House, other: &Line) -> Result<()> {
    for day in 1..=2u32 {
        age(&house.repository, DAY + Duration::from_secs(3600))?;
        let request = house.backup_request(Crew::default())?;
        backup::run(&[destination(other)], &request, &NoProgress).await?;
        verify_all(house).await?;
        let refused = house.backup().await.expect_err("it runs since days");
        let code = refused.downcast_ref::<Error>().context("an error of Seawall")?.code();
        ensure!(code == Code::BackupRunning, "day {day}: {refused:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_of_many_days_commits_and_restores_whatever_others_do_meanwhile() -> Result<()> {
    let house = House::new().await?;
    house.pg.psql("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 1000) g")?;
    let other = house.other_line("other").await?;
    let left_behind = house.repository.join("left-behind.seawall-tmp");
    fs::write(&left_behind, "unfinished")?;
    fs::File::options()
        .append(true)
        .open(&left_behind)?
        .set_modified(SystemTime::now() - 4 * DAY)?;

    let url = StoreUrl::from_directory(&house.repository)?;
    let (moments, store) = Moments::of(open(&url, &OpenOptions::default()).await?);
    let repository = Repository::open(store, &house.key).await?;
    let line = repository.line(house.line.cluster(), house.line.id())?;
    // One thread, and so one pack at a time.
    let request = BackupRequest { jobs: 1, ..house.backup_request(Crew::default())? };
    let to = [destination(&line)];
    // A job has a runtime of its own; this one stands still for long.
    let slow = async {
        let made = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Runtime::new()?;
            Ok::<_, anyhow::Error>(runtime.block_on(backup::run(&to, &request, &NoProgress))?)
        });
        made.await?
    };
    let beside = async {
        moments.wait_for("/pack/")?;
        let own = unfinished_packs(&house)?;
        ensure!(own.len() == 1, "a pack is being written: {own:?}");
        days_pass(&house, &other).await?;
        ensure!(!left_behind.exists(), "nothing is swept at all");
        ensure!(unfinished_packs(&house)? == own, "its pack was swept: {own:?}");
        moments.go_on.send(())?;
        moments.wait_for("/backup/")?;
        days_pass(&house, &other).await?;
        moments.go_on.send(())?;
        Ok(())
    };
    let (made, ()) = try_join(slow, beside).await?;

    verify_all(&house).await?;
    let known = house.line.backups().await?;
    ensure!(known.iter().any(|known| known.id == made.id && known.info.is_ok()), "{known:?}");
    let latest = house.request("room", Target::BackupOnly);
    house.restore(&RestoreRequest { backup: Some(made.id), ..latest }).await?;
    let mut restored = house.open("room")?;
    ensure!(restored.psql("SELECT count(*) FROM t")?.trim() == "1000");
    restored.stop(StopMode::Fast)?;
    Ok(())
}
