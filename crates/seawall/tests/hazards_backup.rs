//! What goes wrong while a backup is taken. The numbers are those of the hazards known to have
//! destroyed backups.

mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_testkit::ledger::Bound;
use seawall_testkit::oracles::Dump;
use seawall_testkit::process::Running;
use seawall_testkit::{Ledger, PgCluster, PsqlSession, StopMode, faults, oracles};
use support::{LIMIT, Protected, open_restored, prove_restored, quiet_cluster, tells};

const PAGE_BYTES: u64 = 8192;

/// pgbench's load, until it is dropped.
fn pgbench(pg: &PgCluster) -> Result<Running> {
    let mut command = pg.connection().client("pgbench")?;
    command.args(["-n", "-c", "4", "-j", "2", "-T", "600", "postgres"]);
    Running::start(&mut command, None)
}

/// The four sums that pgbench's transactions keep equal.
fn sums(pg: &PgCluster) -> Result<String> {
    pg.psql(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
         (SELECT sum(bbalance) FROM pgbench_branches), \
         (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)",
    )
}

#[test]
fn e25_pages_written_while_they_are_copied_are_neither_errors_nor_damage() -> Result<()> {
    // Few buffers: pages are written out all the time, and not only by checkpoints.
    let shape =
        quiet_cluster()?.config("shared_buffers", "1MB").config("synchronous_commit", "off");
    let house = Protected::with(shape, false)?;
    let mut init = house.pg.connection().client("pgbench")?;
    init.args(["-i", "-q", "-s", "8", "postgres"]);
    seawall_testkit::process::run(&mut init, None, LIMIT)?.success()?;
    let load = pgbench(&house.pg)?;
    let ledger = Ledger::start(&house.pg, 1)?;
    ledger.wait_for(10, LIMIT)?;
    for _ in 0..2 + support::rounds() {
        let backup = house.backup()?;
        ensure!(backup["page_errors"] == 0, "false alarm: {backup}");
    }
    ledger.wait_for(10, LIMIT)?;
    drop(load);
    let log = ledger.stop()?;
    house.archive_everything()?;

    house.restore("room", ["--latest"]).succeed()?;
    let mut restored = open_restored(&house.room("room"))?;
    let found = sums(&restored)?;
    let mut four: Vec<&str> = found.split('|').collect();
    four.dedup();
    ensure!(four.len() == 1 && found != "0|0|0|0", "pgbench's sums differ: {found}");
    prove_restored(&mut restored, &log, &Bound::Everything).map(drop)
}

#[test]
fn e26_a_corrupt_page_is_named_and_the_backup_is_marked() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql(
        "CREATE TABLE whole AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g; \
         CREATE TABLE rotten AS SELECT * FROM whole; CHECKPOINT",
    )?;
    let file = house.pg.psql("SELECT pg_relation_filepath('rotten')")?;
    let clean = house.backup()?;
    ensure!(clean["page_errors"] == 0, "{clean}");
    house.pg.stop(StopMode::Fast)?;
    // In the middle of the pages, where only the checksum can tell; far apart from each other.
    let path = house.pg.data_directory().join(&file);
    for block in [3, 77] {
        faults::flip_bit(&path, block * PAGE_BYTES + 5000)?;
    }
    house.pg.start()?;

    let output = house.command(["backup", "--full", "--json"]).fail(6)?;
    let backup = output.json()?;
    ensure!(backup["page_errors"] == 2, "{backup}");
    let id = backup["id"].as_str().context("id")?;
    let shown = house.command(["show", id]).run()?.stdout;
    for text in [&output.stderr, &shown] {
        ensure!(
            text.contains(&file) && text.contains("77"),
            "file and block are not named: {text}"
        );
        ensure!(text.contains("block 3"), "{text}");
    }
    for view in ["list", "info"] {
        let json = house.command([view, "--json"]).run()?.json()?;
        let backups = json["clusters"][0]["backups"].as_array().context("backups")?;
        let errors: Vec<_> = backups.iter().map(|backup| &backup["page_errors"]).collect();
        ensure!(errors == [0, 2], "{view}: {json}");
    }

    // Without being told otherwise, a restore starts from the backup that is clean.
    house.archive_everything()?;
    house.restore("clean", ["--latest"]).succeed()?;
    let restored = open_restored(&house.room("clean"))?;
    ensure!(restored.psql("SELECT count(*) FROM rotten")? == "20000");

    // Told so, it brings back the pages as they were found; everything else is whole.
    house.restore("room", ["--latest", "--backup", id]).run()?;
    let restored = open_restored(&house.room("room"))?;
    ensure!(restored.psql("SELECT count(*) FROM whole")? == "20000");
    let damaged =
        restored.psql("SELECT count(*) FROM rotten").map_err(|error| format!("{error:#}"));
    ensure!(damaged.is_err_and(|text| text.contains("invalid page in block 3")));
    Ok(())
}

/// Relations come, grow, shrink and go without a pause.
const STORM: &str = "DROP TABLE IF EXISTS storm_TAG; CREATE TABLE storm_TAG (a int, b text); \
     INSERT INTO storm_TAG SELECT g, repeat('x', 500) FROM generate_series(1, 4000) g; \
     CREATE INDEX ON storm_TAG (a); DELETE FROM storm_TAG WHERE a > 10; VACUUM storm_TAG; \
     TRUNCATE storm_TAG; INSERT INTO storm_TAG VALUES (1, 'left'); \
     CREATE TEMP TABLE IF NOT EXISTS passing (a int); INSERT INTO passing VALUES (1); \
     CREATE UNLOGGED TABLE fast_TAG (a int); INSERT INTO fast_TAG VALUES (1); \
     DROP TABLE fast_TAG";

#[test]
fn e29_relations_that_vanish_and_shrink_while_they_are_read_do_no_harm() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE calm AS SELECT generate_series(1, 200000) AS a")?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let weather = |tag: &str| -> Result<u64> {
        let mut session: PsqlSession = house.pg.connection().session()?;
        let (storm, mut gusts) = (STORM.replace("TAG", tag), 0);
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            session.run(&storm)?;
            gusts += 1;
        }
        Ok(gusts)
    };
    let backups = thread::scope(|scope| -> Result<Vec<_>> {
        let storms: Vec<_> = ["a", "b"].map(|tag| scope.spawn(move || weather(tag))).into();
        thread::sleep(Duration::from_millis(300));
        let backups = (0..3 + support::rounds()).map(|_| house.backup()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for storm in storms {
            let gusts = storm.join().map_err(|_| anyhow::anyhow!("a storm panicked"))??;
            ensure!(gusts > 2, "a lull: {gusts}");
        }
        backups
    })?;
    ensure!(backups.iter().all(|backup| backup["page_errors"] == 0), "{backups:?}");
    house.archive_everything()?;
    let now = Dump::take(house.pg.connection())?;

    for (number, backup) in backups.iter().enumerate().skip(2) {
        let (room, id) = (format!("room-{number}"), backup["id"].as_str().context("id")?);
        house.restore(&room, ["--latest", "--backup", id]).succeed()?;
        let passing = fs::read_dir(house.room(&room).join("base/5"))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.starts_with('t')));
        ensure!(!passing.into_iter().any(|temporary| temporary), "a temporary table's file");
        let mut restored = open_restored(&house.room(&room))?;
        Dump::take(restored.connection())?.same_as(&now)?;
        oracles::amcheck(restored.connection())?;
        restored.stop(StopMode::Fast)?;
        oracles::pg_checksums(restored.bin(), restored.data_directory())?;
    }
    Ok(())
}

#[test]
fn a_data_directory_of_another_copy_is_refused_and_check_says_so() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house.pg.psql("CREATE TABLE only_here (a int)")?;
    house.archive_everything()?;
    house.restore("clone", ["--latest"]).succeed()?;
    let mut clone = open_restored(&house.room("clone"))?;
    let told = |copy: &str| -> Result<()> {
        let copy = house.room(copy).display().to_string();
        let refused = house.command(["backup", "--data-directory", &copy]).fail(5)?;
        ensure!(refused.stderr.contains("SW0405"), "{}", refused.stderr);
        ensure!(refused.stderr.contains("another copy of the cluster"), "{}", refused.stderr);
        let check =
            house.command(["check", "--json", "--data-directory", &copy]).fail(6)?.json()?;
        let first = &check["findings"][0];
        ensure!(first["id"] == "data_directory" && first["severity"] == "critical", "{check}");
        Ok(())
    };
    told("clone")?;
    clone.stop(StopMode::Fast)?;
    told("clone")?;
    let list = house.command(["list", "--json"]).succeed()?.json()?;
    let backups = list["clusters"][0]["backups"].as_array().context("backups")?.len();
    ensure!(backups == 1, "a backup of two clusters: {list}");

    // A copy that stands at the very same checkpoint is told by the one that begins the backup.
    let copy = house.room("copy");
    let status = std::process::Command::new("cp")
        .args(["-a".as_ref(), house.pg.data_directory().as_os_str(), copy.as_os_str()])
        .status()?;
    ensure!(status.success());
    told("copy")
}

/// Small files in one directory of the data directory, named by `name`; what each holds.
fn small_files(
    house: &Protected,
    directory: &str,
    count: usize,
    name: impl Fn(usize) -> String,
) -> Result<Vec<(String, String)>> {
    let below = house.pg.data_directory().join(directory);
    house.pg.owner().create_dir(&below, 0o700)?;
    let mut made = Vec::new();
    for number in 0..count {
        let path = below.join(name(number));
        let text = format!("{number:036}");
        fs::write(&path, &text)?;
        house.pg.owner().chown(&path)?;
        made.push((format!("{directory}/{}", name(number)), text));
    }
    Ok(made)
}

#[test]
fn many_small_files_with_more_name_than_content_are_restored() -> Result<()> {
    let house = Protected::start()?;
    let mut made = small_files(&house, "many", 2000, |number| format!("file-{number:05}"))?;
    made.extend(small_files(&house, "long", 300, |number| {
        format!("{}-{number:05}", "n".repeat(240))
    })?);
    house.backup()?;
    house.restore("room", ["--backup-only"]).succeed()?;
    for (path, text) in made {
        let restored = fs::read_to_string(house.room("room").join(&path))?;
        ensure!(restored == text, "{path}: {restored}");
    }
    Ok(())
}
#[test]
fn a_backup_in_another_process_namespace_is_not_taken_for_dead() -> Result<()> {
    if !house_of_root()? {
        return Ok(()); // only root makes namespaces
    }
    let house = Protected::start()?;
    let config = fs::read_to_string(&house.places.config)?;
    fs::write(&house.places.config, format!("rate_limit = \"3MB/s\"\n{config}"))?;
    // A container of the same host, with the same name: its numbers of processes mean others here.
    let mut there = house.command(["backup"]).as_test_user().in_process_namespace().spawn()?;
    let pinned = || Ok(support::files(&house.places.repository)?.iter().any(|path| is_pin(path)));
    seawall_testkit::process::wait_until("a pin", LIMIT, pinned)?;
    let refused = house.command(["backup"]).run()?;
    ensure!(!there.has_ended()?, "too fast to be told from: {:?}", there.wait(LIMIT));
    ensure!(refused.code() == Some(1), "{refused:?}");
    tells(&refused, "SW0408")?;
    there.wait(LIMIT)?.success()?;
    Ok(())
}

fn house_of_root() -> Result<bool> {
    let user = std::process::Command::new("id").arg("-u").output()?;
    Ok(user.stdout == b"0\n")
}

fn is_pin(path: &std::path::Path) -> bool {
    path.iter().any(|part| part == "pin")
}

#[test]
fn a_directory_that_lost_what_every_cluster_has_is_not_backed_up() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, false)?;
    house.pg.psql("CREATE DATABASE shop")?;
    let oid = house.pg.psql("SELECT oid FROM pg_database WHERE datname = 'shop'")?;
    let of_shop = format!("base/{oid}/PG_VERSION");
    for lost in ["pg_xact", "pg_multixact/members", of_shop.as_str()] {
        let path = house.pg.data_directory().join(lost);
        let aside = house.pg.data_directory().with_file_name("aside");
        fs::rename(&path, &aside)?;
        let refused = house.command(["backup"]).fail(1)?;
        tells(&refused, "SW0401")?;
        ensure!(refused.stderr.contains(lost), "{}", refused.stderr);
        let checked = house.command(["check"]).run()?;
        ensure!(checked.stdout.contains(lost), "{}", checked.stdout);
        fs::rename(&aside, &path)?;
    }
    house.command(["backup"]).succeed()?;
    Ok(())
}
