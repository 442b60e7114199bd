//! `bench scaling` and `bench choices`: Seawall alone, in several ways.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use seawall_testkit::StopMode;
use serde_json::{Value, json};

use super::contestant::Contestant;
use super::dataset::Contents;
use super::measure::{Taken, median};
use super::options::Options;
use super::report::{of, spread};
use super::seawall::Seawall;
use super::turn::{Cache, one_turn, open_and_compare, retire};
use super::{dataset, machine};
use crate::evidence::keep;
use crate::seawall_build;

const TABLES: fn(u32) -> Contents = |size_gb| Contents::Tables { size_gb };
const RELATIONS: Contents = Contents::EmptyRelations { count: 100_000 };

/// One way to run it.
struct Variant {
    contents: Contents,
    jobs: usize,
    /// The memory budget, where as many workers are wanted as it allows.
    memory: Option<&'static str>,
    /// Options of the backup, besides.
    options: &'static [&'static str],
}

impl Variant {
    const fn new(contents: Contents, jobs: usize, options: &'static [&'static str]) -> Self {
        Self { contents, jobs, memory: None, options }
    }

    /// Of the cluster's tables, with so much memory and more workers than it allows.
    const fn within(contents: Contents, memory: &'static str) -> Self {
        Self { contents, jobs: 8, memory: Some(memory), options: &[] }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.contents)?;
        match self.memory {
            None => write!(f, "--jobs {}", self.jobs)?,
            Some(memory) => write!(f, "--memory {memory} and the workers it allows")?,
        }
        self.options.iter().try_for_each(|option| write!(f, " {option}"))
    }
}

/// What came of one of them.
struct Case {
    variant: Variant,
    bytes: u64,
    backups: Vec<Taken>,
    restores: Vec<Taken>,
}

/// What more data, more files and more workers cost.
pub fn scaling(options: &Options) -> Result<()> {
    let variants = vec![
        Variant::new(TABLES(2), 2, &[]),
        Variant::new(TABLES(6), 2, &[]),
        Variant::new(TABLES(20), 2, &[]),
        Variant::new(TABLES(6), 1, &[]),
        Variant::new(RELATIONS, 1, &[]),
        Variant::new(RELATIONS, 2, &[]),
    ];
    run("scaling", options, variants)
}

/// What the defaults are chosen by.
pub fn choices(options: &Options) -> Result<()> {
    let tables = TABLES(options.size_gb);
    let variants = vec![
        Variant::new(tables, 2, &[]),
        Variant::new(tables, 2, &["--compression", "zstd:2"]),
        Variant::new(tables, 2, &["--compression", "zstd:3"]),
        Variant::new(tables, 2, &["--pack-size", "16MiB"]),
        Variant::new(tables, 2, &["--pack-size", "256MiB"]),
        Variant::new(tables, 3, &[]),
        Variant::new(tables, 4, &[]),
        Variant::within(tables, "64MiB"),
        Variant::within(tables, "256MiB"),
    ];
    run("choices", options, variants)
}

fn run(name: &str, options: &Options, variants: Vec<Variant>) -> Result<()> {
    let _reserved = dataset::reserve(&options.directory)?;
    let work = dataset::workplace(&options.directory)?;
    let revision = machine::revision()?;
    let program = seawall_build::release()?;
    let machine = machine::describe(&options.directory)?;
    let mut cases: Vec<Case> = variants.into_iter().map(Case::new).collect();
    for run in 1..=options.runs {
        // Every other time the other way round, should one make it harder for the next.
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if run % 2 == 0 {
            order.reverse();
        }
        for number in order {
            let Some(case) = cases.get_mut(number) else { continue };
            let retired = work.join(format!("retired-{number}-{run}"));
            let Variant { jobs, memory, options: backup_options, .. } = case.variant;
            let seawall = Seawall::new(&program, &work, jobs)?.with(memory, backup_options);
            let what = case.variant.to_string();
            case.turn(options, run, &seawall, &work.join("restored"), &retired).context(what)?;
        }
    }
    fs::remove_dir_all(&work)?;
    let date = machine::today()?;
    let cache = if options.cache == Cache::Cold { "-cold" } else { "" };
    let heading = format!("# Full backup and restore: {name}, {date}\n\n");
    let text = heading + &markdown(options, &revision, &machine, &cases);
    let json = json!({
        "benchmark": name, "date": date, "revision": revision, "machine": machine,
        "cold": options.cache == Cache::Cold, "cases": cases.iter().map(as_json).collect::<Vec<_>>(),
    });
    keep(&format!("bench-{date}-{name}{cache}"), &text, &json)
}

impl Case {
    const fn new(variant: Variant) -> Self {
        Self { variant, bytes: 0, backups: Vec::new(), restores: Vec::new() }
    }

    fn turn(
        &mut self,
        options: &Options,
        run: usize,
        seawall: &Seawall,
        restored: &Path,
        retired: &Path,
    ) -> Result<()> {
        let contents = self.variant.contents;
        let data = contents.data(&options.directory)?;
        let mut server = dataset::start(&data)?;
        let (backup, restore) = one_turn(seawall, &server, restored, options.cache)?;
        eprintln!(
            "xtask: {}, {run}/{}: backup {:.1} s, restore {:.1} s",
            self.variant, options.runs, backup.seconds, restore.seconds
        );
        self.backups.push(backup);
        self.restores.push(restore);
        if run == options.runs {
            open_and_compare(contents, restored, &contents.fingerprint(&server)?)?;
        }
        server.stop(StopMode::Fast)?;
        self.bytes = dataset::size_bytes(&data)?;
        retire(restored, retired)?;
        Ok(fs::remove_dir_all(seawall.repository())?)
    }
}

fn markdown(options: &Options, revision: &str, machine: &Value, cases: &[Case]) -> String {
    let cache = if options.cache == Cache::Cold { "dropped before every run" } else { "warm" };
    let mut text = format!(
        "{}. Seawall ({revision}), page cache {cache}, {} runs each; medians, ranges in brackets.\n\n\
         | | MB | backup, s | MB/s | CPU, s | peak, MB | added, MB | restore, s | MB/s | CPU, s | peak, MB |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
        machine::in_words(machine),
        options.runs
    );
    for case in cases {
        let megabytes = case.bytes as f64 / 1e6;
        let added = median(&of(&case.backups, |taken| taken.bytes_added as f64 / 1e6));
        text.push_str(&format!(
            "| {} | {megabytes:.0} | {} | {added:.0} | {} |\n",
            case.variant,
            columns(&case.backups, megabytes),
            columns(&case.restores, megabytes)
        ));
    }
    text
}

/// Seconds, rate, processor and memory.
fn columns(taken: &[Taken], megabytes: f64) -> String {
    let seconds = of(taken, |taken| taken.seconds);
    let cpu = median(&of(taken, |taken| taken.cpu_seconds));
    let peaks = of(taken, |taken| taken.peak_resident_bytes as f64 / 1e6);
    let rate = megabytes / median(&seconds);
    format!("{} | {rate:.0} | {cpu:.1} | {}", spread(&seconds, 2), spread(&peaks, 0))
}

fn as_json(case: &Case) -> Value {
    let list = |taken: &[Taken]| taken.iter().map(|one| one.to_json()).collect::<Vec<_>>();
    json!({
        "variant": case.variant.to_string(), "cluster_bytes": case.bytes,
        "backups": list(&case.backups), "restores": list(&case.restores),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_stand_beside_the_times_they_follow_from() {
        let taken = |seconds| Taken {
            seconds,
            cpu_seconds: 3.0,
            peak_resident_bytes: 90_000_000,
            ..Taken::default()
        };
        let row = columns(&[taken(2.0), taken(1.0), taken(4.0)], 6000.0);
        assert_eq!(row, "2.00 (1.00–4.00) | 3000 | 3.0 | 90 (90–90)");
    }
}
