//! What is said of the WAL is so: nothing counts as whole that was not read, and what is archived
//! counts only as far as it can be restored.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_core::Lsn;
use seawall_testkit::faults::flip_bit;
use seawall_testkit::process::wait_until;
use seawall_testkit::{PgBin, PgCluster, StopMode};
use serde_json::Value;
use support::{LIMIT, Protected, files, open_restored, tells};

const SEGMENT_BYTES: u64 = 16 << 20;

impl Protected {
    /// The only object that holds WAL of the segment of an LSN.
    fn wal_object(&self, lsn: Lsn) -> Result<PathBuf> {
        let segment = format!("/{:016X}/", lsn.0 - lsn.0 % SEGMENT_BYTES);
        let mut found = files(&self.places.repository)?;
        found.retain(|path| path.to_string_lossy().contains(&segment));
        ensure!(found.len() == 1, "{segment}: {found:?}");
        found.pop().context("no object")
    }

    /// When the newest backup was found whole.
    fn verified_at(&self) -> Result<Value> {
        let list = self.command(["list", "--json"]).succeed()?.json()?;
        Ok(list["clusters"][0]["backups"].as_array().and_then(|all| all.last()).context("none")?
            ["verified_at"]
            .clone())
    }

    /// What `status` says of the cluster, whatever its exit status.
    fn status(&self) -> Result<Value> {
        let status = self.command(["status", "--json"]).run()?;
        Ok(status.json()?["clusters"][0].clone())
    }

    /// What `check` finds worse than advice.
    fn found_by_check(&self) -> Result<Vec<String>> {
        let check = self.command(["check", "--json"]).run()?.json()?;
        let found = check["findings"].as_array().context("no findings")?.iter();
        let bad = found.filter(|finding| finding["severity"] == "critical");
        Ok(bad.map(|finding| finding["id"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

fn lsn_of(backup: &Value, key: &str) -> Result<Lsn> {
    Ok(backup[key].as_str().context("no LSN")?.parse()?)
}

/// Flips a bit in the middle of an object, which is of its body.
fn spoil(object: &Path) -> Result<()> {
    flip_bit(object, fs::metadata(object)?.len() / 2)
}

fn insert(pg: &PgCluster) -> Result<()> {
    pg.psql(
        "CREATE TABLE IF NOT EXISTS t (a int, at timestamptz DEFAULT clock_timestamp()); \
         INSERT INTO t SELECT g FROM generate_series(1, 1000) g",
    )
    .map(drop)
}

#[test]
fn a_backup_is_verified_only_when_the_wal_it_needs_was_read_too() -> Result<()> {
    let house = Protected::start()?;
    insert(&house.pg)?;
    let backup = house.backup()?;
    insert(&house.pg)?;
    let later = house.pg.current_lsn()?;
    house.archive_everything()?;
    let needed = house.wal_object(lsn_of(&backup, "start_lsn")?)?;

    // A sample is no proof of all of it.
    house.command(["verify", "--sample", "50%"]).succeed()?;
    ensure!(house.verified_at()?.is_null(), "verified by a sample");
    spoil(&needed)?;
    let verify = house.command(["verify", "--backup", "latest"]).fail(4)?;
    ensure!(verify.stdout.contains("/wal/hot/"), "{}", verify.stdout);
    ensure!(!verify.stdout.contains("whole"), "{}", verify.stdout);
    ensure!(house.verified_at()?.is_null(), "verified although its WAL is damaged");

    spoil(&needed)?;
    // What it does not need is not its concern; of the repository it is.
    let other = house.wal_object(later)?;
    spoil(&other)?;
    let verify = house.command(["verify", "--backup", "latest"]).succeed()?;
    ensure!(!verify.stdout.contains("every object is whole"), "{}", verify.stdout);
    ensure!(house.verified_at()?.is_string(), "all that it needs was read");
    house.command(["verify"]).fail(4)?;
    spoil(&other)?;
    let verify = house.command(["verify"]).succeed()?;
    ensure!(verify.stdout.contains("every object is whole"), "{}", verify.stdout);
    Ok(())
}

#[test]
fn a_hole_in_the_wal_is_an_alarm_until_a_backup_begins_behind_it() -> Result<()> {
    let house = Protected::start()?;
    insert(&house.pg)?;
    house.backup()?;
    insert(&house.pg)?;
    house.archive_everything()?;
    // The last commits that can be restored, and a while later those that are lost.
    sleep(Duration::from_secs(3));
    insert(&house.pg)?;
    let lost = house.pg.current_lsn()?;
    house.archive_everything()?;
    insert(&house.pg)?;
    house.archive_everything()?;
    ensure!(house.status()?["level"] == "ok", "{}", house.status()?);
    house.command(["verify"]).succeed()?;
    fs::remove_file(house.wal_object(lost)?)?;

    let since = "SELECT extract(epoch FROM clock_timestamp() - at) FROM t OFFSET 1999 LIMIT 1";
    let since: f64 = house.pg.psql(since)?.parse()?;
    let status = house.status()?;
    ensure!(status["level"] == "critical", "{status}");
    ensure!(status.to_string().contains("take a backup"), "{status}");
    let rpo = status["rpo_seconds"].as_f64().context("no RPO")?;
    ensure!(rpo > since - 0.5, "RPO {rpo} s, and the last commit is {since} s old");
    ensure!(house.found_by_check()? == ["wal_hole"], "{:?}", house.found_by_check()?);
    house.command(["check"]).fail(6)?;
    let output = house.restore("latest", ["--latest"]).fail(4)?;
    tells(&output, "SW0505")?;
    let info = house.command(["info", "--json"]).succeed()?.json()?;
    ensure!(info["clusters"][0]["blocked_wal"][0]["obstacle"]["kind"] == "hole", "{info}");

    house.backup()?;
    ensure!(house.status()?["level"] == "ok", "{}", house.status()?);
    ensure!(house.found_by_check()?.is_empty(), "{:?}", house.found_by_check()?);
    house.plan(["--latest"])?;
    // It stays in what is told of the WAL.
    let info = house.command(["info", "--json"]).succeed()?.json()?;
    ensure!(info["clusters"][0]["blocked_wal"] == serde_json::json!([]), "{info}");
    let gaps = info["clusters"][0]["wal"][0]["gaps"].as_array().map(Vec::len);
    ensure!(gaps == Some(1), "{info}");
    Ok(())
}

/// There is a manifest, and nothing that it says can be had.
#[test]
fn a_backup_without_the_wal_it_needs_is_none_to_check_either() -> Result<()> {
    let house = Protected::start()?;
    insert(&house.pg)?;
    let backup = house.backup()?;
    ensure!(house.found_by_check()?.is_empty(), "{:?}", house.found_by_check()?);
    fs::remove_file(house.wal_object(lsn_of(&backup, "start_lsn")?)?)?;
    ensure!(house.status()?["level"] == "critical", "{}", house.status()?);
    ensure!(house.found_by_check()? == ["no_backup"], "{:?}", house.found_by_check()?);
    house.command(["check"]).fail(6)?;
    house.backup()?;
    ensure!(house.found_by_check()?.is_empty(), "{:?}", house.found_by_check()?);
    Ok(())
}

/// Without a head that knew what is missing, only the hole itself tells of it.
#[test]
fn verify_ends_with_findings_if_archived_wal_leads_nowhere() -> Result<()> {
    let house = Protected::start()?;
    insert(&house.pg)?;
    house.backup()?;
    house.archive_everything()?;
    insert(&house.pg)?;
    let lost = house.pg.current_lsn()?;
    house.archive_everything()?;
    // The last one may be missing, as if it had not come yet.
    fs::remove_file(house.wal_object(lost)?)?;
    house.command(["verify", "--sample", "1%"]).succeed()?;
    insert(&house.pg)?;
    house.archive_everything()?;
    let verify = house.command(["verify", "--sample", "1%"]).fail(6)?;
    ensure!(verify.stdout.contains("finding cluster main"), "{}", verify.stdout);
    // The backup is whole all the same.
    let verify = house.command(["verify"]).fail(6)?;
    ensure!(verify.stdout.contains("whole backup"), "{}", verify.stdout);
    house.command(["verify", "--backup", "latest"]).succeed()?;
    house.backup()?;
    house.command(["verify"]).succeed()?;
    Ok(())
}

/// `wal_level = minimal` for a bulk load, as one who wants it to be quick does it. The WAL seems to
/// go on without a gap.
fn load_with_minimal_wal(pg: &mut PgCluster) -> Result<()> {
    pg.psql("ALTER SYSTEM SET wal_level = 'minimal'")?;
    pg.psql("ALTER SYSTEM SET archive_mode = 'off'")?;
    pg.psql("ALTER SYSTEM SET max_wal_senders = 0")?;
    pg.restart()?;
    pg.psql("BEGIN; CREATE TABLE bulk (a int); COPY bulk FROM PROGRAM 'seq 1 50000'; COMMIT")?;
    pg.psql("ALTER SYSTEM SET wal_level = 'replica'")?;
    pg.psql("ALTER SYSTEM SET archive_mode = 'on'")?;
    pg.psql("ALTER SYSTEM SET max_wal_senders = 10")?;
    pg.restart()
}

fn bulk_load_and_back(major: u16) -> Result<()> {
    let builder = PgCluster::builder(major).config("autovacuum", "off");
    let mut house = Protected::with(builder, false)?;
    insert(&house.pg)?;
    house.backup()?;
    insert(&house.pg)?;
    load_with_minimal_wal(&mut house.pg)?;
    insert(&house.pg)?;
    house.archive_everything()?;
    let list = house.command(["wal", "list", "--json"]).succeed()?.json()?.to_string();
    ensure!(list.contains("\"gaps\":[]"), "the WAL has a gap: {list}");

    let output = house.restore("room", ["--latest"]).fail(4)?;
    tells(&output, "SW0510")?;
    let before = output.stderr.split("--before ").nth(1).and_then(|rest| rest.split('`').next());
    let before = before.context("no way out is told")?;
    house.plan(["--before", before])?;
    let status = house.status()?;
    ensure!(status["level"] == "critical", "{status}");
    ensure!(status.to_string().contains("wal_level was set to minimal"), "{status}");
    if major == PgBin::default_major()? {
        ensure!(house.found_by_check()? == ["wal_minimal"], "{:?}", house.found_by_check()?);
        house.command(["verify"]).fail(6)?;
    }

    house.backup()?;
    insert(&house.pg)?;
    house.archive_everything()?;
    ensure!(house.status()?["level"] == "ok", "{}", house.status()?);
    house.plan(["--latest"])?;
    if major == PgBin::default_major()? {
        house.command(["verify"]).succeed()?;
        house.restore("room", ["--latest"]).succeed()?;
        let restored = open_restored(&house.room("room"))?;
        let rows = restored.psql("SELECT count(*) FROM bulk")?;
        ensure!(rows == "50000", "{rows} rows of the bulk load");
    }
    Ok(())
}

#[test]
fn nothing_is_restored_across_a_night_with_wal_level_minimal_on_every_major() -> Result<()> {
    for major in PgBin::installed() {
        bulk_load_and_back(major).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

/// A full segment that is not whole stays with PostgreSQL until it is.
#[test]
fn a_full_segment_that_is_not_whole_is_refused_and_kept() -> Result<()> {
    let house = Protected::start()?;
    house.archive_everything()?;
    let works = house.pg.psql("SHOW archive_command")?;
    house.pg.set("archive_command", "/bin/false")?;
    house.pg.reload()?;
    let first = house.pg.current_lsn()?;
    let first: Lsn = house.pg.psql(&format!("SELECT pg_lsn '{first}'"))?.parse()?;
    house
        .pg
        .psql("CREATE TABLE t AS SELECT md5(g::text) AS a FROM generate_series(1, 600000) g")?;
    let name = |lsn: u64| house.pg.psql(&format!("SELECT pg_walfile_name('{}')", Lsn(lsn)));
    let name_of_full = name(first.0 - first.0 % SEGMENT_BYTES + SEGMENT_BYTES + 1)?;
    let name_of_next = name(first.0 - first.0 % SEGMENT_BYTES + 2 * SEGMENT_BYTES + 1)?;
    let pg_wal = house.pg.data_directory().join("pg_wal");
    let path = pg_wal.join(&name_of_full);
    let whole = fs::read(&path)?;
    let other = fs::read(pg_wal.join(&name_of_next))?;
    let (half, last_page) = (whole.len() / 2, whole.len() - 8192);
    let spoilt = |from: usize, with: Option<&[u8]>| {
        let mut bytes = whole.clone();
        let rest = bytes.get_mut(from..).context("length")?;
        match with.and_then(|with| with.get(from..)) {
            Some(with) => rest.copy_from_slice(with),
            None => rest.fill(0),
        }
        anyhow::Ok(bytes)
    };
    let before = house.objects()?;
    for (from, with) in [(half, None), (last_page, None), (half, Some(&other[..]))] {
        fs::write(&path, spoilt(from, with)?)?;
        let push = house.command(["wal", "push"]).arg(&path).fail(1)?;
        tells(&push, "SW0504")?;
        ensure!(push.stderr.contains(&name_of_full), "{}", push.stderr);
    }
    ensure!(house.objects()? == before, "something was archived");
    // PostgreSQL keeps it, tries again, and goes on once it is whole.
    house.pg.set("archive_command", &works)?;
    house.pg.reload()?;
    let failing = format!("SELECT last_failed_wal = '{name_of_full}' FROM pg_stat_archiver");
    wait_until("the archiver to fail", LIMIT, || Ok(house.pg.psql(&failing)? == "t"))?;
    ensure!(pg_wal.join(format!("archive_status/{name_of_full}.ready")).exists());
    fs::write(&path, &whole)?;
    house.archive_everything()
}

/// What a lost machine's disk still has is pushed by hand.
#[test]
fn the_last_segment_of_a_lost_server_is_pushed_as_a_partial_one() -> Result<()> {
    let mut house = Protected::start()?;
    insert(&house.pg)?;
    house.backup()?;
    house.archive_everything()?;
    insert(&house.pg)?;
    let lsn = house.pg.current_lsn()?;
    let name = house.pg.psql(&format!("SELECT pg_walfile_name('{lsn}')"))?;
    let rows = house.pg.psql("SELECT count(*) FROM t")?;
    house.pg.kill9()?;
    let path = house.pg.data_directory().join("pg_wal").join(name);
    let push = house.command(["wal", "push"]).arg(&path).fail(1)?;
    ensure!(push.stderr.contains("--partial"), "no way is told: {}", push.stderr);
    house.command(["wal", "push", "--partial"]).arg(&path).succeed()?;
    house.command(["wal", "push", "--partial"]).arg(&path).succeed()?;
    house.restore("room", ["--latest"]).succeed()?;
    let restored = open_restored(&house.room("room"))?;
    ensure!(restored.psql("SELECT count(*) FROM t")? == rows, "rows are missing");
    Ok(())
}

#[test]
fn what_the_archiver_says_is_archived_and_no_repository_has_is_critical() -> Result<()> {
    let house = Protected::start()?;
    insert(&house.pg)?;
    house.backup()?;
    house.archive_everything()?;
    ensure!(house.status()?["level"] == "ok", "{}", house.status()?);
    house.pg.set("archive_command", "/bin/true")?;
    house.pg.reload()?;
    insert(&house.pg)?;
    house.archive_everything()?;
    // Only what succeeded before the repositories were looked at has to be there.
    wait_until("the archiver's word is not taken", LIMIT, || {
        Ok(house.status()?["remarks"].to_string().contains("is archived, and it is not there"))
    })?;
    ensure!(house.status()?["level"] == "critical", "{}", house.status()?);
    Ok(())
}

#[test]
fn a_server_that_was_set_back_is_critical_before_its_archiver_fails() -> Result<()> {
    let mut house = Protected::start()?;
    insert(&house.pg)?;
    house.backup()?;
    let (data_directory, old) = (house.pg.data_directory().to_owned(), house.room("old"));
    house.pg.stop(StopMode::Fast)?;
    let copied = Command::new("cp").arg("-a").arg(&data_directory).arg(&old).status()?;
    ensure!(copied.success());
    house.pg.start()?;
    insert(&house.pg)?;
    house.archive_everything()?;
    ensure!(house.status()?["level"] == "ok", "{}", house.status()?);
    house.pg.stop(StopMode::Fast)?;
    fs::remove_dir_all(&data_directory)?;
    fs::rename(&old, &data_directory)?;
    house.pg.start()?;
    let status = house.status()?;
    ensure!(status["level"] == "critical", "{status}");
    ensure!(status["remarks"].to_string().contains("it was set back"), "{status}");
    ensure!(status["rpo_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{status}");
    Ok(())
}

#[test]
fn what_verify_found_is_told_where_nothing_can_be_recorded() -> Result<()> {
    let house = Protected::start()?;
    insert(&house.pg)?;
    house.backup()?;
    insert(&house.pg)?;
    let later = house.pg.current_lsn()?;
    house.archive_everything()?;
    // Where the backup's event has to be announced nothing can be made, as on a full disk.
    let all = files(&house.places.repository)?;
    let about = all.iter().find(|path| path.ends_with("about")).context("about")?;
    let pins = about.with_file_name("pin");
    if pins.exists() {
        fs::remove_dir_all(&pins)?;
    }
    fs::write(&pins, "")?;
    let spoilt = house.wal_object(later)?;
    spoil(&spoilt)?;
    let verify = house.command(["verify"]).fail(4)?;
    let name = spoilt.strip_prefix(&house.places.repository)?.display().to_string();
    ensure!(verify.stdout.contains(&format!("damaged {name}: ")), "{}", verify.stdout);
    ensure!(verify.stdout.contains("whole backup"), "the backup is: {}", verify.stdout);
    ensure!(verify.stderr.contains("is not recorded in it"), "{}", verify.stderr);
    Ok(())
}
