//! The demo is a proof: it fails unless every acknowledged row came back and no other.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use seawall_testkit::{Owner, SeawallBin, TestDir};

#[test]
fn the_demo_brings_every_acknowledged_row_back_within_two_minutes() -> Result<()> {
    let seawall = SeawallBin::at(env!("CARGO_BIN_EXE_seawall"))?;
    let room = TestDir::new()?;
    let directory = room.join("demo");
    let began = Instant::now();
    let call = seawall.command(["demo", "--dir"]).arg(&directory).as_test_user();
    let story = call.timeout(Duration::from_secs(180)).succeed()?.stdout;
    ensure!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    ensure!(story.contains("every acknowledged order is back, and nothing else"), "{story}");
    for command in ["init main", "backup main", "restore main --before xid:", "verify"] {
        ensure!(story.contains(&format!("$ seawall {command}")), "no {command} in {story}");
    }
    let left = fs::read_dir(&directory).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} files were left");
    Ok(())
}

#[test]
fn the_demo_takes_no_directory_of_somebody_else() -> Result<()> {
    let owner = Owner::of_servers()?;
    let room = TestDir::new()?;
    owner.chown(room.path())?;
    let seawall = SeawallBin::at(env!("CARGO_BIN_EXE_seawall"))?;
    let refused = |name: &str| -> Result<()> {
        let call = seawall.command(["demo", "--dir"]).arg(room.join(name));
        let output = call.fail(2)?;
        ensure!(output.stderr.contains("SW0007"), "{}", output.stderr);
        Ok(())
    };
    fs::create_dir(room.join("ours"))?;
    owner.chown(&room.join("ours"))?;
    symlink(room.join("ours"), room.join("link"))?;
    refused("link")?;
    fs::create_dir(room.join("theirs"))?;
    if chown(room.join("theirs"), Some(65_534), None).is_ok() {
        refused("theirs")?;
    }
    Ok(())
}
