//! The kit's own test on a real server: what it says of a sound cluster, and that it says
//! something else of one that is not.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use seawall_testkit::ledger::{self, Bound, LedgerLog, LedgerOptions, Moment};
use seawall_testkit::oracles::{self, Dump};
use seawall_testkit::{Ledger, PgBin, PgCluster, StopMode, faults};

const LIMIT: Duration = Duration::from_secs(60);

fn cluster() -> Result<PgCluster> {
    PgCluster::builder(PgBin::default_major()?).start()
}

fn refusal(log: &LedgerLog, cluster: &PgCluster) -> Result<String> {
    let rows = ledger::read_rows(cluster.connection())?;
    Ok(log.verify_prefix(&rows, &Bound::Everything).unwrap_err().to_string())
}

#[test]
fn writers_outlive_a_killed_server_and_no_acknowledged_commit_is_lost() -> Result<()> {
    let mut cluster = cluster()?;
    let running = Ledger::start(&cluster, 3)?;
    running.wait_for(20, LIMIT)?;
    cluster.kill9()?;
    cluster.start()?;
    assert!(cluster.logs()?.contains("automatic recovery in progress"));
    running.wait_for(20, LIMIT)?;
    let log = running.stop()?;

    let rows = ledger::read_rows(cluster.connection())?;
    let verdict = log.verify_prefix(&rows, &Bound::Everything)?;
    assert!(verdict.required >= 120, "{verdict:?}");
    assert_eq!(verdict.present, log.acknowledged());
    Ok(())
}

#[test]
fn the_ledger_notices_a_removed_or_altered_row() -> Result<()> {
    let cluster = cluster()?;
    let running = Ledger::start(&cluster, 2)?;
    running.wait_for(10, LIMIT)?;
    let log = running.stop()?;

    cluster.psql("UPDATE ledger SET payload = reverse(payload) WHERE writer = 0 AND seq = 4")?;
    assert!(refusal(&log, &cluster)?.starts_with("altered: "));
    cluster.psql("DELETE FROM ledger WHERE writer = 0 AND seq = 4")?;
    assert!(refusal(&log, &cluster)?.starts_with("hole: writer 0 has no seq 4"));
    cluster.psql("DELETE FROM ledger WHERE writer = 0 AND seq > 4")?;
    assert!(refusal(&log, &cluster)?.starts_with("lost: "));
    Ok(())
}

/// Where PostgreSQL's own point-in-time recovery stops, the ledger must expect it to stop: each
/// standby here follows the primary up to a target and is promoted there.
#[test]
fn every_kind_of_bound_agrees_with_postgres_recovery() -> Result<()> {
    let major = PgBin::default_major()?;
    let cluster = PgCluster::builder(major).config("wal_keep_size", "1GB").start()?;
    let running = Ledger::start(&cluster, 3)?;
    let mut standbys = Vec::new();
    for _ in 0..3 {
        let mut standby = cluster.standby()?;
        standby.stop(StopMode::Fast)?;
        standbys.push(standby);
    }
    running.wait_for(30, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(30, LIMIT)?;
    let log = running.stop()?;

    let later = log.entries().iter().find(|entry| entry.lsn_before >= moment.lsn);
    let pivot = later.and_then(|entry| entry.committed).context("no transaction after the mark")?;
    let targets = targets(&moment, pivot.xid);
    for (standby, (name, target, bound)) in standbys.iter_mut().zip(targets) {
        standby.set(name, &target)?;
        standby.set("recovery_target_action", "promote")?;
        standby.start()?;
        standby.wait_promoted(LIMIT)?;
        let rows = ledger::read_rows(standby.connection())?;
        let verdict = log.verify_prefix(&rows, &bound).with_context(|| name.to_owned())?;
        assert!(verdict.required > 30 && verdict.forbidden > 30, "{name}: {verdict:?}");
        let refused = log.verify_prefix(&rows, &Bound::Everything).unwrap_err().to_string();
        assert!(refused.starts_with("lost: "), "{refused}");
    }
    Ok(())
}

fn targets(moment: &Moment, xid: u64) -> [(&'static str, String, Bound); 3] {
    let own_xid = Bound::Xid { xid, inclusive: true };
    [
        ("recovery_target_lsn", moment.lsn.to_string(), Bound::Lsn(moment.lsn)),
        ("recovery_target_time", moment.time.clone(), Bound::Time(moment.time_us)),
        ("recovery_target_xid", xid.to_string(), own_xid),
    ]
}

#[test]
fn checksums_and_amcheck_pass_a_sound_cluster_and_fail_a_damaged_one() -> Result<()> {
    let mut cluster = cluster()?;
    cluster.psql(
        "CREATE TABLE t (a int PRIMARY KEY, b text); \
         INSERT INTO t SELECT g, repeat('x', g % 50) FROM generate_series(1, 5000) g; CHECKPOINT",
    )?;
    let checked = oracles::amcheck(cluster.connection())?;
    assert!(checked.databases >= 2 && checked.indexes > 100 && checked.heaps > 50, "{checked:?}");
    let index = cluster.psql("SELECT pg_relation_filepath('t_pkey')")?;

    cluster.stop(StopMode::Fast)?;
    let blocks = oracles::pg_checksums(cluster.bin(), cluster.data_directory())?;
    assert!(blocks > 500, "{blocks}");

    // In the middle of the second page, among the keys.
    faults::flip_bit(&cluster.data_directory().join(index), 8192 + 6000)?;
    let refused = oracles::pg_checksums(cluster.bin(), cluster.data_directory()).unwrap_err();
    assert!(format!("{refused:#}").contains("checksum verification failed"), "{refused:#}");
    cluster.start()?;
    let refused = oracles::amcheck(cluster.connection()).unwrap_err();
    assert!(format!("{refused:#}").contains("invalid page"), "{refused:#}");
    Ok(())
}

#[test]
fn a_promoted_standby_dumps_the_same_until_a_row_differs() -> Result<()> {
    let primary = cluster()?;
    primary.psql("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 1000) g")?;
    let mut standby = primary.standby()?;
    standby.promote()?;
    let original = Dump::take(primary.connection())?;
    original.same_as(&Dump::take(standby.connection())?)?;
    standby.psql("DELETE FROM t WHERE a = 500")?;
    assert!(original.same_as(&Dump::take(standby.connection())?).is_err());
    Ok(())
}

#[test]
fn pg_verifybackup_passes_a_base_backup_and_fails_an_altered_one() -> Result<()> {
    let primary = cluster()?;
    let mut standby = primary.standby()?;
    standby.stop(StopMode::Fast)?;
    let altered = oracles::pg_verifybackup(primary.bin(), standby.data_directory()).unwrap_err();
    assert!(format!("{altered:#}").contains("not in the manifest"), "{altered:#}");

    let directory = primary.scratch().join("backup");
    let mut command = primary.owner().command(primary.bin().program("pg_basebackup")?);
    command.args(["-d", &primary.connection_string(), "-c", "fast", "-D"]).arg(&directory);
    seawall_testkit::process::run(&mut command, None, LIMIT)?.success()?;
    oracles::pg_verifybackup(primary.bin(), &directory)?;
    Ok(())
}

#[test]
fn a_cluster_takes_settings_stops_in_every_mode_and_removes_its_files() -> Result<()> {
    let major = PgBin::default_major()?;
    let mut cluster = PgCluster::builder(major)
        .checksums(false)
        .wal_segment_mb(1)
        .config("work_mem", "5MB")
        .start()?;
    assert_eq!(cluster.psql("SHOW data_checksums")?, "off");
    assert_eq!(cluster.psql("SHOW wal_segment_size")?, "1MB");
    assert_eq!(cluster.psql("SHOW work_mem")?, "5MB");
    assert_eq!(cluster.psql("SHOW fsync")?, "on");
    cluster.set("work_mem", "6MB")?;
    cluster.reload()?;
    cluster.restart()?;
    assert_eq!(cluster.psql("SHOW work_mem")?, "6MB");
    assert!(cluster.switch_wal()? <= cluster.current_lsn()?);
    assert!(cluster.psql("SELECT 1/0").is_err());
    for mode in [StopMode::Smart, StopMode::Immediate] {
        cluster.stop(mode)?;
        cluster.start()?;
    }
    let directory = cluster.scratch().to_owned();
    drop(cluster);
    assert!(!directory.exists());
    Ok(())
}

#[test]
fn clusters_share_a_system_identifier_unless_asked_not_to() -> Result<()> {
    let identifier =
        |cluster: &PgCluster| cluster.psql("SELECT system_identifier FROM pg_control_system()");
    let major = PgBin::default_major()?;
    let (one, two) = (cluster()?, cluster()?);
    assert_eq!(identifier(&one)?, identifier(&two)?);
    let third = PgCluster::builder(major).own_system_identifier().start()?;
    assert_ne!(identifier(&one)?, identifier(&third)?);
    Ok(())
}

#[test]
fn a_server_opens_a_directory_that_stays_behind() -> Result<()> {
    let major = PgBin::default_major()?;
    let mut cluster = PgCluster::builder(major).start()?;
    cluster.psql("CREATE TABLE t AS SELECT 7 AS a")?;
    cluster.stop(StopMode::Fast)?;
    let opened =
        PgCluster::open(major, cluster.data_directory()).config("work_mem", "7MB").start()?;
    assert_eq!(opened.psql("SELECT a FROM t")?, "7");
    assert_eq!(opened.psql("SHOW work_mem")?, "7MB");
    drop(opened);
    assert!(fs::metadata(cluster.data_directory().join("PG_VERSION")).is_ok());
    assert!(!cluster.data_directory().join("postmaster.pid").exists());
    Ok(())
}

#[test]
fn a_server_that_cannot_start_says_why() -> Result<()> {
    let refused = PgCluster::builder(PgBin::default_major()?)
        .config("shared_buffers", "nonsense")
        .start()
        .unwrap_err();
    assert!(format!("{refused:#}").contains("shared_buffers"), "{refused:#}");
    Ok(())
}

#[test]
fn a_stopped_ledger_needs_no_server() -> Result<()> {
    let mut cluster = cluster()?;
    let options = LedgerOptions { writers: 1, payload_bytes: 10, ..LedgerOptions::default() };
    let running = Ledger::start_with(&cluster, options)?;
    running.wait_for(5, LIMIT)?;
    cluster.kill9()?;
    let log = running.stop()?;
    assert!(log.acknowledged() >= 5);
    Ok(())
}

#[test]
fn every_installed_major_starts_and_passes_amcheck() -> Result<()> {
    let majors = PgBin::installed();
    assert!(!majors.is_empty());
    for major in majors {
        let cluster = PgCluster::builder(major).start()?;
        let version = cluster.psql("SHOW server_version_num")?;
        assert_eq!(version.parse::<u32>()? / 10_000, u32::from(major));
        let checked = oracles::amcheck(cluster.connection())?;
        assert_eq!(checked.heaps > 50, major >= 14, "{major}: {checked:?}");
    }
    Ok(())
}
