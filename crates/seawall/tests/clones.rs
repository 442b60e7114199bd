//! A clone to look at: it goes on to a later moment, and is gone when it is not needed any more.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;
use seawall_testkit::{Invocation, StopMode, process};
use support::{Arguments, LIMIT, Protected, open_restored, quiet_cluster, seawall, tells};

const ROWS: &str = "SELECT string_agg(i::text, ',' ORDER BY i) FROM t";

/// A clone that `restore --start` started and that waits.
struct Waiting<'h> {
    house: &'h Protected,
    directory: PathBuf,
    socket: String,
    port: String,
}

impl<'h> Waiting<'h> {
    /// Each on a port of its own: two that look for a free one at once find the same.
    fn start(house: &'h Protected, port: &str, arguments: &[&str]) -> Result<Self> {
        let room = "clone";
        let start = ["--then", "pause", "--start", "--json", "--port", port];
        let arguments = arguments.iter().copied().chain(start);
        let output = with_programs(house, house.restore(room, arguments))?.succeed()?.json()?;
        let started = &output["started"];
        ensure!(started["state"] == "paused", "{output}");
        Ok(Self {
            house,
            directory: house.room(room),
            socket: started["socket_directory"].as_str().context("socket")?.to_owned(),
            port: started["port"].as_u64().context("port")?.to_string(),
        })
    }

    fn rows(&self) -> Result<String> {
        let mut psql = self.house.pg.connection().client("psql")?;
        psql.args(["-XAtq", "-d", "postgres", "-h", &self.socket, "-p", &self.port, "-c", ROWS]);
        Ok(process::run(&mut psql, None, LIMIT)?.success()?.stdout.trim().to_owned())
    }

    fn promote(&self, arguments: &[&str]) -> Result<Invocation> {
        let call = self.house.command(["promote"]).arg(&self.directory);
        with_programs(self.house, call.args(arguments.iter().copied()))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.directory.join("postmaster.pid").exists()
            && let Ok(pg_ctl) = self.house.pg.bin().program("pg_ctl")
        {
            let mut stop = self.house.pg.owner().command(pg_ctl);
            stop.args(["stop", "-m", "immediate", "-w", "-D"]).arg(&self.directory);
            process::run(&mut stop, None, LIMIT).ok();
        }
    }
}

fn with_programs(house: &Protected, call: Invocation) -> Result<Invocation> {
    let pg_ctl = house.pg.bin().program("pg_ctl")?;
    Ok(call.env("SEAWALL_PG_BIN", pg_ctl.parent().context("its directory")?))
}

/// Rows 1 to 4, each with a restore point of its name behind it.
fn story() -> Result<Protected> {
    let house = Protected::with(quiet_cluster()?, false)?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    for row in 1..=4 {
        house.pg.psql(&format!("INSERT INTO t VALUES ({row})"))?;
        house.pg.psql(&format!("SELECT pg_create_restore_point('row {row}')"))?;
    }
    house.archive_everything()?;
    Ok(house)
}

#[test]
fn a_clone_that_waits_is_moved_forward_as_often_as_needed_and_never_back() -> Result<()> {
    let house = story()?;
    let clone = Waiting::start(&house, "54511", &["--before", "name:row 2"])?;
    ensure!(clone.rows()? == "1,2");
    clone.promote(&["--to", "name:row 3"])?.succeed()?;
    ensure!(clone.rows()? == "1,2,3");

    let back = clone.promote(&["--before", "name:row 1"])?.fail(3)?;
    tells(&back, "SW0602")?;
    let nowhere = clone.promote(&["--to", "name:row 9"])?.fail(3)?;
    tells(&nowhere, "SW0602")?;
    let long_ago = clone.promote(&["--before", "2001-01-01 12:00 UTC"])?.fail(3)?;
    tells(&long_ago, "A server does not go back")?;
    for refused in [&back, &nowhere, &long_ago] {
        let flags = ["--latest", "--backup", "--timeline"];
        ensure!(!flags.iter().any(|flag| refused.stderr.contains(flag)), "{}", refused.stderr);
    }
    ensure!(clone.rows()? == "1,2,3", "it waits on where it was");

    // A server that is started again in between goes to the newest target.
    clone.promote(&["--before", "name:row 4"])?.succeed()?;
    ensure!(clone.rows()? == "1,2,3,4");
    clone.promote(&[])?.succeed()?;
    let mut psql = house.pg.connection().client("psql")?;
    let insert = "INSERT INTO t VALUES (5)";
    psql.args(["-XAtq", "-d", "postgres", "-h", &clone.socket, "-p", &clone.port, "-c", insert]);
    process::run(&mut psql, None, LIMIT)?.success()?;
    ensure!(clone.rows()? == "1,2,3,4,5");
    Ok(())
}

/// A directory of production's, and in it a tablespace with a table.
fn create_tablespace(house: &Protected, name: &str) -> Result<PathBuf> {
    let space = house.pg.scratch().join(name);
    house.pg.owner().create_dir(&space, 0o700)?;
    house.pg.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", space.display()))?;
    house.pg.psql(&format!("CREATE TABLE in_{name} (i int) TABLESPACE {name}"))?;
    Ok(space)
}

#[test]
fn a_clone_that_waits_is_not_moved_over_a_tablespace_that_production_made() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.pg.psql("SELECT pg_create_restore_point('one')")?;
    let space = create_tablespace(&house, "fast")?;
    house.pg.psql("INSERT INTO in_fast VALUES (1); SELECT pg_create_restore_point('two')")?;
    house.archive_everything()?;
    let clone = Waiting::start(&house, "54516", &["--to", "name:one"])?;

    let links = || Ok::<_, anyhow::Error>(fs::read_dir(clone.directory.join("pg_tblspc"))?.count());
    let refused = clone.promote(&["--to", "name:two"])?.fail(5)?;
    tells(&refused, "SW0604")?;
    tells(&refused, &space.display().to_string())?;
    ensure!(links()? == 0 && clone.rows()? == "1", "it waits on where it was");

    // Where that directory is empty, it is the clone's.
    fs::rename(&space, space.with_extension("away"))?;
    house.pg.owner().create_dir(&space, 0o700)?;
    clone.promote(&["--to", "name:two"])?.succeed()?;
    ensure!(links()? == 1);
    // Recovery begins again before it: what is in the directory now is its own.
    house.pg.psql("SELECT pg_create_restore_point('three')")?;
    house.archive_everything()?;
    clone.promote(&["--to", "name:three"])?.succeed().map(drop)
}

#[test]
fn a_clone_is_stopped_and_removed_with_what_was_made_for_it_and_nothing_else() -> Result<()> {
    let house = Protected::start()?;
    let owner = house.pg.owner();
    let (space, mapped) = (house.pg.scratch().join("space"), house.places.rooms.join("mapped"));
    owner.create_dir(&space, 0o700)?;
    house.pg.psql(&format!("CREATE TABLESPACE s LOCATION '{}'", space.display()))?;
    house.pg.psql("CREATE TABLE t (i int) TABLESPACE s; INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.archive_everything()?;
    let mapping = format!("{}={}", space.display(), mapped.display());
    let clone = Waiting::start(&house, "54512", &["--map-tablespace", &mapping])?;
    ensure!(clone.rows()? == "1");

    // Somebody keeps something there, by a link and beside.
    let kept = house.places.rooms.join("kept");
    owner.create_dir(&kept, 0o755)?;
    fs::write(kept.join("file"), "mine")?;
    std::os::unix::fs::symlink(&kept, clone.directory.join("link"))?;
    fs::write(mapped.join("mine"), "mine")?;

    let discard = |directory: &Path| house.command(["discard", "--yes"]).arg(directory);
    house.command(["discard"]).arg(&clone.directory).fail(5)?;
    ensure!(clone.rows()? == "1", "nobody agreed");
    let gone = discard(&clone.directory).succeed()?;
    ensure!(!clone.directory.exists());
    tells(&gone, &clone.directory.with_extension("log").display().to_string())?;
    tells(&discard(&clone.directory).fail(1)?, "or not any more")?;
    ensure!(fs::read(kept.join("file"))? == b"mine" && fs::read(mapped.join("mine"))? == b"mine");
    ensure!(fs::read_dir(&mapped)?.count() == 1, "the tablespace's files are there still");
    ensure!(house.pg.psql(ROWS)? == "1");
    Ok(())
}

/// A copy of a clone may be anything by now.
#[test]
fn what_may_be_in_use_is_not_removed() -> Result<()> {
    let house = story()?;
    let refused = |directory: &Path| -> Result<()> {
        let files = support::files(directory)?.len();
        let output = house.command(["discard", "--yes"]).arg(directory).fail(5)?;
        tells(&output, "SW0612")?;
        ensure!(support::files(directory)?.len() == files, "{}", directory.display());
        Ok(())
    };
    refused(house.pg.data_directory())?;
    for mode in ["standby", "primary"] {
        house.restore(mode, ["--as", mode]).succeed()?;
    }
    refused(&house.room("standby"))?;
    drop(open_restored(&house.room("primary"))?);
    refused(&house.room("primary"))?;

    house.restore("clone", []).succeed()?;
    let (clone, copy, link) = (house.room("clone"), house.room("copy"), house.room("link"));
    let mut shell = house.pg.owner().command("cp");
    process::run(shell.arg("-a").arg(&clone).arg(&copy), None, LIMIT)?.success()?;
    refused(&copy)?;
    std::os::unix::fs::symlink(&clone, &link)?;
    let output = house.command(["discard", "--yes"]).arg(&link).fail(5)?;
    tells(&output, "a link is not followed")?;
    house.command(["discard", "--yes"]).arg(&clone).succeed()?;
    ensure!(!clone.exists() && copy.join("PG_VERSION").exists());
    Ok(())
}

/// A server that a person started may be in use.
#[test]
fn a_clone_whose_server_somebody_else_started_is_not_removed_under_it() -> Result<()> {
    let house = story()?;
    house.restore("clone", []).succeed()?;
    let clone = house.room("clone");
    let mut server = open_restored(&clone)?;
    let discard = || house.command(["discard", "--yes"]).arg(&clone);
    let refused = discard().fail(5)?;
    tells(&refused, "SW0612")?;
    tells(&refused, "pg_ctl stop")?;
    ensure!(server.psql(ROWS)? == "1,2,3,4", "it was stopped");
    server.stop(StopMode::Fast)?;
    discard().succeed()?;
    ensure!(!clone.exists());
    Ok(())
}

/// The roots of two file systems have the same number, and so has a directory in every snapshot of
/// its volume.
#[test]
fn a_copy_at_the_root_of_another_file_system_is_not_removed() -> Result<()> {
    if !Uid::effective().is_root() {
        eprintln!("only root makes mounts: nothing is proven of the roots of file systems");
        return Ok(());
    }
    let house = story()?;
    for name in ["clone", "copy"] {
        house.pg.owner().create_dir(&house.room(name), 0o700)?;
    }
    // Mounts of its own, which go with the shell.
    let script = "clone=$1; copy=$2; owner=$3; seawall=$4; config=$5; shift 5
        for place in $clone $copy; do
            mount -t tmpfs -o mode=700,uid=$owner,gid=$owner none $place
        done
        seawall() { $seawall --config $config \"$@\"; }
        seawall restore main --yes --into $clone
        cp -a $clone/. $copy
        code=0; seawall discard --yes $copy || code=$?
        test $code = 5 && test -e $copy/PG_VERSION
        seawall discard --yes $clone
        test -d $clone && test -z \"$(ls -A $clone)\"";
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]);
    shell.arg(house.room("clone")).arg(house.room("copy"));
    let owner = fs::metadata(house.pg.data_directory())?.uid();
    shell.arg(owner.to_string()).arg(seawall()?.path()).arg(&house.places.config);
    let output = process::run(&mut shell, None, LIMIT)?.success()?;
    tells(&output, "SW0612")?;
    tells(&output, "a mount point").map(drop)
}

#[test]
fn the_same_command_starts_what_was_restored_and_never_started() -> Result<()> {
    let house = story()?;
    house.restore("clone", ["--then", "pause"]).succeed()?;
    let file = house.room("clone").join("PG_VERSION");
    let written = fs::metadata(&file)?.modified()?;
    let clone = Waiting::start(&house, "54513", &[])?;
    ensure!(clone.rows()? == "1,2,3,4");
    ensure!(fs::metadata(&file)?.modified()? == written, "it was restored anew");

    let again = || house.restore("clone", ["--then", "pause", "--start"]).fail(5);
    tells(&again()?, "SW0605")?;
    drop(clone);
    tells(&again()?, "SW0604")
}

/// Two that write one directory at once: the second is told, and nothing is half done.
#[test]
fn one_command_at_a_time_moves_or_removes_a_clone() -> Result<()> {
    let house = story()?;
    let clone = Waiting::start(&house, "54514", &["--to", "name:row 1"])?;
    let other = fs::File::open(&clone.directory)?;
    other.lock()?;
    for arguments in [&["--to", "name:row 2"][..], &[]] {
        let refused = clone.promote(arguments)?.fail(5)?;
        tells(&refused, "SW0607")?;
        ensure!(!refused.stderr.contains("Do not use it"), "{}", refused.stderr);
    }
    tells(&house.command(["discard", "--yes"]).arg(&clone.directory).fail(5)?, "SW0607")?;
    ensure!(clone.rows()? == "1");
    drop(other);
    clone.promote(&["--to", "name:row 2"])?.succeed()?;
    ensure!(clone.rows()? == "1,2");
    house.command(["discard", "--yes"]).arg(&clone.directory).succeed()?;
    ensure!(!clone.directory.exists());
    Ok(())
}
