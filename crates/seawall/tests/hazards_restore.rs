//! What goes wrong at a restore and after it. The numbers are those of the hazards known to have
//! destroyed backups.

#[path = "support/moved.rs"]
mod moved;
mod support;

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use moved::moved;
use seawall_testkit::faults::{Random, flip_bit};
use seawall_testkit::ledger::{Bound, LedgerLog};
use seawall_testkit::process::wait_until;
use seawall_testkit::{Ledger, PgBin, PgCluster, StopMode, oracles};
use serde_json::{Value, json};
use support::{
    LIMIT, Protected, archive_everything, files, open_restored, prove_restored, rounds, tells,
};

/// A cluster with a backup and some commits after it, all archived.
fn story() -> Result<(Protected, LedgerLog)> {
    let house = Protected::start()?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    house.backup()?;
    running.wait_for(20, LIMIT)?;
    let log = running.stop()?;
    house.archive_everything()?;
    Ok((house, log))
}

/// Whether PostgreSQL comes up on a directory, not even to be read.
fn starts(directory: &Path) -> Result<bool> {
    let mut pg = PgCluster::open(PgBin::default_major()?, directory).create()?;
    Ok(pg.start().is_ok())
}

#[test]
fn e20_a_clone_never_touches_the_archive_it_came_from() -> Result<()> {
    let (house, log) = story()?;
    house.restore("clone", ["--latest"]).succeed()?;
    let before = house.objects()?;
    let restored = open_restored(&house.room("clone"))?;
    for _ in 0..3 {
        restored.psql("CREATE TABLE IF NOT EXISTS t (); CHECKPOINT; SELECT pg_switch_wal()")?;
    }
    ensure!(restored.psql("SELECT timeline_id > 1 FROM pg_control_checkpoint()")? == "t");
    ensure!(restored.psql("SHOW archive_mode")? == "off");
    ensure!(restored.psql("SELECT archived_count + failed_count FROM pg_stat_archiver")? == "0");
    ensure!(house.objects()? == before, "the clone wrote into the repository");
    drop(restored);

    // Production has not noticed either: it goes on, and so does its archive.
    house.pg.psql("CREATE TABLE still_here ()")?;
    house.archive_everything()?;
    house.restore("second", ["--latest"]).succeed()?;
    let mut second = open_restored(&house.room("second"))?;
    ensure!(second.psql("SELECT count(*) FROM still_here")? == "0");
    prove_restored(&mut second, &log, &Bound::Everything).map(drop)
}

#[test]
fn a_backup_that_verify_found_damaged_is_passed_over_until_it_is_whole_again() -> Result<()> {
    let house = Protected::start()?;
    let id = |json: &Value| json["id"].as_str().map(str::to_owned).context("no id");
    let older = id(&house.backup()?)?;
    let before = files(&house.places.repository)?;
    let newer = house.command(["backup", "--full", "--json"]).succeed()?.json()?;
    let newer = id(&newer)?;
    let packs = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "pack");
    let of = |backup: &[PathBuf]| backup.iter().find(|path| packs(path)).cloned();
    let added = files(&house.places.repository)?.into_iter().filter(|it| !before.contains(it));
    let packs = [of(&before), of(&added.collect::<Vec<_>>())].map(|pack| pack.context("no pack"));
    let [older_pack, newer_pack] = packs;
    let (older_pack, newer_pack) = (older_pack?, newer_pack?);
    let (older_away, newer_away) = (house.room("older"), house.room("newer"));

    fs::rename(&newer_pack, &newer_away)?;
    house.command(["verify"]).fail(4)?;
    for arguments in [&["--latest"][..], &["--backup", "latest"]] {
        let plan = house.plan(arguments.iter().copied())?;
        ensure!(plan["backup"]["id"] == older.as_str(), "{plan}");
    }
    let told = house.restore("room", ["--latest", "--dry-run"]).succeed()?.stdout;
    ensure!(told.contains(&format!("Newer backup {newer} is not used")), "{told}");
    ensure!(told.contains("a verification found it damaged"), "{told}");
    // Asked for by its name, it is not taken for whole, and nothing is written.
    let refused = house.restore("room", ["--backup", &newer]).fail(4)?;
    tells(&refused, &format!("Backup {newer} was found damaged"))?;
    ensure!(!house.room("room").exists(), "something was written");

    // If there is no other, the plan says so and the proof decides.
    fs::rename(&older_pack, &older_away)?;
    house.command(["verify"]).fail(4)?;
    let refused = house.restore("room", ["--latest"]).fail(4)?;
    tells(&refused, &format!("Backup {newer} was found damaged"))?;
    tells(&refused, "so was every other")?;
    fs::rename(&newer_away, &newer_pack)?;
    house.restore("room", ["--latest"]).succeed()?;

    // The latest is looked at again, damaged or not, and is the best again.
    house.command(["verify", "--backup", "latest"]).succeed()?;
    ensure!(house.plan(["--latest"])?["warnings"] == json!([]));
    Ok(())
}

#[test]
fn e22_without_its_backup_label_a_restored_cluster_does_not_start() -> Result<()> {
    let (house, _) = story()?;
    house.restore("room", ["--latest"]).succeed()?;
    let label = house.room("room").join("backup_label");
    let signal = house.room("room").join("recovery.signal");
    let kept = fs::read(&label)?;
    fs::remove_file(&label)?;
    ensure!(!starts(&house.room("room"))?, "it started without backup_label");
    fs::rename(&signal, house.room("signal"))?;
    ensure!(!starts(&house.room("room"))?, "it started without backup_label and recovery.signal");

    // Put back, it starts: nothing else was wrong with it.
    fs::write(&label, kept)?;
    fs::rename(house.room("signal"), &signal)?;
    house.pg.owner().chown(&label)?;
    open_restored(&house.room("room")).map(drop)
}

#[test]
fn e23_a_backup_label_of_another_backup_is_never_used() -> Result<()> {
    let house = Protected::start()?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    // Left over in the source by a tool that was killed: it is not part of the backup.
    let stale = "START WAL LOCATION: 0/1000028 (file 000000010000000000000001)\n\
                 CHECKPOINT LOCATION: 0/1000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
                 START TIME: 2020-01-01 00:00:00 UTC\nLABEL: stale\nSTART TIMELINE: 1\n";
    for (name, text) in [("backup_label", stale), ("tablespace_map", "16384 /nowhere\n")] {
        fs::write(house.pg.data_directory().join(name), text)?;
        house.pg.owner().chown(&house.pg.data_directory().join(name))?;
    }
    house.backup()?;
    let log = running.stop()?;
    house.archive_everything()?;
    house.restore("room", ["--latest"]).succeed()?;
    let label = fs::read_to_string(house.room("room").join("backup_label"))?;
    ensure!(!label.contains("stale") && !house.room("room").join("tablespace_map").exists());

    // Left over in the target: the directory is not empty, and stays as it is.
    for name in ["backup_label", "tablespace_map"] {
        let target = house.room(&format!("stale-{name}"));
        house.pg.owner().create_dir(&target, 0o700)?;
        fs::write(target.join(name), stale)?;
        let refused = house.restore(&format!("stale-{name}"), ["--latest"]).fail(5)?;
        tells(&refused, "SW0604")?;
        ensure!(fs::read_to_string(target.join(name))? == stale);
        ensure!(fs::read_dir(&target)?.count() == 1, "something was written into {name}");
    }
    let mut restored = open_restored(&house.room("room"))?;
    prove_restored(&mut restored, &log, &Bound::Everything).map(drop)
}

#[test]
fn e24_an_interrupted_restore_cannot_start_and_the_same_command_completes_it() -> Result<()> {
    let (house, log) = story()?;
    house.restore("whole", ["--latest"]).succeed()?;
    let whole = files(&house.room("whole"))?.len() as u64;
    let mut random = Random::new(24);
    for round in 0..rounds() {
        let room = format!("room-{round}");
        let mut kills = 0;
        for sixth in 0..6 {
            let enough = sixth * whole / 6 + random.below(whole / 6);
            kills += u64::from(kill_restore_at(&house, &room, enough)?);
        }
        ensure!(kills > 2, "hardly anything was interrupted: {kills}");
        if !is_finished(&house.room(&room)) {
            house.restore(&room, ["--latest"]).succeed()?;
        }
        oracles::pg_verifybackup(house.pg.bin(), &house.room(&room))?;
        let mut restored = open_restored(&house.room(&room))?;
        prove_restored(&mut restored, &log, &Bound::Everything)?;
    }
    Ok(())
}

/// pg_control comes last: with it everything is there.
fn is_finished(room: &Path) -> bool {
    room.join("global/pg_control").exists()
}

/// Begins or goes on with a restore, and kills it when the room has so many files. Returns whether
/// that was before its end; PostgreSQL did not start then.
fn kill_restore_at(house: &Protected, room: &str, enough: u64) -> Result<bool> {
    let directory = house.room(room);
    if is_finished(&directory) {
        return Ok(false);
    }
    let mut running = house.restore(room, ["--latest"]).spawn()?;
    wait_until("files", LIMIT, || {
        // Before it is made the directory has none.
        let there = files(&directory).unwrap_or_default().len() as u64;
        Ok(there >= enough || running.has_ended()?)
    })?;
    running.kill9()?;
    let ended = running.wait(LIMIT)?;
    if ended.signal() != Some(9) {
        ended.success()?;
    }
    let interrupted = !is_finished(&directory);
    ensure!(!interrupted || !starts(&directory)?, "it started with {enough} of its files");
    Ok(interrupted)
}

#[test]
fn e57_nothing_that_is_there_is_overwritten_or_removed() -> Result<()> {
    let (house, _) = story()?;
    let occupied = house.room("occupied");
    house.pg.owner().create_dir(&occupied, 0o700)?;
    fs::write(occupied.join("thesis.txt"), "years of work")?;
    tells(&house.restore("occupied", ["--latest"]).fail(5)?, "SW0604")?;
    ensure!(fs::read_to_string(occupied.join("thesis.txt"))? == "years of work");
    ensure!(fs::read_dir(&occupied)?.count() == 1, "something was written beside it");

    // The running cluster itself, under its own name and through a symlink.
    let link = house.room("link");
    house.pg.owner().symlink(house.pg.data_directory(), &link)?;
    for into in [house.pg.data_directory(), &link] {
        let restore = house.command(["restore", "main", "--latest", "--yes", "--into"]);
        let refused = restore.arg(into).fail(5)?;
        ensure!(refused.stderr.contains("SW060"), "{}", refused.stderr);
    }
    house.pg.psql("SELECT count(*) FROM ledger; CHECKPOINT")?;

    // A directory of root's parent that holds something is a parent like any other.
    ensure!(house.room("occupied").join("thesis.txt").exists());
    let inside = house.command(["restore", "main", "--latest", "--yes", "--into"]);
    inside.arg(occupied.join("pg")).succeed()?;
    ensure!(fs::read_to_string(occupied.join("thesis.txt"))? == "years of work");
    Ok(())
}

#[test]
fn e62_the_age_of_a_file_in_the_store_means_nothing() -> Result<()> {
    let (house, log) = story()?;
    let mut random = Random::new(62);
    for (path, _) in house.objects()? {
        let ago = random.delay(Duration::from_secs(365 * 86_400));
        let time = SystemTime::now().checked_sub(ago).context("too long ago")?;
        let times = FileTimes::new().set_modified(time).set_accessed(time);
        File::open(&path)?.set_times(times)?;
    }
    house.restore("room", ["--latest"]).succeed()?;
    let mut restored = open_restored(&house.room("room"))?;
    let verdict = prove_restored(&mut restored, &log, &Bound::Everything)?;
    ensure!(verdict.required >= 80, "{verdict:?}");
    Ok(())
}

/// The objects that hold the files of backups.
fn packs(house: &Protected) -> Result<Vec<PathBuf>> {
    let is_pack = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "pack");
    let packs: Vec<PathBuf> =
        files(&house.places.repository)?.into_iter().filter(is_pack).collect();
    ensure!(!packs.is_empty(), "no pack");
    Ok(packs)
}

#[test]
fn damage_leads_to_the_same_way_out_however_often_the_restore_is_tried() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    for pack in packs(&house)? {
        flip_bit(&pack, fs::metadata(&pack)?.len() / 2)?;
    }
    let way_out = format!("seawall discard {}", house.room("room").display());
    for _ in 0..2 {
        let restore = house.restore("room", ["--latest"]).fail(4)?;
        tells(&restore, &way_out)?;
        tells(&restore, "PostgreSQL does not start on ")?;
    }
    house.command(["discard", "--yes"]).arg(house.room("room")).succeed()?;
    ensure!(!house.room("room").exists());
    Ok(())
}

/// Makes of an object one that a later format has, as far as its header tells.
fn of_another_format(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    bytes.splice(8..10, 2u16.to_le_bytes());
    let crc = crc32c::crc32c(bytes.get(..60).context("a header")?);
    bytes.splice(60..64, crc.to_le_bytes());
    Ok(fs::write(path, bytes)?)
}

#[test]
fn a_backup_of_another_format_is_told_with_the_one_that_leads_to_the_same_target() -> Result<()> {
    let house = Protected::start()?;
    let older = house.backup()?["id"].as_str().context("an id")?.to_owned();
    let of_older = packs(&house)?;
    house.pg.psql("CREATE TABLE t AS SELECT md5(i::text) FROM generate_series(1, 20000) i")?;
    let newer = house.backup()?["id"].as_str().context("an id")?.to_owned();
    for pack in packs(&house)?.into_iter().filter(|pack| !of_older.contains(pack)) {
        of_another_format(&pack)?;
    }
    let instead = format!("--backup {older}");
    let tells_older = |arguments: &[&str]| -> Result<()> {
        let restore = house.restore("room", arguments.iter().copied()).fail(1)?;
        for part in ["SW0302", "seawall list", &instead] {
            tells(&restore, part)?;
        }
        Ok(())
    };
    tells_older(&["--latest"])?;
    tells_older(&["--latest", "--backup", &newer])?;
    // Of its commit nothing can be read at all.
    let is_commit = |path: &PathBuf| path.to_string_lossy().contains("/backup/");
    let mut commits: Vec<PathBuf> =
        files(&house.places.repository)?.into_iter().filter(is_commit).collect();
    commits.sort();
    of_another_format(commits.last().context("a commit")?)?;
    tells_older(&["--latest", "--backup", &newer])?;

    house.restore("room", ["--latest", "--backup", &older]).succeed()?;
    let mut restored = open_restored(&house.room("room"))?;
    ensure!(restored.psql("SELECT count(*) FROM t")?.trim() == "20000");
    restored.stop(StopMode::Fast)?;
    for pack in of_older {
        of_another_format(&pack)?;
    }
    let none = house.restore("other", ["--latest", "--backup", &newer]).fail(1)?;
    tells(&none, "`--backup ID` starts from another one")
}

/// The server that production was restored from went on for a while, and was backed up.
#[test]
fn a_backup_of_another_format_is_not_told_with_one_that_leads_into_an_abandoned_past() -> Result<()>
{
    let house = Protected::start()?;
    let id = |backup: Value| backup["id"].as_str().map(str::to_owned).context("an id");
    let before = id(house.backup()?)?;
    house.archive_everything()?;
    house.restore("second", ["--latest", "--as", "primary"]).succeed()?;
    let second = open_restored(&house.room("second"))?;
    archive_everything(&second)?;
    house.pg.psql("CREATE TABLE abandoned ()")?;
    let abandoned = id(house.backup()?)?;
    let packs_before = packs(&house)?;
    moved(&house, &second)?;
    second.psql("CREATE TABLE t AS SELECT md5(i::text) FROM generate_series(1, 20000) i")?;
    let newest = id(house.backup()?)?;
    for pack in packs(&house)?.into_iter().filter(|pack| !packs_before.contains(pack)) {
        of_another_format(&pack)?;
    }
    let restore = house.restore("room", ["--latest", "--backup", &newest]).fail(1)?;
    tells(&restore, &format!("--backup {before}"))?;
    tells(&restore, "leads there")?;
    ensure!(!restore.stderr.contains(&abandoned), "{restore:?}");
    Ok(())
}
