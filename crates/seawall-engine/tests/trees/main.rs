//! What a backup calls complete restores, whatever lies in a data directory and whatever becomes of
//! it while it is read.

#[path = "../restore/house.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod house;
mod person;
#[path = "../../../seawall/tests/support/sweep.rs"]
mod sweep;
mod tree;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use house::House;
use person::Person;
use seawall_engine::backup::BackupReport;
use seawall_engine::restore::Target;
use seawall_testkit::faults::Random;
use seawall_testkit::{PgBin, PgCluster};
use sweep::Sweep;
use tree::Tree;

/// So many trees are in one backup: beside them it has a whole cluster.
const TREES_AT_ONCE: u64 = 10;

/// Where trees grow in the data directory.
const PLACES: [&str; 4] = ["", "base", "global", "pg_logical"];

/// A backup that ends well restores, and every file is one of the versions that it had. What it
/// does not have, it names.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_calls_complete_restores() -> Result<()> {
    let sweep = Sweep::from_environment(50)?;
    let house = small_house().await?;
    let mut counts = BTreeMap::new();
    let seeds: Vec<u64> = (0..sweep.rounds).map(|round| sweep.seed.wrapping_add(round)).collect();
    for seeds in seeds.chunks(TREES_AT_ONCE as usize) {
        let doing = || format!("seeds {seeds:?}");
        play(&house, seeds, &mut counts).await.with_context(doing)?;
    }
    sweep
        .write_evidence(&counts.into_iter().map(|(what, count)| (what.to_owned(), count)).collect())
}

/// A cluster with as little of its own in it as can be.
async fn small_house() -> Result<House> {
    let house = House::with(PgCluster::builder(PgBin::default_major()?).wal_segment_mb(1)).await?;
    for database in ["template0", "template1"] {
        house.pg.psql(&format!("ALTER DATABASE {database} IS_TEMPLATE false"))?;
        house.pg.psql(&format!("DROP DATABASE {database}"))?;
    }
    Ok(house)
}

async fn play(
    house: &House,
    seeds: &[u64],
    counts: &mut BTreeMap<&'static str, u64>,
) -> Result<()> {
    let (data, away) = (house.pg.data_directory(), house.pg.scratch().join("away"));
    fs::create_dir_all(&away)?;
    let mut trees = Vec::new();
    for seed in seeds {
        let mut random = Random::new(*seed);
        let place = tree::pick(&mut random, &PLACES);
        let root = data.join(place).join(format!("tree of {seed}"));
        trees.push(Tree::grow(root, away.join(seed.to_string()), &mut random)?);
    }
    // The server's own user reads the data directory too.
    house.give_away(data);

    let people = trees.iter_mut().zip(seeds).map(|(tree, seed)| {
        Person::begin(tree.root().to_owned(), tree.take_busy(), Random::new(!seed))
    });
    let people: Vec<Person> = people.collect();
    let backup = house.backup().await;
    for (tree, person) in trees.iter_mut().zip(people) {
        tree.give_back(person.end()?);
    }
    let backup = backup.context("the backup")?;

    let mut request = house.request("room", Target::BackupOnly);
    request.backup = Some(backup.id);
    house.restore(&request).await.context("the restore")?;
    for (tree, seed) in trees.iter().zip(seeds) {
        let doing = || format!("seed {seed}");
        let restored = house.room("room").join(tree.root().strip_prefix(data)?);
        let left_out = left_out(&backup, tree, data)?;
        tree.compare(&restored, &left_out, counts).with_context(doing)?;
    }
    *counts.entry("backups").or_default() += 1;
    *counts.entry("files left out, and named").or_default() += backup.left_out.len() as u64;
    fs::remove_dir_all(house.room("room"))?;
    fs::remove_dir_all(&away)?;
    trees.iter().try_for_each(|tree| fs::remove_dir_all(tree.root()).map_err(Into::into))
}

/// What the backup says it does not have of a tree, relative to that.
fn left_out(
    backup: &BackupReport,
    tree: &Tree,
    data: &std::path::Path,
) -> Result<Vec<std::path::PathBuf>> {
    let mut paths = Vec::new();
    for file in &backup.left_out {
        let path = data.join(tree::path_of(&file.path));
        if let Ok(below) = path.strip_prefix(tree.root()) {
            ensure!(tree.is_busy(below), "{} was left out, and nobody wrote it", path.display());
            paths.push(below.to_owned());
        }
    }
    Ok(paths)
}
