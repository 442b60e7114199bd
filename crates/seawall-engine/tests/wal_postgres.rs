//! A real server's WAL through push and fetch, and a real recovery from what came out.

#[path = "../../seawall-repo/tests/archive_support/mod.rs"]
mod archive_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use archive_support::{END, Fixture, T1, T2};
use seawall_core::{Code, LineId, Lsn, SystemId, WalFileName, WalSegmentSize};
use seawall_engine::wal::{FetchRequest, PushRequest, RestorePath, WalPlace, fetch, push};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{FactsPart, WalArchive};
use seawall_testkit::ledger::{self, Bound, LedgerLog};
use seawall_testkit::process::{run, wait_until};
use seawall_testkit::{Ledger, Owner, PgBin, PgCluster, TestDir};

const LIMIT: Duration = Duration::from_secs(60);

/// A server that archives into a directory.
struct Archiving {
    cluster: PgCluster,
    archive: PathBuf,
}

fn archive_into(cluster: &PgCluster, archive: &Path) -> Result<()> {
    cluster.owner().create_dir(archive, 0o755)?;
    let to = archive.display();
    cluster.set("archive_mode", "on")?;
    cluster.set("archive_command", &format!("cp %p {to}/.new && mv {to}/.new {to}/%f"))
}

impl Archiving {
    fn start() -> Result<Self> {
        let major = PgBin::default_major()?;
        let mut cluster = PgCluster::builder(major).wal_segment_mb(1).create()?;
        let archive = cluster.scratch().join("archive");
        archive_into(&cluster, &archive)?;
        cluster.start()?;
        Ok(Self { cluster, archive })
    }

    /// A copy of the data directory that recovery can start from.
    fn base_backup(&self, directory: &Path) -> Result<()> {
        let mut command =
            self.cluster.owner().command(self.cluster.bin().program("pg_basebackup")?);
        command.args(["-d", &self.cluster.connection_string(), "-X", "none", "-c", "fast", "-D"]);
        run(command.arg(directory), None, LIMIT)?.success()?;
        Ok(())
    }

    async fn fixture(&self) -> Result<Fixture> {
        let sql = "SELECT system_identifier FROM pg_control_system()";
        let system_id = SystemId(self.cluster.psql(sql)?.parse()?);
        let major = PgMajor::from_number(u32::from(PgBin::default_major()?)).context("major")?;
        Ok(Fixture::of(system_id, major).await)
    }
}

/// Ends the segment and waits until it is in the archive.
fn archive_now(cluster: &PgCluster, archive: &Path) -> Result<()> {
    let end = cluster.switch_wal()?;
    let name = cluster.psql(&format!("SELECT pg_walfile_name('{end}')"))?;
    wait_until("the last segment", LIMIT, || Ok(archive.join(&name).exists()))
}

fn files_in(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != ".new");
    names.sort();
    Ok(names)
}

fn is_segment(name: &str) -> bool {
    let size = WalSegmentSize::new(1 << 20).unwrap_or(WalSegmentSize::DEFAULT);
    matches!(WalFileName::parse(name, size), Some(WalFileName::Segment(_)))
}

async fn push_file(fixture: &Fixture, path: PathBuf) -> Result<(), seawall_core::Error> {
    let place = WalPlace {
        name: "primary".to_owned(),
        repository: fixture.archive.line().repository().clone(),
        compression_level: 1,
    };
    let cluster = "main".parse().unwrap();
    let places = vec![place];
    push(&PushRequest { cluster, path, places, system_id: None, branch: None, partial: false })
        .await
        .map(drop)
}

/// Fetches into a directory, as PostgreSQL would into `pg_wal`.
async fn fetch_into(
    archive: &WalArchive,
    directory: &Path,
    name: &str,
    path: Option<&RestorePath>,
) -> Result<(), seawall_core::Error> {
    fetch(&FetchRequest {
        lines: vec![archive.line().clone()],
        name: name.to_owned(),
        destination: directory.join(name),
        path: path.cloned(),
        standby: path.is_none(),
    })
    .await
}

/// Starts a server on a base backup that takes its WAL from a directory, up to the end of it.
fn recover(base: &Path, wal: &Path, archive: Option<&Path>) -> Result<PgCluster> {
    let owner = Owner::of_servers()?;
    owner.chown_all(wal)?;
    fs::write(base.join("recovery.signal"), "")?;
    owner.chown(&base.join("recovery.signal"))?;
    let mut cluster = PgCluster::open(PgBin::default_major()?, base).create()?;
    cluster.set("restore_command", &format!("cp {}/%f %p", wal.display()))?;
    match archive {
        Some(archive) => archive_into(&cluster, archive)?,
        None => cluster.set("archive_mode", "off")?,
    }
    cluster.start()?;
    cluster.wait_promoted(LIMIT)?;
    Ok(cluster)
}

/// Every acknowledged commit is in the index, where the ledger saw it happen.
async fn check_commits(archive: &WalArchive, ancestry: &Ancestry, log: &LedgerLog) -> Result<()> {
    let mut reader = archive.facts(ancestry, Lsn::INVALID, END);
    let mut commits = Vec::new();
    let mut begun = false;
    while let Some(part) = reader.next().await? {
        match part {
            FactsPart::Facts { facts, .. } => {
                commits.extend(facts.commits);
                begun = true;
            }
            FactsPart::Hole(hole) => ensure!(!begun, "{hole:?}"),
        }
    }
    ensure!(commits.is_sorted_by_key(|commit| commit.lsn));
    let mut found = 0;
    for entry in log.entries() {
        let Some(committed) = entry.committed else { continue };
        let row = commits
            .iter()
            .find(|row| u64::from(row.xid) == committed.xid & 0xFFFF_FFFF)
            .with_context(|| format!("xid {}", committed.xid))?;
        ensure!(row.kind.is_commit() && row.lsn >= entry.lsn_before);
        ensure!(committed.lsn_after.is_none_or(|after| row.end_lsn <= after));
        found += 1;
    }
    ensure!(found > 300, "{found}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_from_fetched_wal_reaches_exactly_what_was_planned() -> Result<()> {
    let mut primary = Archiving::start()?;
    let directory = TestDir::new()?;
    let (base, base_of_cut) = (directory.join("base"), directory.join("base-of-cut"));
    primary.base_backup(&base)?;
    primary.base_backup(&base_of_cut)?;
    let running = Ledger::start(&primary.cluster, 3)?;
    running.wait_for(200, LIMIT)?;
    primary.cluster.kill9()?;
    primary.cluster.start()?;
    running.wait_for(200, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(20, LIMIT)?;
    primary.cluster.switch_wal()?;
    running.wait_for(200, LIMIT)?;
    let log = running.stop()?;
    archive_now(&primary.cluster, &primary.archive)?;

    let fixture = primary.fixture().await?;
    let mut files = files_in(&primary.archive)?;
    ensure!(files.iter().filter(|name| is_segment(name)).count() >= 3, "{files:?}");
    files.reverse();
    for name in &files {
        push_file(&fixture, primary.archive.join(name)).await?;
    }
    let archive = fixture.reopened().await;
    let root = archive.ancestry(T1).await?;
    check_commits(&archive, &root, &log).await?;

    // Everything: byte for byte what the server wrote, and nothing acknowledged is lost.
    let wal = directory.join("wal");
    fs::create_dir(&wal)?;
    for name in files.iter().filter(|name| is_segment(name)) {
        fetch_into(&archive, &wal, name, None).await?;
        ensure!(fs::read(wal.join(name))? == fs::read(primary.archive.join(name))?, "{name}");
    }
    let restored = recover(&base, &wal, None)?;
    log.verify_prefix(&ledger::read_rows(restored.connection())?, &Bound::Everything)?;

    // Up to a moment: the last segment is cut there, and recovery ends there.
    let last = archive.records_around(&root, moment.lsn).await?.before.context("a record")?;
    let path = RestorePath {
        line: archive.line().id(),
        spans: root.spans().collect(),
        wal_end: last.end,
        stop_before: None,
    };
    let (cut, new_archive) = (directory.join("cut"), directory.join("new-archive"));
    fs::create_dir(&cut)?;
    let mut past_end = 0;
    for name in files.iter().filter(|name| is_segment(name)) {
        match fetch_into(&archive, &cut, name, Some(&path)).await {
            Ok(()) => {}
            Err(error) if error.code() == Code::WalPastEnd => past_end += 1,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(past_end > 0, "the moment lies before the last segment");
    let promoted = recover(&base_of_cut, &cut, Some(&new_archive))?;
    let rows = ledger::read_rows(promoted.connection())?;
    log.verify_prefix(&rows, &Bound::Moment(moment))?;

    // It archives its new timeline; what it shares with its parent is found there already.
    promoted.psql("CREATE TABLE after AS SELECT g FROM generate_series(1, 1000) g")?;
    archive_now(&promoted, &new_archive)?;
    let new_files = files_in(&new_archive)?;
    ensure!(new_files.first().is_some_and(|name| name == "00000002.history"), "{new_files:?}");
    for name in &new_files {
        push_file(&fixture, new_archive.join(name)).await?;
    }
    let archive = fixture.reopened().await;
    let child = archive.ancestry(T2).await?;
    ensure!(child.fork_lsn_of(T1) == Some(last.end.align_up()), "{child:?} {last:?}");
    for name in new_files.iter().filter(|name| is_segment(name)) {
        fetch_into(&archive, &wal, name, None).await?;
        ensure!(fs::read(wal.join(name))? == fs::read(new_archive.join(name))?, "{name}");
    }
    let stretches = archive.coverage(&child, Lsn::INVALID).await?;
    ensure!(stretches.len() == 1, "{stretches:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_a_failover_with_an_old_primary_that_writes_on_is_archived_whole() -> Result<()> {
    let primary = Archiving::start()?;
    let mut standby = primary.cluster.standby()?;
    let running = Ledger::start(&primary.cluster, 2)?;
    running.wait_for(200, LIMIT)?;
    let log = running.stop()?;
    let caught_up = primary.cluster.current_lsn()?;
    wait_until("the standby", LIMIT, || {
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{caught_up}'");
        Ok(standby.psql(&sql)? == "t")
    })?;
    standby.promote()?;
    standby.psql("CREATE TABLE after AS SELECT g FROM generate_series(1, 20000) g")?;
    archive_now(&standby, &primary.archive)?;
    primary.cluster.psql("CREATE TABLE lost AS SELECT g FROM generate_series(1, 20000) g")?;
    archive_now(&primary.cluster, &primary.archive)?;
    let partial = || Ok(files_in(&primary.archive)?.iter().any(|name| name.ends_with(".partial")));
    wait_until("the partial segment", LIMIT, partial)?;

    let names = files_in(&primary.archive)?;
    let histories_first = |reverse: bool| {
        let mut files = names.clone();
        files.sort_by_key(|name| !name.ends_with(".history"));
        if let (true, Some(rest)) = (reverse, files.get_mut(1..)) {
            rest.reverse();
        }
        files
    };
    for files in [histories_first(false), histories_first(true)] {
        let fixture = primary.fixture().await?;
        for name in &files {
            push_file(&fixture, primary.archive.join(name)).await?;
        }
        for name in &files {
            push_file(&fixture, primary.archive.join(name)).await?;
        }
        let archive = fixture.reopened().await;
        let wal = TestDir::new()?;
        for name in files.iter().filter(|name| is_segment(name)) {
            fetch_into(&archive, wal.path(), name, None).await?;
            ensure!(fs::read(wal.join(name))? == fs::read(primary.archive.join(name))?, "{name}");
        }
        for timeline in [T1, T2] {
            let ancestry = archive.ancestry(timeline).await?;
            let stretches = archive.coverage(&ancestry, Lsn::INVALID).await?;
            let [stretch] = stretches.as_slice() else { anyhow::bail!("{stretches:?}") };
            ensure!(stretch.range.end > caught_up, "{stretch:?}");
        }
        // The ledger was written before the fork: both futures hold it.
        check_commits(&archive, &archive.ancestry(T2).await?, &log).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e21_a_server_of_another_initdb_cannot_push_here() -> Result<()> {
    let server = Archiving::start()?;
    archive_now(&server.cluster, &server.archive)?;
    let fixture = server.fixture().await?;
    let major = PgBin::default_major()?;
    let mut stranger =
        PgCluster::builder(major).wal_segment_mb(1).own_system_identifier().create()?;
    let archive = stranger.scratch().join("archive");
    archive_into(&stranger, &archive)?;
    stranger.start()?;
    archive_now(&stranger, &archive)?;
    for name in files_in(&archive)? {
        let error = push_file(&fixture, archive.join(&name)).await.unwrap_err();
        ensure!(error.code() == Code::WalWrongCluster, "{error:?}");
    }
    let line: LineId = fixture.archive.line().id();
    let lines = fixture.archive.line().repository().lines().await?;
    ensure!(lines.len() == 1 && lines.iter().all(|(_, id)| *id == line));
    Ok(())
}
