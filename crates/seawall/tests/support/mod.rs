//! What the end-to-end tests share: a real PostgreSQL under Seawall's protection, set up as a
//! user would set it up, and a look at what was restored.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_testkit::ledger::{self, Bound, LedgerLog, Verdict};
use seawall_testkit::oracles::Dump;
use seawall_testkit::process::wait_until;
use seawall_testkit::{
    Invocation, Output, PgBin, PgCluster, PgClusterBuilder, SeawallBin, StopMode, TestDir, oracles,
};
use serde_json::Value;

/// How long anything may take that should take seconds.
pub const LIMIT: Duration = Duration::from_secs(90);

/// How many rounds a test plays that draws its moments by lot: one, or `SEAWALL_SOAK`.
pub fn rounds() -> u64 {
    std::env::var("SEAWALL_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A new cluster whose log holds only what the test writes.
pub fn quiet_cluster() -> Result<PgClusterBuilder> {
    let builder = PgCluster::builder(PgBin::default_major()?);
    Ok(builder.config("autovacuum", "off").config("max_wal_size", "2GB"))
}

/// The `seawall` under test.
pub fn seawall() -> Result<SeawallBin> {
    SeawallBin::at(env!("CARGO_BIN_EXE_seawall"))
}

/// A running cluster, called `main`, after `seawall init`, with archiving on exactly as `init`
/// printed it.
#[derive(Debug)]
pub struct Protected {
    // Before the directory: the server stops before its archive goes.
    pub pg: PgCluster,
    pub seawall: SeawallBin,
    pub places: Places,
    /// The SQL that `init` printed.
    pub init_sql: String,
    _directory: TestDir,
}

/// Where a protected cluster's parts are.
#[derive(Debug, Clone)]
pub struct Places {
    pub config: PathBuf,
    pub key: PathBuf,
    pub kit: PathBuf,
    pub repository: PathBuf,
    /// A directory of the servers' owner to restore into.
    pub rooms: PathBuf,
}

impl Protected {
    /// A quiet cluster, set up by its owner.
    pub fn start() -> Result<Self> {
        Self::with(quiet_cluster()?, false)
    }

    /// A cluster of any shape; `init` runs as the test's own user if `init_as_test_user`.
    pub fn with(builder: PgClusterBuilder, init_as_test_user: bool) -> Result<Self> {
        let room = |directory: &TestDir| directory.path().to_owned();
        let pg = builder.start()?;
        let connection = pg.connection_string();
        Self::set_up(pg, seawall()?, room, &connection, init_as_test_user)
    }

    /// As [`Protected::with`], for a server that runs, with all that is Seawall's below a
    /// directory of `name`.
    pub fn named(pg: PgCluster, seawall: SeawallBin, name: &str) -> Result<Self> {
        let connection = pg.connection_string();
        Self::set_up(pg, seawall, |directory| directory.join(name), &connection, false)
    }

    /// As [`Protected::start`], for a server that runs and in which Seawall is that role.
    pub fn as_role(pg: PgCluster, role: &str) -> Result<Self> {
        let connection = pg.connection_string().replace("user=postgres", &format!("user={role}"));
        let room = |directory: &TestDir| directory.path().to_owned();
        Self::set_up(pg, seawall()?, room, &connection, false)
    }

    fn set_up(
        mut pg: PgCluster,
        seawall: SeawallBin,
        base: impl FnOnce(&TestDir) -> PathBuf,
        connection: &str,
        init_as_test_user: bool,
    ) -> Result<Self> {
        let directory = TestDir::new()?;
        let base = base(&directory);
        if !base.exists() {
            pg.owner().create_dir(&base, 0o755)?;
        }
        let places = Places {
            config: base.join("etc/seawall.toml"),
            key: base.join("etc/primary.key"),
            kit: base.join("main.kit"),
            repository: base.join("repository"),
            rooms: base.join("rooms"),
        };
        pg.owner().create_dir(&places.rooms, 0o755)?;
        let mut init = seawall.command(["init", "main", "--connection"]);
        init = init.arg(connection).arg("--config").arg(&places.config);
        init = init.arg("--repo").arg(&places.repository);
        init = init.arg("--kit").arg(&places.kit);
        if init_as_test_user {
            init = init.as_test_user();
        }
        let init_sql = init.succeed()?.stdout;
        pg.psql(&init_sql).context("the SQL that init printed")?;
        pg.restart()?;
        Ok(Self { pg, seawall, places, init_sql, _directory: directory })
    }

    /// `seawall` with this cluster's configuration, as the servers' owner.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.seawall.command(["--config"]).arg(&self.places.config).args(arguments)
    }

    /// Adds lines to the repository's section of the configuration, which is the last one.
    pub fn configure_repository(&self, lines: &str) -> Result<()> {
        let text = fs::read_to_string(&self.places.config)?;
        ensure!(text.rfind("[repository.primary]") > text.rfind("[cluster."), "{text}");
        Ok(fs::write(&self.places.config, format!("{text}{lines}\n"))?)
    }

    /// A backup; what `--json` says of it.
    pub fn backup(&self) -> Result<Value> {
        self.command(["backup", "--json"]).succeed()?.json()
    }

    /// `seawall restore` into the room of that name, without questions.
    pub fn restore<'a>(
        &self,
        room: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Invocation {
        let into = self.room(room);
        self.command(["restore", "main", "--yes", "--into"]).arg(into).args(arguments)
    }

    /// The plan of a restore.
    pub fn plan<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        self.restore("planned", arguments).args(["--dry-run", "--json"]).succeed()?.json()
    }

    /// A directory to restore into; not created.
    pub fn room(&self, name: &str) -> PathBuf {
        self.places.rooms.join(name)
    }

    /// Ends the segment and waits until the archive has it: everything committed so far can be
    /// restored.
    pub fn archive_everything(&self) -> Result<()> {
        archive_everything(&self.pg)
    }

    /// Proves that nothing in the repository is damaged, be there a backup to verify or not.
    pub fn prove_undamaged(&self) -> Result<()> {
        let verify = self.command(["verify", "--json"]).run()?;
        let report = &verify.json()?["repositories"][0]["report"];
        let is_empty = |name: &str| report[name].as_array().is_some_and(Vec::is_empty);
        let exit = if report["backups"] == 0 { 6 } else { 0 };
        let whole = is_empty("findings") && is_empty("blocked_wal");
        ensure!(whole && verify.code() == Some(exit), "{verify:?}");
        Ok(())
    }

    /// Every object of the repository with its bytes; what is still being written is none.
    pub fn objects(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        objects(&self.places.repository)
    }
}

/// More arguments at once than `Invocation::arg` takes.
pub trait Arguments: Sized {
    /// Adds them in order.
    #[must_use]
    fn args<'a>(self, arguments: impl IntoIterator<Item = &'a str>) -> Self;
}

impl Arguments for Invocation {
    fn args<'a>(self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        arguments.into_iter().fold(self, Invocation::arg)
    }
}

/// As [`Protected::archive_everything`], for any server that archives.
pub fn archive_everything(pg: &PgCluster) -> Result<()> {
    // Without a record in it, a segment is not switched.
    pg.psql("SELECT pg_create_restore_point('archived')")?;
    let segment = pg.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
    let archived =
        format!("SELECT coalesce(last_archived_wal, '') >= '{segment}' FROM pg_stat_archiver");
    wait_until(&format!("{segment} in the archive"), LIMIT, || Ok(pg.psql(&archived)? == "t"))
        .with_context(|| pg.logs().unwrap_or_default())
}

/// Every object below a directory with its bytes, in order of their names.
pub fn objects(directory: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let read = |path: PathBuf| Ok((path.clone(), fs::read(path)?));
    let written = |path: &PathBuf| path.extension().is_none_or(|end| end != "seawall-tmp");
    files(directory)?.into_iter().filter(written).map(read).collect()
}

/// Every file below a directory, in order of their names.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let list = if entry.file_type()?.is_dir() { &mut open } else { &mut found };
            list.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Starts a server on a restored directory and waits until it takes writes.
pub fn open_restored(directory: &Path) -> Result<PgCluster> {
    open_restored_of(PgBin::default_major()?, directory)
}

fn open_restored_of(major: u16, directory: &Path) -> Result<PgCluster> {
    // Syncing a directory that has just been synced is most of what a small recovery does.
    let server = PgCluster::open(major, directory).config("fsync", "off");
    let mut pg = server.start()?;
    pg.wait_promoted(LIMIT)?;
    Ok(pg)
}

/// Proves of a restored server that it is whole (amcheck, then `pg_checksums`) and holds the
/// ledger up to `bound` and nothing after; the server is stopped.
pub fn prove_restored(pg: &mut PgCluster, log: &LedgerLog, bound: &Bound) -> Result<Verdict> {
    let verdict = log.verify_prefix(&ledger::read_rows(pg.connection())?, bound)?;
    oracles::amcheck(pg.connection())?;
    pg.stop(StopMode::Fast)?;
    oracles::pg_checksums(pg.bin(), pg.data_directory())?;
    Ok(verdict)
}

/// Proves of a restored directory that was never started that its files, then its content, then
/// its pages and indexes are those of the cluster `dump` was taken of; returns the server, stopped.
pub fn prove_same_content(room: &Path, dump: &Dump) -> Result<PgCluster> {
    prove_same_content_of(PgBin::default_major()?, room, dump)
}

/// The same, of a server of this major.
pub fn prove_same_content_of(major: u16, room: &Path, dump: &Dump) -> Result<PgCluster> {
    // 12 makes no manifest.
    if major > 12 {
        oracles::pg_verifybackup(&PgBin::find(major)?, room)?;
    }
    let mut pg = open_restored_of(major, room)?;
    Dump::take_without_tablespaces(pg.connection())?.same_as(dump)?;
    oracles::amcheck(pg.connection())?;
    pg.stop(StopMode::Fast)?;
    // Not every build of the older majors brings it.
    if pg.bin().program("pg_checksums").is_ok() {
        oracles::pg_checksums(pg.bin(), pg.data_directory())?;
    }
    Ok(pg)
}

/// Whether an output tells of an error of that code.
pub fn tells(output: &Output, code: &str) -> Result<()> {
    ensure!(output.stderr.contains(code), "no {code} in: {}", output.stderr);
    Ok(())
}
