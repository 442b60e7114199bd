//! `bench delta-restore`: restores onto a restored cluster in which 50 MB differ, by each tool in turn.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use seawall_testkit::faults::Random;
use seawall_testkit::{PgCluster, StopMode};
use serde_json::{Value, json};

use super::contestant::Contestant;
use super::dataset::Contents;
use super::measure::{Taken, measure, median};
use super::options::Options;
use super::pgbackrest::PgBackRest;
use super::report::{of, spread};
use super::seawall::Seawall;
use super::turn::{Cache, one_turn, open_and_compare, settle};
use super::{dataset, machine};
use crate::evidence::keep;
use crate::seawall_build;

/// How much differs: so many blocks of 8 KiB, spread over the largest files.
const DIFFERING_BLOCKS: u64 = 6400;
const BLOCK_BYTES: u64 = 8192;

/// Files shorter than this are left as they are.
const FILE_BYTES_MIN: u64 = 8 << 20;

/// The most a restore onto what is there may take, as a part of what the reference takes.
const LIMIT: f64 = 0.50;

/// What is read off a run.
type Measured = fn(&Taken) -> f64;

/// One tool, and what its runs took.
struct Runner {
    contestant: Box<dyn Contestant>,
    restored: PathBuf,
    full: Taken,
    deltas: Vec<Taken>,
    /// What it says of the last one.
    said: String,
}

pub fn run(options: &Options) -> Result<()> {
    let _reserved = dataset::reserve(&options.directory)?;
    let contents = Contents::Tables { size_gb: options.size_gb };
    let data = contents.data(&options.directory)?;
    let work = dataset::workplace(&options.directory)?;
    let revision = machine::revision()?;
    let machine = machine::describe(&options.directory)?;
    let mut server = dataset::start(&data)?;
    let expected = contents.fingerprint(&server)?;
    let contestants: [Box<dyn Contestant>; 2] = [
        Box::new(PgBackRest::new(&work, options.jobs)?),
        Box::new(Seawall::new(&seawall_build::release()?, &work, options.jobs)?),
    ];
    let mut runners = Vec::new();
    for contestant in contestants {
        runners.push(Runner::begin(contestant, &server, &work, options.cache)?);
    }
    server.stop(StopMode::Fast)?;
    for run in 1..=options.runs {
        for runner in &mut runners {
            runner.delta(run, options)?;
        }
    }
    for runner in &runners {
        let same = open_and_compare(contents, &runner.restored, &expected);
        same.with_context(|| format!("what {} restored", runner.contestant.name()))?;
    }
    let about = About {
        date: machine::today()?,
        revision,
        machine,
        postgres: server.bin().version()?,
        cluster_bytes: dataset::size_bytes(&data)?,
    };
    let cache = if options.cache == Cache::Cold { "-cold" } else { "" };
    let name = format!("bench-{}-delta-restore-{}gb{cache}", about.date, options.size_gb);
    keep(&name, &markdown(&about, options, &runners)?, &as_json(&about, options, &runners)?)?;
    Ok(fs::remove_dir_all(&work)?)
}

impl Runner {
    /// Backs up, and restores in full.
    fn begin(
        contestant: Box<dyn Contestant>,
        server: &PgCluster,
        work: &Path,
        cache: Cache,
    ) -> Result<Self> {
        let restored = work.join(format!("restored-{}", contestant.name()));
        let (_, full) = one_turn(contestant.as_ref(), server, &restored, cache)
            .with_context(|| contestant.name())?;
        Ok(Self { contestant, restored, full, deltas: Vec::new(), said: String::new() })
    }

    /// Makes the directory differ, and restores onto it.
    fn delta(&mut self, run: usize, options: &Options) -> Result<()> {
        differ(&self.restored, run as u64)?;
        settle(options.cache, &self.restored)?;
        let mut command = self.contestant.delta_restore(&self.restored);
        let name = self.contestant.name();
        let (taken, said) = measure(&mut command).with_context(|| format!("{name}: delta"))?;
        let total = options.runs;
        eprintln!("xtask: {run}/{total} {name}: restore onto what is there {:.1} s", taken.seconds);
        self.deltas.push(taken);
        self.said = said;
        Ok(())
    }
}

/// Writes other bytes into blocks spread over the cluster's large files, the same for each tool.
fn differ(directory: &Path, seed: u64) -> Result<()> {
    let mut files = Vec::new();
    for database in fs::read_dir(directory.join("base"))? {
        for file in fs::read_dir(database?.path())? {
            let (path, length) = file.and_then(|it| Ok((it.path(), it.metadata()?.len())))?;
            if length >= FILE_BYTES_MIN {
                files.push((path, length));
            }
        }
    }
    files.sort();
    let bytes: u64 = files.iter().map(|(_, length)| length).sum();
    let mut random = Random::new(seed);
    for (path, length) in files {
        let file = OpenOptions::new().write(true).open(&path)?;
        let blocks = length / BLOCK_BYTES;
        for _ in 0..(DIFFERING_BLOCKS * length).div_ceil(bytes) {
            let offset = random.below(blocks) * BLOCK_BYTES;
            file.write_all_at(&random.next_u64().to_le_bytes(), offset + 4000)?;
        }
    }
    Ok(())
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
    let mut text = format!("# Restore onto what is there, {}\n\n", about.date);
    writeln!(
        text,
        "{}. {:.2} GB of {}, {} blocks of 8 KiB spread over the large files differ. Page cache {cache}. {} runs each, in turn; medians, ranges in brackets.\n",
        machine::in_words(&about.machine),
        about.cluster_bytes as f64 / 1e9,
        about.postgres,
        DIFFERING_BLOCKS,
        options.runs
    )?;
    for runner in runners {
        let (name, version) = (runner.contestant.name(), runner.contestant.version()?);
        writeln!(text, "* **{name} {version}**: {}.", runner.contestant.options())?;
    }
    writeln!(text, "\nSeawall is {}.\n", about.revision)?;
    writeln!(text, "| | pgBackRest | Seawall | ratio | at most |\n|---|---|---|---|---|")?;
    let rows: [(&str, Measured); 3] = [
        ("restore onto what is there, s", |taken| taken.seconds),
        ("processor, s", |taken| taken.cpu_seconds),
        ("peak memory, MB", |taken| taken.peak_resident_bytes as f64 / 1e6),
    ];
    for (number, (work, value)) in rows.into_iter().enumerate() {
        let (theirs, own) = (of(&reference.deltas, value), of(&ours.deltas, value));
        let ratio = median(&own) / median(&theirs);
        let limit = match number {
            0 if ratio > LIMIT => format!("{LIMIT} × **missed**"),
            0 => format!("{LIMIT} ×"),
            _ => String::new(),
        };
        let (theirs, own) = (spread(&theirs, 2), spread(&own, 2));
        writeln!(text, "| {work} | {theirs} | {own} | {ratio:.2} × | {limit} |")?;
    }
    let (theirs, own) = (reference.full.seconds, ours.full.seconds);
    writeln!(text, "| full restore, once, s | {theirs:.2} | {own:.2} | {:.2} × | |", own / theirs)?;
    if let Some(delta) = said(ours) {
        let megabytes = |name: &str| delta[name].as_u64().unwrap_or_default() as f64 / 1e6;
        writeln!(
            text,
            "\nSeawall compared {:.1} MB, fetched {:.1} MB as stored and wrote {:.1} MB.",
            megabytes("compared_bytes"),
            megabytes("fetched_bytes"),
            megabytes("written_bytes")
        )?;
    }
    Ok(text)
}

/// What Seawall's `--json` says of what it did.
fn said(runner: &Runner) -> Option<Value> {
    let json: Value = serde_json::from_str(&runner.said).ok()?;
    json.pointer("/restore/delta").cloned()
}

fn as_json(about: &About, options: &Options, runners: &[Runner]) -> Result<Value> {
    let contestants: Result<Vec<Value>> = runners
        .iter()
        .map(|runner| {
            Ok(json!({
                "name": runner.contestant.name(),
                "version": runner.contestant.version()?,
                "options": runner.contestant.options(),
                "full_restore": runner.full.to_json(),
                "deltas": runner.deltas.iter().map(|one| one.to_json()).collect::<Vec<_>>(),
                "delta": said(runner),
            }))
        })
        .collect();
    Ok(json!({
        "benchmark": "delta-restore", "date": about.date, "revision": about.revision,
        "machine": about.machine, "postgres": about.postgres, "size_gb": options.size_gb,
        "cluster_bytes": about.cluster_bytes, "jobs": options.jobs,
        "cold": options.cache == Cache::Cold, "differing_blocks": DIFFERING_BLOCKS,
        "contestants": contestants?,
    }))
}
