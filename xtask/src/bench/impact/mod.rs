//! `bench impact`: what a live database's users feel of a backup.
//!
//! pgbench works on a copy of the benchmark's cluster, first as fast as it can, then at half that
//! rate, and its log tells what each transaction took while nothing else ran, during a backup, and
//! during one that was told to give way. Each begins with a checkpoint, also the idle time: a
//! backup needs one, and whole pages in WAL follow from it.

mod load;
mod report;

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use seawall_testkit::process::run as run_program;
use seawall_testkit::{Owner, PgCluster, StopMode};

use self::load::{Load, Seen};
use self::report::{Measured, Report};
use super::contestant::{Contestant, archive_for};
use super::dataset::Contents;
use super::measure::{measure, median};
use super::options::Options;
use super::pgbackrest::PgBackRest;
use super::seawall::Seawall;
use super::{dataset, machine};

/// How long the server is watched with nothing beside it.
const IDLE: Duration = Duration::from_secs(20);

/// Copying a large cluster takes minutes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What goes on beside pgbench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Backup,
    Gentle,
}

pub fn run(options: &Options) -> Result<()> {
    let _reserved = dataset::reserve(&options.directory)?;
    let owner = Owner::of_servers()?;
    let kept = Contents::Tables { size_gb: options.size_gb }.data(&options.directory)?;
    let work = options.directory.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).context("left behind by an earlier run")?;
    }
    owner.create_dir(&work, 0o755)?;
    let revision = machine::revision()?;
    let contestants: [Box<dyn Contestant>; 2] = [
        Box::new(PgBackRest::new(&work, options.jobs)?),
        Box::new(Seawall::new(&work, options.jobs)?),
    ];
    let machine = machine::describe(&options.directory)?;
    let data = work.join("cluster");
    let mut copy = owner.command("cp");
    run_program(copy.arg("-a").arg(&kept).arg(&data), None, PATIENCE)?.success()?;
    let mut server = dataset::start(&data)?;
    let mut loads = vec![(Load::All, rounds(options, &contestants, &server, &work, Load::All)?)];
    let half = Load::Rate { per_s: most(&loads) / 2.0 };
    loads.push((half, rounds(options, &contestants, &server, &work, half)?));
    server.stop(StopMode::Fast)?;
    let report = Report {
        date: machine::today()?,
        revision,
        machine,
        postgres: server.bin().version()?,
        cluster_bytes: dataset::size_bytes(&kept)?,
        runs: options.runs,
        contestants: contestants
            .iter()
            .map(|one| Ok((one.name(), one.version()?, one.options(), one.gentle_backup().1)))
            .collect::<Result<_>>()?,
        loads,
    };
    fs::remove_dir_all(&work)?;
    report.write()
}

/// How many transactions a second the server manages with nothing beside it.
fn most(loads: &[(Load, Vec<Measured>)]) -> f64 {
    let idle = loads.iter().flat_map(|(_, measured)| measured);
    let idle = idle.filter(|measured| measured.phase == Phase::Idle);
    median(&idle.map(|measured| measured.seen.per_s).collect::<Vec<_>>())
}

fn rounds(
    options: &Options,
    contestants: &[Box<dyn Contestant>; 2],
    server: &PgCluster,
    work: &Path,
    load: Load,
) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for run in 1..=options.runs {
        for contestant in contestants {
            archive_for(contestant.as_ref(), server)?;
            for phase in [Phase::Idle, Phase::Backup, Phase::Gentle] {
                let name = contestant.name();
                let (seen, backup_s) = one(contestant.as_ref(), server, work, load, phase)
                    .with_context(|| format!("{name}, {phase:?}"))?;
                eprintln!(
                    "xtask: {load}, {run}/{} {name} {phase:?}: {:.0} transactions/s, p99 {:.1} ms, {backup_s:.1} s",
                    options.runs, seen.per_s, seen.p99_ms
                );
                all.push(Measured { contestant: name, phase, seen, backup_s });
            }
            fs::remove_dir_all(contestant.repository())?;
        }
    }
    Ok(all)
}

fn one(
    contestant: &dyn Contestant,
    server: &PgCluster,
    work: &Path,
    load: Load,
    phase: Phase,
) -> Result<(Seen, f64)> {
    server.psql("CHECKPOINT")?;
    nix::unistd::sync();
    load.watch(server.connection(), work, || match phase {
        Phase::Idle => {
            server.psql("CHECKPOINT")?;
            sleep(IDLE);
            Ok(0.0)
        }
        Phase::Backup => Ok(measure(&mut contestant.backup())?.0.seconds),
        Phase::Gentle => Ok(measure(&mut contestant.gentle_backup().0)?.0.seconds),
    })
}
