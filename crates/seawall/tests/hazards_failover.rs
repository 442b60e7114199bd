//! Standbys that take over, old primaries that write on, copies that believe to be production. The
//! numbers are those of the hazards known to have destroyed backups.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use seawall_testkit::ledger::Bound;
use seawall_testkit::process::wait_until;
use seawall_testkit::{Ledger, Output, PgCluster, StopMode};
use support::{
    LIMIT, Protected, archive_everything, open_restored, prove_restored, quiet_cluster, tells,
};

/// Waits until a standby has replayed what its primary has written.
fn caught_up(standby: &PgCluster, primary: &PgCluster) -> Result<()> {
    let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", primary.current_lsn()?);
    wait_until("the standby", LIMIT, || Ok(standby.psql(&reached)? == "t"))
}

fn rows(pg: &PgCluster) -> Result<String> {
    pg.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")
}

/// The rows of a restore.
fn restored_rows(house: &Protected, room: &str, target: &[&str]) -> Result<String> {
    house.restore(room, target.iter().copied()).succeed()?;
    rows(&open_restored(&house.room(room))?)
}

/// A directory as it is on disk now, as a storage snapshot would have it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    ensure!(command.arg("-a").arg(from).arg(to).status()?.success(), "{command:?}");
    Ok(())
}

/// Waits until a server's archiver has been refused with that code.
fn refused(pg: &PgCluster, code: &str) -> Result<()> {
    wait_until(code, LIMIT, || Ok(pg.logs()?.contains(code))).with_context(|| {
        pg.psql("SELECT * FROM pg_stat_archiver").unwrap_or_default()
            + &pg.logs().unwrap_or_default()
    })
}

fn push(house: &Protected, path: &Path) -> Result<Output> {
    house.command(["wal", "push"]).arg(path).run()
}

/// What is archived stays as it is, whatever else comes.
fn kept(house: &Protected, before: &[(std::path::PathBuf, Vec<u8>)]) -> Result<()> {
    let now = house.objects()?;
    ensure!(before.iter().all(|object| now.contains(object)), "an archived object changed");
    house.command(["verify"]).succeed().map(drop)
}

#[test]
fn e10_after_a_failover_the_partial_segment_holds_every_acknowledged_commit() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    let mut standby = house.pg.standby()?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(40, LIMIT)?;
    house.archive_everything()?;
    // From here on nothing is archived but by the standby, once it has taken over.
    house.pg.set("archive_command", "/bin/false")?;
    house.pg.reload()?;
    running.wait_for(40, LIMIT)?;
    let log = running.stop()?;
    caught_up(&standby, &house.pg)?;
    house.pg.kill9()?;
    standby.promote()?;
    let name = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver";
    wait_until("the partial segment", LIMIT, || Ok(standby.psql(name)?.ends_with(".partial")))
        .with_context(|| standby.logs().unwrap_or_default())?;

    house.restore("left", ["--latest", "--timeline", "1"]).succeed()?;
    let mut left = open_restored(&house.room("left"))?;
    prove_restored(&mut left, &log, &Bound::Everything)?;

    standby.psql("CREATE TABLE t AS SELECT 1 AS i")?;
    archive_everything(&standby)?;
    house.restore("current", ["--latest"]).succeed()?;
    let mut current = open_restored(&house.room("current"))?;
    ensure!(rows(&current)? == "1");
    prove_restored(&mut current, &log, &Bound::Everything).map(drop)
}

/// The old primary was cut off from its clients too late, and archives its last segment whole after
/// the standby archived the beginning of it.
#[test]
fn e8_a_timeline_that_is_no_child_of_the_backup_is_refused_with_the_positions() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    let mut standby = house.pg.standby()?;
    house.pg.psql("INSERT INTO t VALUES (1)")?;
    caught_up(&standby, &house.pg)?;
    standby.promote()?;
    house.pg.psql("INSERT INTO t VALUES (10)")?;
    standby.psql("INSERT INTO t VALUES (2)")?;
    archive_everything(&standby)?;
    house.archive_everything()?;
    // Both futures are there, and neither knows anything of the other.
    ensure!(restored_rows(&house, "current", &["--latest"])? == "1,2");
    ensure!(restored_rows(&house, "old", &["--latest", "--timeline", "1"])? == "1,10");

    // A job that still runs on the old primary.
    let late = house.backup()?;
    ensure!(late["timeline"] == 1, "{late}");
    let (id, stop) =
        (late["id"].as_str().context("id")?, late["stop_lsn"].as_str().context("lsn")?);
    let refused = house.restore("doubtful", ["--latest"]).run()?;
    tells(&refused, "--timeline 2")?;
    let refused = house.restore("never", ["--latest", "--timeline", "2", "--backup", id]).run()?;
    ensure!(refused.code().is_some_and(|code| code != 0), "{refused:?}");
    let history = fs::read_to_string(standby.data_directory().join("pg_wal/00000002.history"))?;
    let fork = history.split('\t').nth(1).context("no fork")?;
    for position in [stop, fork, "timeline 2", "--timeline 1"] {
        ensure!(refused.stderr.contains(position), "no {position} in: {}", refused.stderr);
    }
    for room in ["doubtful", "never"] {
        ensure!(!house.room(room).exists(), "{room} was begun");
    }
    ensure!(restored_rows(&house, "again", &["--latest", "--timeline", "2"])? == "1,2");
    ensure!(
        restored_rows(&house, "late", &["--backup-only", "--backup", id, "--timeline", "1"])?
            == "1,10"
    );
    Ok(())
}

/// Two standbys that end up promoted at the same position write the same history file. Only the
/// bytes tell them apart.
#[test]
fn e5_of_two_primaries_on_one_timeline_the_second_is_refused_by_its_bytes() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    let mut first = house.pg.standby()?;
    house.pg.psql("INSERT INTO t VALUES (1)")?;
    caught_up(&first, &house.pg)?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Fast)?;
    first.stop(StopMode::Fast)?;
    let twin_directory = house.room("twin");
    copy(first.data_directory(), &twin_directory)?;

    first.start()?;
    first.promote()?;
    first.psql("INSERT INTO t VALUES (2)")?;
    archive_everything(&first)?;
    let before = house.objects()?;
    let mut twin = PgCluster::open(first.bin().major(), &twin_directory).start()?;
    twin.promote()?;
    let history = |pg: &PgCluster| fs::read(pg.data_directory().join("pg_wal/00000002.history"));
    ensure!(history(&first)? == history(&twin)?, "they can be told apart by their histories");
    twin.psql("INSERT INTO t VALUES (20); SELECT pg_switch_wal()")?;
    refused(&twin, "SW0503")?;
    kept(&house, &before)?;
    first.psql("INSERT INTO t VALUES (3)")?;
    archive_everything(&first)?;
    ensure!(restored_rows(&house, "restored", &["--latest"])? == "1,2,3");
    Ok(())
}

/// A volume was set back to a snapshot of the night before, and the server goes on from there.
#[test]
fn a_server_that_was_set_back_cannot_overwrite_what_it_archived_before() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.pg.stop(StopMode::Fast)?;
    let snapshot = house.room("snapshot");
    copy(house.pg.data_directory(), &snapshot)?;
    house.pg.start()?;
    house.pg.psql("INSERT INTO t VALUES (2)")?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Fast)?;
    let before = house.objects()?;

    let set_back = PgCluster::open(house.pg.bin().major(), &snapshot).start()?;
    set_back.psql("INSERT INTO t VALUES (20); SELECT pg_switch_wal()")?;
    refused(&set_back, "SW0503")?;
    ensure!(set_back.logs()?.contains("one was set back"), "{}", set_back.logs()?);
    // The log is written first, and counted in the next moment.
    wait_until("a failure counted", LIMIT, || {
        Ok(set_back.psql("SELECT failed_count > 0 FROM pg_stat_archiver")? == "t")
    })?;
    kept(&house, &before)?;
    ensure!(restored_rows(&house, "restored", &["--latest"])? == "1,2");
    Ok(())
}

#[test]
fn e9_a_history_file_of_another_cluster_never_takes_the_place_of_the_right_one() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.archive_everything()?;

    // Another cluster on the same machine, with the first one's archive_command.
    let stranger = quiet_cluster()?.own_system_identifier().start()?;
    let foreign = stranger.data_directory().join("pg_wal/00000002.history");
    fs::write(&foreign, "1\t0/3000000\tno recovery target specified\n")?;
    stranger.owner().chown(&foreign)?;
    let before = house.objects()?;
    let output = push(&house, &foreign)?;
    ensure!(output.code() == Some(5), "{output:?}");
    tells(&output, "SW0502")?;
    ensure!(house.objects()? == before, "it was archived");

    house.pg.stop(StopMode::Fast)?;
    fs::write(house.pg.data_directory().join("standby.signal"), "")?;
    house.pg.owner().chown(&house.pg.data_directory().join("standby.signal"))?;
    house.pg.start()?;
    house.pg.promote()?;
    house.pg.psql("INSERT INTO t VALUES (2)")?;
    house.archive_everything()?;
    let before = house.objects()?;
    let own = house.pg.data_directory().join("pg_wal/00000002.history");
    push(&house, &own)?.success()?;
    // A copy of the cluster that was promoted elsewhere in the log.
    let other = house.room("00000002.history");
    fs::write(&other, "1\t0/3000000\tno recovery target specified\n")?;
    house.pg.owner().chown(&other)?;
    let output = push(&house, &other)?;
    ensure!(output.code() == Some(5), "{output:?}");
    tells(&output, "SW0508")?;
    ensure!(house.objects()? == before, "the archive changed");
    ensure!(restored_rows(&house, "restored", &["--latest"])? == "1,2");
    Ok(())
}

/// Each timeline has its row, and all of them begin in one segment.
#[test]
fn e6_timelines_from_ten_on_are_hexadecimal_to_postgres_and_decimal_to_people() -> Result<()> {
    let builder = quiet_cluster()?.without_fsync();
    let mut house = Protected::with(builder, false)?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    let signal = house.pg.data_directory().join("standby.signal");
    let pg_wal = house.pg.data_directory().join("pg_wal");
    let timelines = [1, 2, 10, 11, 16];
    for (parent, timeline) in timelines.iter().zip(&timelines[1..]) {
        house.pg.stop(StopMode::Fast)?;
        fs::write(&signal, "")?;
        house.pg.owner().chown(&signal)?;
        house.pg.start()?;
        // PostgreSQL takes the first number that has no history file. Such files are there only now:
        // they would be followed.
        for number in parent + 1..*timeline {
            let taken = pg_wal.join(format!("{number:08X}.history"));
            fs::write(&taken, "1\t0/3000000\tx\n")?;
            house.pg.owner().chown(&taken)?;
        }
        house.pg.promote()?;
        house.pg.psql(&format!("INSERT INTO t VALUES ({timeline})"))?;
    }
    house.archive_everything()?;
    let name = house.pg.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(name.starts_with("00000010"), "{name}");

    let expected = |last: u32| -> Vec<String> {
        timelines.iter().filter(|timeline| **timeline <= last).map(u32::to_string).collect()
    };
    for (room, timeline) in [("sixteen", 16), ("eleven", 11), ("ten", 10)] {
        let number = timeline.to_string();
        let target = ["--latest", "--timeline", &number];
        let found = restored_rows(&house, room, &target).with_context(|| number.clone())?;
        ensure!(found == expected(timeline).join(","), "{timeline}: {found}");
    }
    let plan = house.plan(["--latest"])?;
    ensure!(plan["timeline"] == 16, "{plan}");
    let listed = house.command(["wal", "list"]).succeed()?.stdout;
    ensure!(listed.contains("16"), "{listed}");
    house.command(["verify"]).succeed().map(drop)
}

/// PostgreSQL opens the old timeline's segment for a transaction that was prepared in it, and does
/// not ask the archive for it.
#[test]
fn a_transaction_prepared_before_a_fork_is_there_after_it() -> Result<()> {
    let builder = quiet_cluster()?.config("max_prepared_transactions", "5");
    let mut house = Protected::with(builder, false)?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    for name in ["kept", "waiting"] {
        let row = name.len();
        house
            .pg
            .psql(&format!("BEGIN; INSERT INTO t VALUES ({row}); PREPARE TRANSACTION '{name}'"))?;
    }
    house.archive_everything()?;
    house.pg.stop(StopMode::Fast)?;
    house.restore("primary", ["--latest", "--as", "primary"]).succeed()?;
    let mut primary = open_restored(&house.room("primary"))?;
    primary.psql("COMMIT PREPARED 'kept'")?;
    archive_everything(&primary)?;
    primary.stop(StopMode::Fast)?;

    house.restore("restored", ["--latest"]).succeed()?;
    let restored = open_restored(&house.room("restored"))?;
    ensure!(rows(&restored)? == "4");
    ensure!(restored.psql("SELECT gid FROM pg_prepared_xacts")? == "waiting");
    restored.psql("COMMIT PREPARED 'waiting'")?;
    ensure!(rows(&restored)? == "4,7");
    Ok(())
}
