//! One backup into several repositories, as a user has it.

#[path = "support/jobs.rs"]
mod jobs;
mod support;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jobs::{events, of_kind};
use seawall_testkit::StopMode;
use seawall_testkit::faults::SmallDisk;
use seawall_testkit::oracles::Dump;
use seawall_testkit::process::{run, wait_until};
use serde_json::Value;
use support::{LIMIT, Protected, open_restored, tells};

/// A protected cluster with some 20 MB that compress badly, and a second repository with a key of
/// its own.
struct Two {
    house: Protected,
    second: PathBuf,
}

impl Two {
    /// The second repository is in this directory, or beside the first.
    fn with(second: Option<PathBuf>) -> Result<Self> {
        let house = Protected::start()?;
        house.configure_repository("pack_size = \"1MiB\"")?;
        house.pg.psql(
            "CREATE TABLE t (a int, b text); \
             INSERT INTO t SELECT g, md5(random()::text) || md5(random()::text) \
             FROM generate_series(1, 200000) g; CHECKPOINT",
        )?;
        // What the second one gets of WAL is little.
        house.archive_everything()?;
        let second = second.unwrap_or_else(|| house.places.repository.with_file_name("second"));
        let (config, key) = (&house.places.config, house.places.key.with_file_name("second.key"));
        let only = fs::read_to_string(config)?;
        let list = "repositories = [\"primary\"]";
        ensure!(only.contains(list), "{only}");
        let both = only.replace(list, "repositories = [\"primary\", \"second\"]");
        let (url, key) = (second.display(), key.display());
        let section = format!(
            "[repository.second]\nurl = \"file://{url}\"\nkey = {{ file = \"{key}\" }}\npack_size = \"1MiB\"\n"
        );
        fs::write(config, format!("{both}\n{section}"))?;
        house
            .command(["init", "main", "--repo", "second", "--new-repository", "--no-kit"])
            .succeed()?;
        Ok(Self { house, second })
    }

    /// The backups a repository has.
    fn backups(&self, repository: &str) -> Result<Vec<Value>> {
        let listed = self.house.command(["list", "--json", "--repo", repository]).succeed()?;
        let listed = listed.json()?;
        listed["clusters"][0]["backups"].as_array().cloned().context("backups")
    }

    /// A repository has that backup, and is whole.
    fn has(&self, repository: &str, backup: &Value) -> Result<()> {
        let backups = self.backups(repository)?;
        ensure!(backups.iter().any(|it| it["id"] == backup["id"]), "{repository}: {backups:?}");
        self.house.command(["verify", "--repo", repository]).succeed().map(drop)
    }

    /// A backup that the second repository does not get; why not.
    fn only_first(&self) -> Result<String> {
        let before = self.backups("primary")?.len();
        let output = self.house.command(["backup", "--json"]).fail(6)?;
        let report = output.json()?;
        let state = |place: usize| report["destinations"][place]["state"].as_str();
        ensure!((state(0), state(1)) == (Some("complete"), Some("failed")), "{report}");
        ensure!(report["repositories"] == serde_json::json!(["primary"]), "{report}");
        tells(&output, "repository second")?;
        ensure!(self.backups("primary")?.len() == before + 1, "the first did not get it");
        self.has("primary", &report)?;
        let code = report["destinations"][1]["error"]["code"].as_str().context("a code")?;
        tells(&output, code)?;
        Ok(code.to_owned())
    }

    /// What `status` says while archive_command fails for the second repository alone: that one is named,
    /// with what is at stake.
    fn status_names_the_second(&self) -> Result<()> {
        let failed = "SELECT count(*) FROM pg_stat_archiver \
             WHERE last_failed_time > coalesce(last_archived_time, '-infinity')";
        wait_until("a failure of the archiver", Duration::from_secs(60), || {
            Ok(self.house.pg.psql(failed)?.trim() == "1")
        })?;
        let status = self.house.command(["status"]).fail(2)?.stdout;
        let held_up = "the archiver is held up by repository second, which does not have 0000000";
        for told in [held_up, "primary has it", "could", "of WAL wait in pg_wal"] {
            ensure!(status.contains(told), "no \"{told}\" in: {status}");
        }
        ensure!(!status.contains("the archiver fails"), "told twice: {status}");
        Ok(())
    }

    /// The next backup is in both.
    fn is_mended(&self) -> Result<()> {
        let report = self.house.backup()?;
        ensure!(report["repositories"] == serde_json::json!(["primary", "second"]), "{report}");
        self.has("primary", &report)?;
        self.has("second", &report)
    }
}

fn remount(disk: &SmallDisk, options: &str) -> Result<()> {
    let mut command = Command::new("mount");
    command.args(["-o", &format!("remount,{options}")]).arg(disk.path());
    run(&mut command, None, Duration::from_secs(10))?.success().map(drop)
}

#[test]
fn each_of_two_repositories_restores_the_one_backup_without_the_other() -> Result<()> {
    let two = Two::with(None)?;
    let house = &two.house;
    let text = house.command(["backup"]).succeed()?.stdout;
    for told in [" once, took", "in primary: complete", "in second: complete"] {
        ensure!(text.contains(told), "no \"{told}\" in: {text}");
    }
    let report = house.backup()?;
    for repository in ["primary", "second"] {
        let newest = two.backups(repository)?.into_iter().find(|it| it["id"] == report["id"]);
        let newest = newest.with_context(|| format!("{repository} has it not"))?;
        ensure!(newest["read_bytes"] == report["read_bytes"], "{newest} {report}");
    }
    let dump = Dump::take(house.pg.connection())?;
    for (repository, other) in [("primary", &two.second), ("second", &house.places.repository)] {
        let away = other.with_extension("away");
        fs::rename(other, &away)?;
        house.command(["verify", "--repo", repository]).succeed()?;
        let room = format!("from-{repository}");
        house.restore(&room, ["--backup-only", "--repo", repository]).succeed()?;
        let mut restored = open_restored(&house.room(&room))?;
        Dump::take(restored.connection())?.same_as(&dump)?;
        restored.stop(StopMode::Fast)?;
        fs::rename(&away, other)?;
    }
    Ok(())
}

#[test]
fn a_repository_that_fills_up_does_not_keep_the_other_from_its_backup() -> Result<()> {
    let disk = SmallDisk::mount(6)?;
    let two = Two::with(Some(disk.path().join("second")))?;
    ensure!(two.only_first()? == "SW0203");
    remount(&disk, "size=200m")?;
    two.is_mended()
}

#[test]
fn a_repository_that_becomes_read_only_does_not_keep_the_other_from_its_backup() -> Result<()> {
    let disk = SmallDisk::mount(200)?;
    let two = Two::with(Some(disk.path().join("second")))?;
    remount(&disk, "ro")?;
    two.only_first()?;
    two.status_names_the_second()?;
    remount(&disk, "rw")?;
    two.is_mended()
}

/// WAL counts as archived when all repositories have it: while one is away, nothing is. What a
/// backup needs comes into the others all the same.
#[test]
fn a_repository_that_is_away_does_not_keep_the_other_from_its_backup() -> Result<()> {
    let two = Two::with(None)?;
    let away = two.second.with_extension("away");
    fs::rename(&two.second, &away)?;
    for _ in 0..3 {
        two.house.pg.psql("INSERT INTO t VALUES (0, 'held up')")?;
        two.house.pg.switch_wal()?;
    }
    two.only_first()?;
    two.status_names_the_second()?;
    two.house.restore("room", ["--backup-only", "--repo", "primary"]).succeed()?;
    drop(open_restored(&two.house.room("room"))?);
    fs::rename(&away, &two.second)?;
    two.is_mended()
}

/// One repository had the backup when the job was told to end, and the other still waited for WAL.
#[test]
fn a_cancelled_backup_says_which_repositories_have_it_all_the_same() -> Result<()> {
    let two = Two::with(None)?;
    let house = &two.house;
    let pushed = house.pg.psql("SHOW archive_command")?;
    let only_first = pushed.replace("wal push", "wal push --repo primary");
    ensure!(only_first != pushed, "{pushed}");
    let flag = house.room("only-first");
    let either = format!("if test -e {}; then {only_first}; else {pushed}; fi", flag.display());
    house.pg.psql(&format!("ALTER SYSTEM SET archive_command = $${either}$$"))?;
    house.pg.psql("SELECT pg_reload_conf()")?;

    let (job, mut input) = house.command(["job"]).spawn_listening()?;
    writeln!(
        input,
        r#"{{"version":1,"cluster":"main","verb":{{"backup":{{}}}},"rate":"15MB/s"}}"#
    )?;
    wait_until("copying", LIMIT, || Ok(job.stdout_so_far().contains("\"copying\"")))?;
    fs::write(&flag, "")?;
    wait_until("the first", LIMIT, || Ok(!two.backups("primary")?.is_empty()))?;
    writeln!(input, r#"{{"cancel":true}}"#)?;
    let output = job.wait(LIMIT)?;
    ensure!(output.code() == Some(1), "{}", output.stdout);
    let told = events(&output)?;
    ensure!(told.last().context("nothing")?["outcome"] == "cancelled", "{}", output.stdout);
    let report = &of_kind(&told, "report").next().context("no report")?["report"];
    ensure!(report["verb"] == "backup" && report["state"] == "cancelled", "{report}");
    ensure!(report["repositories"] == serde_json::json!(["primary"]), "{report}");
    ensure!(report["destinations"][1]["state"] == "cancelled", "{report}");
    let error = &of_kind(&told, "error").last().context("no error")?["error"];
    let message = error["message"].as_str().context("no message")?;
    ensure!(error["code"] == "SW0009", "{error}");
    ensure!(message.ends_with(" is complete in primary\nit is not in second"), "{message}");
    two.has("primary", report)?;
    ensure!(two.backups("second")?.is_empty());
    Ok(())
}
