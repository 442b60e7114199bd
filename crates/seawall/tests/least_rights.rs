//! A role that may do what Seawall does and nothing else; and what one is told that may not.

mod support;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{PgBin, PgCluster, TestDir};
use support::{Protected, seawall, tells};

/// The SQL that `init` offers for a role with the least rights.
fn offered(pg: &PgCluster) -> Result<String> {
    let room = TestDir::new()?;
    pg.owner().chown(room.path())?;
    let connection = pg.connection_string();
    let init = ["init", "probe", "--no-kit", "--connection", &connection, "--repo"];
    let init = seawall()?.command(init).arg(room.join("repository"));
    let told = init.arg("--config").arg(room.join("seawall.toml")).succeed()?.stderr;
    let lines = told.lines().map(str::trim);
    let sql: Vec<&str> =
        lines.filter(|line| line.starts_with("CREATE ROLE") || line.starts_with("GRANT")).collect();
    ensure!(sql.len() == 3, "{told}");
    Ok(sql.join("\n"))
}

/// The statements of a hint or a fix.
fn grant_in(text: &str) -> Result<String> {
    let start = text.find("GRANT ").with_context(|| format!("no GRANT in {text}"))?;
    let end = text.rfind(';').context("no semicolon")?;
    Ok(text.get(start..=end).context("its end is before its beginning")?.to_owned())
}

fn privileges(house: &Protected) -> Result<Option<String>> {
    let check = house.command(["check", "--json", "--wal-timeout", "20s"]).run()?.json()?;
    let findings = check["findings"].as_array().context("findings")?.clone();
    let found = findings.iter().find(|finding| finding["id"] == "privileges");
    Ok(found.and_then(|finding| finding["fix"].as_str().map(str::to_owned)))
}

fn the_role_that_init_offers_is_enough_and_not_more(major: u16) -> Result<()> {
    let pg = PgCluster::builder(major).config("autovacuum", "off").start()?;
    let sql = offered(&pg)?;
    pg.psql(&sql).context("the SQL that init offers")?;
    let house = Protected::as_role(pg, "seawall")?;
    ensure!(house.pg.psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'seawall'")? == "f");
    ensure!(privileges(&house)?.is_none());
    house.backup()?;
    house.command(["status"]).succeed()?;
    house.command(["info"]).succeed()?;
    ensure!(!house.pg.logs()?.contains("permission denied"), "{}", house.pg.logs()?);

    // Without any one of its rights it is told which, and that one is enough.
    let functions = sql.split_once("FUNCTION ").and_then(|(_, rest)| rest.split_once(" TO "));
    let functions = functions.context("functions")?.0.split(", pg_catalog.pg_");
    let functions = functions.map(|name| match name.strip_prefix("pg_catalog.") {
        Some(_) => name.to_owned(),
        None => format!("pg_catalog.pg_{name}"),
    });
    for function in functions {
        house.pg.psql(&format!("REVOKE EXECUTE ON FUNCTION {function} FROM seawall"))?;
        let refused = house.command(["backup"]).fail(1)?;
        tells(&refused, "SW0107")?;
        let fix = privileges(&house)?.with_context(|| format!("no finding without {function}"))?;
        ensure!(fix.matches("GRANT").count() == 1 && fix.contains(&function), "{fix}");
        ensure!(refused.stderr.contains(&fix), "{fix} is not in {}", refused.stderr);
        house.pg.psql(&grant_in(&fix)?)?;
        ensure!(privileges(&house)?.is_none(), "{fix} was not enough");
    }
    house.pg.psql("REVOKE pg_read_all_settings FROM seawall")?;
    for command in ["backup", "check"] {
        let refused = house.command([command]).fail(1)?;
        tells(&refused, "SW0107")?;
        tells(&refused, "GRANT pg_read_all_settings TO seawall;")?;
    }
    house.pg.psql("GRANT pg_read_all_settings TO seawall")?;

    // Rights that everybody has unless somebody took them away: first those that no backup needs.
    house.pg.psql(
        "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname \
         IN ('pg_logical_emit_message', 'pg_last_wal_replay_lsn') \
         LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); END LOOP; END $$",
    )?;
    house.backup()?;
    let fix = privileges(&house)?.context("check says nothing of what it cannot do")?;
    ensure!(fix.contains("pg_logical_emit_message") && !fix.contains("pg_backup"), "{fix}");
    house.pg.psql(&grant_in(&fix)?)?;
    ensure!(privileges(&house)?.is_none(), "{fix} was not enough");
    house.pg.psql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")?;
    for (command, status) in [("backup", 1), ("check", 1), ("status", 2)] {
        let refused = house.command([command]).fail(status)?;
        let told = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(told.contains("pg_control_system"), "{told}");
        if command != "status" {
            house.pg.psql(&grant_in(&refused.stderr)?)?;
            house.command(["status"]).succeed()?;
            house.pg.psql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM seawall")?;
        }
    }
    Ok(())
}

macro_rules! on_majors {
    ($($name:ident: $major:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            if PgBin::find($major).is_err() {
                eprintln!("PostgreSQL {} is not installed: nothing is proven of it", $major);
                return Ok(());
            }
            the_role_that_init_offers_is_enough_and_not_more($major)
        }
    )*};
}

on_majors! {
    the_role_that_init_offers_is_enough_and_not_more_on_12: 12;
    the_role_that_init_offers_is_enough_and_not_more_on_13: 13;
    the_role_that_init_offers_is_enough_and_not_more_on_14: 14;
    the_role_that_init_offers_is_enough_and_not_more_on_15: 15;
    the_role_that_init_offers_is_enough_and_not_more_on_16: 16;
    the_role_that_init_offers_is_enough_and_not_more_on_17: 17;
    the_role_that_init_offers_is_enough_and_not_more_on_18: 18;
}
