//! A restored standby: which timeline it goes along, and how it takes over.

mod support;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use seawall_testkit::process::{self, wait_until};
use seawall_testkit::{PgCluster, StopMode};
use support::{LIMIT, Protected, archive_everything, open_restored, tells};

const ROWS: &str = "SELECT string_agg(i::text, ',' ORDER BY i) FROM t";

/// A server goes on from the end of timeline 1 on `timeline`, and writes that number.
fn take_over(house: &Protected, timeline: u32) -> Result<PgCluster> {
    let room = format!("primary-{timeline}");
    house.restore(&room, ["--as", "primary", "--timeline", "1"]).succeed()?;
    let primary = open_restored(&house.room(&room))?;
    primary.psql(&format!("INSERT INTO t VALUES ({timeline})"))?;
    archive_everything(&primary)?;
    let name = primary.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(name.starts_with(&format!("{timeline:08X}")), "{name}");
    Ok(primary)
}

/// Two servers took over from one primary: 2, which is wanted, and 3.
struct Site {
    house: Protected,
    directory: PathBuf,
    _servers: [PgCluster; 2],
}

impl Site {
    fn new() -> Result<Self> {
        let house = Protected::start()?;
        house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
        house.backup()?;
        house.archive_everything()?;
        let servers = [take_over(&house, 2)?, take_over(&house, 3)?];
        // What the old primary writes on, it archives whole.
        house.pg.psql("INSERT INTO t VALUES (10)")?;
        house.archive_everything()?;
        house.pg.psql("INSERT INTO t VALUES (11)")?;
        house.archive_everything()?;
        let directory = house.room("standby");
        Ok(Self { house, directory, _servers: servers })
    }

    fn open(&self) -> Result<PgCluster> {
        PgCluster::open(self.house.pg.bin().major(), &self.directory).start()
    }
}

#[test]
fn a_standby_goes_along_its_timeline_through_an_outage_and_takes_over_under_a_new_number()
-> Result<()> {
    let site = Site::new()?;
    let house = &site.house;
    let arguments = ["--as", "standby", "--timeline", "2", "--start", "--json"];
    let pg_ctl = house.pg.bin().program("pg_ctl")?;
    let programs = pg_ctl.parent().context("its directory")?;
    let restore = house.restore("standby", arguments).env("SEAWALL_PG_BIN", programs);
    let output = restore.succeed()?.json()?;
    ensure!(output["started"]["state"] == "following", "{output}");
    let mut stop = house.pg.owner().command(house.pg.bin().program("pg_ctl")?);
    stop.args(["stop", "-m", "fast", "-w", "-D"]).arg(&site.directory);
    process::run(&mut stop, None, LIMIT)?.success()?;

    let away = house.places.repository.with_extension("away");
    fs::rename(&house.places.repository, &away)?;
    let refused = site.open();
    fs::rename(&away, &house.places.repository)?;
    ensure!(refused.is_err(), "it started without knowing its timeline");

    let standby = site.open()?;
    ensure!(standby.psql("SELECT pg_is_in_recovery()")? == "t");
    wait_until("the rows", LIMIT, || Ok(standby.psql(ROWS)? == "1,2"))
        .with_context(|| standby.psql(ROWS).unwrap_or_default())?;
    if house.pg.bin().major() < 16 {
        ensure!(standby.psql("SHOW promote_trigger_file")?.is_empty());
    }

    // Others took over before, and the first primary goes on: its check says so.
    let checked = house.command(["check", "--json"]).fail(6)?.json()?;
    let findings = checked["findings"].as_array().context("findings")?;
    let pasts = findings.iter().find(|one| one["id"] == "timelines").context("timelines")?;
    ensure!(pasts["severity"] == "critical", "{pasts}");
    // Its primary runs still, and a promotion makes two of them.
    let refused = house.command(["promote"]).arg(&site.directory).fail(5)?;
    tells(&refused, "SW0610")?;
    tells(&refused, "Stop the old primary for good")?;
    tells(&refused, "on timeline 1")?;
    ensure!(standby.psql("SELECT pg_is_in_recovery()")? == "t");
    let promoted = house.command(["promote", "--yes"]).arg(&site.directory).succeed()?;
    tells(&promoted, "old primary must not run")?;
    standby.psql("INSERT INTO t VALUES (4)")?;
    let name = standby.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(name.starts_with("00000004"), "{name}: 3 is taken");
    archive_everything(&standby)?;
    ensure!(standby.psql("SELECT failed_count FROM pg_stat_archiver")? == "0");
    ensure!(standby.psql(ROWS)? == "1,2,4");
    let again = house.command(["promote"]).arg(&site.directory).succeed()?;
    tells(&again, "takes writes already")
}

/// The first start meets a store that is away.
#[test]
fn a_standby_whose_store_is_away_at_its_first_start_does_not_run_past_the_fork() -> Result<()> {
    let site = Site::new()?;
    let house = &site.house;
    house.restore("standby", ["--as", "standby", "--timeline", "2"]).succeed()?;
    let away = house.places.repository.with_extension("away");
    fs::rename(&house.places.repository, &away)?;
    let refused = site.open();
    fs::rename(&away, &house.places.repository)?;
    ensure!(refused.is_err(), "it started without knowing its timeline");
    let mut standby = site.open()?;
    wait_until("the rows", LIMIT, || Ok(standby.psql(ROWS)? == "1,2"))
        .with_context(|| standby.psql(ROWS).unwrap_or_default())?;
    standby.stop(StopMode::Fast)
}

/// PostgreSQL chooses the number of a new timeline by asking the archive, with `restore_command`
/// alone.
#[test]
fn a_standby_without_restore_command_is_not_promoted_to_a_number_that_is_taken() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.archive_everything()?;
    let standby = house.pg.standby()?;
    let directory = standby.data_directory();
    let mut forgotten_drill = take_over(&house, 2)?;
    forgotten_drill.stop(StopMode::Fast)?;
    house.pg.psql("INSERT INTO t VALUES (10)")?;
    house.archive_everything()?;
    wait_until("the standby", LIMIT, || Ok(standby.psql(ROWS)? == "1,10"))?;
    ensure!(standby.psql("SHOW restore_command")?.is_empty());

    let promote = || house.command(["promote", "--yes"]).arg(directory);
    let refused = promote().fail(5)?;
    tells(&refused, "SW0611")?;
    tells(&refused, "timeline 2")?;
    tells(&refused, "restore_command")?;
    ensure!(standby.psql("SELECT pg_is_in_recovery()")? == "t");

    let program = house.seawall.path().display();
    let config = house.places.config.display();
    let fetch = format!("{program} --config {config} wal fetch %f %p --standby");
    standby.set("restore_command", &fetch)?;
    standby.reload()?;
    wait_until("the setting", LIMIT, || Ok(!standby.psql("SHOW restore_command")?.is_empty()))?;
    promote().succeed()?;
    standby.psql("INSERT INTO t VALUES (2)")?;
    let name = standby.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(name.starts_with("00000003"), "{name}: 2 is taken");
    archive_everything(&standby)?;
    ensure!(standby.psql("SELECT failed_count FROM pg_stat_archiver")? == "0");
    Ok(())
}
