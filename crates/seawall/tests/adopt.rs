//! Lines and standbys, end to end: a server that goes its own way gets a line of its own and
//! leaves the one before as it was; a restored standby follows, whoever becomes the primary.

mod support;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seawall_testkit::process::wait_until;
use seawall_testkit::{Owner, PgBin, PgCluster, StopMode};
use support::{LIMIT, Protected, archive_everything, open_restored, tells};

const ROWS: &str = "SELECT string_agg(i::text, ',' ORDER BY i) FROM t";

fn commit(pg: &PgCluster, value: u32) -> Result<()> {
    pg.psql(&format!("INSERT INTO t VALUES ({value})")).map(drop)
}

/// Tells the configuration that the cluster is elsewhere now.
fn moved(house: &Protected, pg: &PgCluster) -> Result<()> {
    let text = fs::read_to_string(&house.places.config)?;
    let (old, new) = (&house.pg, pg);
    let shown = |path: &Path| path.display().to_string();
    let text = text.replace(&shown(old.data_directory()), &shown(new.data_directory()));
    let sockets = (old.connection().socket_directory(), new.connection().socket_directory());
    Ok(fs::write(&house.places.config, text.replace(&shown(sockets.0), &shown(sockets.1)))?)
}

/// What a restore gives.
fn restored(house: &Protected, room: &str, target: &[&str]) -> Result<String> {
    house.restore(room, target.iter().copied()).succeed()?;
    let mut pg = open_restored(&house.room(room))?;
    let rows = pg.psql(ROWS)?;
    pg.stop(StopMode::Fast)?;
    Ok(rows)
}

/// Waits until `archive_command` has been refused, with a code in the server's log.
fn wait_refused(pg: &PgCluster, code: &str) -> Result<()> {
    let failed = "SELECT failed_count > 0 FROM pg_stat_archiver";
    wait_until("a push that is refused", LIMIT, || Ok(pg.psql(failed)? == "t"))
        .with_context(|| pg.logs().unwrap_or_default())?;
    ensure!(pg.logs()?.contains(code), "no {code} in {}", pg.logs()?);
    Ok(())
}

fn backup_id(house: &Protected) -> Result<String> {
    let backup = house.backup()?;
    backup["id"].as_str().map(str::to_owned).context("no id")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Owner::of_servers()?.command("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp -a: {status}");
    Ok(())
}

#[test]
fn e5_a_snapshot_that_was_put_back_is_refused_by_bytes_until_it_is_adopted() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    let old = backup_id(&house)?;
    commit(&house.pg, 1)?;
    archive_everything(&house.pg)?;

    let snapshot = house.room("snapshot");
    house.pg.stop(StopMode::Fast)?;
    copy(house.pg.data_directory(), &snapshot)?;
    house.pg.start()?;
    commit(&house.pg, 2)?;
    archive_everything(&house.pg)?;
    house.pg.stop(StopMode::Fast)?;
    fs::remove_dir_all(house.pg.data_directory())?;
    copy(&snapshot, house.pg.data_directory())?;

    house.pg.start()?;
    commit(&house.pg, 3)?;
    house.pg.psql("SELECT pg_switch_wal()")?;
    wait_refused(&house.pg, "SW0503")?;

    let shown = house.command(["adopt", "main", "--dry-run"]).succeed()?;
    ensure!(shown.stderr.contains("stays restorable"), "{}", shown.stderr);
    house.command(["adopt", "main"]).run().and_then(|asked| tells(&asked, "SW0610"))?;
    house.command(["adopt", "main", "--yes"]).succeed()?;
    let status = house.command(["status"]).run()?;
    ensure!(status.stdout.contains("no backup since the server was adopted"), "{}", status.stdout);
    // What is refused is tried again by itself, and fits now.
    archive_everything(&house.pg)?;
    let new = backup_id(&house)?;
    commit(&house.pg, 4)?;
    archive_everything(&house.pg)?;
    house.command(["verify"]).succeed()?;

    ensure!(restored(&house, "newest", &["--latest"])? == "1,3,4");
    ensure!(restored(&house, "named", &["--latest", "--backup", &new])? == "1,3,4");
    ensure!(restored(&house, "before", &["--latest", "--backup", &old])? == "1,2");
    for list in [["list"].as_slice(), &["wal", "list"]] {
        let listed = house.command(list.iter().copied()).succeed()?.stdout;
        ensure!(listed.contains("LINE") && listed.contains("-1 "), "{listed}");
    }
    let back = ["--as", "primary", "--latest", "--backup", &old];
    let plan = house.plan(back)?;
    ensure!(plan["warnings"].to_string().contains("whose place line"), "{plan}");
    // Nothing more is made of nothing.
    let again = house.command(["adopt", "main", "--yes", "--json"]).succeed()?.json()?;
    ensure!(again["line"].as_str().is_some_and(|line| line.ends_with("-2")), "{again}");
    Ok(())
}

#[test]
fn a_clone_archives_nothing_until_it_is_adopted_as_the_cluster() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    let old = backup_id(&house)?;
    commit(&house.pg, 1)?;
    archive_everything(&house.pg)?;
    house.restore("clone", ["--latest"]).succeed()?;
    commit(&house.pg, 2)?;
    archive_everything(&house.pg)?;
    house.pg.stop(StopMode::Fast)?;

    let mut clone = open_restored(&house.room("clone"))?;
    commit(&clone, 3)?;
    // The clone archives as production did, against its settings.
    clone
        .psql(&house.init_sql.replace("archive_mode", "wal_level").replace("'on'", "'replica'"))?;
    clone.psql("ALTER SYSTEM SET archive_mode = on")?;
    clone.restart()?;
    clone.psql("SELECT pg_switch_wal()")?;
    wait_refused(&clone, "SW0502")?;

    moved(&house, &clone)?;
    house.command(["adopt", "main", "--yes"]).succeed()?;
    ensure!(!clone.data_directory().join("seawall.restore").exists());
    archive_everything(&clone)?;
    house.backup()?;
    commit(&clone, 4)?;
    archive_everything(&clone)?;
    ensure!(restored(&house, "newest", &["--latest"])? == "1,3,4");
    ensure!(restored(&house, "before", &["--latest", "--backup", &old])? == "1,2");

    // Production was not stopped after all: it goes on in its own line, and spoils nothing.
    house.pg.start()?;
    commit(&house.pg, 5)?;
    archive_everything(&house.pg)?;
    commit(&clone, 6)?;
    archive_everything(&clone)?;
    ensure!(restored(&house, "newer", &["--latest"])? == "1,3,4,6");
    ensure!(restored(&house, "stayed", &["--latest", "--backup", &old])? == "1,2,5");
    let directory = house.pg.data_directory().display().to_string();
    let connection = house.pg.connection_string();
    let of_production = ["backup", "--data-directory", &directory, "--connection", &connection];
    let refused = house.command(of_production).run()?;
    tells(&refused, "SW0405")?;
    tells(&refused, "has taken its place")?;
    clone.stop(StopMode::Fast)
}

#[test]
fn a_cluster_that_pg_upgrade_made_begins_a_line_when_it_is_adopted() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    let old = backup_id(&house)?;
    commit(&house.pg, 1)?;
    archive_everything(&house.pg)?;
    house.pg.stop(StopMode::Fast)?;

    let mut new = PgCluster::builder(PgBin::default_major()?).own_system_identifier().create()?;
    upgrade(&house.pg, &new)?;
    new.start()?;
    new.psql(&house.init_sql)?;
    new.restart()?;
    commit(&new, 2)?;
    new.psql("SELECT pg_switch_wal()")?;
    wait_refused(&new, "SW0502")?;
    moved(&house, &new)?;
    house.command(["backup"]).run().and_then(|refused| tells(&refused, "SW0405"))?;

    house.command(["adopt", "main", "--yes"]).succeed()?;
    archive_everything(&new)?;
    house.backup()?;
    commit(&new, 3)?;
    archive_everything(&new)?;
    ensure!(restored(&house, "newest", &["--latest"])? == "1,2,3");
    ensure!(restored(&house, "before", &["--latest", "--backup", &old])? == "1");
    house.command(["verify"]).succeed()?;
    new.stop(StopMode::Fast)
}

/// From one major to itself, which `pg_upgrade` allows: what counts is the new identifier.
fn upgrade(old: &PgCluster, new: &PgCluster) -> Result<()> {
    let bin = new.bin().directory();
    let mut upgrade = new.owner().command(new.bin().program("pg_upgrade")?);
    upgrade.arg("-b").arg(bin).arg("-B").arg(bin);
    upgrade.arg("-d").arg(old.data_directory()).arg("-D").arg(new.data_directory());
    upgrade.arg("-s").arg(new.scratch()).arg("-U").arg("postgres").current_dir(new.scratch());
    let output = upgrade.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn a_restored_standby_follows_the_archive_and_a_failover() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    commit(&house.pg, 1)?;
    archive_everything(&house.pg)?;
    house.restore("one", ["--as", "standby"]).succeed()?;
    house.restore("other", ["--as", "standby"]).succeed()?;
    let refused = house.restore("none", ["--as", "standby", "--backup-only"]).run()?;
    tells(&refused, "SW0002")?;

    let major = PgBin::default_major()?;
    let mut one = PgCluster::open(major, house.room("one")).start()?;
    let mut other = PgCluster::open(major, house.room("other")).start()?;
    let sees = |pg: &PgCluster, rows: &str| {
        wait_until(rows, LIMIT, || Ok(pg.psql(ROWS).is_ok_and(|seen| seen == rows)))
            .with_context(|| pg.logs().unwrap_or_default())
    };
    sees(&one, "1")?;
    commit(&house.pg, 2)?;
    archive_everything(&house.pg)?;
    sees(&one, "1,2")?;
    sees(&other, "1,2")?;
    ensure!(other.psql("SELECT pg_is_in_recovery()")? == "t");

    // The primary is lost, and one of them takes over: it archives as the primary did.
    house.pg.stop(StopMode::Immediate)?;
    one.promote()?;
    one.wait_promoted(LIMIT)?;
    commit(&one, 3)?;
    archive_everything(&one)?;
    sees(&other, "1,2,3")?;
    ensure!(other.psql("SELECT pg_is_in_recovery()")? == "t");
    let plan = house.plan(["--latest"])?;
    ensure!(plan["timeline"] == 2, "{plan}");
    let status = house.command(["status"]).run()?;
    ensure!(status.stdout.contains("timeline is 2; take a backup: `"), "{}", status.stdout);
    ensure!(status.stdout.contains("no backup since the server was restored or promoted"));
    other.stop(StopMode::Fast)?;
    one.stop(StopMode::Fast)
}
