//! Tablespaces of every shape: where their links lead, what they are called, and when they came.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use seawall_testkit::oracles::Dump;
use seawall_testkit::{Invocation, PgCluster};
use support::{Protected, open_restored, prove_same_content, quiet_cluster, tells};

/// A directory of the server's for a tablespace.
fn place(pg: &PgCluster, name: &str) -> Result<PathBuf> {
    let place = pg.scratch().join(name);
    pg.owner().create_dir(&place, 0o700)?;
    Ok(place)
}

/// Makes a tablespace, and in it a table with an index that spans a few hundred pages.
fn fill(pg: &PgCluster, name: &str, location: &str) -> Result<()> {
    let quoted = location.replace('\'', "''");
    pg.psql(&format!("CREATE TABLESPACE {name} LOCATION '{quoted}'"))?;
    pg.psql(&format!(
        "CREATE TABLE in_{name} (a int, b text) TABLESPACE {name}; \
         INSERT INTO in_{name} SELECT g, repeat('x', 500) FROM generate_series(1, 2000) g; \
         CREATE INDEX ON in_{name} (a) TABLESPACE {name}"
    ))
    .map(drop)
}

fn map(call: Invocation, old: &Path, new: &Path) -> Invocation {
    call.arg("--map-tablespace").arg(format!("{}={}", old.display(), new.display()))
}

#[test]
fn e55_every_kind_of_tablespace_is_copied_once_and_goes_where_it_is_told() -> Result<()> {
    let house =
        Protected::with(quiet_cluster()?.config("allow_in_place_tablespaces", "on"), false)?;
    let pg = &house.pg;
    let (plain, longer) = (place(pg, "space")?, place(pg, "space2")?);
    let odd = place(pg, "a=b \\ \"[#] %f ünï")?;
    // The link in pg_tblspc leads to a link, which leads to another.
    let (disk, middle, linked) =
        (place(pg, "disk")?, pg.scratch().join("middle"), pg.scratch().join("linked"));
    pg.owner().symlink(&disk, &middle)?;
    pg.owner().symlink(&middle, &linked)?;
    let inside = pg.data_directory().join("inside");
    pg.owner().create_dir(&inside, 0o700)?;
    let all = [
        ("plain", &plain),
        ("longer", &longer),
        ("odd", &odd),
        ("linked", &linked),
        ("inside", &inside),
    ];
    for (name, location) in all {
        fill(pg, name, &location.display().to_string())?;
    }
    fill(pg, "in_place", "")?;
    pg.psql("CREATE DATABASE far TABLESPACE linked")?;
    fs::write(plain.join("not PostgreSQL's"), "left alone")?;
    let backup = house.backup()?;
    let bytes = backup["cluster_bytes"].as_u64().context("cluster_bytes")?;
    let held = pg.psql("SELECT sum(pg_database_size(oid)) FROM pg_database")?.parse::<u64>()?;
    ensure!(bytes < held + (8 << 20), "something was copied twice: {bytes} of {held}");
    for (name, _) in all {
        pg.psql(&format!("INSERT INTO in_{name} SELECT 0, 'after the backup'"))?;
    }
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(pg.connection())?;

    refusals(&house, &all)?;
    all.iter()
        .fold(house.restore("room", ["--latest"]), |call, (name, location)| {
            map(call, location, &house.room(name))
        })
        .succeed()?;
    prove_same_content(&house.room("room"), &dump)?;
    let restored = open_restored(&house.room("room"))?;
    for (name, _) in all {
        let sql = format!(
            "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = '{name}'"
        );
        let (found, told) = (restored.psql(&sql)?, house.room(name));
        ensure!(Path::new(&found) == told, "{name} is in {found}");
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(house.room("plain"))? {
        names.push(entry?.file_name().into_string().unwrap_or_default());
    }
    names.sort();
    let fine = names.len() == 2 && names[0].starts_with("PG_") && names[1] == "seawall.tablespace";
    ensure!(fine, "a stranger's file came along: {names:?}");
    ensure!(pg.psql("SELECT count(*) FROM in_linked")? == "2001");
    Ok(())
}

/// What cannot be done is refused with what to do, and nothing is written.
fn refusals(house: &Protected, all: &[(&str, &PathBuf)]) -> Result<()> {
    // Every tablespace in a fine place, but for the first two.
    let mapped = |first: &Path, second: &Path| {
        let fine = all.iter().map(|(name, _)| house.room(name));
        let places = [first.to_owned(), second.to_owned()].into_iter().chain(fine.skip(2));
        let pairs = all.iter().map(|(_, location)| location).zip(places);
        pairs.fold(house.restore("room", ["--latest"]), |call, (old, new)| map(call, old, &new))
    };
    let refused = house.restore("room", ["--latest"]).fail(5)?;
    tells(&refused, "SW0604")?;
    tells(&refused, "--map-tablespace")?;

    let occupied = house.room("occupied");
    house.pg.owner().create_dir(&occupied, 0o700)?;
    fs::write(occupied.join("thesis.txt"), "years of work")?;
    let refused = mapped(&occupied, &house.room("longer")).fail(5)?;
    tells(&refused, "rooms/occupied, the place of tablespace")?;

    let (one, alias) = (house.room("one"), house.room("alias"));
    house.pg.owner().create_dir(&one, 0o700)?;
    house.pg.owner().symlink(&one, &alias)?;
    for (first, second) in [
        (one.clone(), one.clone()),
        (one.clone(), one.join("below")),
        (one.clone(), alias.clone()),
        (one.join("a"), alias.join("a")),
        (house.room("room/pg_tblspc/x"), house.room("longer")),
    ] {
        tells(&mapped(&first, &second).fail(2)?, "lie within each other")?;
    }
    let (_, plain) = all.first().context("a tablespace")?;
    let twice = map(mapped(&house.room("a"), &house.room("b")), plain, &house.room("c"));
    tells(&twice.fail(2)?, "twice")?;
    ensure!(!house.room("room").exists(), "something was written");
    ensure!(fs::read_dir(&one)?.next().is_none(), "something was written");
    Ok(())
}

#[test]
fn e55_replay_never_makes_a_clone_write_into_production_s_tablespace() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let (space, lsn) = (place(&house.pg, "space")?, house.pg.current_lsn()?);
    fill(&house.pg, "late", &space.display().to_string())?;
    house.pg.psql("CHECKPOINT")?;
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(house.pg.connection())?;

    // Replay makes the tablespace where it was made, and no mapping reaches it.
    let refused = house.restore("room", ["--latest"]).fail(5)?;
    tells(&refused, "SW0604")?;
    tells(&refused, &space.display().to_string())?;
    ensure!(!house.room("room").exists(), "something was written");

    // Before it, and after a backup that has it, nothing is in the way.
    let before = format!("lsn:{lsn}");
    house.restore("before", ["--before", &before]).succeed()?;
    drop(open_restored(&house.room("before"))?);
    house.backup()?;
    house.archive_everything()?;
    map(house.restore("room", ["--latest"]), &space, &house.room("space")).succeed()?;
    prove_same_content(&house.room("room"), &dump)?;
    Dump::take_without_tablespaces(house.pg.connection())?.same_as(&dump)
}

/// A standby on another host makes it where it was made; on production's host that would be
/// production's own.
#[test]
fn e55_no_server_is_handed_wal_that_makes_a_tablespace_among_another_s_files() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house.archive_everything()?;
    house.restore("standby", ["--as", "standby"]).succeed()?;
    let (space, away) = (place(&house.pg, "space")?, house.pg.scratch().join("away"));
    let segment = house.pg.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    fill(&house.pg, "late", &space.display().to_string())?;
    house.archive_everything()?;

    let by_hand = house.room("by hand");
    house.command(["wal", "fetch", &segment]).arg(&by_hand).arg("--standby").succeed()?;
    let fetch = || {
        let wanted = house.room("standby/pg_wal/RECOVERYXLOG");
        house.command(["wal", "fetch", &segment]).arg(wanted).arg("--standby")
    };
    let refused = fetch().run()?;
    ensure!(refused.code().is_some_and(|code| code > 200), "it is taken for the end: {refused:?}");
    tells(&refused, "SW0604")?;
    tells(&refused, &space.display().to_string())?;
    ensure!(!house.room("standby/pg_wal/RECOVERYXLOG").exists(), "it was handed over");

    fs::rename(&space, &away)?;
    fetch().succeed().context("there is no such directory on this host")?;
    house.pg.owner().create_dir(&space, 0o700)?;
    fetch().succeed().context("it is empty on this host")?;
    fs::remove_dir(&space)?;
    fs::rename(&away, &space)?;
    // The standby has replayed it where it was free, and replays it again.
    let number = house.pg.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'late'")?;
    let link = house.room("standby/pg_tblspc").join(number);
    house.pg.owner().symlink(&space, &link)?;
    fetch().succeed().context("it is the standby's own").map(drop)
}

#[test]
fn e55_tablespaces_that_come_and_go_during_backups_are_left_to_wal() -> Result<()> {
    let house = Protected::start()?;
    let (pg, passing) = (&house.pg, place(&house.pg, "passing")?);
    pg.psql("CREATE TABLE calm AS SELECT generate_series(1, 100000) AS a")?;
    let stop = AtomicBool::new(false);
    let storm = || -> Result<u32> {
        let (mut session, mut gusts) = (pg.connection().session()?, 0);
        while !stop.load(Ordering::Relaxed) {
            session.run(&format!(
                "CREATE TABLESPACE passing LOCATION '{}'; \
                 CREATE TABLE passing TABLESPACE passing AS SELECT generate_series(1, 5000) AS a; \
                 SELECT pg_sleep(random() * 0.3); DROP TABLE passing; DROP TABLESPACE passing",
                passing.display()
            ))?;
            gusts += 1;
        }
        Ok(gusts)
    };
    let backups = thread::scope(|scope| -> Result<Vec<String>> {
        let storm = scope.spawn(storm);
        let backups = (0..2 + support::rounds()).map(|_| backup_between(&house)).collect();
        stop.store(true, Ordering::Relaxed);
        let gusts = storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))??;
        ensure!(gusts > 2, "a lull: {gusts}");
        backups
    })?;
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(pg.connection())?;
    ensure!(fs::read_dir(&passing)?.next().is_none(), "the storm left something behind");
    for id in backups.iter().skip(1) {
        let room = format!("room-{id}");
        house.restore(&room, ["--latest", "--backup", id]).succeed()?;
        prove_same_content(&house.room(&room), &dump)?;
    }
    // What the log drops leaves the note of whose it was, and a later restore may have the place.
    for id in backups.iter().skip(1) {
        let room = house.room(&format!("room-{id}"));
        house.command(["discard", "--yes"]).arg(room).succeed()?;
    }
    ensure!(!passing.join("seawall.tablespace").exists(), "a clone that is gone keeps the place");
    Ok(())
}

/// A backup's id. One that began just when a tablespace was made says so, and is repeated.
fn backup_between(house: &Protected) -> Result<String> {
    loop {
        let output = house.command(["backup", "--json"]).run()?;
        if output.stderr.contains("was created at the moment the backup began") {
            continue;
        }
        let backup = output.success()?.json()?;
        return Ok(backup["id"].as_str().context("id")?.to_owned());
    }
}

#[test]
fn e55_a_tablespace_that_is_not_mounted_is_never_taken_for_an_empty_one() -> Result<()> {
    let house = Protected::start()?;
    let (space, away) = (place(&house.pg, "space")?, house.pg.scratch().join("away"));
    fill(&house.pg, "space", &space.display().to_string())?;
    house.pg.psql("CHECKPOINT")?;
    fs::rename(&space, &away)?;
    let lost = |shape: &str| -> Result<()> {
        let refused = house.command(["backup"]).fail(1)?;
        tells(&refused, "SW0401").with_context(|| shape.to_owned())?;
        tells(&refused, &space.display().to_string())
    };
    lost("no directory")?;
    house.pg.owner().symlink(&space, &space)?;
    lost("a circular link")?;
    fs::remove_file(&space)?;
    house.pg.owner().create_dir(&space, 0o700)?;
    lost("an empty mount point")?;
    fs::remove_dir(&space)?;
    fs::rename(&away, &space)?;
    house.backup().map(drop)
}
