//! WAL segments of every size, and records that are longer than one.

mod support;

use anyhow::{Result, ensure};
use seawall_testkit::oracles::Dump;
use support::{Protected, prove_same_content, quiet_cluster};

/// A backup, records of some MiB, and a restore that needs all of them.
fn story(segment_mb: u32) -> Result<()> {
    let house = Protected::with(quiet_cluster()?.wal_segment_mb(segment_mb), false)?;
    let size = house.pg.psql("SHOW wal_segment_size")?;
    ensure!(size == format!("{segment_mb}MB") || size == "1GB", "{size}");
    house.pg.psql(
        "CREATE TABLE t AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g",
    )?;
    house.backup()?;
    // One record of five MiB, and a row whose parts are in a lot of them.
    house.pg.psql(
        "SELECT pg_logical_emit_message(false, 'long', repeat('0123456789abcdef', 327680)); \
         INSERT INTO t SELECT 0, string_agg(md5(g::text), '') FROM generate_series(1, 100000) g",
    )?;
    let lsn = house.pg.current_lsn()?;
    house.pg.psql("INSERT INTO t VALUES (-1, 'too late')")?;
    house.archive_everything()?;
    house.pg.psql("DELETE FROM t WHERE a = -1")?;
    let dump = Dump::take_without_tablespaces(house.pg.connection())?;

    house.command(["verify"]).succeed()?;
    let list = house.command(["wal", "list", "--json"]).succeed()?.json()?;
    ensure!(!list.to_string().contains("gap\":{"), "{list}");
    house.restore("room", ["--before", &format!("lsn:{lsn}")]).succeed()?;
    prove_same_content(&house.room("room"), &dump).map(drop)
}

#[test]
fn e70_segments_of_1_mib_and_records_longer_than_them() -> Result<()> {
    story(1)
}

#[test]
fn e70_segments_of_64_mib() -> Result<()> {
    story(64)
}
