//! What made incremental backups of others restore old rows. The numbers are those of the hazards known
//! to have destroyed backups.

#[path = "support/moved.rs"]
mod moved;
mod support;

use std::fs;

use anyhow::{Context, Result, ensure};
use moved::moved;
use seawall_core::Lsn;
use seawall_testkit::oracles::Dump;
use seawall_testkit::pages::same_pages;
use seawall_testkit::{Owner, PgBin, PgCluster, PgClusterBuilder, StopMode, process};
use serde_json::Value;
use support::{LIMIT, Protected, open_restored, prove_same_content, quiet_cluster};

fn backup(house: &Protected, arguments: &[&str]) -> Result<Value> {
    let arguments = ["backup", "--json"].iter().chain(arguments).copied();
    house.command(arguments).succeed()?.json()
}

fn start(report: &Value) -> Result<Lsn> {
    Ok(report["start_lsn"].as_str().context("no start LSN")?.parse()?)
}

fn id(report: &Value) -> Result<&str> {
    report["id"].as_str().with_context(|| format!("id of {report}"))
}

/// Takes a backup that leads on from this one, and proves that it is page by page what a full one of
/// the same moment is.
fn like_a_full_one(house: &Protected, parent: &Value) -> Result<Value> {
    let incremental = backup(house, &["--parent", id(parent)?])?;
    ensure!(incremental["parent"] == parent["id"], "{incremental}");
    let full = backup(house, &["--full"])?;
    for (room, report) in [("one", &incremental), ("other", &full)] {
        house.restore(room, ["--backup-only", "--backup", id(report)?]).succeed()?;
    }
    let (one, other) = (house.room("one"), house.room("other"));
    same_pages(&one, &other, start(&incremental)?)?;
    fs::remove_dir_all(one)?;
    fs::remove_dir_all(other)?;
    Ok(incremental)
}

fn quiet(major: u16) -> PgClusterBuilder {
    PgCluster::builder(major).config("autovacuum", "off")
}

#[test]
fn e31_a_change_within_a_second_that_leaves_the_times_of_the_file_is_stored() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql(
        "CREATE TABLE t AS SELECT g AS a, 0 AS b FROM generate_series(1, 20000) g; CHECKPOINT",
    )?;
    let file = house.pg.data_directory().join(house.pg.psql("SELECT pg_relation_filepath('t')")?);
    let first = backup(&house, &[])?;
    let modified = fs::metadata(&file)?.modified()?;
    house.pg.psql("UPDATE t SET b = 1 WHERE a = 77; CHECKPOINT")?;
    fs::File::options().write(true).open(&file)?.set_modified(modified)?;
    like_a_full_one(&house, &first).map(drop)
}

#[test]
fn e38_a_table_that_was_truncated_and_grew_again_in_bulk_has_its_new_pages() -> Result<()> {
    for major in PgBin::installed() {
        let house = Protected::with(quiet(major), false)?;
        house.pg.psql("CREATE TABLE t (a int, b text); INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 30000) g; CHECKPOINT")?;
        let first = backup(&house, &[])?;
        // Behind the truncation the pages are new; some of them nobody ever writes to.
        house.pg.psql("DELETE FROM t WHERE a > 100; VACUUM t; INSERT INTO t SELECT g, md5((g + 1)::text) FROM generate_series(101, 30000) g")?;
        let second = like_a_full_one(&house, &first).with_context(|| format!("{major}"))?;
        house.pg.psql("DELETE FROM t WHERE a > 15000; VACUUM t; COPY t FROM PROGRAM 'seq 1 40000 | sed s/$/\\\\tx/'")?;
        like_a_full_one(&house, &second).with_context(|| format!("{major}"))?;
    }
    Ok(())
}

#[test]
fn e39_visibility_maps_are_what_they_are_on_disk_whatever_the_log_says() -> Result<()> {
    for major in PgBin::installed() {
        let shape = quiet(major).checksums(false).config("wal_log_hints", "off");
        let house = Protected::with(shape, false)?;
        house.pg.psql("CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 30000) g; VACUUM t; CHECKPOINT")?;
        let first = backup(&house, &[])?;
        house.pg.psql("DELETE FROM t WHERE a > 9000; VACUUM t; CHECKPOINT; INSERT INTO t SELECT g, 'x' FROM generate_series(9001, 20000) g; CHECKPOINT")?;
        like_a_full_one(&house, &first).with_context(|| format!("{major}"))?;
    }
    Ok(())
}

#[test]
fn e40_where_wal_was_minimal_for_a_while_everything_is_compared() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g; CHECKPOINT")?;
    let first = backup(&house, &[])?;
    for (level, senders) in [("minimal", "0"), ("replica", "10")] {
        house.pg.psql(&format!("ALTER SYSTEM SET wal_level = '{level}'; "))?;
        house.pg.psql(&format!("ALTER SYSTEM SET max_wal_senders = {senders}"))?;
        house.pg.psql(&format!(
            "ALTER SYSTEM SET archive_mode = '{}'",
            if level == "minimal" { "off" } else { "on" }
        ))?;
        house.pg.restart()?;
        // Not logged where it can be done without.
        house.pg.psql("BEGIN; TRUNCATE t; INSERT INTO t SELECT g, 'unlogged' FROM generate_series(1, 15000) g; COMMIT")?;
    }
    let second = house.command(["backup", "--json"]).run()?;
    let second = second.json()?;
    ensure!(second["destinations"][0]["why"].is_string(), "{second}");
    let full = backup(&house, &["--full"])?;
    for (room, report) in [("one", &second), ("other", &full)] {
        house.restore(room, ["--backup-only", "--backup", id(report)?]).succeed()?;
    }
    same_pages(&house.room("one"), &house.room("other"), start(&second)?)?;
    ensure!(second["parent"] == first["id"], "{second}");
    Ok(())
}

#[test]
fn e41_no_backup_leads_on_over_a_switch_of_checksums() -> Result<()> {
    let mut house = Protected::with(quiet_cluster()?.checksums(false), false)?;
    house.pg.psql("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 20000) g")?;
    backup(&house, &[])?;
    house.pg.stop(StopMode::Fast)?;
    let owner = Owner::of_servers()?;
    let mut enable = owner.command(house.pg.bin().program("pg_checksums")?);
    enable.arg("--enable").arg("-D").arg(house.pg.data_directory());
    process::run(&mut enable, None, LIMIT)?.success()?;
    house.pg.start()?;
    let second = backup(&house, &[])?;
    ensure!(second["kind"] == "full", "{second}");
    ensure!(
        second["destinations"][0]["why"].as_str().is_some_and(|why| why.contains("checksums")),
        "{second}"
    );
    let third = backup(&house, &[])?;
    ensure!(third["kind"] == "incremental", "{third}");
    Ok(())
}

#[test]
fn e42_a_database_that_was_copied_as_files_is_stored_though_no_record_names_its_blocks()
-> Result<()> {
    for major in PgBin::installed() {
        let house = Protected::with(quiet(major), false)?;
        house.pg.psql("CREATE DATABASE shop")?;
        house.pg.connection().psql_in("shop", "CREATE TABLE t AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g; CHECKPOINT")?;
        let first = backup(&house, &[])?;
        let strategy = if major < 15 { "" } else { "STRATEGY file_copy" };
        house.pg.psql(&format!("CREATE DATABASE copied TEMPLATE shop {strategy}"))?;
        house.pg.connection().psql_in("copied", "UPDATE t SET b = 'x' WHERE a = 7")?;
        let second = like_a_full_one(&house, &first).with_context(|| format!("{major}"))?;
        // Gone, and another one under the same name.
        house.pg.psql("DROP DATABASE copied")?;
        house.pg.psql(&format!("CREATE DATABASE copied TEMPLATE shop {strategy}"))?;
        like_a_full_one(&house, &second).with_context(|| format!("{major}"))?;
    }
    Ok(())
}

/// A server that was restored to a moment and promoted, after the one before it had gone on.
fn gone_back(house: &mut Protected, first: &Value, left: &str) -> Result<PgCluster> {
    house.pg.psql(left)?;
    let left = backup(house, &[])?;
    ensure!(left["parent"] == first["id"], "{left}");
    house.archive_everything()?;
    let there = ["--to", "name:there", "--as", "primary", "--backup", id(first)?];
    house.restore("primary", there).succeed()?;
    house.pg.stop(StopMode::Fast)?;
    let primary = open_restored(&house.room("primary"))?;
    moved(house, &primary)?;
    Ok(primary)
}

/// The next backup leads on from the one before the fork, and is what a full one is.
fn leads_on_over_the_fork(house: &Protected, first: &Value) -> Result<()> {
    let incremental = backup(house, &[])?;
    ensure!(incremental["parent"] == first["id"], "{incremental}");
    let full = backup(house, &["--full"])?;
    for (room, report) in [("one", &incremental), ("other", &full)] {
        house.restore(room, ["--backup-only", "--backup", id(report)?]).succeed()?;
    }
    same_pages(&house.room("one"), &house.room("other"), start(&incremental)?).map(drop)
}

const OLD_ROWS: &str = "CREATE TABLE t (a int, b text); \
    INSERT INTO t SELECT g, 'old' FROM generate_series(1, 30000) g; CHECKPOINT";

#[test]
fn e36_after_a_promotion_no_row_of_the_time_that_was_left_comes_back() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql(OLD_ROWS)?;
    let first = backup(&house, &[])?;
    house.pg.psql(
        "UPDATE t SET b = 'kept' WHERE a % 5000 = 0; SELECT pg_create_restore_point('there')",
    )?;
    let left = "UPDATE t SET b = 'left' WHERE a % 3000 = 0";
    let primary = gone_back(&mut house, &first, left)?;
    primary.psql("UPDATE t SET b = 'new' WHERE a % 7000 = 0")?;
    leads_on_over_the_fork(&house, &first)
}

#[test]
fn e37_a_truncation_in_the_segment_of_a_fork_counts_on_the_way_that_was_taken() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql(OLD_ROWS)?;
    let first = backup(&house, &[])?;
    house.pg.psql("SELECT pg_create_restore_point('there')")?;
    // The one that was left truncates to another length.
    let primary = gone_back(&mut house, &first, "DELETE FROM t WHERE a > 100; VACUUM t")?;
    primary.psql(
        "DELETE FROM t WHERE a > 20000; VACUUM t; \
         INSERT INTO t SELECT g, 'new' FROM generate_series(1, 8000) g",
    )?;
    leads_on_over_the_fork(&house, &first)
}

#[test]
fn e69_rows_indexes_and_toast_are_the_same_after_a_row_of_backups() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql(
        "CREATE TABLE parents (id int PRIMARY KEY, body text); ALTER TABLE parents ALTER body SET STORAGE EXTERNAL; \
         CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents); \
         INSERT INTO parents SELECT g, repeat(md5(g::text), 100) FROM generate_series(1, 3000) g; \
         INSERT INTO children SELECT g, g FROM generate_series(1, 3000) g; VACUUM",
    )?;
    backup(&house, &[])?;
    for round in 0..6 {
        house.pg.psql(&format!(
            "UPDATE parents SET body = repeat(md5((id + {round})::text), 90) WHERE id % 40 = {round}; \
             INSERT INTO parents SELECT 10000 + {round} * 100 + g, repeat(md5(g::text), 80) FROM generate_series(1, 50) g; \
             INSERT INTO children SELECT id, id FROM parents WHERE id > 10000 ON CONFLICT DO NOTHING; \
             DELETE FROM children WHERE id % 100 = {round}; VACUUM parents"
        ))?;
        ensure!(backup(&house, &[])?["kind"] == "incremental");
    }
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(house.pg.connection())?;
    house.restore("room", ["--latest", "--backup", "latest"]).succeed()?;
    prove_same_content(&house.room("room"), &dump).map(drop)
}
