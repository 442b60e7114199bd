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

use self::load::{Load, Watched};
use self::report::{Measured, Report};
use super::contestant::{Contestant, archive_for};
use super::dataset::Contents;
use super::measure::{measure, median};
use super::options::Options;
use super::pgbackrest::PgBackRest;
use super::seawall::Seawall;
use super::{dataset, machine};
use crate::seawall_build;

/// How long the server is watched: this long, or as long as the backup lasts if that is shorter.
/// The idle time it is compared with is cut to the same length.
const WINDOW: Duration = Duration::from_secs(20);

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
    let kept = Contents::Tables { size_gb: options.size_gb }.data(&options.directory)?;
    let work = dataset::workplace(&options.directory)?;
    let revision = machine::revision()?;
    let contestants: [Box<dyn Contestant>; 2] = [
        Box::new(PgBackRest::new(&work, options.jobs)?),
        Box::new(Seawall::new(&seawall_build::release()?, &work, options.jobs)?),
    ];
    let machine = machine::describe(&options.directory)?;
    let data = work.join("cluster");
    let mut copy = Owner::of_servers()?.command("cp");
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
    let measured = loads.iter().flat_map(|(_, measured)| measured);
    median(&measured.map(|measured| measured.idle.per_s).collect::<Vec<_>>())
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
        let mut turn: Vec<&dyn Contestant> = contestants.iter().map(AsRef::as_ref).collect();
        if run % 2 == 0 {
            turn.reverse();
        }
        for contestant in turn {
            let name = contestant.name();
            archive_for(contestant, server)?;
            let idle = watch(contestant, server, work, load, Phase::Idle)?;
            let mut phases = [Phase::Backup, Phase::Gentle];
            if run % 2 == 0 {
                phases.reverse();
            }
            for phase in phases {
                let watched = watch(contestant, server, work, load, phase)
                    .with_context(|| format!("{name}, {phase:?}"))?;
                let window = watched.lasted.min(WINDOW);
                let (seen, idle) = (watched.within(window)?, idle.within(window)?);
                let backup_s = watched.lasted.as_secs_f64();
                eprintln!(
                    "xtask: {load}, {run}/{} {name} {phase:?}: {:.0} of {:.0} transactions/s, p99 {:.1} of {:.1} ms, {backup_s:.1} s",
                    options.runs, seen.per_s, idle.per_s, seen.p99_ms, idle.p99_ms
                );
                all.push(Measured { contestant: name, phase, seen, idle, backup_s });
            }
            fs::remove_dir_all(contestant.repository())?;
        }
    }
    Ok(all)
}

fn watch(
    contestant: &dyn Contestant,
    server: &PgCluster,
    work: &Path,
    load: Load,
    phase: Phase,
) -> Result<Watched> {
    server.psql("CHECKPOINT")?;
    nix::unistd::sync();
    load.watch(server.connection(), work, || {
        match phase {
            Phase::Idle => {
                server.psql("CHECKPOINT")?;
                sleep(WINDOW);
            }
            Phase::Backup => drop(measure(&mut contestant.backup())?),
            Phase::Gentle => drop(measure(&mut contestant.gentle_backup().0)?),
        }
        Ok(())
    })
}
