//! `bench incremental`: backups after nothing, 500 and 50 000 transactions, by each tool in turn.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use seawall_testkit::process::run as run_to_end;
use seawall_testkit::{Owner, PgCluster, StopMode};
use serde_json::{Value, json};

use super::contestant::{Contestant, wait_archived};
use super::dataset::Contents;
use super::measure::{Taken, measure, median};
use super::options::Options;
use super::pgbackrest::PgBackRest;
use super::report::{of, spread};
use super::seawall::Seawall;
use super::turn::{Cache, open_and_compare, settle};
use super::{dataset, machine};
use crate::evidence::keep;
use crate::seawall_build;

/// A run of pgbench may take so long.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What happened since the backup before, and the most that a backup may then take of the
/// reference's time and bytes.
struct Work {
    name: &'static str,
    transactions: u32,
    seconds_limit: Option<f64>,
    bytes_limit: Option<f64>,
}

const WORKS: [Work; 3] = [
    Work { name: "nothing", transactions: 0, seconds_limit: None, bytes_limit: None },
    Work {
        name: "500 transactions",
        transactions: 500,
        seconds_limit: Some(0.15),
        bytes_limit: Some(0.5),
    },
    Work {
        name: "50 000 transactions",
        transactions: 50_000,
        seconds_limit: Some(0.35),
        bytes_limit: Some(0.6),
    },
];

/// What is read off a run.
type Measured = fn(&Taken) -> f64;

/// The most that is allowed after a work, as a part of what the reference takes.
type Limited = fn(&Work) -> Option<f64>;

/// One tool, and what its backups took after each work.
struct Runner {
    contestant: Box<dyn Contestant>,
    full: Taken,
    incrementals: [Vec<Taken>; WORKS.len()],
}

pub fn run(options: &Options) -> Result<()> {
    let _reserved = dataset::reserve(&options.directory)?;
    let contents = Contents::Tables { size_gb: options.size_gb };
    let kept = contents.data(&options.directory)?;
    let work = dataset::workplace(&options.directory)?;
    let data = work.join("cluster");
    copy(&kept, &data)?;
    let revision = machine::revision()?;
    let machine = machine::describe(&options.directory)?;
    let mut server = dataset::start(&data)?;
    let contestants: [Box<dyn Contestant>; 2] = [
        Box::new(PgBackRest::new(&work, options.jobs)?.with_blocks()),
        Box::new(Seawall::new(&seawall_build::release()?, &work, options.jobs)?),
    ];
    archive_for_both(&contestants, &server)?;
    let mut runners = Vec::new();
    for contestant in contestants {
        let full = one(contestant.as_ref(), &mut contestant.backup(), &server, options.cache)?;
        runners.push(Runner { contestant, full, incrementals: Default::default() });
    }
    for (number, work) in WORKS.iter().enumerate() {
        for round in 1..=options.runs {
            change(&server, work.transactions, round)?;
            // Who comes first has it harder or easier.
            if round % 2 == 0 {
                runners.reverse();
            }
            for runner in &mut runners {
                runner.incremental(number, &server, options)?;
            }
            if round % 2 == 0 {
                runners.reverse();
            }
        }
    }
    let expected = contents.fingerprint(&server)?;
    let about = About {
        date: machine::today()?,
        revision,
        machine,
        postgres: server.bin().version()?,
        cluster_bytes: dataset::size_bytes(&data)?,
    };
    server.stop(StopMode::Fast)?;
    for runner in &runners {
        let restored = work.join(format!("restored-{}", runner.contestant.name()));
        Owner::of_servers()?.create_dir(&restored, 0o700)?;
        measure(&mut runner.contestant.restore(&restored)).context("restore")?;
        open_and_compare(contents, &restored, &expected)
            .with_context(|| format!("what {} restored", runner.contestant.name()))?;
    }
    let cache = if options.cache == Cache::Cold { "-cold" } else { "" };
    let name = format!("bench-{}-incremental-{}gb{cache}", about.date, options.size_gb);
    keep(&name, &markdown(&about, options, &runners)?, &as_json(&about, options, &runners)?)?;
    Ok(fs::remove_dir_all(&work)?)
}

/// The kept cluster stays as it is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Owner::of_servers()?.command("cp");
    command.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    run_to_end(&mut command, None, PATIENCE)?.success().context("copying the cluster").map(drop)
}

/// Both have to have all WAL.
fn archive_for_both(contestants: &[Box<dyn Contestant>; 2], server: &PgCluster) -> Result<()> {
    server.set("archive_command", "")?;
    server.reload()?;
    for contestant in contestants {
        contestant.prepare(server).context("preparing the repository")?;
    }
    let commands: Vec<String> = contestants.iter().map(|it| it.archive_command()).collect();
    server.set("archive_command", &commands.join(" && "))?;
    server.reload()
}

/// Runs transactions over all of the accounts, and waits until they are on disk and archived.
fn change(server: &PgCluster, transactions: u32, seed: usize) -> Result<()> {
    if transactions > 0 {
        let mut pgbench = server.connection().client("pgbench")?;
        pgbench.args(["--no-vacuum", "--client=2", "--jobs=2"]);
        pgbench.arg(format!("--transactions={}", transactions / 2));
        pgbench.arg(format!("--random-seed={seed}")).arg("postgres");
        run_to_end(&mut pgbench, None, PATIENCE)?.success().context("pgbench")?;
    }
    Ok(())
}

/// One backup, with nothing left to archive before it.
fn one(
    contestant: &dyn Contestant,
    command: &mut Command,
    server: &PgCluster,
    cache: Cache,
) -> Result<Taken> {
    wait_archived(server)?;
    settle(cache, server.data_directory())?;
    let before = backup_bytes(contestant.repository())?;
    let (mut taken, _) = measure(command).with_context(|| contestant.name())?;
    taken.bytes_added = backup_bytes(contestant.repository())?.saturating_sub(before);
    Ok(taken)
}

impl Runner {
    fn incremental(&mut self, work: usize, server: &PgCluster, options: &Options) -> Result<()> {
        let mut command = self.contestant.incremental_backup();
        let taken = one(self.contestant.as_ref(), &mut command, server, options.cache)?;
        let (name, after) = (self.contestant.name(), WORKS[work].name);
        let (seconds, bytes) = (taken.seconds, taken.bytes_added as f64 / 1e6);
        eprintln!("xtask: {name}: after {after} {seconds:.2} s, {bytes:.2} MB");
        self.incrementals[work].push(taken);
        Ok(())
    }
}

/// What a repository holds, WAL apart.
fn backup_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let is_wal = entry.file_name() == "archive" || entry.file_name() == "wal";
        if metadata.is_file() {
            bytes += metadata.len();
        } else if metadata.is_dir() && !is_wal {
            bytes += backup_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// What is said beside the numbers.
struct About {
    date: String,
    revision: String,
    machine: Value,
    postgres: String,
    cluster_bytes: u64,
}

fn markdown(about: &About, options: &Options, runners: &[Runner]) -> Result<String> {
    let [reference, ours] = runners else { return Ok(String::new()) };
    let cache = if options.cache == Cache::Cold { "dropped before every run" } else { "warm" };
    let mut text = format!("# Incremental backups, {}\n\n", about.date);
    writeln!(
        text,
        "{}. {:.2} GB of {}. Page cache {cache}. {} runs each, first one tool, then the other; medians, ranges in brackets. Bytes are those added to the repository, WAL apart.\n",
        machine::in_words(&about.machine),
        about.cluster_bytes as f64 / 1e9,
        about.postgres,
        options.runs
    )?;
    for runner in runners {
        let (name, version) = (runner.contestant.name(), runner.contestant.version()?);
        writeln!(text, "* **{name} {version}**: {}.", runner.contestant.options())?;
    }
    writeln!(text, "\nSeawall is {}.\n", about.revision)?;
    writeln!(
        text,
        "| after | | pgBackRest | Seawall | ratio | at most |\n|---|---|---|---|---|---|"
    )?;
    let rows: [(&str, Measured, Limited); 3] = [
        ("s", |taken| taken.seconds, |work| work.seconds_limit),
        ("MB added", |taken| taken.bytes_added as f64 / 1e6, |work| work.bytes_limit),
        ("peak memory, MB", |taken| taken.peak_resident_bytes as f64 / 1e6, |_| None),
    ];
    for (number, work) in WORKS.iter().enumerate() {
        for (what, value, limit) in rows {
            let theirs = of(&reference.incrementals[number], value);
            let own = of(&ours.incrementals[number], value);
            let ratio = median(&own) / median(&theirs);
            let limit = match limit(work) {
                Some(limit) if ratio > limit => format!("{limit} × **missed**"),
                Some(limit) => format!("{limit} ×"),
                None => String::new(),
            };
            let (theirs, own) = (spread(&theirs, 2), spread(&own, 2));
            writeln!(
                text,
                "| {} | {what} | {theirs} | {own} | {ratio:.2} × | {limit} |",
                work.name
            )?;
        }
    }
    let (theirs, own) = (reference.full.seconds, ours.full.seconds);
    writeln!(text, "| full, once | s | {theirs:.2} | {own:.2} | {:.2} × | |", own / theirs)?;
    Ok(text)
}

fn as_json(about: &About, options: &Options, runners: &[Runner]) -> Result<Value> {
    let each = |runner: &Runner| -> Result<Value> {
        let works = WORKS.iter().zip(&runner.incrementals).map(|(work, taken)| {
            let taken: Vec<Value> = taken.iter().map(|one| one.to_json()).collect();
            json!({ "transactions": work.transactions, "backups": taken })
        });
        Ok(json!({
            "name": runner.contestant.name(),
            "version": runner.contestant.version()?,
            "options": runner.contestant.options(),
            "full": runner.full.to_json(),
            "incrementals": works.collect::<Vec<_>>(),
        }))
    };
    let contestants: Result<Vec<Value>> = runners.iter().map(each).collect();
    Ok(json!({
        "benchmark": "incremental", "date": about.date, "revision": about.revision,
        "machine": about.machine, "postgres": about.postgres, "size_gb": options.size_gb,
        "cluster_bytes": about.cluster_bytes, "jobs": options.jobs,
        "cold": options.cache == Cache::Cold, "contestants": contestants?,
    }))
}
