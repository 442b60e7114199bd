//! Things that go wrong while Seawall works: each ends with one clear error, loses nothing, and
//! the next run succeeds.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seawall_testkit::faults::SmallDisk;
use seawall_testkit::process::{Running, wait_until};
use seawall_testkit::{Output, StopMode, oracles};
use support::{LIMIT, Protected, open_restored, quiet_cluster, tells};

/// A cluster with about 30 MiB that hardly compress.
fn house() -> Result<Protected> {
    let house = Protected::with(quiet_cluster()?, false)?;
    house.configure_repository("pack_size = \"1MiB\"")?;
    house.pg.psql(
        "CREATE TABLE t AS SELECT g AS a, md5(random()::text) || md5(random()::text) AS b \
         FROM generate_series(1, 300000) g; CHECKPOINT",
    )?;
    Ok(house)
}

/// One error, with its code and what to do about it.
fn clear_error(output: &Output, exit: i32, code: &str) -> Result<()> {
    let text = &output.stderr;
    ensure!(output.code() == Some(exit), "{} and not {exit}:\n{text}", output.status);
    tells(output, code)?;
    ensure!(text.matches("error:").count() == 1, "not one error:\n{text}");
    ensure!(text.contains("hint:"), "no hint:\n{text}");
    Ok(())
}

/// Nothing is damaged, and there are so many backups, all complete.
fn sound(house: &Protected, backups: usize) -> Result<()> {
    house.prove_undamaged()?;
    let overview = house.command(["list", "--json"]).succeed()?.json()?;
    let listed = overview.pointer("/clusters/0/backups").and_then(|list| list.as_array());
    let listed = listed.context("no list of backups")?;
    ensure!(listed.len() == backups, "{backups} expected: {overview}");
    ensure!(listed.iter().all(|backup| backup["state"] == "complete"), "{overview}");
    Ok(())
}

/// A backup stopped half-way: it has stored packs and not ended.
struct Paused(Running);

impl Paused {
    fn backup(house: &Protected) -> Result<Self> {
        let lines = house.places.repository.join("c/main/i");
        let before = packs(&lines);
        let mut running = house.command(["backup", "--full"]).spawn()?;
        wait_until("a pack", LIMIT, || {
            ensure!(!running.has_ended()?, "ended already: {}", running.stderr_so_far());
            Ok(packs(&lines) > before)
        })?;
        kill(Pid::from_raw(running.pid().try_into()?), Signal::SIGSTOP)?;
        ensure!(!running.has_ended()?, "the backup was too quick for this test");
        Ok(Self(running))
    }

    fn go_on(self) -> Result<Output> {
        kill(Pid::from_raw(self.0.pid().try_into()?), Signal::SIGCONT)?;
        self.0.wait(LIMIT)
    }
}

/// How many packs there are below the lines of a cluster.
fn packs(lines: &Path) -> usize {
    let children = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let days: Vec<PathBuf> =
        children(lines).iter().flat_map(|line| children(&line.join("pack"))).collect();
    let packs = days.iter().flat_map(|day| children(day));
    packs.filter(|pack| pack.extension().is_none()).count()
}

/// Puts the repository onto a disk of that size.
fn move_to_disk(house: &mut Protected, mib: u32) -> Result<SmallDisk> {
    let disk = SmallDisk::mount(mib)?;
    let place = disk.path().join("repository");
    let old = house.places.repository.clone();
    let status = Command::new("cp").arg("-a").arg(&old).arg(&place).status()?;
    ensure!(status.success(), "cp: {status}");
    let config = fs::read_to_string(&house.places.config)?;
    let moved = config.replace(&old.display().to_string(), &place.display().to_string());
    ensure!(moved != config, "no {} in {config}", old.display());
    fs::write(&house.places.config, moved)?;
    fs::remove_dir_all(old)?;
    house.places.repository = place;
    Ok(disk)
}

fn enlarge(disk: &SmallDisk, mib: u32) -> Result<()> {
    let options = format!("remount,size={mib}m");
    let status = Command::new("mount").args(["-o", &options]).arg(disk.path()).status()?;
    ensure!(status.success(), "remount: {status}");
    Ok(())
}

/// Leaves no byte free; returns the file that is in the way.
fn fill_up(disk: &SmallDisk) -> Result<PathBuf> {
    let file = disk.path().join("in-the-way");
    let status = Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", file.display()))
        .args(["bs=4k", "status=none"])
        .stderr(std::process::Stdio::null())
        .status()?;
    ensure!(!status.success(), "the disk did not fill up");
    Ok(file)
}

#[test]
fn a_full_repository_fails_the_backup_and_a_larger_one_takes_the_next() -> Result<()> {
    let mut house = house()?;
    house.archive_everything()?;
    let used: u64 = house.objects()?.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    // Room for what is there and half of what the backup would add.
    let disk = move_to_disk(&mut house, u32::try_from(used >> 20)? + 8)?;
    clear_error(&house.command(["backup"]).run()?, 1, "SW0203")?;
    enlarge(&disk, 500)?;
    sound(&house, 0)?;
    house.backup()?;
    sound(&house, 1)
}

#[test]
fn postgres_keeps_its_wal_while_the_repository_is_full() -> Result<()> {
    let mut house = house()?;
    house.archive_everything()?;
    let disk = move_to_disk(&mut house, 500)?;
    let in_the_way = fill_up(&disk)?;
    let pg = &house.pg;
    pg.psql("SELECT pg_logical_emit_message(true, 'faults', repeat('x', 100000))")?;
    let name = pg.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
    let failed = "SELECT failed_count > 0 FROM pg_stat_archiver";
    wait_until("a failure of the archiver", LIMIT, || Ok(pg.psql(failed)? == "t"))?;
    let segment = pg.data_directory().join("pg_wal").join(&name);
    let written = fs::read(&segment).context("PostgreSQL dropped its WAL")?;
    let push = house.command(["wal", "push"]).arg(&segment).run()?;
    clear_error(&push, 1, "SW0203")?;

    fs::remove_file(in_the_way)?;
    // By the archiver itself, which tries again.
    house.archive_everything()?;
    let fetched = house.room("fetched");
    house.command(["wal", "fetch", &name]).arg(&fetched).succeed()?;
    ensure!(fs::read(&fetched)? == written, "other bytes were archived");
    sound(&house, 0)
}

#[test]
fn a_restore_that_runs_out_of_room_goes_on_when_there_is_some() -> Result<()> {
    let house = house()?;
    house.backup()?;
    house.archive_everything()?;
    let disk = SmallDisk::mount(16)?;
    let into = disk.path().join("pg");
    let restore = || house.command(["restore", "main", "--latest", "--yes", "--into"]).arg(&into);
    clear_error(&restore().run()?, 1, "SW0606")?;
    ensure!(!into.join("global/pg_control").exists(), "what is incomplete could be started");

    // Room enough to begin, and somebody else takes it.
    enlarge(&disk, 400)?;
    let running = restore().spawn()?;
    let base = into.join("base");
    let limit = Duration::from_secs(20);
    wait_until("the first files", limit, || Ok(base.exists()))?;
    let pid = Pid::from_raw(running.pid().try_into()?);
    kill(pid, Signal::SIGSTOP)?;
    let in_the_way = fill_up(&disk)?;
    kill(pid, Signal::SIGCONT)?;
    let output = running.wait(LIMIT)?;
    clear_error(&output, 1, "SW0606")?;
    ensure!(!into.join("global/pg_control").exists(), "what is incomplete could be started");

    fs::remove_file(in_the_way)?;
    restore().succeed()?;
    oracles::pg_verifybackup(house.pg.bin(), &into)?;
    let restored = open_restored(&into)?;
    ensure!(restored.psql("SELECT count(*) FROM t")? == "300000");
    Ok(())
}

#[test]
fn a_file_that_cannot_be_read_fails_the_backup_and_is_named() -> Result<()> {
    let house = house()?;
    let relative = house.pg.psql("SELECT pg_relation_filepath('t')")?;
    let file = house.pg.data_directory().join(&relative);
    let mode = fs::metadata(&file)?.permissions();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000))?;
    // Also as the test's own user: root becomes the owner, who may not read the file either.
    for backup in [house.command(["backup"]), house.command(["backup"]).as_test_user()] {
        let output = backup.run()?;
        clear_error(&output, 1, "SW0401")?;
        ensure!(output.stderr.contains(&relative), "which file?\n{}", output.stderr);
    }
    fs::set_permissions(&file, mode)?;
    sound(&house, 0)?;
    house.backup()?;
    sound(&house, 1)
}

#[test]
fn a_restart_of_postgres_aborts_the_backup_and_the_next_one_succeeds() -> Result<()> {
    let mut house = house()?;
    for (backups, mode) in [StopMode::Fast, StopMode::Immediate].into_iter().enumerate() {
        let paused = Paused::backup(&house)?;
        house.pg.stop(mode)?;
        house.pg.start()?;
        let output = paused.go_on()?;
        clear_error(&output, 1, "SW0402").with_context(|| format!("{mode:?}"))?;
        sound(&house, backups)?;
        house.backup()?;
        sound(&house, backups + 1)?;
    }
    Ok(())
}

#[test]
fn a_second_backup_at_the_same_time_is_refused() -> Result<()> {
    let house = house()?;
    let paused = Paused::backup(&house)?;
    let second = house.command(["backup"]).run()?;
    clear_error(&second, 1, "SW0408")?;
    let process = format!("process {}", paused.0.pid());
    ensure!(second.stderr.contains(&process), "whose is it?\n{}", second.stderr);
    sound(&house, 0)?;
    paused.go_on()?.success().context("the first backup")?;
    sound(&house, 1)
}

#[test]
fn a_target_out_of_reach_is_refused_with_what_is_in_reach() -> Result<()> {
    let house = Protected::start()?;
    let before = house.pg.current_lsn()?;
    let backup = house.backup()?;
    house.archive_everything()?;
    let stop = backup["stop_lsn"].as_str().context("no stop LSN")?;
    let refused = |target: &str| -> Result<String> {
        let output = house.restore("unreachable", ["--to", target]).run()?;
        clear_error(&output, 3, "SW0602").with_context(|| target.to_owned())?;
        ensure!(!house.room("unreachable").exists(), "{target}: something was written");
        Ok(output.stderr)
    };
    let early = [format!("lsn:{before}"), "2001-01-01 00:00:00+00".to_owned()];
    for target in early {
        let text = refused(&target)?;
        ensure!(text.contains("earliest") && text.contains(stop), "{target}:\n{text}");
    }
    for target in ["lsn:7F/0", "2099-01-01 00:00:00+00"] {
        let text = refused(target)?;
        ensure!(text.contains("latest"), "{target}:\n{text}");
    }
    for target in ["xid:4000000", "name:nobody_made_it"] {
        let text = refused(target)?;
        ensure!(text.contains("seawall info"), "{target}:\n{text}");
    }
    Ok(())
}
