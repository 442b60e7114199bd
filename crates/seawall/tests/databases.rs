//! Restores of selected databases, end to end: what was chosen is whole, and of the rest nothing is
//! pretended.

mod support;

use anyhow::{Result, ensure};
use seawall_testkit::{PgCluster, oracles};
use support::{Protected, archive_everything, open_restored, quiet_cluster, tells};

/// Tables of every kind of page, dead rows among them.
const FILL: &str = "CREATE TABLE t (i int PRIMARY KEY, text text); \
     CREATE INDEX ON t USING gin (to_tsvector('simple', text)); \
     INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) AS i";

/// After the backup: everything that replay has to do with pages it does not know.
const WORK: &str = "UPDATE t SET text = md5(text) WHERE i % 3 = 0; DELETE FROM t WHERE i % 7 = 0; \
     CREATE TABLE u AS SELECT * FROM t; DROP TABLE IF EXISTS v";

fn work_on(pg: &PgCluster, database: &str) -> Result<()> {
    for statement in WORK.split("; ").chain(["VACUUM", "VACUUM FREEZE t", "CHECKPOINT"]) {
        pg.connection().psql_in(database, statement)?;
    }
    // The first change of its page after a checkpoint, and others.
    pg.connection()
        .psql_in(database, "DELETE FROM t WHERE i < 100; INSERT INTO t VALUES (0, '')")?;
    pg.connection().psql_in(database, "VACUUM t").map(drop)
}

fn some_databases(checksums: bool) -> Result<()> {
    let house = Protected::with(quiet_cluster()?.checksums(checksums), false)?;
    for database in ["shop", "odd \"name\"", "other"] {
        house.pg.psql(&format!("CREATE DATABASE \"{}\"", database.replace('"', "\"\"")))?;
        house.pg.connection().psql_in(database, FILL)?;
    }
    house.backup()?;
    for database in ["shop", "odd \"name\"", "other"] {
        work_on(&house.pg, database)?;
    }
    let count = "SELECT count(*) || ' ' || sum(hashtext(text)) FROM t";
    let expected = house.pg.connection().psql_in("shop", count)?;
    archive_everything(&house.pg)?;

    tells(&house.restore("none", ["--database", "shopp"]).run()?, "SW0002")?;
    tells(&house.restore("none", ["--database", "shop", "--as", "primary"]).run()?, "SW0002")?;
    let plan = house.plan(["--database", "shop"])?;
    ensure!(plan["left_out_databases"].as_array().is_some_and(|it| it.len() == 2), "{plan}");
    ensure!(plan["ignores_invalid_pages"] == serde_json::json!(true) || checksums, "{plan}");

    let restored = house.restore("shop", ["--database", "shop"]).succeed()?;
    let drop_it = "DROP DATABASE \"odd \"\"name\"\"\";";
    ensure!(restored.stderr.contains(drop_it), "{}", restored.stderr);
    let pg = open_restored(&house.room("shop"))?;
    ensure!(pg.connection().psql_in("shop", count)? == expected);
    let refused = pg.connection().psql_in("other", "SELECT 1");
    ensure!(refused.is_err(), "one can connect to a database that was left out");
    pg.psql(drop_it)?;
    pg.psql("DROP DATABASE other")?;
    ensure!(oracles::amcheck(pg.connection()).is_ok());
    ensure!(
        pg.psql("SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database")?
            == "postgres,shop,template0,template1"
    );
    Ok(())
}

#[test]
fn a_selected_database_is_whole_and_the_others_are_there_by_name() -> Result<()> {
    some_databases(true)
}

#[test]
fn without_checksums_the_others_are_passed_over() -> Result<()> {
    some_databases(false)
}
