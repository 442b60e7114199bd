//! What goes wrong between `archive_command` and the archive. The numbers are those of the
//! hazards known to have destroyed backups.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_testkit::faults::Random;
use seawall_testkit::{Output, PgBin, PgCluster, StopMode};
use support::{LIMIT, Protected, archive_everything, quiet_cluster, rounds, tells};

const SEGMENT_BYTES: u64 = 16 << 20;

impl Protected {
    fn push(&self, file: &Path) -> Result<Output> {
        self.command(["wal", "push"]).arg(file).run()
    }

    fn fetch(&self, name: &str, path: &Path) -> Result<Output> {
        self.command(["wal", "fetch", name]).arg(path).run()
    }

    /// A file outside of PostgreSQL's directories, as a careless script would have it.
    fn stray(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let directory = self.room("stray");
        if !directory.exists() {
            self.pg.owner().create_dir(&directory, 0o755)?;
        }
        let path = directory.join(name);
        fs::write(&path, bytes)?;
        self.pg.owner().chown(&path)?;
        Ok(path)
    }

    /// Makes a whole segment with some content that nobody archives, and names its file.
    fn segment_not_archived(&self) -> Result<PathBuf> {
        self.pg.set("archive_command", "/bin/false")?;
        self.pg.reload()?;
        write_something(&self.pg)?;
        let name = self.pg.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
        Ok(self.pg.data_directory().join("pg_wal").join(name))
    }
}

fn write_something(pg: &PgCluster) -> Result<()> {
    pg.psql(
        "CREATE TABLE IF NOT EXISTS t (a text); \
         INSERT INTO t SELECT md5(random()::text) FROM generate_series(1, 20000)",
    )?;
    Ok(())
}

fn name_of(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("no name")
}

#[test]
fn e1_an_empty_file_is_refused_and_leaves_nothing_in_the_archive() -> Result<()> {
    let house = Protected::start()?;
    archive_everything(&house.pg)?;
    let before = house.objects()?;
    let names = [
        "000000010000000000000042",
        "00000002.history",
        "000000010000000000000042.00000028.backup",
    ];
    for name in names {
        let output = house.push(&house.stray(name, b"")?)?;
        ensure!(output.code().is_some_and(|code| code != 0), "{name}: {output:?}");
        tells(&output, "SW0504").with_context(|| name.to_owned())?;
    }
    ensure!(house.objects()? == before, "something was archived");
    // The stream goes on as if nothing had been.
    write_something(&house.pg)?;
    archive_everything(&house.pg)
}

#[test]
fn e2_a_truncated_segment_is_refused_and_the_whole_one_then_taken() -> Result<()> {
    let house = Protected::start()?;
    let segment = house.segment_not_archived()?;
    let (name, whole) = (name_of(&segment)?, fs::read(&segment)?);
    ensure!(whole.len() as u64 == SEGMENT_BYTES);
    let before = house.objects()?;
    for length in [1, 24, 8192, 8193, 65536, whole.len() / 2, whole.len() - 1] {
        let output = house.push(&house.stray(name, whole.get(..length).context("length")?)?)?;
        ensure!(output.code() == Some(1), "{length} bytes: {output:?}");
        tells(&output, "SW0504").with_context(|| format!("{length} bytes"))?;
    }
    // As long as it must be, and its second half never reached the disk.
    let mut torn = whole.clone();
    torn.get_mut(300_000..).context("length")?.fill(0);
    let output = house.push(&house.stray(name, &torn)?)?;
    ensure!(output.code() == Some(1), "torn: {output:?}");
    ensure!(house.objects()? == before, "something was archived");

    house.push(&segment)?.success()?;
    let fetched = house.room("fetched");
    house.fetch(name, &fetched)?.success()?;
    ensure!(fs::read(&fetched)? == whole, "other bytes than were pushed");
    Ok(())
}

#[test]
fn e2_a_push_killed_at_any_moment_leaves_the_segment_absent_or_whole() -> Result<()> {
    let house = Protected::start()?;
    let segment = house.segment_not_archived()?;
    let (name, whole) = (name_of(&segment)?, fs::read(&segment)?);
    let mut random = Random::new(2);
    for round in 0..6 * rounds() {
        let push = house.command(["wal", "push"]).arg(&segment);
        push.kill9_after(random.delay(Duration::from_millis(120)))?;
        let fetched = house.room(&format!("fetched-{round}"));
        match house.fetch(name, &fetched)?.code() {
            Some(0) => ensure!(fs::read(&fetched)? == whole, "round {round}: other bytes"),
            _ => ensure!(!fetched.exists(), "round {round}: a file without success"),
        }
    }
    house.push(&segment)?.success()?;
    house.prove_undamaged()?;
    Ok(())
}

/// Two servers that believe to be the same: the copy of a cluster, started beside it.
#[test]
fn e3_other_bytes_under_an_archived_name_are_refused_and_the_first_stay() -> Result<()> {
    let mut house = Protected::start()?;
    archive_everything(&house.pg)?;
    house.pg.stop(StopMode::Fast)?;
    let twin_directory = house.room("twin");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(house.pg.data_directory()).arg(&twin_directory);
    ensure!(copy.status()?.success(), "{copy:?}");
    house.pg.start()?;
    write_something(&house.pg)?;
    archive_everything(&house.pg)?;
    let first = house.pg.psql("SELECT last_archived_wal FROM pg_stat_archiver")?;
    let kept = house.objects()?;

    let off = PgCluster::open(PgBin::default_major()?, &twin_directory);
    let twin = off.config("archive_command", "/bin/false").start()?;
    write_something(&twin)?;
    twin.psql("SELECT pg_switch_wal()")?;
    let other = twin_directory.join("pg_wal").join(&first);
    let output = house.push(&other)?;
    ensure!(output.code() == Some(5), "{output:?}");
    tells(&output, "SW0503")?;
    ensure!(output.stderr.contains(&first), "the segment is not named: {}", output.stderr);
    let now = house.objects()?;
    ensure!(kept.iter().all(|object| now.contains(object)), "an archived object changed");

    let fetched = house.room("fetched");
    house.fetch(&first, &fetched)?.success()?;
    let own = house.pg.data_directory().join("pg_wal").join(&first);
    ensure!(fs::read(&fetched)? == fs::read(own)?, "not what the first server wrote");
    Ok(())
}

#[test]
fn e4_the_same_segment_again_is_a_success_and_adds_nothing() -> Result<()> {
    let house = Protected::start()?;
    let segment = house.segment_not_archived()?;
    house.push(&segment)?.success()?;
    let once = house.objects()?;
    for _ in 0..2 {
        house.push(&segment)?.success()?;
    }
    ensure!(house.objects()? == once, "the archive changed");

    // And PostgreSQL, which knows nothing of it, archives it too.
    house.pg.psql("ALTER SYSTEM RESET archive_command")?;
    house.pg.psql(&house.init_sql)?;
    house.pg.reload()?;
    archive_everything(&house.pg)?;
    let fetched = house.room("fetched");
    house.fetch(name_of(&segment)?, &fetched)?.success()?;
    Ok(())
}

fn findings(house: &Protected) -> Result<Vec<(String, String)>> {
    let report = house.command(["check", "--json"]).fail(6)?.json()?;
    let found = report["findings"].as_array().context("findings")?.iter();
    let text = |one: &serde_json::Value, name: &str| one[name].as_str().unwrap_or("").to_owned();
    Ok(found.map(|one| (text(one, "id"), text(one, "what"))).collect())
}

/// Nobody waits a minute for what cannot succeed.
#[test]
fn an_archive_command_that_names_what_is_not_there_is_told_first_and_not_waited_for() -> Result<()>
{
    let house = Protected::start()?;
    house.backup()?;
    let command = house.pg.psql("SHOW archive_command")?;
    let config = house.places.config.display().to_string();
    house.pg.set("archive_command", &command.replace(&config, "/nowhere/seawall.toml"))?;
    house.pg.reload()?;
    let began = std::time::Instant::now();
    let found = findings(&house)?;
    // PostgreSQL tries three times, a second apart; --wal-timeout is a minute.
    ensure!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let (first, what) = found.first().context("no finding")?;
    ensure!(first == "archive_program" && what.contains("/nowhere/seawall.toml"), "{found:?}");
    ensure!(found.iter().any(|(id, _)| id == "archiver"), "{found:?}");
    ensure!(!found.iter().any(|(id, _)| id == "archive_command"), "{found:?}");
    Ok(())
}

/// While `archive_mode` is off, PostgreSQL shows another `archive_command` than it will use.
#[test]
fn an_archive_command_is_judged_as_it_is_set_while_archiving_is_off() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    house.pg.set("archive_mode", "off")?;
    house.pg.restart()?;
    let found = findings(&house)?;
    ensure!(found.iter().any(|(id, _)| id == "archive_mode"), "{found:?}");
    ensure!(!found.iter().any(|(id, _)| id == "archive_command"), "{found:?}");
    house.pg.set("archive_command", "/bin/true")?;
    house.pg.set("archive_mode", "on")?;
    house.pg.reload()?;
    let found = findings(&house)?;
    let told = found.iter().find(|(id, _)| id == "archive_command").context("archive_command")?;
    ensure!(told.1.contains("takes effect with the restart"), "{found:?}");
    Ok(())
}

/// PostgreSQL restores into `pg_wal/RECOVERYXLOG`, which an interrupted recovery leaves behind.
#[test]
fn e19_a_file_left_by_an_earlier_restore_is_never_served() -> Result<()> {
    let house = Protected::start()?;
    write_something(&house.pg)?;
    archive_everything(&house.pg)?;
    let name = house.pg.psql("SELECT last_archived_wal FROM pg_stat_archiver")?;
    let right = fs::read(house.pg.data_directory().join("pg_wal").join(&name))?;
    let stale = vec![0xA5; usize::try_from(SEGMENT_BYTES)?];

    let path = house.stray("RECOVERYXLOG", &stale)?;
    house.fetch(&name, &path)?.success()?;
    ensure!(fs::read(&path)? == right, "the file that was there before was served");

    let path = house.stray("RECOVERYHISTORY", &stale)?;
    let output = house.fetch("00000009.history", &path)?;
    ensure!(output.code() == Some(1), "{output:?}");
    // Without the plan of a restore nothing proves that the log ends here.
    let path = house.stray("RECOVERYXLOG", &stale)?;
    let output = house.fetch("0000000100000000000000FF", &path)?;
    ensure!(output.code().is_some_and(|code| code > 200), "{output:?}");
    Ok(())
}

#[test]
fn e21_wal_of_another_cluster_is_refused() -> Result<()> {
    let house = Protected::start()?;
    archive_everything(&house.pg)?;
    let stranger = quiet_cluster()?.own_system_identifier().start()?;
    write_something(&stranger)?;
    let name = stranger.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
    let before = house.objects()?;

    let output = house.push(&stranger.data_directory().join("pg_wal").join(&name))?;
    ensure!(output.code() == Some(5), "{output:?}");
    tells(&output, "SW0502")?;
    ensure!(house.objects()? == before, "something was archived");

    // Through archive_command, as after a configuration file was copied from one host to another.
    stranger.psql(&house.init_sql)?;
    let mut stranger = stranger;
    stranger.restart()?;
    stranger.psql("SELECT pg_switch_wal()")?;
    let failed = "SELECT failed_count > 0 FROM pg_stat_archiver";
    seawall_testkit::process::wait_until("a failure", LIMIT, || Ok(stranger.psql(failed)? == "t"))?;
    ensure!(stranger.logs()?.contains("SW0502"), "{}", stranger.logs()?);
    ensure!(stranger.psql("SELECT archived_count FROM pg_stat_archiver")? == "0");
    ensure!(house.objects()? == before, "something was archived");
    Ok(())
}

#[test]
fn a_backup_does_not_wait_for_an_archiver_that_fails() -> Result<()> {
    let house = Protected::start()?;
    for (command, code, status, says) in [
        ("/bin/false", "SW0406", 1, "PostgreSQL's archiver fails on 0000000100000000000000"),
        ("", "SW0108", 2, "archive_command is empty"),
    ] {
        house.pg.set("archive_command", command)?;
        house.pg.reload()?;
        let began = std::time::Instant::now();
        let output = house.command(["backup"]).fail(status)?;
        tells(&output, code)?;
        ensure!(output.stderr.contains(says), "{}", output.stderr);
        // The limit is five minutes.
        ensure!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    }
    Ok(())
}
