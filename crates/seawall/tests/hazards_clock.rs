//! Clocks that are wrong, jump or stand still: what is restored goes by the order of the log.

mod support;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use seawall_testkit::{Invocation, PgCluster, TestClock};
use serde_json::Value;
use support::{Arguments, Protected, open_restored, quiet_cluster, tells};

const HOUR: i64 = 3600;

/// A row that was committed.
struct Commit {
    row: usize,
    xid: u64,
    time: Timestamp,
}

fn commit(pg: &PgCluster, commits: &mut Vec<Commit>) -> Result<()> {
    let row = commits.len() + 1;
    let xid = pg.psql(&format!("INSERT INTO t VALUES ({row}) RETURNING txid_current()"))?;
    let sql = format!(
        "SELECT (extract(epoch FROM pg_xact_commit_timestamp('{xid}'::xid)) * 1000000)::bigint"
    );
    let time = Timestamp::from_microsecond(pg.psql(&sql)?.parse()?)?;
    commits.push(Commit { row, xid: xid.parse()?, time });
    Ok(())
}

fn under(clock: &TestClock, call: Invocation) -> Invocation {
    clock.environment().into_iter().fold(call, |call, (name, value)| call.env(name, value))
}

/// A server whose clock stood still and then went an hour back, and came right again; so did that
/// of the host that made the second backup.
struct Scene {
    house: Protected,
    clock: TestClock,
    commits: Vec<Commit>,
    backups: [String; 2],
}

impl Scene {
    fn new() -> Result<Self> {
        let builder = quiet_cluster()?.config("track_commit_timestamp", "on");
        let (mut house, clock) = (Protected::with(builder, false)?, TestClock::new()?);
        house.pg.look_at(&clock);
        house.pg.restart()?;
        house.pg.psql("CREATE TABLE t (i int)")?;
        let id =
            |told: Value| -> Result<String> { Ok(told["id"].as_str().context("id")?.to_owned()) };
        let right = id(house.backup()?)?;
        // A restore point tells the time more closely than a checkpoint.
        house.pg.psql("SELECT pg_create_restore_point('begin')")?;
        let mut commits = Vec::new();
        for _ in 1..=2 {
            commit(&house.pg, &mut commits)?;
        }
        clock.stop()?;
        for _ in 3..=5 {
            commit(&house.pg, &mut commits)?;
        }
        clock.shift(-HOUR)?;
        for _ in 6..=7 {
            commit(&house.pg, &mut commits)?;
        }
        let late = under(&clock, house.command(["backup", "--json"])).succeed()?.json()?;
        commit(&house.pg, &mut commits)?;
        clock.shift(0)?;
        for _ in 9..=10 {
            commit(&house.pg, &mut commits)?;
        }
        house.archive_everything()?;
        Ok(Self { house, clock, commits, backups: [right, id(late)?] })
    }

    fn time(&self, row: usize) -> Result<Timestamp> {
        Ok(self.commits.get(row - 1).context("row")?.time)
    }

    /// The plan starts from that backup, and keeps the rows up to `kept`.
    fn is_planned(&self, plan: &Value, backup: usize, kept: usize) -> Result<()> {
        let id = self.backups.get(backup).context("backup")?;
        ensure!(plan["backup"]["id"] == id.as_str(), "{plan}");
        let xid = |row: usize| self.commits.get(row.checked_sub(1)?).map(|commit| commit.xid);
        ensure!(plan["last_commit_kept"]["xid"].as_u64() == xid(kept), "{kept}: {plan}");
        ensure!(plan["first_commit_left_out"]["xid"].as_u64() == xid(kept + 1), "{kept}: {plan}");
        Ok(())
    }

    fn is_restored(&self, target: &[&str], backup: usize, kept: usize) -> Result<()> {
        let room = format!("kept{kept}");
        self.is_planned(&self.house.plan(target.iter().copied())?, backup, kept)?;
        self.house.restore(&room, target.iter().copied()).succeed()?;
        let rows = open_restored(&self.house.room(&room))?.psql("SELECT i FROM t ORDER BY i")?;
        let rows: Vec<usize> = rows.lines().map(str::parse).collect::<Result<_, _>>()?;
        let expected = self.commits.iter().map(|commit| commit.row).take(kept);
        ensure!(rows.iter().copied().eq(expected), "{target:?}: {rows:?}");
        Ok(())
    }
}

#[test]
fn e32_clocks_that_stand_still_or_go_back_do_not_change_what_is_chosen() -> Result<()> {
    let scene = Scene::new()?;
    ensure!(scene.time(3)? == scene.time(4)? && scene.time(4)? == scene.time(5)?);
    ensure!(scene.time(6)? < scene.time(1)? && scene.time(8)? < scene.time(1)?);
    ensure!(scene.backups[1] < scene.backups[0], "ids are of the time: {:?}", scene.backups);
    for command in ["list", "info"] {
        let told = scene.house.command([command, "--json"]).succeed()?.json()?;
        let ids = told["clusters"][0]["backups"].as_array().context("backups")?.iter();
        let ids: Vec<&str> = ids.filter_map(|backup| backup["id"].as_str()).collect();
        ensure!(ids == scene.backups, "{command} tells them as the log has them: {ids:?}");
    }

    // Equal times belong together; what follows them an hour earlier goes with them, as in PostgreSQL.
    let equal = scene.time(4)?.to_string();
    scene.is_restored(&["--before", &equal], 0, 2)?;
    scene.is_restored(&["--to", &equal], 1, 8)?;
    // The newest backup is the one that ended last in the log, whatever its clock said.
    scene.is_restored(&["--latest"], 1, 10)?;
    let plan = scene.house.plan(["--to", &scene.time(2)?.to_string()])?;
    scene.is_planned(&plan, 0, 2)?;
    // By the clock the sixth to the eighth belong there too, and PostgreSQL leaves them out.
    let warnings = plan["warnings"].to_string();
    let (first, last) = (scene.commits[5].xid, scene.commits[7].xid);
    ensure!(warnings.contains("Behind it 3 commits are not past the target"), "{warnings}");
    ensure!(warnings.contains(&format!("the first is transaction {first} of")), "{warnings}");
    ensure!(warnings.contains(&format!("`--to xid:{last}` keeps")), "{warnings}");
    let plan = scene.house.plan(["--to", &equal])?;
    ensure!(!plan["warnings"].to_string().contains("Behind it"), "none lies behind: {plan}");
    // The very first commit is later than that.
    let hour_back = scene.house.restore("never", ["--to", &scene.time(6)?.to_string()]).run()?;
    ensure!(hour_back.code() != Some(0), "{hour_back:?}");
    tells(&hour_back, "earlier than the first backup")?;
    ensure!(!scene.house.room("never").exists(), "it was begun");

    // Who restores has a wrong clock, too, and lives elsewhere.
    for (shift, zone) in [(-HOUR, "Asia/Tokyo"), (HOUR, "America/New_York"), (0, "Asia/Kolkata")] {
        scene.clock.shift(shift)?;
        let local = scene.time(4)?.to_zoned(TimeZone::get(zone)?).strftime("%F %T.%6f").to_string();
        let call = scene.house.restore("planned", ["--before", &local]);
        let call = under(&scene.clock, call.args(["--dry-run", "--json"])).env("TZ", zone);
        scene.is_planned(&call.succeed()?.json()?, 0, 2).context(zone)?;
    }
    Ok(())
}

#[test]
fn a_backup_that_ended_in_the_future_does_not_look_new_for_ever() -> Result<()> {
    let house = Protected::start()?;
    let clock = TestClock::new()?;
    clock.shift(400 * 24 * HOUR)?;
    under(&clock, house.command(["backup"])).succeed()?;
    let status = house.command(["status"]).fail(1)?.stdout;
    ensure!(
        status.starts_with("WARNING main: ") && status.contains("a clock is wrong"),
        "{status}"
    );
    ensure!(!status.contains(" old;"), "{status}");
    house.backup()?;
    let status = house.command(["status"]).succeed()?.stdout;
    ensure!(status.starts_with("OK main: backup "), "{status}");
    Ok(())
}
