//! Clusters of every kind: locales, encodings, compressed and logical WAL; and builds that are
//! none of PostgreSQL's releases.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_testkit::PgCluster;
use seawall_testkit::oracles::Dump;
use seawall_testkit::process::wait_until;
use support::{LIMIT, Protected, files, open_restored, prove_same_content, quiet_cluster, tells};

/// The values of `wal_compression` this server was built with.
fn compressions(pg: &PgCluster) -> Result<Vec<String>> {
    let sql = "SELECT unnest(coalesce(enumvals, '{on,off}')) FROM pg_settings \
         WHERE name = 'wal_compression'";
    let all = pg.psql(sql)?;
    Ok(all.lines().filter(|value| *value != "off").map(str::to_owned).collect())
}

#[test]
fn encodings_collations_and_compressed_and_logical_wal_change_nothing() -> Result<()> {
    let shape = quiet_cluster()?.initdb("--encoding=SQL_ASCII").config("wal_level", "logical");
    let house = Protected::with(shape, false)?;
    let pg = &house.pg;
    pg.psql("SELECT pg_create_logical_replication_slot('production', 'test_decoding')")?;
    pg.psql("CREATE TABLE bytes AS SELECT E'\\xff\\xfe not UTF-8' AS b")?;
    for (name, encoding) in [("latin", "LATIN1"), ("utf", "UTF8"), ("euc", "EUC_JP")] {
        pg.psql(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ))?;
    }
    pg.connection().psql_in("latin", "CREATE TABLE t AS SELECT chr(228) || chr(246) AS b")?;
    let collated = "CREATE TABLE t (b text COLLATE \"und-x-icu\"); CREATE INDEX ON t (b); \
         INSERT INTO t SELECT chr(200 + g) || md5(g::text) FROM generate_series(1, 3000) g";
    pg.connection().psql_in("utf", collated)?;
    house.backup()?;
    for compression in compressions(pg)? {
        pg.psql(&format!("ALTER SYSTEM SET wal_compression = {compression}"))?;
        pg.reload()?;
        pg.psql("CHECKPOINT")?;
        pg.connection().psql_in("utf", "UPDATE t SET b = b || 'x' WHERE b > 'm'")?;
        pg.psql(&format!("CREATE TABLE with_{compression} AS SELECT generate_series(1, 5000) a"))?;
    }
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(pg.connection())?;
    house.restore("room", ["--latest"]).succeed()?;
    prove_same_content(&house.room("room"), &dump)?;
    let restored = open_restored(&house.room("room"))?;
    ensure!(
        restored.psql("SELECT count(*) FROM pg_replication_slots")? == "0",
        "a slot came along"
    );
    ensure!(pg.psql("SELECT count(*) FROM pg_replication_slots")? == "1");
    Ok(())
}

/// Offsets of `ControlFileData` (pg_control.h), where each has another value and what is said.
const FOREIGN: [(usize, u32, &str); 6] = [
    (8, 9999, "belongs to no known PostgreSQL release"),
    (8, 0x1405_0000, "byte order"),
    (12, 202_212_345, "belongs to no known PostgreSQL release"),
    (216, 16384, "blcksz 16384"),
    (224, 16384, "xlog_blcksz 16384"),
    (228, 3 << 20, "WAL segment"),
];

/// Where the CRC stands, up to 17.
const CRC: usize = 288;

#[test]
fn a_cluster_of_a_fork_or_of_another_page_size_is_refused() -> Result<()> {
    let house = Protected::start()?;
    let copy = house.room("copy");
    let status = Command::new("cp").arg("-a").arg(house.pg.data_directory()).arg(&copy).status()?;
    ensure!(status.success());
    let control = copy.join("global/pg_control");
    let whole = fs::read(&control)?;
    for (offset, value, told) in FOREIGN {
        let mut patched = whole.clone();
        patched
            .get_mut(offset..offset + 4)
            .context("a field")?
            .copy_from_slice(&value.to_le_bytes());
        let crc = crc32c::crc32c(patched.get(..CRC).context("the fields")?);
        patched.get_mut(CRC..CRC + 4).context("the CRC")?.copy_from_slice(&crc.to_le_bytes());
        fs::write(&control, patched)?;
        refused(&house, &copy, told)?;
    }
    let check = house.command(["check", "--data-directory"]).arg(&copy).fail(6)?.stdout;
    ensure!(check.contains("critical") && check.contains("WAL segment"), "{check}");
    Ok(())
}

fn refused(house: &Protected, data: &Path, told: &str) -> Result<()> {
    let refused = house.command(["backup", "--data-directory"]).arg(data).fail(1)?;
    tells(&refused, "SW0404")?;
    tells(&refused, told)
}

#[test]
fn e54_a_dead_backup_whose_number_another_process_has_by_now_holds_up_nobody() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql(
        "CREATE TABLE t AS SELECT g AS a, md5(random()::text) AS b FROM generate_series(1, 400000) g",
    )?;
    let pins = || -> Result<usize> {
        let all = files(&house.places.repository)?;
        Ok(all.iter().filter(|path| path.iter().any(|part| part == "pin")).count())
    };
    let mut running = house.command(["backup"]).spawn()?;
    wait_until("a pin", LIMIT, || Ok(pins()? > 0))?;
    // While it lives, another one is refused; its number alone tells.
    let refused = house.command(["backup"]).run()?;
    if !running.has_ended()? {
        tells(&refused, "SW0408")?;
    }
    running.kill9()?;
    // It is dead, and its number still taken: nobody has waited for it.
    let began = Instant::now();
    house.backup()?;
    ensure!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    running.wait(LIMIT)?;
    ensure!(pins()? == 0, "a dead backup's pin stays");
    Ok(())
}
