//! `seawall restore --delta`, as it is typed, onto the server's own directory.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_testkit::faults::{Random, flip_bit};
use seawall_testkit::ledger::{Bound, LedgerLog};
use seawall_testkit::{Invocation, Ledger, StopMode};
use support::{LIMIT, Protected, files, open_restored, prove_restored, rounds, tells};

/// A cluster with a backup and commits after it, all archived, whose server is stopped.
fn story() -> Result<(Protected, LedgerLog)> {
    let mut house = Protected::start()?;
    house
        .pg
        .psql("CREATE TABLE ballast AS SELECT i, md5(i::text) FROM generate_series(1, 200000) i")?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    house.backup()?;
    running.wait_for(20, LIMIT)?;
    house.pg.psql("CREATE TABLE later AS SELECT i FROM generate_series(1, 50000) i")?;
    let log = running.stop()?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Fast)?;
    Ok((house, log))
}

/// `seawall restore --delta` onto the server's own directory.
fn delta(house: &Protected) -> Invocation {
    let restore = house.command(["restore", "main", "--yes", "--delta", "--into"]);
    restore.arg(house.pg.data_directory())
}

/// Damages the largest file of a directory in many places.
fn damage(directory: &Path, random: &mut Random) -> Result<()> {
    let mut files: Vec<_> = files(directory)?
        .into_iter()
        .map(|path| (path.metadata().map_or(0, |it| it.len()), path))
        .filter(|(_, path)| path.components().any(|part| part.as_os_str() == "base"))
        .collect();
    files.sort();
    let (length, largest) = files.pop().context("a file")?;
    for _ in 0..200 {
        flip_bit(&largest, random.below(length))?;
    }
    Ok(())
}

#[test]
fn a_server_comes_back_in_its_own_directory_and_goes_on_as_the_primary() -> Result<()> {
    let (mut house, log) = story()?;
    let directory = house.pg.data_directory().to_owned();
    damage(&directory, &mut Random::new(1))?;
    fs::write(directory.join("notes.txt"), "mine")?;
    // Without the flag it is as it always was.
    let plain = house.command(["restore", "main", "--yes", "--latest", "--into"]);
    tells(&plain.arg(&directory).fail(5)?, "SW0604")?;
    let told = delta(&house).arg("--dry-run").succeed()?;
    for part in ["onto ", "removes ", "pg_wal/", "leaves there", "notes.txt"] {
        ensure!(told.stdout.contains(part), "no {part} in {}", told.stdout);
    }
    ensure!(told.stderr.contains("would be fetched"), "{}", told.stderr);
    let plan = delta(&house).arg("--dry-run").arg("--json").succeed()?.json()?;
    ensure!(plan["onto"]["files"].as_u64() > Some(500), "{plan}");
    ensure!(plan["onto"]["stays"]["paths"] == serde_json::json!(["notes.txt"]), "{plan}");
    let some = delta(&house).arg("--database").arg("postgres");
    some.fail(2)?;

    let done = delta(&house).arg("--as").arg("primary").arg("--json").succeed()?.json()?;
    let report = &done["restore"]["delta"];
    let bytes = |name: &str| report[name].as_u64().unwrap_or_default();
    ensure!(bytes("written_bytes") < bytes("compared_bytes") / 2, "{report}");
    ensure!(bytes("fetched_bytes") > 0 && bytes("removed") > 0, "{report}");
    house.pg.start()?;
    house.pg.wait_promoted(LIMIT)?;
    ensure!(house.pg.psql("SELECT count(*) FROM later")? == "50000");
    house.archive_everything()?;
    house.backup()?;
    tells(&delta(&house).arg("--force").fail(5)?, "SW0605")?;
    prove_restored(&mut house.pg, &log, &Bound::Everything)?;
    house.prove_undamaged()
}

#[test]
fn e24_a_delta_restore_that_is_killed_at_any_moment_is_completed_by_the_same_command() -> Result<()>
{
    let (house, log) = story()?;
    let directory = house.pg.data_directory().to_owned();
    let mut random = Random::new(7);
    for round in 0..6 * rounds() {
        damage(&directory, &mut random)?;
        let slow = delta(&house).arg("--rate-limit").arg("60MB/s");
        slow.kill9_after(random.delay(Duration::from_millis(2500)))?;
        if !directory.join("global/pg_control").exists() {
            tells(&house.command(["discard"]).arg(&directory).arg("--yes").fail(5)?, "SW0612")
                .with_context(|| format!("round {round}"))?;
        }
    }
    delta(&house).succeed()?;
    let mut restored = open_restored(&directory)?;
    ensure!(restored.psql("SELECT count(*) FROM later")? == "50000");
    prove_restored(&mut restored, &log, &Bound::Everything).map(drop)
}
