//! Times as people have them in hand when they restore.

mod support;

use anyhow::{Context, Result, ensure};
use support::{Arguments, Protected, quiet_cluster, tells};

/// The time of the line in which the server logged a statement, as it stands there.
fn logged(house: &Protected, statement: &str) -> Result<String> {
    let log = house.pg.logs()?;
    let line = log.lines().find(|line| line.contains(statement)).context("not logged")?;
    Ok(line.split(" @ ").next().context("the prefix")?.to_owned())
}

#[test]
fn a_time_is_taken_from_the_server_s_log_as_it_stands() -> Result<()> {
    let builder =
        quiet_cluster()?.config("log_statement", "ddl").config("log_line_prefix", "%m @ ");
    let mut house = Protected::with(builder, false)?;
    house.backup()?;
    let zones = [("Asia/Kathmandu", " +0545"), ("Europe/Moscow", " MSK"), ("UTC", " UTC")];
    let mut stories = Vec::new();
    for (n, (zone, ends)) in zones.into_iter().enumerate() {
        house.pg.psql(&format!("ALTER SYSTEM SET log_timezone = '{zone}'"))?;
        house.pg.restart()?;
        let kept = house.pg.psql(&format!("CREATE TABLE t{n} (); SELECT txid_current()"))?;
        house.pg.psql(&format!("DROP TABLE t{n}"))?;
        let time = logged(&house, &format!("DROP TABLE t{n}"))?;
        ensure!(time.ends_with(ends), "{time}");
        stories.push((time, kept));
    }
    house.pg.psql("SELECT txid_current()")?;
    house.archive_everything()?;
    for (time, kept) in &stories {
        // A statement is logged as it begins, and committed later.
        let plan = house.plan(["--before", time])?;
        ensure!(plan["last_commit_kept"]["xid"].as_u64() == Some(kept.parse()?), "{time}: {plan}");
    }
    let (time, _) = &stories[0];
    let call = house.restore("planned", ["--before", time]).args(["--dry-run"]);
    let shown = call.env("TZ", "Europe/Berlin").succeed()?.stdout;
    let target = shown.lines().find(|line| line.starts_with("target time")).context("no time")?;
    ensure!(target.contains("Z = 20") && target.ends_with(" Europe/Berlin"), "{shown}");
    Ok(())
}

/// Two minutes ago was after the drop, and whoever says so has to be told.
#[test]
fn a_plan_that_keeps_a_drop_names_it_and_how_to_undo_it() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE orders (i int)")?;
    house.backup()?;
    let drop = "BEGIN; DROP TABLE orders; SELECT txid_current(); COMMIT";
    let xid = house.pg.psql(drop)?;
    house.pg.psql("CREATE TABLE other (i int)")?;
    house.archive_everything()?;
    let undo = format!("`--before xid:{xid}` undoes it");

    let after = house.restore("planned", ["--latest", "--dry-run"]).succeed()?.stdout;
    let kept = after.lines().find(|line| line.starts_with("drops kept")).context("no drop")?;
    ensure!(
        kept.contains("relations in database \"postgres\"") && kept.ends_with(&undo),
        "{after}"
    );
    let before = house.plan(["--before", &format!("xid:{xid}")])?;
    let (kept, left_out) = (&before["removals"]["kept"], &before["removals"]["left_out"]);
    ensure!(kept.as_array().is_some_and(Vec::is_empty), "{before}");
    ensure!(left_out[0]["xid"].as_u64() == Some(xid.parse()?), "{before}");
    Ok(())
}

#[test]
fn a_time_in_the_future_says_so_and_what_time_it_is() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.archive_everything()?;
    let soon = house.pg.psql("SELECT now() + '3 hours'")?;
    let refused = house.restore("never", ["--to", &soon]).fail(3)?;
    tells(&refused, "lies in the future, and it is 20")?;
    tells(&refused, "The day before, that was")?;
    ensure!(!house.room("never").exists(), "it was begun");
    Ok(())
}
