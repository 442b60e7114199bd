//! A backup that was killed: the next one goes on, and trusts nothing that may have changed.

mod support;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_testkit::StopMode;
use seawall_testkit::oracles::{self, Dump};
use seawall_testkit::process::wait_until;
use support::{Arguments, LIMIT, Protected, files, open_restored};

/// Tables of about 8 MiB, each of which fills a small pack.
const TABLES: u64 = 8;

fn fill(house: &Protected) -> Result<()> {
    for table in 0..TABLES {
        house.pg.psql(&format!(
            "CREATE TABLE t{table} (a int, b text); \
             INSERT INTO t{table} SELECT g, md5(random()::text) || md5(random()::text) \
             FROM generate_series(1, 75000) g"
        ))?;
    }
    house.pg.psql("CHECKPOINT").map(drop)
}

/// How many packs are finished.
fn packs(repository: &Path) -> usize {
    // A pack's temporary name may go while its directory is read.
    let all = files(repository).unwrap_or_default();
    let finished = all.iter().filter(|path| path.extension().is_none());
    finished.filter(|path| path.components().any(|part| part.as_os_str() == "pack")).count()
}

/// Kills a backup when it has added so many packs.
fn kill_backup_after(house: &Protected, more: usize) -> Result<()> {
    let before = packs(&house.places.repository);
    let mut running = house.command(["backup"]).spawn()?;
    wait_until("packs", LIMIT, || {
        let added = packs(&house.places.repository) - before;
        ensure!(!running.has_ended()?, "{added} packs, then {}", running.stderr_so_far());
        Ok(added >= more)
    })?;
    running.kill9()?;
    let ended = running.wait(Duration::from_secs(10))?;
    ensure!(ended.signal() == Some(9), "{ended:?}");
    Ok(())
}

fn bytes_of(house: &Protected, table: &str) -> Result<u64> {
    Ok(house.pg.psql(&format!("SELECT pg_relation_size('{table}')"))?.parse()?)
}

#[test]
fn a_killed_backup_is_resumed_and_what_changed_meanwhile_is_read_again() -> Result<()> {
    let house = Protected::start()?;
    house.configure_repository("pack_size = \"1MiB\"")?;
    fill(&house)?;
    let table = bytes_of(&house, "t0")?;

    // Nothing was written meanwhile: finished files are not read again.
    kill_backup_after(&house, 7)?;
    let resumed = house.backup()?;
    ensure!(resumed["resumed"].is_string(), "a new beginning: {resumed}");
    let (cluster, read) = (number(&resumed, "cluster_bytes")?, number(&resumed, "read_bytes")?);
    ensure!(read + 2 * table < cluster, "{read} of {cluster} bytes were read again: {resumed}");
    prove(&house, &resumed, "quiet")?;

    // One row of one finished table was written: that table is read again.
    kill_backup_after(&house, 7)?;
    house.pg.psql("UPDATE t0 SET b = 'changed after the kill' WHERE a = 70000")?;
    let resumed = house.backup()?;
    let again = number(&resumed, "read_bytes")?;
    ensure!(again + table < cluster, "{again} of {cluster} bytes were read again: {resumed}");
    ensure!(again > table, "{again} bytes are less than the changed table has: {resumed}");
    let restored = prove(&house, &resumed, "changed")?;
    ensure!(restored.contains("changed after the kill"));
    Ok(())
}

fn number(json: &serde_json::Value, name: &str) -> Result<u64> {
    json[name].as_u64().with_context(|| format!("no {name} in {json}"))
}

/// The backup by itself, without WAL after its end, is the cluster as it was. Returns its dump.
fn prove(house: &Protected, backup: &serde_json::Value, room: &str) -> Result<String> {
    house.command(["verify"]).succeed()?;
    let id = backup["id"].as_str().context("id")?;
    house.restore(room, ["--backup-only"]).args(["--backup", id]).succeed()?;
    let mut restored = open_restored(&house.room(room))?;
    Dump::take(restored.connection())?.same_as(&Dump::take(house.pg.connection())?)?;
    let changed = restored.psql("SELECT b FROM t0 WHERE a = 70000")?;
    oracles::amcheck(restored.connection())?;
    restored.stop(StopMode::Fast)?;
    oracles::pg_checksums(restored.bin(), restored.data_directory())?;
    Ok(changed)
}
