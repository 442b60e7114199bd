//! One backup into several repositories: read once, whole in each, and not given up when one fails.

#[path = "restore/house.rs"]
#[allow(dead_code, reason = "it is the house of the restore tests")]
mod house;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use house::{House, LIMIT, destination, ingest, new_line};
use seawall_core::{Code, Error, Hint, NoProgress, Progress, Stage};
use seawall_engine::backup::{self, BackupReport, BackupRequest, Destination};
use seawall_engine::restore::{Target, plan_restore};
use seawall_engine::verify::{self, VerifyRequest};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::BackupInfo;
use seawall_repo::wal::WalArchive;
use seawall_repo::{Line, Repository};
use seawall_store::Store as _;
use seawall_store::testing::{Call, Fault, Faulty, MemoryStore};
use seawall_testkit::{PgBin, PgCluster};

/// What makes a store fail.
type Faults<'f> = &'f dyn Fn(Faulty) -> Faulty;

/// A cluster, the repository it archives into, and another one with a key of its own.
struct Two {
    house: House,
    second: Line,
    memory: MemoryStore,
    key: Unlock,
    stop: Arc<AtomicBool>,
}

impl Drop for Two {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Two {
    /// With tables that fill several packs.
    async fn new() -> Result<Self> {
        let builder = PgCluster::builder(PgBin::default_major()?).without_fsync();
        let house = House::with(builder).await?;
        for table in 0..6 {
            house.pg.psql(&format!(
                "CREATE TABLE t{table} (a int, b text); \
                 INSERT INTO t{table} SELECT g, md5(random()::text) || md5(random()::text) \
                 FROM generate_series(1, 40000) g"
            ))?;
        }
        house.pg.psql("CHECKPOINT")?;
        let (memory, key) = (MemoryStore::new(), Unlock::KeyFile(KeyFile::generate()?));
        let second = new_line(&house.pg, Arc::new(memory.clone()), &key).await?;
        let (wal, stop) = (WalArchive::open(second.clone()).await?, Arc::<AtomicBool>::default());
        tokio::spawn(ingest(wal, house.archive.clone(), Arc::clone(&stop)));
        Ok(Self { house, second, memory, key, stop })
    }

    /// The second repository with a store that fails.
    async fn failing(&self, faults: impl FnOnce(Faulty) -> Faulty) -> Result<Line> {
        let failing = faults(Faulty::new(Arc::new(self.memory.clone())));
        let repository = Repository::open(Arc::new(failing), &self.key).await?;
        Ok(repository.line(self.second.cluster(), self.second.id())?)
    }

    fn request(&self) -> Result<BackupRequest> {
        self.house.backup_request(seawall_engine::Crew::default())
    }

    /// A backup into both.
    async fn backup(&self) -> Result<BackupReport> {
        into_both(&self.house.line, &self.second, &self.request()?, &NoProgress).await
    }

    /// Both have that backup, and nothing else is the matter with them.
    async fn both_have(&self, report: &BackupReport) -> Result<[BackupInfo; 2]> {
        for it in &report.destinations {
            ensure!(it.outcome.is_ok(), "{}: {:?}", it.name, it.outcome);
        }
        Ok([has(&self.house.line, report).await?, has(&self.second, report).await?])
    }

    /// What a restore from one of them gives.
    async fn restored(&self, line: &Line, room: &str) -> Result<BTreeSet<(PathBuf, Vec<u8>)>> {
        let wal = WalArchive::open(line.clone()).await?;
        let request = self.house.request(room, Target::BackupOnly);
        let planned = plan_restore(line, &wal, &request).await?;
        let options = self.house.options(Arc::new(NoProgress));
        planned.prove(&wal, &options).await?.run().await?;
        tree(&request.into)
    }
}

async fn into_both(
    first: &Line,
    second: &Line,
    request: &BackupRequest,
    progress: &dyn Progress,
) -> Result<BackupReport> {
    let small_packs = |name: &str, line| Destination {
        name: name.to_owned(),
        pack_bytes: 1 << 20,
        ..destination(line)
    };
    let both = [small_packs("first", first), small_packs("second", second)];
    Ok(backup::run(&both, request, progress).await?)
}

/// A repository has that backup as its newest, and all in it is whole.
async fn has(line: &Line, report: &BackupReport) -> Result<BackupInfo> {
    is_whole(line).await?;
    let newest = line.backups().await?.pop().context("no backup")?;
    ensure!(newest.id == report.id, "{} is the newest, not {}", newest.id, report.id);
    ensure!(line.attempts().await?.is_empty(), "an attempt is left");
    Ok(newest.info?)
}

async fn is_whole(line: &Line) -> Result<()> {
    let request = VerifyRequest { sample_percent: 100, jobs: 2, ..VerifyRequest::default() };
    let report = verify::run(line.repository(), &request, &NoProgress).await?;
    ensure!(report.findings.is_empty(), "{:?}", report.findings);
    Ok(())
}

/// Every file below a directory, without those that tell of the restore itself.
fn tree(directory: &Path) -> Result<BTreeSet<(PathBuf, Vec<u8>)>> {
    let (mut found, mut open) = (BTreeSet::new(), vec![directory.to_owned()]);
    while let Some(within) = open.pop() {
        for entry in fs::read_dir(within)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(directory)?.to_owned();
            if ![Path::new("backup_manifest"), Path::new("seawall.restore")].contains(&&*name) {
                found.insert((name, fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

/// How a backup failed.
fn code_of(made: Result<BackupReport>) -> Option<Code> {
    let error = made.err()?.downcast::<Error>().ok()?;
    Some(error.code())
}

/// The first destination has the backup; why the second has not.
fn only_first(report: &BackupReport) -> Result<&Error> {
    let [first, second] = report.destinations.as_slice() else {
        anyhow::bail!("{:?}", report.destinations)
    };
    ensure!(first.outcome.is_ok(), "{:?}", first.outcome);
    second.outcome.as_ref().err().context("the second has it too")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_into_two_repositories_reads_once_and_each_is_whole_without_the_other()
-> Result<()> {
    let two = Two::new().await?;
    let alone = two.house.backup().await?;
    let report = two.backup().await?;
    let [first, second] = two.both_have(&report).await?;
    ensure!(first.read_bytes == report.read_bytes, "{} {}", first.read_bytes, report.read_bytes);
    ensure!(second.read_bytes == report.read_bytes, "{} {}", second.read_bytes, report.read_bytes);
    // What PostgreSQL itself writes meanwhile is little.
    let (one, both) = (alone.read_bytes, report.read_bytes);
    ensure!(both.abs_diff(one) < one / 10, "{one} bytes for one, {both} for both");

    let from_first = two.restored(&two.house.line, "first").await?;
    ensure!(from_first == two.restored(&two.second, "second").await?, "they differ");
    two.house.give_away(&two.house.room("second"));
    let restored = two.house.open("second")?;
    ensure!(restored.psql("SELECT count(*), max(a) FROM t5")? == "40000|40000");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_fails_in_the_middle_is_left_behind_and_the_next_backup_mends_it()
-> Result<()> {
    let two = Two::new().await?;
    let full = |store: Faulty| store.fail(Call::Write, 4.., Fault::Full);
    // The journal's first record, its pack or its commit.
    let read_only = |store: Faulty| store.fail(Call::Create, 1.., Fault::Forbidden);
    let broken = |store: Faulty| store.fail(Call::Finish, 2..=2, Fault::Io);
    let uncommitted = |store: Faulty| {
        store.choose(|call, place, _| {
            let is_commit = call == Call::Create && place.path().contains("/backup/");
            is_commit.then_some(Fault::Unavailable)
        })
    };
    let weathers: [(Faults<'_>, Code); 4] = [
        (&full, Code::StoreFull),
        (&read_only, Code::StoreForbidden),
        (&broken, Code::StoreFailed),
        (&uncommitted, Code::StoreFailed),
    ];
    for (faults, code) in weathers {
        let before = two.second.backups().await?.len();
        let failing = two.failing(faults).await?;
        let report = into_both(&two.house.line, &failing, &two.request()?, &NoProgress).await?;
        let error = only_first(&report)?;
        ensure!(error.code() == code, "{error:?}");
        ensure!(error.message().contains("repository second"), "{}", error.message());
        has(&two.house.line, &report).await?;
        is_whole(&two.second).await?;
        ensure!(two.second.backups().await?.len() == before, "it has a backup: {code}");
    }
    let mended = two.backup().await?;
    two.both_have(&mended).await?;
    let resumed = mended.kept().map(|(_, kept)| kept.resumed).collect::<Vec<_>>();
    ensure!(matches!(resumed[..], [None, Some(_)]), "{resumed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_does_not_answer_is_waited_for_for_a_while_and_left_behind() -> Result<()>
{
    let two = Two::new().await?;
    let never = Fault::Delay(Duration::from_secs(24 * 3600));
    let stalled = two.failing(|store| store.fail(Call::Write, 3.., never)).await?;
    let request = BackupRequest { store_timeout: Duration::from_secs(2), ..two.request()? };
    let began = Instant::now();
    let report = into_both(&two.house.line, &stalled, &request, &NoProgress).await?;
    ensure!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
    let error = only_first(&report)?;
    ensure!(error.code() == Code::StoreFailed, "{error:?}");
    has(&two.house.line, &report).await?;
    two.both_have(&two.backup().await?).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_no_repository_gets_fails_as_the_last_of_them_did() -> Result<()> {
    let two = Two::new().await?;
    let full = two.failing(|store| store.fail(Call::Write, 1.., Fault::Full)).await?;
    let forbidden = two.failing(|store| store.fail(Call::Create, 1.., Fault::Forbidden)).await?;
    let failed = into_both(&forbidden, &full, &two.request()?, &NoProgress).await;
    let failed = failed.err().context("somebody has it")?;
    let code = failed.downcast_ref::<Error>().context("an error of Seawall")?.code();
    ensure!(code == Code::StoreFull, "{failed:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_is_resumed_in_both_and_what_one_lacks_is_read_once() -> Result<()> {
    let two = Two::new().await?;
    // The first one's process dies with fewer packs than the second's.
    let dying = |packs| move |store: Faulty| store.fail(Call::Finish, packs.., Fault::CrashBefore);
    let other = two.memory.fork();
    let open = async |store: Faulty| -> Result<Line> {
        let repository = Repository::open(Arc::new(store), &two.key).await?;
        Ok(repository.line(two.second.cluster(), two.second.id())?)
    };
    let early = open(dying(3)(Faulty::new(Arc::new(other.clone())))).await?;
    let late = two.failing(dying(8)).await?;
    let clean = open(Faulty::new(Arc::new(other))).await?;
    let wal = WalArchive::open(clean.clone()).await?;
    tokio::spawn(ingest(wal, two.house.archive.clone(), Arc::clone(&two.stop)));

    let died = into_both(&early, &late, &two.request()?, &NoProgress).await;
    ensure!(died.is_err(), "{died:?}");
    let report = into_both(&clean, &two.second, &two.request()?, &NoProgress).await?;
    let [few, many] = [has(&clean, &report).await?, has(&two.second, &report).await?];
    let kept: Vec<_> = report.kept().map(|(_, kept)| kept.clone()).collect();
    ensure!(kept[0].resumed.is_some() && kept[0].resumed == kept[1].resumed, "{kept:?}");
    ensure!(0 < kept[0].reused_files && kept[0].reused_files < kept[1].reused_files, "{kept:?}");
    ensure!(many.read_bytes < few.read_bytes, "{} {}", many.read_bytes, few.read_bytes);
    ensure!(few.read_bytes < report.cluster_bytes, "all was read again");
    // What the first lacks is all that the second lacks, and more.
    ensure!(report.read_bytes == few.read_bytes, "{} {}", report.read_bytes, few.read_bytes);
    let from_few = two.restored(&clean, "few").await?;
    ensure!(from_few == two.restored(&two.second, "many").await?, "they differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_the_id_of_another_that_runs_leaves_its_records_alone() -> Result<()> {
    let two = Two::new().await?;
    let request = two.request()?;
    let path = two.second.paths().path(&LineObject::Pin(request.id.0, 0))?;
    two.memory.create(&path, "a record of the other".into()).await?;
    let refused = into_both(&two.house.line, &two.second, &request, &NoProgress).await;
    ensure!(code_of(refused) == Some(Code::ObjectExists));
    ensure!(two.memory.read(&path).await? == "a record of the other", "it is gone");
    ensure!(two.house.line.attempts().await?.is_empty(), "the first repository waits for it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_repository_has_under_an_id_no_other_gets_another_backup_under() -> Result<()> {
    let two = Two::new().await?;
    let request = two.request()?;
    let broken = Faulty::new(Arc::new(two.memory.clone())).choose(|_, _, _| Some(Fault::Io));
    let second = two.second.through(|_| Arc::new(broken));
    only_first(&into_both(&two.house.line, &second, &request, &NoProgress).await?)?;

    let refused = into_both(&two.house.line, &two.second, &request, &NoProgress).await;
    ensure!(code_of(refused) == Some(Code::ObjectExists));
    ensure!(two.second.backups().await?.is_empty(), "another backup has the id");
    Ok(())
}

/// The archiver fails from the moment on at which files are copied, and the server writes on.
struct ArchiverStops<'h> {
    pg: &'h PgCluster,
    notes: Mutex<String>,
}

impl<'h> ArchiverStops<'h> {
    const fn of(pg: &'h PgCluster) -> Self {
        Self { pg, notes: Mutex::new(String::new()) }
    }
}

impl Progress for ArchiverStops<'_> {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        if stage == Stage::Copying {
            let sql = "ALTER SYSTEM SET archive_command = 'false'";
            self.pg.psql(sql).expect("a setting");
            self.pg.psql("SELECT pg_reload_conf()").expect("a reload");
            for _ in 0..4 {
                self.pg.psql("INSERT INTO t0 VALUES (0, 'more')").expect("a row");
                self.pg.switch_wal().expect("a switch");
            }
        }
    }

    fn advance(&self, _: u64) {}

    fn note(&self, note: &Hint) {
        self.notes.lock().expect("the notes").push_str(&format!("{note:?}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_a_failed_repository_holds_up_comes_into_the_other_all_the_same() -> Result<()> {
    let two = Two::new().await?;
    let full = two.failing(|store| store.fail(Call::Write, 4.., Fault::Full)).await?;
    let progress = ArchiverStops::of(&two.house.pg);
    let report = into_both(&two.house.line, &full, &two.request()?, &progress).await?;
    ensure!(only_first(&report)?.code() == Code::StoreFull);
    has(&two.house.line, &report).await?;
    two.restored(&two.house.line, "room").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_fails_keeps_no_wal_from_several_repositories_and_is_told() -> Result<()> {
    let two = Two::new().await?;
    let progress = ArchiverStops::of(&two.house.pg);
    let report = into_both(&two.house.line, &two.second, &two.request()?, &progress).await?;
    two.both_have(&report).await?;
    let notes = progress.notes.into_inner().expect("the notes");
    ensure!(notes.contains("archiver fails"), "{notes}");
    Ok(())
}
