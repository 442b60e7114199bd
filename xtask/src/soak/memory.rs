//! `soak memory`: the memory of a backup and a restore does not grow with the cluster.
//!
//! Each runs in a memory cgroup of its own with a hard limit, under which the kernel kills what
//! takes more. The page cache counts too and is dropped as needed, so what fits is the program's
//! own memory; its peak (`VmHWM`) is what the report compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use seawall_testkit::cgroup::{MemoryUse, run_limited};
use seawall_testkit::{PgCluster, StopMode};
use serde_json::{Value, json};

use crate::bench::contestant::{Contestant, archive_for};
use crate::bench::dataset::Contents;
use crate::bench::options::{JOBS, number};
use crate::bench::seawall::Seawall;
use crate::bench::{dataset, machine};
use crate::evidence::keep;
use crate::paths;
use crate::seawall_build;

/// What no backup or restore takes longer than.
const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Debug, PartialEq, Eq)]
struct Options {
    sizes_gb: Vec<u32>,
    relations: u32,
    limit_bytes: u64,
    directory: PathBuf,
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let directory = paths::cache()?.join("bench");
        let mut options =
            Self { sizes_gb: Vec::new(), relations: 100_000, limit_bytes: 150_000_000, directory };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
            match *argument {
                "--size-gb" => options.sizes_gb.push(number(argument, value)?),
                "--relations" => options.relations = number(argument, value)?,
                "--limit-mb" => options.limit_bytes = number::<u64>(argument, value)? * 1_000_000,
                "--dir" => options.directory = std::path::absolute(value)?,
                other => bail!("soak memory: no option {other}"),
            }
        }
        if options.sizes_gb.is_empty() {
            options.sizes_gb.push(6);
        }
        Ok(options)
    }
}

/// What one command took under the limit.
struct Limited {
    peak_resident_bytes: u64,
    seconds: f64,
}

/// What one cluster's backup and restore took.
struct Case {
    cluster: String,
    cluster_bytes: u64,
    backup: Limited,
    restore: Limited,
}

pub fn main(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let directory = &options.directory;
    let _reserved = dataset::reserve(directory)?;
    let work = dataset::workplace(directory)?;
    let revision = machine::revision()?;
    let seawall = Seawall::new(&seawall_build::release()?, &work, JOBS)?;
    let machine = machine::describe(directory)?;
    let mut cases = Vec::new();
    for size_gb in &options.sizes_gb {
        cases.push(case(&seawall, &options, Contents::Tables { size_gb: *size_gb }, &work)?);
    }
    let relations = Contents::EmptyRelations { count: options.relations };
    cases.push(case(&seawall, &options, relations, &work)?);
    fs::remove_dir_all(&work)?;
    report(&options, &seawall.version()?, &revision, &machine, &cases)
}

fn case(seawall: &Seawall, options: &Options, contents: Contents, work: &Path) -> Result<Case> {
    let data = contents.data(&options.directory)?;
    let mut server = dataset::start(&data)?;
    let expected = contents.fingerprint(&server)?;
    archive_for(seawall, &server)?;
    let limited = |what: &str, command: &Command| {
        let started = Instant::now();
        let taken = run_limited(command, Some(server.owner()), options.limit_bytes, PATIENCE)?;
        let taken = survived(taken, started.elapsed());
        let taken = taken.with_context(|| format!("{contents}: {what}"))?;
        let peak = taken.peak_resident_bytes as f64 / 1e6;
        eprintln!("xtask: {contents}: {what}: {peak:.1} MB, {:.1} s", taken.seconds);
        anyhow::Ok(taken)
    };
    let backup = limited("backup", &seawall.backup())?;
    let restored = work.join("restored");
    server.owner().create_dir(&restored, 0o700)?;
    let restore = limited("restore", &seawall.restore(&restored))?;
    server.stop(StopMode::Fast)?;
    let server =
        PgCluster::open(dataset::MAJOR, &restored).config("archive_mode", "off").start()?;
    let found = contents.fingerprint(&server)?;
    ensure!(found == expected, "{contents}: restored was\n{found}\nnot\n{expected}");
    drop(server);
    fs::remove_dir_all(&restored)?;
    Ok(Case {
        cluster: contents.to_string(),
        cluster_bytes: dataset::size_bytes(&data)?,
        backup,
        restore,
    })
}

fn survived(taken: MemoryUse, elapsed: Duration) -> Result<Limited> {
    ensure!(!taken.out_of_memory, "killed: it wanted more memory than the limit");
    taken.output.success()?;
    let peak_resident_bytes = taken.peak_resident_bytes;
    Ok(Limited { peak_resident_bytes, seconds: elapsed.as_secs_f64() })
}

fn report(
    options: &Options,
    version: &str,
    revision: &str,
    machine: &Value,
    cases: &[Case],
) -> Result<()> {
    let date = machine::today()?;
    let text = markdown(options, version, &date, revision, machine, cases);
    let json = json!({
        "soak": "memory", "date": date, "seawall": version, "revision": revision,
        "machine": machine, "limit_bytes": options.limit_bytes,
        "cases": cases.iter().map(case_json).collect::<Vec<_>>(),
    });
    keep(&format!("soak-{date}-memory"), &text, &json)
}

fn markdown(
    options: &Options,
    version: &str,
    date: &str,
    revision: &str,
    machine: &Value,
    cases: &[Case],
) -> String {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let mut text = format!(
        "# Memory of backup and restore, {date}\n\n{}. Seawall {version} ({revision}), jobs = 2. Each ran in a memory \
         cgroup of {} MB, page cache included, and the restored cluster had the rows it should.\n\n\
         | cluster | size, MB | backup: peak, MB | s | restore: peak, MB | s |\n|---|---|---|---|---|---|\n",
        machine::in_words(machine),
        mb(options.limit_bytes)
    );
    for case in cases {
        text.push_str(&format!(
            "| {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} |\n",
            case.cluster,
            mb(case.cluster_bytes),
            mb(case.backup.peak_resident_bytes),
            case.backup.seconds,
            mb(case.restore.peak_resident_bytes),
            case.restore.seconds
        ));
    }
    text.push_str(
        "\nPeak: the largest resident memory (`VmHWM`), the program's own mapped files included.\n",
    );
    text
}

fn case_json(case: &Case) -> Value {
    let limited = |limited: &Limited| json!({"peak_resident_bytes": limited.peak_resident_bytes, "seconds": limited.seconds});
    json!({
        "cluster": case.cluster, "cluster_bytes": case.cluster_bytes,
        "backup": limited(&case.backup), "restore": limited(&case.restore),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up_and_six_is_the_default() {
        assert_eq!(Options::parse(&[]).unwrap().sizes_gb, [6]);
        let options = Options::parse(&["--size-gb", "6", "--size-gb", "12", "--limit-mb", "200"]);
        let options = options.unwrap();
        assert_eq!((options.sizes_gb, options.limit_bytes), (vec![6, 12], 200_000_000));
        assert!(Options::parse(&["--limit-mb"]).is_err());
    }
}
