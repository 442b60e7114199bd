//! Whatever moment is asked for: every commit that belongs to it is there, and none after.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use seawall_core::Lsn;
use seawall_testkit::ledger::{self, Bound, LedgerLog, Moment, Row};
use seawall_testkit::{Ledger, oracles, process};
use serde_json::Value;
use support::{LIMIT, Protected, open_restored, prove_restored};

/// A target as a user types it, and what must be there then.
struct Case {
    room: &'static str,
    target: Vec<String>,
    bound: Bound,
}

impl Case {
    fn new(room: &'static str, target: [&str; 2], bound: Bound) -> Self {
        let target = target.iter().filter(|word| !word.is_empty());
        Self { room, target: target.map(|word| (*word).to_owned()).collect(), bound }
    }

    fn target(&self) -> impl Iterator<Item = &str> {
        self.target.iter().map(String::as_str)
    }
}

/// Four writers commit while the backup runs and while the target passes.
fn story(house: &Protected) -> Result<(Value, Moment, LedgerLog)> {
    let running = Ledger::start(&house.pg, 4)?;
    running.wait_for(30, LIMIT)?;
    let backup = house.backup()?;
    running.wait_for(60, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(60, LIMIT)?;
    let log = running.stop()?;
    house.archive_everything()?;
    Ok((backup, moment, log))
}

#[test]
fn every_kind_of_target_keeps_the_commits_that_belong_and_no_other() -> Result<()> {
    let house = Protected::start()?;
    let (backup, moment, log) = story(&house)?;
    for case in cases(&backup, &moment, &log)? {
        check(&house, &log, &case).with_context(|| format!("restored {:?}", case.target))?;
    }
    Ok(())
}

/// With `--start` the command ends with a server at the target; without, it prints what to type.
#[test]
fn a_server_that_restore_starts_and_one_started_by_hand_are_at_the_target() -> Result<()> {
    let house = Protected::start()?;
    let (_, moment, log) = story(&house)?;
    let bound = Bound::Time(moment.time_us);

    let target = ["--before", &moment.time, "--start", "--json"];
    let output = house.restore("started", target).succeed()?.json()?;
    let started = &output["started"];
    ensure!(started["state"] == "promoted" && started["timeline"] == 2, "{output}");
    let port = started["port"].as_u64().context("port")?.to_string();
    let socket = started["socket_directory"].as_str().context("socket_directory")?;
    let server = ByHand { house: &house, directory: house.room("started") };
    let rows = server.rows(socket, &port)?;
    log.verify_prefix(&rows, &bound)?;
    server.stop()?;

    let printed = house.restore("by-hand", ["--before", &moment.time]).succeed()?.stdout;
    let line = printed.lines().find(|line| line.contains("pg_ctl start")).context("no pg_ctl")?;
    // Its own port and socket: other servers run on this machine.
    let (command, _) = line.split_once(" -o ").context("no port")?;
    let socket = house.places.rooms.display().to_string();
    let typed = format!("{command} -w -o '-p 5432 -k {socket}'");
    let server = ByHand { house: &house, directory: house.room("by-hand") };
    let mut shell = house.pg.owner().command("sh");
    process::run(shell.args(["-c", &typed]), None, LIMIT)?.success()?;
    process::wait_until("promotion", LIMIT, || {
        Ok(server.psql(&socket, "5432", "SELECT pg_is_in_recovery()")?.trim() == "f")
    })?;
    log.verify_prefix(&server.rows(&socket, "5432")?, &bound)?;
    server.stop()
}

/// A server that the test kit did not start.
struct ByHand<'a> {
    house: &'a Protected,
    directory: PathBuf,
}

impl ByHand<'_> {
    fn psql(&self, socket: &str, port: &str, sql: &str) -> Result<String> {
        let mut psql = self.house.pg.connection().client("psql")?;
        psql.args(["-XAtq", "-d", "postgres", "-h", socket, "-p", port, "-c", sql]);
        Ok(process::run(&mut psql, None, LIMIT)?.success()?.stdout)
    }

    fn rows(&self, socket: &str, port: &str) -> Result<Vec<Row>> {
        let sql = "SELECT writer, seq, xid, payload FROM ledger";
        self.psql(socket, port, sql)?.lines().map(str::parse).collect()
    }

    fn pg_ctl(&self) -> Result<()> {
        let mut stop = self.house.pg.owner().command(self.house.pg.bin().program("pg_ctl")?);
        stop.args(["stop", "-m", "fast", "-w", "-D"]).arg(&self.directory);
        process::run(&mut stop, None, LIMIT)?.success().map(drop)
    }

    fn stop(self) -> Result<()> {
        self.pg_ctl()?;
        oracles::pg_checksums(self.house.pg.bin(), &self.directory).map(drop)
    }
}

impl Drop for ByHand<'_> {
    fn drop(&mut self) {
        // Of a test that failed: no server stays behind.
        if self.directory.join("postmaster.pid").exists() {
            self.pg_ctl().ok();
        }
    }
}

fn cases(backup: &Value, moment: &Moment, log: &LedgerLog) -> Result<Vec<Case>> {
    let later = log.entries().iter().find(|entry| entry.lsn_before >= moment.lsn);
    let xid = later.and_then(|entry| entry.committed).context("nothing after the mark")?.xid;
    let stop_lsn: Lsn = backup["stop_lsn"].as_str().context("stop_lsn")?.parse()?;
    let (lsn, typed_xid) = (format!("lsn:{}", moment.lsn), format!("xid:{xid}"));
    let (time, time_us) = (&moment.time, moment.time_us);
    let xid = |inclusive| Bound::Xid { xid, inclusive };
    Ok(vec![
        Case::new("to-time", ["--to", time], Bound::Time(time_us)),
        Case::new("before-time", ["--before", time], Bound::Time(time_us)),
        Case::new("to-lsn", ["--to", &lsn], Bound::Lsn(moment.lsn)),
        Case::new("before-lsn", ["--before", &lsn], Bound::Lsn(moment.lsn)),
        Case::new("to-xid", ["--to", &typed_xid], xid(true)),
        Case::new("before-xid", ["--before", &typed_xid], xid(false)),
        Case::new("latest", ["--latest", ""], Bound::Everything),
        Case::new("backup-only", ["--backup-only", ""], Bound::Lsn(stop_lsn)),
    ])
}

fn check(house: &Protected, log: &LedgerLog, case: &Case) -> Result<()> {
    let plan = house.plan(case.target())?;
    ensure!(!house.room("planned").exists(), "a dry run made the directory");
    house.restore(case.room, case.target()).succeed()?;
    oracles::pg_verifybackup(house.pg.bin(), &house.room(case.room))?;

    let mut restored = open_restored(&house.room(case.room))?;
    let rows = ledger::read_rows(restored.connection())?;
    let verdict = prove_restored(&mut restored, log, &case.bound)?;
    let last = matches!(case.bound, Bound::Everything);
    ensure!(verdict.required > 100 && (verdict.forbidden > 100 || last), "{verdict:?}");
    agree(&plan, log, &rows)
}

/// The plan named the last commit that is there and the first one that is not.
fn agree(plan: &Value, log: &LedgerLog, rows: &[Row]) -> Result<()> {
    let found: BTreeSet<u64> = rows.iter().map(|row| row.xid).collect();
    let kept = &plan["last_commit_kept"];
    let kept_lsn: Lsn = kept["lsn"].as_str().context("no commit is kept")?.parse()?;
    ensure!(found.contains(&kept["xid"].as_u64().context("xid")?), "{kept} is not there");
    let left_out = &plan["first_commit_left_out"];
    if let Some(xid) = left_out["xid"].as_u64() {
        ensure!(!found.contains(&xid), "{left_out} is there");
        let lsn: Lsn = left_out["lsn"].as_str().context("lsn")?.parse()?;
        ensure!(kept_lsn < lsn, "{plan}");
    }
    for entry in log.entries() {
        let Some(committed) = entry.committed else { continue };
        if found.contains(&committed.xid) {
            ensure!(entry.lsn_before < kept_lsn, "kept after the last that is kept: {entry:?}");
        } else {
            let after = committed.lsn_after.is_none_or(|after| after > kept_lsn);
            ensure!(after, "left out before the last that is kept: {entry:?}");
        }
    }
    Ok(())
}
