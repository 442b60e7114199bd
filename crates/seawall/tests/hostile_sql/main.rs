//! SQL whose names somebody else has taken: nothing that Seawall asks a server leads anywhere but to
//! PostgreSQL's own functions, operators, types and relations, whatever the schemas hold and
//! whichever of them comes first.

mod lint;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{PgBin, PgCluster, process};
use support::{LIMIT, Protected, seawall};

const TRAPS: &str = include_str!("traps.sql");

/// What the log says when one was sprung.
const SPRUNG: &str = "a trap was sprung";

/// A cluster that Seawall sets up where every name is a trap, and that logs all it is asked; and how
/// long its log was before Seawall came.
fn trapped_house(major: u16) -> Result<(Protected, usize)> {
    let builder = PgCluster::builder(major).config("autovacuum", "off");
    let builder = builder.config("log_statement", "all").config("log_line_prefix", "<%p %a> ");
    let pg = builder.start()?;
    let set = pg.psql(TRAPS)?;
    let counts: Vec<u32> = set.split(' ').filter_map(|word| word.parse().ok()).collect();
    let enough = counts.iter().zip([4000, 700, 100, 50]).all(|(count, least)| *count > least);
    ensure!(counts.len() == 4 && enough, "{set}");
    for trap in ["SELECT 1 = 1", "SELECT count(*) FROM pg_settings", "SELECT 'a'::text"] {
        ensure!(pg.psql(trap).is_err(), "no trap in {trap}");
    }
    let since = pg.logs()?.len();
    Ok((Protected::named(pg, seawall()?, "house")?, since))
}

/// What Seawall asked, in order, by session.
fn asked(log: &str) -> BTreeMap<u32, Vec<String>> {
    let mut sessions: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in log.lines() {
        let Some((prefix, sql)) = line.split_once("LOG:  statement: ") else { continue };
        let session = prefix.strip_prefix('<').and_then(|rest| rest.split_once(" seawall> "));
        if let Some(process) = session.and_then(|(process, _)| process.parse().ok()) {
            sessions.entry(process).or_default().push(sql.to_owned());
        }
    }
    sessions
}

/// Every statement is qualified, and runs past the traps from a session that sets out for them.
fn prove(pg: &PgCluster, sessions: &BTreeMap<u32, Vec<String>>) -> Result<BTreeSet<String>> {
    let statements: BTreeSet<String> = sessions.values().flatten().cloned().collect();
    for sql in &statements {
        let found = lint::unqualified(sql);
        ensure!(found.is_empty(), "{found:?} in: {sql}");
    }
    for path in ["traps, pg_catalog", "traps"] {
        for session in sessions.values() {
            let script = format!("SET search_path = {path};\n{};\n", session.join(";\n"));
            let mut psql = pg.connection().client("psql")?;
            psql.args(["-XAtq", "-d", "postgres", "-f", "-"]);
            process::run(&mut psql, Some(&script), LIMIT)?.success()?;
        }
    }
    Ok(statements)
}

/// Nothing was sprung since the log was so long.
fn none_was_sprung(log: &str, since: usize) -> Result<()> {
    let later = log.get(since..).context("the log is shorter")?;
    let sprung: Vec<_> = later.lines().filter(|line| line.contains(SPRUNG)).collect();
    ensure!(sprung.is_empty(), "{sprung:#?}");
    Ok(())
}

fn nothing_is_looked_up_by_its_name_alone(major: u16) -> Result<()> {
    let (house, since) = trapped_house(major)?;
    house.command(["check", "--wal-timeout", "20s"]).fail(6)?;
    house.backup()?;
    house.command(["status"]).succeed()?;
    house.command(["info"]).succeed()?;
    house.command(["adopt", "--dry-run"]).succeed()?;
    let statements = prove(&house.pg, &asked(&house.pg.logs()?))?;
    for part in ["pg_switch_wal", "pg_stat_archiver", "_backup", "pg_control_system", "pg_settings"]
    {
        let told = statements.iter().any(|sql| sql.contains(part));
        ensure!(told, "{part} is asked nowhere in {statements:#?}");
    }
    none_was_sprung(&house.pg.logs()?, since)
}

macro_rules! on_majors {
    ($($name:ident: $major:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            if PgBin::find($major).is_err() {
                eprintln!("PostgreSQL {} is not installed: nothing is proven of it", $major);
                return Ok(());
            }
            nothing_is_looked_up_by_its_name_alone($major)
        }
    )*};
}

on_majors! {
    traps_of_other_roles_are_never_sprung_on_12: 12;
    traps_of_other_roles_are_never_sprung_on_13: 13;
    traps_of_other_roles_are_never_sprung_on_14: 14;
    traps_of_other_roles_are_never_sprung_on_15: 15;
    traps_of_other_roles_are_never_sprung_on_16: 16;
    traps_of_other_roles_are_never_sprung_on_17: 17;
    traps_of_other_roles_are_never_sprung_on_18: 18;
}

/// A restored server has the traps that production had.
#[test]
fn nor_are_they_in_a_restored_server() -> Result<()> {
    let (house, _) = trapped_house(PgBin::default_major()?)?;
    house.backup()?;
    let start = ["--backup-only", "--start", "--then", "pause"];
    house.restore("room", start).succeed()?;
    let room = house.room("room");
    let promoted = house.command(["promote"]).arg(&room).run();
    let mut stop = house.pg.owner().command(house.pg.bin().program("pg_ctl")?);
    stop.args(["stop", "-m", "immediate", "-w", "-D"]).arg(&room);
    process::run(&mut stop, None, LIMIT)?.success()?;
    promoted?.success()?;

    let log = fs::read_to_string(house.room("room.log"))?;
    let statements = prove(&house.pg, &asked(&log))?;
    for part in ["pg_wal_replay_resume", "pg_is_wal_replay_paused"] {
        ensure!(statements.iter().any(|sql| sql.contains(part)), "{part}: {statements:#?}");
    }
    none_was_sprung(&log, 0)
}

/// What a role without any rights could do on 14 as it comes, and the owner of a database on any.
#[test]
fn nobody_becomes_a_superuser_by_a_function_in_a_schema_of_their_own() -> Result<()> {
    let house = Protected::start()?;
    let trap = "LANGUAGE plpgsql AS 'BEGIN ALTER ROLE mallory SUPERUSER; RETURN NULL; END'";
    house.pg.psql(&format!(
        "CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC; \
         CREATE DATABASE theirs OWNER mallory; SET ROLE mallory; \
         CREATE FUNCTION public.pg_walfile_name(text) RETURNS text {trap}; \
         CREATE FUNCTION public.convert_to(text, text) RETURNS bytea {trap}; \
         CREATE FUNCTION public.quote_ident(name) RETURNS text {trap}"
    ))?;
    let in_theirs = format!(
        "SET ROLE mallory; CREATE SCHEMA first; \
         CREATE FUNCTION first.current_setting(text) RETURNS text {trap}; \
         CREATE FUNCTION first.pg_is_in_recovery() RETURNS bool {trap}; \
         ALTER DATABASE theirs SET search_path = first, pg_catalog"
    );
    house.pg.connection().psql_in("theirs", &in_theirs)?;
    let connection = house.pg.connection_string().replace("dbname=postgres", "dbname=theirs");
    house.command(["check", "--wal-timeout", "20s"]).fail(6)?;
    house.backup()?;
    for command in ["status", "check", "backup"] {
        house.command([command, "--connection", &connection]).run()?;
    }
    let rights = house.pg.psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'")?;
    ensure!(rights == "f", "mallory has become a superuser");
    Ok(())
}
