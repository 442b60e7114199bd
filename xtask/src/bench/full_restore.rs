//! `bench full-restore`: full backups and their restores, by each tool in turn.

use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{Owner, PgCluster, StopMode};

use super::contestant::{Contestant, archive_for};
use super::measure::{Taken, measure};
use super::options::Options;
use super::pgbackrest::PgBackRest;
use super::report::{Floors, Report, Runs};
use super::seawall::Seawall;
use super::{dataset, floors, machine};

/// The reference comes first, Seawall second.
type Contestants = [Box<dyn Contestant>; 2];

pub fn run(options: &Options) -> Result<()> {
    let _reserved = dataset::reserve(&options.directory)?;
    let owner = Owner::of_servers()?;
    let data = dataset::tables(&options.directory, options.size_gb)?;
    let work = options.directory.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).context("left behind by an earlier run")?;
    }
    owner.create_dir(&work, 0o755)?;
    let revision = machine::revision()?;
    let contestants: Contestants =
        [Box::new(PgBackRest::new(&work)?), Box::new(Seawall::new(&work)?)];
    let machine = machine::describe(&options.directory)?;
    let mut server = dataset::start(&data)?;
    let runs = take_turns(options, &contestants, &server, &work)?;
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
        cold: options.cold,
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
    contestants: &Contestants,
    server: &PgCluster,
    work: &Path,
) -> Result<Vec<Runs>> {
    let expected = dataset::fingerprint(server)?;
    let mut runs = vec![Runs::default(); contestants.len()];
    for run in 1..=options.runs {
        for (contestant, runs) in contestants.iter().zip(&mut runs) {
            let restored = work.join("restored");
            let (backup, restore) = one_turn(options, contestant.as_ref(), server, &restored)
                .with_context(|| contestant.name())?;
            let (name, total) = (contestant.name(), options.runs);
            eprintln!(
                "xtask: {run}/{total} {name}: backup {:.1} s, {:.1} MB; restore {:.1} s",
                backup.seconds,
                backup.bytes_added as f64 / 1e6,
                restore.seconds
            );
            if run == options.runs {
                let same = open_and_compare(&restored, &expected);
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

/// One backup into an empty repository and its restore into an empty directory. The server
/// archives for this tool alone, from before the backup.
fn one_turn(
    options: &Options,
    contestant: &dyn Contestant,
    server: &PgCluster,
    restored: &Path,
) -> Result<(Taken, Taken)> {
    archive_for(contestant, server)?;
    settle(options, server.data_directory())?;
    let before = dataset::size_bytes(contestant.repository())?;
    let (mut backup, _) = measure(&mut contestant.backup()).context("backup")?;
    backup.bytes_added = dataset::size_bytes(contestant.repository())? - before;

    server.owner().create_dir(restored, 0o700)?;
    settle(options, contestant.repository())?;
    let (restore, _) = measure(&mut contestant.restore(restored)).context("restore")?;
    Ok((backup, restore))
}

/// Nothing left to write from before, and what will be read in the page cache, or nothing.
fn settle(options: &Options, read: &Path) -> Result<()> {
    nix::unistd::sync();
    if options.cold {
        fs::write("/proc/sys/vm/drop_caches", "3\n").context("dropping the page cache")
    } else {
        floors::read(read).map(drop)
    }
}

/// Takes what was restored out of the way and gives its room back, and keeps the emptied files until
/// the end: ext4 without a journal looks at every inode that was deleted in the last minutes before
/// it makes a new one (`recently_deleted`, ialloc.c), which would be most of the next restore.
fn retire(directory: &Path, place: &Path) -> Result<()> {
    empty(directory)?;
    fs::rename(directory, place).with_context(|| format!("move to {}", place.display()))
}

fn empty(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            empty(&entry.path())?;
        } else if kind.is_file() {
            OpenOptions::new().write(true).open(entry.path())?.set_len(0)?;
        }
    }
    Ok(())
}

/// Starts what was restored: PostgreSQL recovers it, and it holds the same rows.
fn open_and_compare(restored: &Path, expected: &str) -> Result<()> {
    let server = PgCluster::open(dataset::MAJOR, restored).config("archive_mode", "off").start()?;
    let found = dataset::fingerprint(&server)?;
    ensure!(found == expected, "other rows than the cluster has:\n{found}\nnot\n{expected}");
    Ok(())
}

fn floors_of(options: &Options, data: &Path, file: &Path, bytes: u64) -> Result<Floors> {
    let mut floors = Floors::default();
    for _ in 0..options.runs {
        settle(options, data)?;
        floors.read.push(floors::read(data)?);
        settle(options, data)?;
        floors.compress.push(floors::compress(data)?);
        settle(options, data)?;
        floors.write.push(floors::write(file, bytes)?);
    }
    Ok(floors)
}
