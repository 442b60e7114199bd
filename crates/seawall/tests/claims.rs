//! What is said of several is so of each: repositories, backups, timelines.

#[path = "support/moved.rs"]
mod moved;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use moved::moved;
use seawall_testkit::StopMode;
use seawall_testkit::faults::flip_bit;
use seawall_testkit::process::wait_until;
use serde_json::Value;
use support::{Arguments as _, LIMIT, Protected, archive_everything, files, tells};

/// Gives the cluster a second repository, called `second`.
fn add_second(house: &Protected) -> Result<PathBuf> {
    let (config, key) = (&house.places.config, house.places.key.with_file_name("second.key"));
    let place = house.places.repository.with_file_name("second");
    let only = fs::read_to_string(config)?;
    let both =
        only.replace("repositories = [\"primary\"]", "repositories = [\"primary\", \"second\"]");
    let (url, key) = (place.display(), key.display());
    let section =
        format!("[repository.second]\nurl = \"file://{url}\"\nkey = {{ file = \"{key}\" }}");
    fs::write(config, format!("{both}\n{section}\n"))?;
    let init = ["init", "main", "--repo", "second", "--new-repository", "--no-kit"];
    house.command(init).succeed()?;
    Ok(place)
}

/// The commit of a repository's newest backup.
fn newest_commit(repository: &Path) -> Result<PathBuf> {
    let commit = |path: &PathBuf| path.to_string_lossy().contains("/backup/");
    files(repository)?.into_iter().rfind(commit).context("no commit")
}

fn spoil(object: &Path) -> Result<()> {
    flip_bit(object, fs::metadata(object)?.len() / 2)
}

fn id(backup: &Value) -> Result<&str> {
    backup["id"].as_str().context("no id")
}

/// The line of `status`, and what it says in all.
fn status(house: &Protected, exit: i32) -> Result<String> {
    let told = house.command(["status"]).run()?;
    ensure!(told.code() == Some(exit), "{exit} expected: {told:?}");
    Ok(told.stdout)
}

#[test]
fn a_repository_without_a_backup_is_told_though_another_has_one() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house.archive_everything()?;
    ensure!(status(&house, 0)?.starts_with("OK main: "));
    let second = add_second(&house)?;
    let told = status(&house, 1)?;
    ensure!(told.starts_with("WARNING main: "), "{told}");
    ensure!(told.contains("repository second: no backup yet: `seawall backup main"), "{told}");
    let info = house.command(["info"]).succeed()?.stdout;
    ensure!(info.contains("from second alone: nothing can be restored"), "{info}");

    // With a backup of its own it is as good as the other; without the WAL that one has it is not.
    house.archive_everything()?;
    house.command(["backup"]).succeed()?;
    ensure!(status(&house, 0)?.starts_with("OK main: "));
    let away = house.room("away");
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.archive_everything()?;
    let last = house.pg.psql("SELECT last_archived_wal FROM pg_stat_archiver")?;
    let range = format!("/{}/", segment_of(&last)?);
    let wal = |path: &PathBuf| path.to_string_lossy().contains(&range);
    let wal = files(&second)?.into_iter().find(wal).context("no WAL")?;
    fs::rename(&wal, &away)?;
    let told = status(&house, 1)?;
    ensure!(told.contains("repository second: PostgreSQL says that ") && told.contains(&last));
    fs::rename(&away, &wal)?;

    // One of two copies that is spoilt is not whole because the other one is.
    spoil(&newest_commit(&second)?)?;
    let told = status(&house, 1)?;
    ensure!(told.contains("repository second: backup ") && told.contains(" is damaged"), "{told}");
    let list = house.command(["list"]).succeed()?.stdout;
    ensure!(list.contains("primary,second (damaged)"), "{list}");
    let list = house.command(["list", "--json"]).succeed()?.json()?;
    let newest = list["clusters"][0]["backups"].as_array().and_then(|all| all.last());
    let newest = newest.context("no backup")?;
    let states = [&newest["state"], &newest["copies"][0]["state"], &newest["copies"][1]["state"]];
    ensure!(states == ["complete", "complete", "damaged"], "{newest}");
    ensure!(newest["copies"][1]["problem"].is_string(), "{newest}");
    Ok(())
}

/// As ranges are named: `000000010000000000000003` is at 0/3000000.
fn segment_of(name: &str) -> Result<String> {
    let number = |part: &str| u64::from_str_radix(part, 16);
    let (log, segment) = (number(&name[8..16])?, number(&name[16..24])?);
    Ok(format!("{:016X}", (log << 32) + (segment << 24)))
}

#[test]
fn an_old_primary_that_goes_on_archiving_is_told_to_the_new_one() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    let mut standby = house.pg.standby()?;
    let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", house.pg.current_lsn()?);
    wait_until("the standby", LIMIT, || Ok(standby.psql(&reached)? == "t"))?;
    standby.promote()?;
    standby.psql("INSERT INTO t VALUES (2)")?;
    archive_everything(&standby)?;
    moved(&house, &standby)?;
    ensure!(status(&house, 1)?.contains("no backup since the server was restored or promoted"));
    let backup = house.backup()?;
    ensure!(backup["timeline"] == 2, "{backup}");
    ensure!(status(&house, 0)?.starts_with("OK main: "));

    house.pg.psql("INSERT INTO t VALUES (10)")?;
    house.archive_everything()?;
    let told = status(&house, 1)?;
    for part in ["primary has WAL of timeline 1", "came after backup", id(&backup)?, "SW0609"] {
        ensure!(told.contains(part), "no {part} in {told}");
    }
    let info = house.command(["info", "--json"]).succeed()?.json()?;
    ensure!(info["clusters"][0]["foreign_wal"][0]["timeline"] == 1, "{info}");
    let check = house.command(["check", "--json"]).run()?.json()?;
    ensure!(check["findings"].to_string().contains("came after backup"), "{check}");

    // What is stopped stays stopped, and a backup says so.
    house.pg.stop(StopMode::Immediate)?;
    house.backup()?;
    ensure!(status(&house, 0)?.starts_with("OK main: "));
    Ok(())
}

#[test]
fn where_there_is_no_backup_verify_does_not_call_all_whole() -> Result<()> {
    let house = Protected::start()?;
    house.archive_everything()?;
    let verify = house.command(["verify"]).fail(6)?.stdout;
    ensure!(verify.contains("there is no backup of cluster main to verify"), "{verify}");
    ensure!(verify.contains("fix: seawall backup main"), "{verify}");
    ensure!(!verify.contains("every object is whole"), "{verify}");
    let verify = house.command(["verify", "--json"]).fail(6)?.json()?;
    let report = &verify["repositories"][0]["report"];
    ensure!(report["without_backup"][0] == "main", "{verify}");
    house.backup()?;
    ensure!(house.command(["verify"]).succeed()?.stdout.contains("every object is whole"));
    Ok(())
}

#[test]
fn the_latest_is_one_backup_to_every_command_and_a_newer_damaged_one_is_told() -> Result<()> {
    let house = Protected::start()?;
    let older = house.backup()?;
    let newer = house.backup()?;
    let (older, newer) = (id(&older)?, id(&newer)?);
    spoil(&newest_commit(&house.places.repository)?)?;
    let note = format!("{newer} is newer, and is damaged");

    let show = house.command(["show", "latest", "--json"]).succeed()?;
    ensure!(show.json()?["id"] == older, "{}", show.stdout);
    tells(&show, &note)?;
    let damaged = house.command(["show", newer]).succeed()?.stdout;
    ensure!(damaged.contains("damaged") && damaged.contains("SW0305"), "{damaged}");
    let plan = house.restore("room", ["--backup", "latest", "--dry-run", "--json"]).succeed()?;
    ensure!(plan.json()?["backup"]["id"] == older, "{}", plan.stdout);
    tells(&plan, &note)?;
    let verify = house.command(["verify", "--backup", "latest"]).fail(4)?;
    tells(&verify, &note)?;
    ensure!(verify.stdout.contains(&format!("whole backup {older}")), "{}", verify.stdout);
    ensure!(verify.stdout.contains(&format!("(backup {newer})")), "{}", verify.stdout);
    Ok(())
}

#[test]
fn a_backup_whose_store_does_not_answer_is_not_called_damaged() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let newer = house.backup()?;
    let commit = newest_commit(&house.places.repository)?;
    fs::set_permissions(&commit, Permissions::from_mode(0o000))?;
    let list = house.command(["list"]).succeed()?.stdout;
    ensure!(list.contains("not read") && !list.contains("damaged"), "{list}");
    let list = house.command(["list", "--json"]).succeed()?.json()?;
    ensure!(list["clusters"][0]["backups"][1]["state"] == "unread", "{list}");
    let verify = house.command(["verify"]).fail(1)?;
    ensure!(verify.stdout.contains("not read c/main/"), "{}", verify.stdout);
    ensure!(!verify.stdout.contains("damaged"), "{}", verify.stdout);
    tells(&verify, "SW0204")?;
    let told = house.restore("room", ["--latest", "--dry-run"]).succeed()?.stdout;
    let warned = format!("Newer backup {} could not be read and is not used.", id(&newer)?);
    ensure!(told.contains(&warned), "{told}");
    fs::set_permissions(&commit, Permissions::from_mode(0o640))?;
    house.command(["verify"]).succeed().map(drop)
}

/// What a command is told where the repository is named by its place and key.
fn at(place: &Path, key: &Path) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    vec!["--repo".to_owned(), shown(place), "--key".to_owned(), shown(key)]
}

#[test]
fn a_cluster_that_is_not_in_the_repository_is_told_by_every_command() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let second = add_second(&house)?;
    house.command(["backup"]).succeed()?;
    let given = at(&second, &house.places.key.with_file_name("second.key"));
    let flags = [vec!["--repo".to_owned(), "second".to_owned()], given.clone()];
    for verb in ["verify zzz", "list zzz", "info zzz", "show latest --cluster zzz", "wal list zzz"]
    {
        for flags in &flags {
            let told = house.command(verb.split(' ')).args(flags.iter().map(String::as_str));
            let told = told.fail(3).with_context(|| format!("{verb} {flags:?}"))?;
            tells(&told, "SW0006")?;
            ensure!(!told.stdout.contains("whole") && !told.stdout.contains("no backups"));
        }
        let told = house.seawall.command(verb.split(' '));
        tells(&told.args(given.iter().map(String::as_str)).fail(3)?, "SW0006")?;
    }
    let request =
        r#"{"version":1,"cluster":"zzz","verb":{"verify":{}},"repositories":[{"name":"second"}]}"#;
    let file = house.room("request.json");
    fs::write(&file, request)?;
    let told = house.command(["job", "--request"]).arg(&file).fail(3)?;
    ensure!(told.stdout.contains("SW0006"), "{}", told.stdout);
    Ok(())
}

#[test]
fn the_latest_is_decided_over_all_repositories_by_every_command() -> Result<()> {
    let house = Protected::start()?;
    add_second(&house)?;
    let older = house.backup()?;
    let newer = house.command(["backup", "--repo", "second", "--json"]).succeed()?.json()?;
    let (older, newer) = (id(&older)?, id(&newer)?);

    let show = house.command(["show", "latest", "--json"]).succeed()?;
    ensure!(show.json()?["id"] == newer, "{}", show.stdout);
    let planned = |word: &str| -> Result<_> {
        house.restore("room", ["--backup", word, "--dry-run", "--json"]).succeed()
    };
    ensure!(planned("latest")?.json()?["backup"]["id"] == newer);
    ensure!(planned("latest~1")?.json()?["backup"]["id"] == older);
    let verify = house.command(["verify", "--backup", "latest"]).fail(3)?;
    ensure!(verify.stdout.contains(&format!("whole backup {newer}")), "{}", verify.stdout);
    ensure!(!verify.stdout.contains(older), "{}", verify.stdout);
    tells(&verify, &format!("repository primary does not have backup {newer}"))?;

    // Of one that does not answer it is not known what it has.
    let (place, away) = (&house.places.repository, house.room("away"));
    fs::rename(place, &away)?;
    let plan = planned("latest")?;
    ensure!(plan.json()?["backup"]["id"] == newer);
    tells(&plan, "repository primary is passed over: ")?;
    tells(&house.command(["show", "latest"]).run()?, "SW0301")?;
    fs::rename(&away, place)?;

    // What one repository has spoilt is taken from the other.
    spoil(&newest_commit(place)?)?;
    let plan = planned(older)?;
    ensure!(plan.json()?["backup"]["id"] == older, "{}", plan.stdout);
    Ok(())
}

#[test]
fn one_repository_under_two_names_is_one() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let link = house.room("link");
    std::os::unix::fs::symlink(&house.places.repository, &link)?;
    let only = fs::read_to_string(&house.places.config)?;
    for place in [&house.places.repository, &link] {
        let both = only
            .replace("repositories = [\"primary\"]", "repositories = [\"primary\", \"second\"]");
        let (url, key) = (place.display(), house.places.key.display());
        let section =
            format!("[repository.second]\nurl = \"file://{url}\"\nkey = {{ file = \"{key}\" }}");
        fs::write(&house.places.config, format!("{both}\n{section}\n"))?;
        let backup = house.command(["backup"]).fail(2)?;
        tells(&backup, "SW0004")?;
        tells(&backup, "repositories primary and second are one repository")?;
        let list = house.command(["list", "--json"]).succeed()?;
        let backups = list.json()?["clusters"][0]["backups"].clone();
        ensure!(backups.as_array().is_some_and(|all| all.len() == 1), "{backups}");
        ensure!(backups[0]["repositories"] == serde_json::json!(["primary"]), "{backups}");
        tells(&list, "repositories primary and second are one repository")?;
        let info = house.command(["info", "--json"]).succeed()?.json()?;
        ensure!(info["repositories"].as_array().is_some_and(|all| all.len() == 1), "{info}");
        let check = house.command(["check", "--json"]).run()?;
        ensure!(check.stdout.contains("one_repository"), "{}", check.stdout);
        let verify = house.command(["verify", "--json"]).succeed()?.json()?;
        ensure!(verify["repositories"].as_array().is_some_and(|all| all.len() == 1), "{verify}");
        let status = house.command(["status"]).run()?;
        ensure!(status.stdout.contains("primary and second are one repository"), "{status:?}");
    }
    Ok(())
}

#[test]
fn a_window_with_a_hole_in_it_is_told_as_that() -> Result<()> {
    let house = Protected::start()?;
    let oldest = house.backup()?;
    house.archive_everything()?;
    house.archive_everything()?;
    let missing = house.pg.psql("SELECT last_archived_wal FROM pg_stat_archiver")?;
    house.archive_everything()?;
    house.backup()?;
    house.archive_everything()?;
    let info = house.command(["info"]).succeed()?.stdout;
    ensure!(info.contains("can be restored from ") && !info.contains("hole"), "{info}");
    let range = format!("/{}/", segment_of(&missing)?);
    let files = files(&house.places.repository)?.into_iter();
    for wal in files.filter(|path| path.to_string_lossy().contains(&range)) {
        fs::remove_file(wal)?;
    }
    let info = house.command(["info"]).succeed()?.stdout;
    let line = info.lines().find(|line| line.contains("can be restored from "));
    let line = line.context("no window")?;
    ensure!(line.contains(", with a hole: WAL from "), "{oldest}\n{line}");
    let info = house.command(["info", "--json"]).succeed()?.json()?;
    let hole = &info["clusters"][0]["recovery_window"]["hole"];
    ensure!(hole.as_str().is_some_and(|told| told.starts_with("WAL from ")), "{info}");
    Ok(())
}
