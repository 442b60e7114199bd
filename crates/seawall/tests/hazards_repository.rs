//! The repository over everything that is done with it. The numbers are those of the hazards
//! known to have destroyed backups.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, ensure};
use seawall_testkit::{Invocation, Output, TestDir};
use support::{Arguments, Protected, open_restored, seawall, tells};

/// What was in the repository, to be found there ever after.
#[derive(Default)]
struct Witness {
    seen: BTreeMap<PathBuf, Vec<u8>>,
}

impl Witness {
    fn look(&mut self, house: &Protected, after: &str) -> Result<()> {
        let now: BTreeMap<PathBuf, Vec<u8>> = house.objects()?.into_iter().collect();
        for (path, bytes) in &self.seen {
            let same = now.get(path).is_some_and(|now| now == bytes);
            ensure!(same || is_pin(path), "{} changed or went after {after}", path.display());
        }
        self.seen.extend(now);
        Ok(())
    }
}

/// A pin says that somebody is at work, and goes when he is done.
fn is_pin(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "pin")
}

#[test]
fn e64_no_object_ever_changes_or_vanishes() -> Result<()> {
    let house = Protected::start()?;
    let mut witness = Witness::default();
    witness.look(&house, "init")?;
    for round in 0..2 + support::rounds() {
        house.pg.psql("CREATE TABLE IF NOT EXISTS t (a int); INSERT INTO t SELECT 1")?;
        house.archive_everything()?;
        witness.look(&house, "wal push")?;
        house.backup()?;
        witness.look(&house, "backup")?;
        for command in
            [&["info"][..], &["list"], &["show", "latest"], &["wal", "list"], &["verify"]]
        {
            house.command(command.iter().copied()).succeed()?;
            witness.look(&house, &command.join(" "))?;
        }
        house.command(["check"]).run()?;
        witness.look(&house, "check")?;
        let room = format!("room-{round}");
        house.restore(&room, ["--latest"]).succeed()?;
        witness.look(&house, "restore")?;
        drop(open_restored(&house.room(&room))?);
        witness.look(&house, "recovery")?;
        // A backup that fails, and an init that finds everything there.
        house.command(["backup", "nobody"]).fail(3)?;
        witness.look(&house, "a backup of another cluster")?;
    }
    let backups = |path: &&PathBuf| path.components().any(|part| part.as_os_str() == "backup");
    ensure!(witness.seen.keys().filter(backups).count() > 2, "no backups were seen");
    Ok(())
}

#[test]
fn an_empty_mount_point_is_not_taken_for_a_repository_that_never_was() -> Result<()> {
    let house = Protected::start()?;
    let (place, away) = (&house.places.repository, house.places.repository.with_file_name("away"));
    fs::rename(place, &away)?;
    fs::create_dir(place)?;
    house.pg.owner().chown(place)?;
    let url = format!("file://{}", place.display());
    let refused = |invocation: Invocation| -> Result<()> {
        let output = invocation.fail(3)?;
        tells(&output, "SW0301")?;
        ensure!(output.stderr.contains("findmnt -T"), "{}", output.stderr);
        ensure!(!output.stderr.contains("seawall init"), "{}", output.stderr);
        ensure!(fs::read_dir(place)?.next().is_none(), "something was made in it");
        Ok(())
    };
    refused(house.command(["backup"]))?;
    refused(house.command(["info"]))?;
    refused(house.command(["init", "main", "--repo", &url, "--no-kit"]))?;

    // On a machine that has no configuration yet, key and kit tell that there was one.
    let room = TestDir::new()?;
    house.pg.owner().chown(room.path())?;
    let (config, kit) = (room.join("new.toml"), house.places.kit.display().to_string());
    let connection = house.pg.connection_string();
    let config = config.display().to_string();
    let anew = |more: &[&str]| -> Result<Invocation> {
        let init = ["init", "main", "--repo", &url, "--config", &config];
        Ok(seawall()?.command(init).args(["--connection", &connection]).args(more.iter().copied()))
    };
    refused(anew(&["--key", &kit, "--no-kit"])?)?;
    refused(anew(&["--kit", &kit])?)?;

    fs::remove_dir(place)?;
    fs::rename(&away, place)?;
    house.command(["backup"]).succeed()?;

    // Said to be gone for good, it is made.
    fs::rename(place, &away)?;
    house.command(["init", "main", "--repo", &url, "--no-kit", "--new-repository"]).succeed()?;
    ensure!(place.join("format").is_dir(), "no repository was made");
    Ok(())
}

#[test]
fn a_key_epoch_that_vanished_is_not_gone_on_without() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house.command(["key", "rotate"]).succeed()?;
    // Both the slots and what says that there is such an epoch; only the heads know it still.
    for left in [&["keys/2"][..], &["keys/2", "epochs/2"]] {
        let kept = house.room("kept");
        for name in left {
            let from = house.places.repository.join(name);
            if from.exists() {
                fs::create_dir_all(kept.join(name).parent().unwrap_or(&kept))?;
                fs::rename(&from, kept.join(name))?;
            }
        }
        let backup = house.command(["backup"]).fail(4)?;
        tells(&backup, "SW0311")?;
        house.pg.psql("SELECT pg_create_restore_point('here')")?;
        let segment = house.pg.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
        let segment = house.pg.data_directory().join("pg_wal").join(segment);
        tells(&house.command(["wal", "push"]).arg(&segment).fail(4)?, "SW0311")?;
        let verify = house.command(["verify"]).fail(4)?;
        ensure!(verify.stdout.contains("SW0311"), "{}{}", verify.stdout, verify.stderr);
        // What the older key opens can still be restored.
        let room = format!("room-{}", left.len());
        house.restore(&room, ["--backup-only"]).succeed()?;
        for name in left {
            let there = kept.join(name);
            if there.exists() {
                fs::rename(there, house.places.repository.join(name))?;
            }
        }
    }
    // It is as it was, and archiving goes on by itself.
    house.archive_everything()?;
    house.command(["verify"]).succeed()?;
    Ok(())
}

#[test]
fn of_three_rotations_at_once_the_losers_are_told_of_the_race() -> Result<()> {
    let house = Protected::start()?;
    let mut epoch = 1;
    for round in 0..4 {
        let rotate = || house.command(["key", "rotate", "--yes"]).run();
        let outputs: Vec<Result<Output>> = thread::scope(|scope| {
            let racing: Vec<_> = (0..3).map(|_| scope.spawn(rotate)).collect();
            racing.into_iter().map(|racer| racer.join().expect("it does not panic")).collect()
        });
        let mut won = 0;
        for output in outputs {
            let output = output?;
            match output.code() {
                Some(0) => won += 1,
                _ => tells(&output, "SW0312")?,
            }
        }
        ensure!(won > 0, "round {round}: nobody rotated");
        epoch += won;
        let shown = house.command(["key", "show", "--json"]).succeed()?.json()?;
        ensure!(shown["epoch"] == epoch, "{epoch} is not in {shown}");
    }
    house.backup()?;
    house.command(["verify"]).succeed()?;
    Ok(())
}
