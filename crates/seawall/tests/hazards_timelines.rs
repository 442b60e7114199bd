//! Timelines, end to end: a restored cluster goes on as production, and what `wal fetch` answers.

#[path = "support/moved.rs"]
mod moved;
mod support;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use moved::moved;
use seawall_testkit::ledger::{self, Bound, LedgerLog, Moment};
use seawall_testkit::process::wait_until;
use seawall_testkit::{Ledger, PgCluster, StopMode};
use support::{
    Arguments, LIMIT, Protected, archive_everything, open_restored, prove_restored, tells,
};

/// Commits, a mark, and commits after it, all archived. An older ledger is put aside.
fn chapter(pg: &PgCluster) -> Result<(Moment, LedgerLog)> {
    let older = "DO $$ BEGIN EXECUTE format('ALTER TABLE IF EXISTS ledger RENAME TO ledger_%s', \
         (SELECT count(*) FROM pg_class WHERE relname LIKE 'ledger_%' AND relkind = 'r')); END $$";
    pg.psql(older)?;
    let running = Ledger::start(pg, 2)?;
    running.wait_for(30, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(30, LIMIT)?;
    let log = running.stop()?;
    archive_everything(pg)?;
    Ok((moment, log))
}

fn check(
    house: &Protected,
    room: &str,
    target: &[&str],
    log: &LedgerLog,
    bound: &Bound,
) -> Result<()> {
    let restored = || -> Result<()> {
        house.restore(room, target.iter().copied()).succeed()?;
        let mut restored = open_restored(&house.room(room))?;
        prove_restored(&mut restored, log, bound)?;
        Ok(())
    };
    restored().with_context(|| format!("{room}: restored {target:?}"))
}

#[test]
fn a_cluster_restored_as_primary_goes_on_and_both_of_its_pasts_can_be_restored() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    let (first, first_log) = chapter(&house.pg)?;
    // Production is lost after the mark, and goes on from the mark elsewhere.
    house.pg.stop(StopMode::Immediate)?;
    house.restore("primary", ["--to", &first.time, "--as", "primary"]).succeed()?;
    let mut primary = open_restored(&house.room("primary"))?;
    let kept = ledger::read_rows(primary.connection())?;
    first_log.verify_prefix(&kept, &Bound::Time(first.time_us))?;
    ensure!(primary.psql("SELECT timeline_id FROM pg_control_checkpoint()")? == "2");
    ensure!(primary.psql("SHOW archive_mode")? == "on");

    let (second, second_log) = chapter(&primary)?;
    ensure!(primary.psql("SELECT failed_count FROM pg_stat_archiver")? == "0");
    // By the old backup, across the switch; before the switch; and on the branch that was left.
    check(&house, "second", &["--to", &second.time], &second_log, &Bound::Time(second.time_us))?;
    check(&house, "latest", &["--latest"], &second_log, &Bound::Everything)?;
    let earlier = first_log
        .entries()
        .iter()
        .find(|entry| entry.writer == 0 && entry.seq == 20 && entry.lsn_before < first.lsn);
    let xid = earlier.and_then(|entry| entry.committed).context("no early commit")?.xid;
    let (typed, bound) = (format!("xid:{xid}"), Bound::Xid { xid, inclusive: true });
    check(&house, "first", &["--to", &typed], &first_log, &bound)?;
    check(&house, "left", &["--latest", "--timeline", "1"], &first_log, &Bound::Everything)?;

    // A backup of the new timeline, and WAL after it.
    moved(&house, &primary)?;
    let backup = house.backup()?;
    ensure!(backup["timeline"] == 2, "{backup}");
    let (third, third_log) = chapter(&primary)?;
    check(&house, "third", &["--before", &third.time], &third_log, &Bound::Time(third.time_us))?;
    primary.stop(StopMode::Fast)
}

#[test]
fn a_clone_that_is_promoted_leaves_production_s_timeline_alone() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let (moment, log) = chapter(&house.pg)?;
    check(&house, "clone", &["--to", &moment.time], &log, &Bound::Time(moment.time_us))?;
    // The clone called its timeline 2. Production is still on 1, and so are its restores.
    let (_, later_log) = chapter(&house.pg)?;
    let plan = house.plan(["--latest"])?;
    ensure!(plan["timeline"] == 1, "{plan}");
    check(&house, "second", &["--latest"], &later_log, &Bound::Everything)
}

/// A drill that was meant as a clone archives its new timeline, and production knows nothing of it.
#[test]
fn a_drill_as_primary_does_not_hide_what_production_commits_meanwhile() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    house.pg.psql("INSERT INTO t VALUES (1); SELECT pg_create_restore_point('rp')")?;
    for row in [2, 3] {
        house.pg.psql(&format!("INSERT INTO t VALUES ({row})"))?;
    }
    house.archive_everything()?;
    house.restore("drill", ["--to", "name:rp", "--as", "primary"]).succeed()?;
    let mut drill = open_restored(&house.room("drill"))?;
    wait_until("the drill's history", LIMIT, || {
        Ok(house.objects()?.iter().any(|(path, _)| path.ends_with("history/00000002")))
    })?;
    drill.stop(StopMode::Immediate)?;
    for row in [4, 5] {
        house.pg.psql(&format!("INSERT INTO t VALUES ({row})"))?;
    }
    house.archive_everything()?;

    let refused = house.restore("planned", ["--latest", "--dry-run"]).run()?;
    for part in ["SW0609", "--timeline 1", "--timeline 2", "4 commits, the last at"] {
        tells(&refused, part)?;
    }
    // Before the fork there is one past only.
    ensure!(house.plan(["--to", "name:rp"])?["left_behind"].is_array());
    let told = house.restore("planned", ["--latest", "--timeline", "2", "--dry-run"]).succeed()?;
    let left = told.stdout.lines().filter(|line| line.starts_with("leaves out"));
    let left: Vec<&str> = left.collect();
    ensure!(matches!(left.as_slice(), [one] if one.contains("timeline 1 after LSN")), "{told:?}");
    house.restore("production", ["--latest", "--timeline", "1"]).succeed()?;
    let production = open_restored(&house.room("production"))?;
    ensure!(production.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")? == "1,2,3,4,5");

    // If it was no drill after all, a backup says so.
    house.pg.stop(StopMode::Fast)?;
    drill.start()?;
    moved(&house, &drill)?;
    house.backup()?;
    let plan = house.plan(["--latest"])?;
    ensure!(plan["timeline"] == 2 && plan["left_behind"][0]["commits"] == 4, "{plan}");
    Ok(())
}

/// What is spoilt long after a target is in nobody's way; what is spoilt at the end is not taken for
/// the end.
#[test]
fn damaged_wal_behind_the_target_does_not_hinder_a_restore() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    house.pg.psql("INSERT INTO t VALUES (1); SELECT pg_create_restore_point('rp')")?;
    let xid = house.pg.psql("INSERT INTO t VALUES (2) RETURNING xmin")?;
    let lsn = format!("lsn:{}", house.pg.current_lsn()?);
    house.archive_everything()?;
    house.pg.psql("INSERT INTO t VALUES (3)")?;
    house.archive_everything()?;
    let is_wal = |path: &Path| path.to_string_lossy().contains("/wal/hot/");
    let last = house.objects()?.into_iter().rfind(|(path, _)| is_wal(path));
    let (path, mut bytes) = last.context("no WAL")?;

    *bytes.get_mut(100).context("a byte")? ^= 1;
    fs::write(&path, &bytes)?;
    let xid = format!("xid:{xid}");
    for (option, target) in
        [("--to", "name:rp"), ("--to", &xid), ("--to", &lsn), ("--before", &lsn)]
    {
        house.plan([option, target]).with_context(|| target.to_owned())?;
    }
    let refused = house.restore("planned", ["--latest", "--dry-run"]).run()?;
    tells(&refused, "SW0305")?;

    // Not even what the object holds is known now.
    bytes.truncate(bytes.len() / 2);
    fs::write(&path, &bytes)?;
    let plan = house.plan(["--backup-only"])?;
    let object = path.file_name().context("a name")?.to_string_lossy().into_owned();
    ensure!(plan["warnings"].to_string().contains(&object), "{plan}");
    house.plan(["--to", &lsn])?;
    tells(&house.restore("planned", ["--latest", "--dry-run"]).run()?, "SW0305")?;
    let refused = house.restore("planned", ["--to", "name:rp", "--dry-run"]).run()?;
    let place = refused.stderr.split("--to lsn:").nth(1).and_then(|rest| rest.split('`').next());
    let place = place.with_context(|| refused.stderr.clone())?;
    house.restore("placed", ["--to", &format!("lsn:{place}")]).succeed()?;
    ensure!(open_restored(&house.room("placed"))?.psql("SELECT i FROM t")? == "1");
    Ok(())
}

#[test]
fn what_an_earlier_line_covers_is_told() -> Result<()> {
    let house = Protected::start()?;
    let old = house.backup()?;
    let old = old["id"].as_str().context("id")?;
    house.pg.psql("SELECT pg_create_restore_point('rp')")?;
    house.archive_everything()?;
    house.command(["adopt", "main", "--yes"]).succeed()?;
    let there = format!("name one of its backups, `--backup {old}`");
    tells(&house.restore("planned", ["--latest", "--dry-run"]).run()?, &there)?;
    house.archive_everything()?;
    house.backup()?;
    let at_rp = ["--to", "name:rp"];
    let refused = house.restore("planned", at_rp).args(["--dry-run"]).run()?;
    tells(&refused, &there)?;
    tells(&refused, "SELECT pg_catalog.pg_switch_wal();")?;
    house.plan(at_rp.into_iter().chain(["--backup", old])).map(drop)
}

#[test]
fn wal_fetch_says_1_only_for_what_is_proven_not_to_exist() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    chapter(&house.pg)?;
    let path = house.room("fetched");
    let fetch = |name: &str, flags: &[&str]| -> Result<Option<i32>> {
        let call = house.command(["wal", "fetch", name]).arg(&path);
        Ok(call.args(flags.iter().copied()).run()?.code())
    };
    ensure!(fetch("00000002.history", &[])? == Some(1));
    let past = "0000000100000000000000F0";
    ensure!(fetch(past, &["--standby"])? == Some(1), "a standby asks again");
    for wrong in [past, "not-wal", "00000001000000000000", "../../etc/passwd", ""] {
        let code = fetch(wrong, &[])?;
        ensure!(code.is_some_and(|code| code > 200), "{wrong}: {code:?}");
    }
    let name = house.pg.psql("SELECT last_archived_wal FROM pg_stat_archiver")?;
    let calls: [&[&str]; 5] = [
        &["wal", "fetch", &name],
        &["wal", "fetch", &name, "/nowhere/at/all", "--config", "/nowhere.toml"],
        &["wal", "fetch", &name, "/tmp", "--bad-flag"],
        &["wal", "fetch", &name, "/nowhere/at/all", "--cluster", "nobody"],
        &["--bad-flag", "wal", "fetch", &name, "/tmp/x"],
    ];
    for call in calls {
        let config = house.places.config.to_string_lossy().into_owned();
        let invocation = house.seawall.command(call.iter().copied());
        let output = invocation.env("SEAWALL_CONFIG", config).run()?;
        ensure!(output.code().is_some_and(|code| code > 200), "{call:?}: {output:?}");
    }
    Ok(())
}
