//! The cluster that is measured, built once for each size and kept.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use seawall_testkit::process::run;
use seawall_testkit::{Owner, PgBin, PgCluster, PgConnection, StopMode};

/// The newest major that Debian 12's pgBackRest knows.
pub const MAJOR: u16 = 15;

/// Building a large cluster takes minutes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Of each GB: pgbench's tables at 15.6 MB a scale, documents, digests. The small tables are a
/// constant 0.1 GB.
const SCALE_PER_GB: u32 = 45;
const DOCUMENTS_PER_GB: u32 = 40_000;
const DIGESTS_PER_GB: u32 = 120_000;

/// Settings of the server while it is measured; nothing runs in it by itself.
const SETTINGS: [(&str, &str); 6] = [
    ("autovacuum", "off"),
    ("archive_mode", "on"),
    ("archive_timeout", "0"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
];

/// Settings while it is built, when a crash only costs a new beginning.
const BUILD_SETTINGS: [(&str, &str); 9] = [
    ("fsync", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("archive_mode", "off"),
    ("autovacuum", "off"),
    ("shared_buffers", "512MB"),
    ("maintenance_work_mem", "512MB"),
    ("max_wal_size", "16GB"),
    ("wal_recycle", "off"),
];

/// Makes the directory everything goes into, and keeps others out of it for as long as the file is
/// open: two measurements at once are worth nothing.
pub fn reserve(directory: &Path) -> Result<File> {
    DirBuilder::new().mode(0o755).recursive(true).create(directory)?;
    Owner::of_servers()?.chown(directory)?;
    let lock = File::create(directory.join("lock"))?;
    lock.try_lock().with_context(|| format!("{} is in use", directory.display()))?;
    Ok(lock)
}

/// An empty directory of the servers' owner for all that is measured; what an earlier run left
/// there is gone.
pub fn workplace(directory: &Path) -> Result<PathBuf> {
    let work = directory.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).context("left behind by an earlier run")?;
    }
    Owner::of_servers()?.create_dir(&work, 0o755)?;
    Ok(work)
}

/// What is in a cluster that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// The benchmark's tables, so many GB of them.
    Tables { size_gb: u32 },
    /// So many relations with nothing in them, one file each.
    EmptyRelations { count: u32 },
}

impl Contents {
    /// A data directory with it, made unless it is there already.
    pub fn data(self, directory: &Path) -> Result<PathBuf> {
        kept(directory, &format!("cluster-{}", self.slug()), |server| match self {
            Self::Tables { size_gb } => fill(server.connection(), size_gb),
            Self::EmptyRelations { count } => create_relations(server.connection(), count),
        })
    }

    /// A name for files.
    pub fn slug(self) -> String {
        match self {
            Self::Tables { size_gb } => format!("{size_gb}gb"),
            Self::EmptyRelations { count } => format!("{count}-relations"),
        }
    }

    /// What a restored cluster must say too: how many rows, and what is in them.
    pub fn fingerprint(self, server: &PgCluster) -> Result<String> {
        match self {
            Self::Tables { .. } => rows(server),
            Self::EmptyRelations { .. } => {
                server.psql("SELECT count(*) FROM pg_class WHERE relname LIKE 'empty%'")
            }
        }
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tables { size_gb } => write!(f, "{size_gb} GB in tables"),
            Self::EmptyRelations { count } => write!(f, "{count} empty relations"),
        }
    }
}

/// Starts the server on such a directory.
pub fn start(data: &Path) -> Result<PgCluster> {
    let server = PgCluster::open(MAJOR, data);
    SETTINGS.iter().fold(server, |server, (name, value)| server.config(name, value)).start()
}

/// The size of a cluster's files in bytes, WAL apart.
pub fn size_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            bytes += metadata.len();
        } else if metadata.is_dir() && entry.file_name() != "pg_wal" {
            bytes += size_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

fn kept(
    directory: &Path,
    name: &str,
    fill: impl FnOnce(&PgCluster) -> Result<()>,
) -> Result<PathBuf> {
    let place = directory.join(name);
    if place.exists() {
        return Ok(place);
    }
    eprintln!("xtask: building {}, once", place.display());
    let owner = Owner::of_servers()?;
    let room = directory.join(format!("making-{}", std::process::id()));
    let mut initdb = owner.command(PgBin::find(MAJOR)?.program("initdb")?);
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    initdb.args(["--data-checksums", "--no-sync", "-D"]).arg(&room);
    run(&mut initdb, None, PATIENCE)?.success().context("initdb")?;
    let server = PgCluster::open(MAJOR, &room);
    let server =
        BUILD_SETTINGS.iter().fold(server, |server, (name, value)| server.config(name, value));
    let mut server = server.start()?;
    fill(&server)?;
    // The shutdown checkpoint of hundreds of MB takes longer than the test kit waits.
    sql(server.connection(), "CHECKPOINT", &[])?;
    server.stop(StopMode::Fast)?;
    nix::unistd::sync();
    fs::rename(&room, &place)?;
    Ok(place)
}

fn fill(server: &PgConnection, size_gb: u32) -> Result<()> {
    let mut pgbench = server.client("pgbench")?;
    let scale = (SCALE_PER_GB * size_gb).to_string();
    pgbench.args(["--initialize", "--init-steps=dtGvp", "--quiet", "--scale", &scale, "postgres"]);
    run(&mut pgbench, None, PATIENCE)?.success().context("pgbench")?;
    let (documents, digests) = (DOCUMENTS_PER_GB * size_gb, DIGESTS_PER_GB * size_gb);
    let variables = [("documents", documents.to_string()), ("digests", digests.to_string())];
    sql(server, include_str!("dataset.sql"), &variables)
}

fn sql(server: &PgConnection, text: &str, variables: &[(&str, String)]) -> Result<()> {
    let mut command = server.client("psql")?;
    command.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"]);
    for (name, value) in variables {
        command.args(["-v", &format!("{name}={value}")]);
    }
    run(&mut command, Some(text), PATIENCE)?.success().context("psql").map(drop)
}

fn create_relations(server: &PgConnection, count: u32) -> Result<()> {
    eprintln!("xtask: creating {count} empty tables");
    let create = "SELECT format('CREATE TABLE empty_%s ()', n) FROM generate_series(1, COUNT) n";
    let create = create.replace("COUNT", &count.to_string());
    sql(server, &format!("{create} \\gexec\n"), &[])
}

fn rows(server: &PgCluster) -> Result<String> {
    let sums = ["pgbench_accounts", "documents", "digests", "small_1999"].map(|table| {
        format!(
            "SELECT '{table}', count(*), sum(hashtextextended({table}::text, 0)) FROM {table};\n"
        )
    });
    let mut command = server.connection().client("psql")?;
    command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"]);
    Ok(run(&mut command, Some(&sums.concat()), PATIENCE)?.success()?.stdout)
}
