//! `bench full-restore`: full backups and their restores, by each tool in turn.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use seawall_testkit::{PgCluster, StopMode};

use super::contestant::Contestant;
use super::dataset::Contents;
use super::options::Options;
use super::pgbackrest::PgBackRest;
use super::report::{Floors, Report, Runs};
use super::seawall::Seawall;
use super::turn::{one_turn, open_and_compare, retire, settle};
use super::{dataset, floors, machine};
use crate::seawall_build;

/// The reference comes first, Seawall second.
type Contestants = [Box<dyn Contestant>; 2];

pub fn run(options: &Options) -> Result<()> {
    let _reserved = dataset::reserve(&options.directory)?;
    let contents = Contents::Tables { size_gb: options.size_gb };
    let data = contents.data(&options.directory)?;
    let work = dataset::workplace(&options.directory)?;
    let revision = machine::revision()?;
    let contestants: Contestants = [
        Box::new(PgBackRest::new(&work, options.jobs)?),
        Box::new(Seawall::new(&seawall_build::release()?, &work, options.jobs)?),
    ];
    let machine = machine::describe(&options.directory)?;
    let mut server = dataset::start(&data)?;
    let runs = take_turns(options, contents, &contestants, &server, &work)?;
    server.stop(StopMode::Fast)?;
    let cluster_bytes = dataset::size_bytes(&data)?;
    let floors = floors_of(options, &data, &work.join("written"), cluster_bytes)?;
    fs::remove_dir_all(&work)?;
    let versions = contestants.iter().map(|one| one.version()).collect::<Result<Vec<_>>>()?;
    let report = Report {
        date: machine::today()?,
        revision,
        machine,
        postgres: server.bin().version()?,
        size_gb: options.size_gb,
        cluster_bytes,
        jobs: options.jobs,
        cache: options.cache,
        contestants: contestants
            .iter()
            .zip(versions)
            .map(|(c, v)| (c.name(), v, c.options()))
            .collect(),
        runs,
        floors,
    };
    report.write()
}

fn take_turns(
    options: &Options,
    contents: Contents,
    contestants: &Contestants,
    server: &PgCluster,
    work: &Path,
) -> Result<Vec<Runs>> {
    let expected = contents.fingerprint(server)?;
    let mut runs = vec![Runs::default(); contestants.len()];
    for run in 1..=options.runs {
        for (contestant, runs) in contestants.iter().zip(&mut runs) {
            let restored = work.join("restored");
            let (backup, restore) = one_turn(contestant.as_ref(), server, &restored, options.cache)
                .with_context(|| contestant.name())?;
            let (name, total) = (contestant.name(), options.runs);
            eprintln!(
                "xtask: {run}/{total} {name}: backup {:.1} s, {:.1} MB; restore {:.1} s",
                backup.seconds,
                backup.bytes_added as f64 / 1e6,
                restore.seconds
            );
            if run == options.runs {
                let same = open_and_compare(contents, &restored, &expected);
                same.with_context(|| format!("what {name} restored"))?;
            }
            retire(&restored, &work.join(format!("{name}-{run}")))?;
            fs::remove_dir_all(contestant.repository())?;
            runs.backups.push(backup);
            runs.restores.push(restore);
        }
    }
    Ok(runs)
}

fn floors_of(options: &Options, data: &Path, file: &Path, bytes: u64) -> Result<Floors> {
    let mut floors = Floors::default();
    for _ in 0..options.runs {
        settle(options.cache, data)?;
        floors.read.push(floors::read(data)?);
        settle(options.cache, data)?;
        floors.compress.push(floors::compress(data)?);
        settle(options.cache, data)?;
        floors.write.push(floors::write(file, bytes)?);
    }
    Ok(floors)
}
