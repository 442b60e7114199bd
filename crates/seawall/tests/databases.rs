//! Restores of selected databases, end to end: what was chosen is whole, and of the rest nothing is
//! pretended.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use seawall_testkit::{PgBin, PgCluster, oracles, process};
use support::{
    Arguments, LIMIT, Protected, archive_everything, open_restored, quiet_cluster, tells,
};

/// Tables of every kind of page, dead rows among them.
const FILL: &str = "CREATE TABLE t (i int PRIMARY KEY, text text); \
     CREATE INDEX ON t USING gin (to_tsvector('simple', text)); \
     CREATE TABLE h AS SELECT i % 3 AS i FROM generate_series(1, 5000) AS i; \
     CREATE INDEX ON h USING hash (i); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) AS i";

/// After the backup: everything that replay has to do with pages it does not know.
const WORK: &str = "UPDATE t SET text = md5(text) WHERE i % 3 = 0; DELETE FROM t WHERE i % 7 = 0; \
     DELETE FROM h WHERE ctid > '(10,0)'; \
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

/// Three databases with a backup, and work on all after it.
fn three_databases(checksums: bool) -> Result<Protected> {
    let house = Protected::with(quiet_cluster()?.checksums(checksums), false)?;
    for database in ["shop", "odd \"name\"", "other"] {
        house.pg.psql(&format!("CREATE DATABASE \"{}\"", database.replace('"', "\"\"")))?;
        house.pg.connection().psql_in(database, FILL)?;
    }
    house.backup()?;
    for database in ["shop", "odd \"name\"", "other"] {
        work_on(&house.pg, database)?;
    }
    Ok(house)
}

const CONTENT: &str =
    "SELECT (SELECT count(*) || ' ' || sum(hashtext(text)) FROM t), count(*) FROM h";

/// What to drop, as the restore prints it: by numbers.
const DROP: &str = "SELECT pg_catalog.format('DROP DATABASE %I', datname) \
     FROM pg_catalog.pg_database WHERE oid OPERATOR(pg_catalog.=) ANY (";

#[test]
fn e68_a_selected_database_is_whole_and_the_others_are_there_by_name() -> Result<()> {
    let house = three_databases(false)?;
    let expected = house.pg.connection().psql_in("shop", CONTENT)?;
    archive_everything(&house.pg)?;

    tells(&house.restore("none", ["--database", "shopp"]).run()?, "SW0002")?;
    tells(&house.restore("none", ["--database", "shop", "--as", "primary"]).run()?, "SW0002")?;
    let plan = house.plan(["--database", "shop"])?;
    let left_out = plan["left_out_databases"].as_array().context("no list")?;
    ensure!(left_out.len() == 2, "{plan}");

    let restored = house.restore("shop", ["--database", "shop"]).succeed()?;
    ensure!(restored.stderr.contains("pg_filenode.map"), "{}", restored.stderr);
    let numbers: Vec<String> = left_out.iter().map(|it| it["oid"].to_string()).collect();
    let by_number = format!("ARRAY[{}]::pg_catalog.oid[]", numbers.join(", "));
    ensure!(restored.stderr.contains(&format!("ANY ({by_number}) \\gexec")), "{}", restored.stderr);
    let pg = open_restored(&house.room("shop"))?;
    ensure!(pg.connection().psql_in("shop", CONTENT)? == expected);
    let refused = pg.connection().psql_in("other", "SELECT 1");
    ensure!(refused.is_err(), "one can connect to a database that was left out");
    for statement in pg.psql(&format!("{DROP}{by_number})"))?.lines() {
        pg.psql(statement)?;
    }
    ensure!(oracles::amcheck(pg.connection()).is_ok());
    ensure!(
        pg.psql("SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database")?
            == "postgres,shop,template0,template1"
    );
    Ok(())
}

/// Hash indexes and renamed databases; checksums are on, and `ignore_invalid_pages` is needed all
/// the same.
#[test]
fn a_started_server_tells_the_databases_left_out_by_their_names_of_now() -> Result<()> {
    let house = three_databases(true)?;
    let expected = house.pg.connection().psql_in("shop", CONTENT)?;
    let strategy = if PgBin::default_major()? >= 15 { " STRATEGY file_copy" } else { "" };
    house.pg.psql(&format!("CREATE DATABASE copy TEMPLATE other{strategy}"))?;
    house.pg.psql("ALTER DATABASE shop RENAME TO \"the shop\"")?;
    house.pg.psql("ALTER DATABASE other RENAME TO shop")?;
    archive_everything(&house.pg)?;

    let output = house.restore("shop", ["--database", "shop", "--start", "--json"]);
    let output = output.succeed()?.json()?;
    let mut stop = house.pg.owner().command(house.pg.bin().program("pg_ctl")?);
    stop.args(["stop", "-m", "fast", "-w", "-D"]).arg(house.room("shop"));
    process::run(&mut stop, None, LIMIT)?.success()?;

    let notes = output["started"]["notes"].to_string().replace('\\', "");
    ensure!(notes.contains("\"shop\" when the backup began is called \"the shop\""), "{notes}");
    ensure!(notes.contains("DROP DATABASE \"shop\";"), "{notes}");
    ensure!(notes.contains("\"copy\" (OID "), "{notes}");
    ensure!(!notes.contains("DROP DATABASE \"the shop\""), "{notes}");
    let log = fs::read_to_string(house.room("shop.log"))?;
    ensure!(log.contains(" is uninitialized"), "every page was logged whole: {log}");

    let pg = open_restored(&house.room("shop"))?;
    ensure!(pg.psql("SHOW ignore_invalid_pages")? == "off");
    ensure!(pg.connection().psql_in("the shop", CONTENT)? == expected);
    Ok(())
}

/// Without `full_page_writes` replay needs every page: one that is missing is passed over.
#[test]
fn every_stretch_of_replay_is_looked_at_and_a_promoted_server_insists_on_all_pages() -> Result<()> {
    let pg = quiet_cluster()?.config("full_page_writes", "off");
    let house = Protected::with(pg, false)?;
    for database in ["shop", "other"] {
        house.pg.psql(&format!("CREATE DATABASE {database}"))?;
        house.pg.connection().psql_in(database, FILL)?;
    }
    house.backup()?;
    let change = |database: &str, what: &str, point: &str| -> Result<()> {
        house.pg.connection().psql_in(database, what)?;
        house.pg.psql(&format!("SELECT pg_create_restore_point('{point}')")).map(drop)
    };
    change("shop", "INSERT INTO t VALUES (0, '')", "one")?;
    change("other", "DELETE FROM h", "two")?;
    change("shop", "DELETE FROM h", "three")?;
    let path = house.pg.connection().psql_in("shop", "SELECT pg_relation_filepath('h')")?;
    archive_everything(&house.pg)?;

    let waiting = |room: &str| -> Result<PathBuf> {
        let start = ["--database", "shop", "--then", "pause", "--start", "--to", "name:one"];
        let restored = house.restore(room, start).args(["--port", "54515"]).succeed()?;
        tells(&restored, "DROP DATABASE \"other\"")?;
        Ok(house.room(room))
    };
    let promote = |room: &Path, arguments: &[&str]| {
        house.command(["promote"]).arg(room).args(arguments.iter().copied())
    };
    let stop = |room: &Path| -> Result<()> {
        let mut stop = house.pg.owner().command(house.pg.bin().program("pg_ctl")?);
        stop.args(["stop", "-m", "fast", "-w", "-D"]).arg(room);
        process::run(&mut stop, None, LIMIT)?.success().map(drop)
    };
    let ignores = |room: &Path| -> Result<bool> {
        let text = fs::read_to_string(room.join("postgresql.auto.conf"))?;
        Ok(text.lines().any(|line| line.starts_with("ignore_invalid_pages")))
    };

    let whole = waiting("whole")?;
    tells(&promote(&whole, &["--to", "name:two"]).succeed()?, "DROP DATABASE \"other\"")?;
    ensure!(ignores(&whole)?, "it still replays");
    tells(&promote(&whole, &[]).succeed()?, "DROP DATABASE \"other\"")?;
    ensure!(!ignores(&whole)?, "it takes writes");
    stop(&whole)?;

    let cut = waiting("cut")?;
    fs::OpenOptions::new().write(true).open(cut.join(&path))?.set_len(0)?;
    let refused = promote(&cut, &["--to", "name:three"]).fail(1)?;
    tells(&refused, "SW0608")?;
    tells(&refused, &path)?;
    stop(&cut)
}
