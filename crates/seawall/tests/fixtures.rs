//! Repositories of every format version there ever was are opened, or refused, for ever.

mod support;

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use seawall_testkit::{Owner, PgBin, TestDir};
use support::{open_restored, seawall};

/// A fixture, copied to where the servers' owner may read and note things in it.
fn fixture(name: &str, directory: &TestDir) -> Result<()> {
    let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(name);
    let copied = std::process::Command::new("cp")
        .arg("--recursive")
        .arg(from.join("repository"))
        .arg(from.join("key"))
        .arg(directory.path())
        .status()?;
    ensure!(copied.success(), "cannot copy {}", from.display());
    // A checkout lets everybody read it.
    set_permissions(directory.join("key"), Permissions::from_mode(0o600))?;
    Owner::of_servers()?.chown_all(directory.path())
}

#[test]
fn a_repository_of_format_1_verifies_and_restores() -> Result<()> {
    let directory = TestDir::new()?;
    fixture("format-1", &directory)?;
    let url = format!("file://{}", directory.join("repository").display());
    let key = directory.join("key");
    let seawall = seawall()?;
    let command =
        |verb: &str| seawall.command([verb]).arg("--repo").arg(&url).arg("--key").arg(&key);

    let verified = command("verify").succeed()?;
    ensure!(verified.stdout.contains("20261127T1518-ses6"), "{}", verified.stdout);

    if PgBin::default_major()? != 15 {
        return Ok(()); // only a PostgreSQL 15 can start what was backed up from one
    }
    let rooms = directory.join("rooms");
    Owner::of_servers()?.create_dir(&rooms, 0o755)?;
    let into = rooms.join("restored");
    let restore = command("restore").arg("--yes").arg("--into").arg(&into);
    restore.arg("--to").arg("name:before the drop").succeed()?;
    let pg = open_restored(&into)?;
    let rows = pg.psql("SELECT count(*) || ' to ' || max(n) FROM moments")?;
    ensure!(rows == "1001 to 1001", "{rows}");
    Ok(())
}

/// Pages and commit were one object once. Nothing in it is taken for something else.
#[test]
fn a_backup_of_the_format_before_is_refused_with_a_sentence() -> Result<()> {
    let directory = TestDir::new()?;
    fixture("format-1-before", &directory)?;
    let url = format!("file://{}", directory.join("repository").display());
    let key = directory.join("key");
    let seawall = seawall()?;
    let command =
        |verb: &str| seawall.command([verb]).arg("--repo").arg(&url).arg("--key").arg(&key);
    let rooms = directory.join("rooms");
    Owner::of_servers()?.create_dir(&rooms, 0o755)?;
    let into = rooms.join("restored");

    let whatever = command("restore").arg("--yes").arg("--into").arg(&into).fail(1)?;
    let restore = command("restore").arg("--yes").arg("--into").arg(&into);
    let this_one = restore.arg("--backup").arg("20261121T1056-esjp").fail(1)?;
    let verify = command("verify").fail(1)?;
    ensure!(verify.stdout.contains("other format c/"), "{}", verify.stdout);
    ensure!(!verify.stdout.contains("damaged"), "{}", verify.stdout);
    let list = command("list").succeed()?.stdout;
    ensure!(list.contains("other format") && !list.contains("damaged"), "{list}");
    let list = command("list").arg("--json").succeed()?.json()?;
    ensure!(list["clusters"][0]["backups"][0]["state"] == "other-format", "{list}");
    for told in [&whatever.stderr, &this_one.stderr, &verify.stdout] {
        ensure!(told.contains("is a backup of the format before this one"), "{told}");
    }
    for told in [&whatever.stderr, &this_one.stderr] {
        ensure!(told.contains("SW0302") && told.contains("Make a new backup"), "{told}");
    }
    ensure!(!into.exists(), "nothing was written");
    Ok(())
}
