//! What `init`, `key`, `check` and `status` do on a real server, beyond the paths that restore it.

mod support;

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_testkit::process::{run, wait_until};
use seawall_testkit::{Invocation, TestDir};
use support::{Arguments, Protected, objects, seawall, tells};

const PATIENCE: Duration = Duration::from_secs(60);

fn init_again<'a>(house: &Protected, more: impl IntoIterator<Item = &'a str>) -> Invocation {
    let url = format!("file://{}", house.places.repository.display());
    house.command(["init", "main", "--repo", &url]).args(more)
}

#[test]
fn init_again_changes_nothing() -> Result<()> {
    let house = Protected::start()?;
    let before = (house.objects()?, fs::read_to_string(&house.places.config)?);
    let kit = house.places.kit.display().to_string();
    let output = init_again(&house, ["--kit", &kit]).succeed()?;
    ensure!(output.stdout.is_empty(), "SQL is missing: {}", output.stdout);
    ensure!(!output.stderr.contains("(new)"), "{}", output.stderr);
    ensure!(before == (house.objects()?, fs::read_to_string(&house.places.config)?));

    fs::write(&house.places.kit, "something of the user's")?;
    tells(&init_again(&house, ["--kit", &kit]).fail(2)?, "SW0304")?;
    ensure!(fs::read_to_string(&house.places.kit)? == "something of the user's");
    Ok(())
}

#[test]
fn a_repository_is_joined_with_its_key_and_not_without() -> Result<()> {
    let house = Protected::start()?;
    let room = TestDir::new()?;
    house.pg.owner().chown(room.path())?;
    let config = room.join("other.toml").display().to_string();
    let url = format!("file://{}", house.places.repository.display());
    let connection = house.pg.connection_string();
    let key = house.places.key.display().to_string();
    let join = ["init", "second", "--repo", &url, "--no-kit", "--connection", &connection];
    let join = || seawall().map(|bin| bin.command(join).args(["--config", config.as_str()]));

    tells(&join()?.fail(5)?, "SW0307")?;
    ensure!(!room.join("primary.key").exists(), "a key that opens nothing was left");
    ensure!(!room.join("other.toml").exists(), "a configuration that does not work was left");
    let joined = join()?.args(["--key", key.as_str()]).succeed()?;
    // Two files open it, and neither is all that does.
    tells(&joined, &format!("and {key} open the backups alike"))?;
    let clusters = seawall()?.run(["info", "--json", "--config", &config])?.json()?;
    ensure!(clusters["clusters"][0]["name"] == "second", "{clusters}");
    Ok(())
}

#[test]
fn a_wrong_cluster_repository_or_user_is_refused_before_anything_is_made() -> Result<()> {
    let house = Protected::start()?;
    let second = house.places.repository.with_file_name("second");
    let url = format!("file://{}", second.display());
    let refused = house.command(["init", "main", "--no-kit", "--repo", &url]).fail(2)?;
    tells(&refused, "SW0004")?;
    ensure!(refused.stderr.contains("[repository.secondary]"), "{}", refused.stderr);
    ensure!(!second.exists());
    tells(&house.command(["list", "other"]).fail(3)?, "SW0006")?;
    tells(&house.command(["show", "latest"]).fail(3)?, "SW0601")
}

#[test]
fn what_waits_for_a_restart_is_told_as_that() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.set("archive_mode", "off")?;
    house.pg.restart()?;
    house.pg.psql(&house.init_sql)?;
    let refused = house.command(["backup"]).fail(2)?;
    tells(&refused, "SW0108")?;
    ensure!(refused.stderr.contains("waits for a restart"), "{}", refused.stderr);
    let check = house.command(["check"]).fail(6)?.stdout;
    ensure!(check.contains("archive_mode is off: no WAL is archived; it was changed"), "{check}");
    ensure!(check.contains("fix: restart PostgreSQL"), "{check}");
    Ok(())
}

#[test]
fn a_server_gets_one_name_only() -> Result<()> {
    let house = Protected::start()?;
    let url = format!("file://{}", house.places.repository.display());
    let before = fs::read_to_string(&house.places.config)?;
    let connection = house.pg.connection_string();
    let init = ["init", "again", "--no-kit", "--repo", &url, "--connection", &connection];
    let refused = house.command(init).fail(2)?;
    tells(&refused, "SW0004")?;
    ensure!(refused.stderr.contains("as cluster main"), "{}", refused.stderr);
    ensure!(fs::read_to_string(&house.places.config)? == before);
    Ok(())
}

#[test]
fn keys_come_and_go_and_the_last_one_stays() -> Result<()> {
    let house = Protected::start()?;
    let slots = |house: &Protected| -> Result<Vec<String>> {
        let shown = house.command(["key", "show", "--json"]).succeed()?.json()?;
        let slots = shown["slots"].as_array().context("slots")?.clone();
        Ok(slots.iter().filter_map(|slot| slot["slot"].as_str().map(str::to_owned)).collect())
    };
    let [first] = &slots(&house)?[..] else { anyhow::bail!("one slot at first") };
    tells(&house.command(["key", "remove", first]).fail(5)?, "SW0310")?;

    let second = house.room("second.key").display().to_string();
    house.command(["key", "add", &second, "--label", "safe"]).succeed()?;
    ensure!(slots(&house)?.len() == 2);
    house.command(["key", "remove", first, "--key", &second]).succeed()?;
    tells(&house.command(["list"]).fail(2)?, "SW0303")?;

    fs::copy(&second, &house.places.key)?;
    let kit = house.room("kit").display().to_string();
    let rotated = house.command(["key", "rotate"]).succeed()?.stdout;
    ensure!(rotated == "new data is written under key epoch 2, which the same key file opens\n");
    house.command(["key", "kit", &kit]).succeed()?;
    let listed = seawall()?.run(["list", "--kit", &kit])?.success()?;
    ensure!(listed.stdout.contains("no backups yet"), "{}", listed.stdout);
    house.command(["backup"]).succeed()?;
    house.command(["verify"]).succeed().map(drop)
}

#[test]
fn check_and_status_tell_a_protected_cluster_from_one_that_is_not() -> Result<()> {
    let house = Protected::start()?;
    house.command(["status"]).fail(2)?;
    house.backup()?;
    let status = house.command(["status"]).succeed()?;
    ensure!(status.stdout.starts_with("OK main: backup "), "{}", status.stdout);
    house.command(["status", "--max-age", "0s"]).fail(2)?;

    let findings = |house: &Protected| -> Result<Vec<String>> {
        let check = ["check", "--json", "--wal-timeout", "3s"];
        let report = house.command(check).fail(6)?.json()?;
        let findings = report["findings"].as_array().context("findings")?.clone();
        let ids = findings.iter().filter_map(|one| one["id"].as_str().map(str::to_owned));
        // How full the disk is depends on the machine.
        Ok(ids.filter(|id| id != "wal_disk").collect())
    };
    // The test's storage is on the test's disk, and there is one of it.
    ensure!(findings(&house)? == ["same_disk", "one_repository"], "{:?}", findings(&house)?);
    house.pg.set("archive_command", "/bin/false")?;
    house.pg.reload()?;
    let found = findings(&house)?;
    for id in ["archive_command", "wal_arrival", "archiver"] {
        ensure!(found.iter().any(|one| one == id), "no {id} in {found:?}");
    }
    let status = house.command(["status"]).fail(2)?;
    ensure!(status.stdout.contains("the archiver fails"), "{}", status.stdout);
    Ok(())
}

#[test]
fn the_repository_s_objects_are_all_seawall_s_own() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let json = house.command(["info", "--json"]).succeed()?.json()?;
    let bytes: u64 = objects(&house.places.repository)?.iter().map(|(_, b)| b.len() as u64).sum();
    // WAL may have come between the two looks.
    let told = json["repositories"][0]["stored_bytes"].as_u64().context("stored_bytes")?;
    ensure!(told > 0 && told <= bytes, "{told} of {bytes}");
    let cluster = &json["clusters"][0];
    for name in ["system_identifier", "postgres_version", "recovery_window", "rpo_seconds"] {
        ensure!(!cluster[name].is_null(), "no {name} in {cluster}");
    }
    ensure!(cluster["wal"][0]["gaps"].as_array().is_some_and(Vec::is_empty), "{cluster}");
    Ok(())
}

#[test]
fn a_rate_limit_holds_whoever_sets_it() -> Result<()> {
    let house = Protected::start()?;
    let rate = |backup: &serde_json::Value| -> Result<f64> {
        let bytes = backup["read_bytes"].as_f64().context("read_bytes")?;
        Ok(bytes / backup["duration_s"].as_f64().context("duration_s")?)
    };
    let limited = ["backup", "--json", "--jobs", "4", "--rate-limit", "8MB/s"];
    let limited = rate(&house.command(limited).succeed()?.json()?)?;
    ensure!(limited < 8.1e6 && limited > 4e6, "{limited} bytes a second");

    let config = fs::read_to_string(&house.places.config)?;
    fs::write(&house.places.config, format!("rate_limit = \"8MB/s\"\n{config}"))?;
    let configured = rate(&house.backup()?)?;
    ensure!(configured < 8.1e6, "{configured} bytes a second");
    let free = ["backup", "--json", "--rate-limit", "none"];
    let free = rate(&house.command(free).succeed()?.json()?)?;
    ensure!(free > 16e6, "{free} bytes a second");

    let began = Instant::now();
    let restored = house.restore("room", ["--backup-only", "--json"]).succeed()?.json()?;
    let bytes = restored["restore"]["bytes"].as_f64().context("bytes")?;
    let written = bytes / began.elapsed().as_secs_f64();
    ensure!(written < 8.1e6, "{written} bytes a second");
    Ok(())
}

#[test]
fn a_backup_of_low_priority_stands_behind_all_other_programs() -> Result<()> {
    let house = Protected::start()?;
    let slowly = ["backup", "--priority", "low", "--rate-limit", "8MB/s"];
    let backup = house.command(slowly).spawn()?;
    let tasks = format!("/proc/{}/task", backup.pid());
    let mut threads = Vec::new();
    wait_until("copying threads", Duration::from_secs(20), || {
        threads = fs::read_dir(&tasks)?.map(|task| Ok(task?.path())).collect::<Result<_>>()?;
        let names = threads.iter().filter_map(|task| fs::read_to_string(task.join("comm")).ok());
        Ok(names.into_iter().any(|name| name.starts_with("copy-")))
    })?;
    for thread in &threads {
        let stat = fs::read_to_string(thread.join("stat"))?;
        // The name may hold blanks; what follows it does not (proc(5)).
        let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16));
        ensure!(nice == Some("19"), "{stat}");
    }
    backup.wait(PATIENCE)?.success().map(drop)
}

#[test]
fn what_waits_for_its_rate_is_interrupted_at_once() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let slowly = ["--rate-limit", "50kB/s"];
    let calls = [
        house.command(["backup"]).args(slowly),
        house.command(["verify"]).args(slowly),
        house.restore("room", ["--backup-only"]).args(slowly),
    ];
    for call in calls {
        let running = call.spawn()?;
        sleep(Duration::from_secs(2));
        run(Command::new("kill").arg(running.pid().to_string()), None, PATIENCE)?.success()?;
        let began = Instant::now();
        let output = running.wait(PATIENCE)?;
        tells(&output, "interrupted by SIGTERM")?;
        ensure!(!output.stderr.contains("defect"), "{}", output.stderr);
        ensure!(began.elapsed() < Duration::from_secs(5), "{:?}: {output:?}", began.elapsed());
    }
    house.restore("room", ["--backup-only"]).succeed()?;
    house.command(["verify"]).succeed().map(drop)
}
