//! A repository that has been written to for years, in a store that is far away.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::future::join;
use seawall_core::{BackupId, Lsn, TimelineId, Ulid};
use seawall_engine::survey::{Archiving, Depth, NamedRepository, stored_bytes, survey};
use seawall_engine::wal::fetch;
use seawall_repo::layout::{LineObject, WalRangeName};
use seawall_repo::manifest::Commit;
use seawall_repo::wal::WalArchive;
use seawall_repo::{Line, Repository};
use seawall_store::testing::Latency;
use seawall_store::{Metered, ObjectPrefix, Store};
use seawall_testkit::{PgCluster, StopMode};

use crate::site::{Archiver, Copy, Site, only_line};
use crate::verbs::fetch_request;

/// How long each call to the store takes.
const EACH_CALL: Duration = Duration::from_millis(30);

const WAL_OBJECTS: u64 = 100_000;
const BACKUPS: u64 = 400;
const PACKS: u64 = 2_000;

/// Bytes of a segment.
const SEGMENT: u64 = 1 << 20;

/// The calls and the time that something took.
struct Took {
    what: &'static str,
    calls: u64,
    time: Duration,
}

impl Took {
    fn at_most(&self, calls: u64, time: Duration) -> Result<()> {
        println!("{}: {} calls, {:?}", self.what, self.calls, self.time);
        ensure!(self.calls <= calls, "{} took {} calls, not {calls}", self.what, self.calls);
        ensure!(self.time <= time, "{} took {:?}, not {time:?}", self.what, self.time);
        Ok(())
    }
}

/// The repository, seen from far away.
struct Far {
    copy: Copy,
    store: Arc<Metered>,
}

impl Far {
    fn of(copy: Copy) -> Self {
        let far = Latency::new(Arc::new(copy.store.clone()), EACH_CALL);
        Self { copy, store: Arc::new(Metered::new(Arc::new(far))) }
    }

    /// As a command does first.
    async fn open(&self) -> Result<Repository> {
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        Ok(Repository::open(store, &self.copy.key).await?)
    }

    async fn measure<T>(
        &self,
        what: &'static str,
        doing: impl Future<Output = Result<T>>,
    ) -> Result<(T, Took)> {
        let (calls, began) = (self.store.counts().calls(), Instant::now());
        let value = doing.await.context(what)?;
        let took = Took { what, calls: self.store.counts().calls() - calls, time: began.elapsed() };
        Ok((value, took))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn years_of_wal_and_backups_far_away_cost_few_calls_and_little_time() -> Result<()> {
    // Its log begins where there is room for years before it.
    let site = Site::with(|pg| move_log(pg, "000000010000001A00000000")).await?;
    let far = Far::of(site.copy());
    let near = far.copy.line().await?;
    grow(&near, &site).await?;

    let (_, took) = far
        .measure("backup", async {
            let line = only_line(&far.open().await?).await?;
            let _archiver = Archiver::begin(&site.archive, &near).await?;
            Ok(site.back_up(&line).await?)
        })
        .await?;
    took.at_most(280, Duration::from_secs(8))?;

    let (seen, took) = far
        .measure("status", async {
            let repositories = [named(far.open().await?)];
            let asked = Archiving::ask(&site.connection);
            let (seen, asked) =
                join(survey(near.cluster(), &repositories, Depth::Wal), asked).await;
            asked?;
            Ok(seen)
        })
        .await?;
    took.at_most(650, Duration::from_secs(3))?;
    ensure!(seen.problems.is_empty(), "{:?}", seen.problems);
    ensure!(seen.cluster.backups.len() as u64 == BACKUPS + 2);
    let [wal] = seen.cluster.wal.as_slice() else { anyhow::bail!("{:?}", seen.cluster.wal) };
    ensure!(wal.gaps.is_empty(), "{:?}", wal.gaps);

    let (bytes, took) = far
        .measure("info", async {
            let repository = far.open().await?;
            let bytes = stored_bytes(&repository);
            let repositories = [named(repository.clone())];
            let seen = survey(near.cluster(), &repositories, Depth::Wal);
            let (bytes, seen) = join(bytes, seen).await;
            ensure!(seen.problems.is_empty(), "{:?}", seen.problems);
            Ok(bytes?)
        })
        .await?;
    took.at_most(800, Duration::from_secs(3))?;
    ensure!(bytes == bytes_of(&far.copy).await?, "it counted {bytes} bytes");

    let (name, expected) = site.segments.first().context("no segment")?;
    let destination = site.directory.join("wanted");
    let mut fetches = Vec::new();
    for _ in 0..3 {
        let fetched = far.measure("wal fetch", async {
            let line = far.open().await?.line(near.cluster(), near.id())?;
            Ok(fetch(&fetch_request(line, name, &destination)).await?)
        });
        fetches.push(fetched.await?.1);
        ensure!(fs::read(&destination)? == *expected);
        fs::remove_file(&destination)?;
    }
    // A busy machine can make any one of them slow.
    let fastest = fetches.into_iter().min_by_key(|took| took.time).context("none")?;
    fastest.at_most(20, Duration::from_millis(500))
}

fn named(repository: Repository) -> NamedRepository {
    NamedRepository { name: "far".to_owned(), repository: Some(repository) }
}

async fn bytes_of(copy: &Copy) -> Result<u64> {
    let (mut bytes, mut after) = (0, None);
    loop {
        let page = copy.store.list(&ObjectPrefix::root(), after.as_ref(), 10_000).await?;
        bytes += page.objects.iter().map(|object| object.size_bytes).sum::<u64>();
        after = page.next;
        if after.is_none() {
            return Ok(bytes);
        }
    }
}

/// Lets the cluster's log go on from a segment.
fn move_log(pg: &mut PgCluster, segment: &str) -> Result<()> {
    pg.stop(StopMode::Fast)?;
    let resetwal = pg.bin().program("pg_resetwal")?;
    let mut command = pg.owner().command(resetwal);
    let status = command.args(["-l", segment, "-D"]).arg(pg.data_directory()).status()?;
    ensure!(status.success(), "pg_resetwal failed");
    pg.start()
}

/// Puts the years into a line: WAL up to what it has, backups of old, and packs. Of the WAL and the
/// packs there are only names: whoever reads one of them is told by an error.
async fn grow(line: &Line, site: &Site) -> Result<()> {
    let wal = WalArchive::open(line.clone()).await?;
    let timeline = TimelineId(1);
    let covered = wal.timeline_coverage(timeline).await?;
    let first = covered.ranges.first().context("no WAL")?.start.0;
    ensure!(first.is_multiple_of(SEGMENT), "the WAL begins at {first:X}");
    let begin = first - WAL_OBJECTS * SEGMENT;
    let store = line.store();
    for number in 0..WAL_OBJECTS {
        let start = Lsn(begin + number * SEGMENT);
        let name = WalRangeName { timeline, segment: start, start, end: Lsn(start.0 + SEGMENT) };
        let path = line.paths().path(&LineObject::WalHot(name))?;
        store.create(&path, Bytes::from_static(b"a segment of old")).await?;
    }
    for number in 0..PACKS {
        let pack = LineObject::Pack(Ulid::from_parts(1 + number, u128::from(number)));
        store.create(&line.paths().path(&pack)?, Bytes::from_static(b"a pack of old")).await?;
    }
    let real = line.manifest(site.backup).await?.context("no backup")?.commit;
    for number in 0..BACKUPS {
        let id = BackupId(Ulid::from_parts(1 + number, u128::from(number)));
        let mut commit = Commit { info: real.info.clone(), parts: real.parts.clone() };
        commit.info.id = id.0;
        commit.info.start_lsn = Lsn(begin + number * SEGMENT * 10 + 0x28);
        commit.info.stop_lsn = Lsn(commit.info.start_lsn.0 + 0x100);
        line.repository()
            .create_record(&line.paths().path(&LineObject::Backup(id, 0))?, &commit)
            .await?;
    }
    Ok(())
}
