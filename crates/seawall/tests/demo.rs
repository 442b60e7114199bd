//! The demo is a proof: it fails unless every acknowledged row came back and no other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use seawall_testkit::{SeawallBin, TestDir};

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
    let left = std::fs::read_dir(&directory).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} files were left");
    Ok(())
}
