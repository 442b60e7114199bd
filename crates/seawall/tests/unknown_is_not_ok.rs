//! What `status`, `info` and `check` say where something cannot be known, and what may stay as it is.

mod support;

use std::fs;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{PgCluster, TestDir};
use serde_json::Value;
use support::{Arguments, Protected, quiet_cluster, seawall, tells};

/// Adds lines to the cluster's section of the configuration.
fn configure_cluster(house: &Protected, lines: &str) -> Result<()> {
    let text = fs::read_to_string(&house.places.config)?;
    let changed = text.replacen("[cluster.main]\n", &format!("[cluster.main]\n{lines}\n"), 1);
    ensure!(changed != text, "{text}");
    Ok(fs::write(&house.places.config, changed)?)
}

fn configure_connection(house: &Protected, connection: &str) -> Result<()> {
    let text = fs::read_to_string(&house.places.config)?;
    let old = text.lines().find(|line| line.starts_with("connection = ")).context("connection")?;
    let new = format!("connection = '{connection}'");
    Ok(fs::write(&house.places.config, text.replace(old, &new))?)
}

/// A configured cluster beside `main`, whose repository is nowhere.
fn add_lost_cluster(house: &Protected) -> Result<()> {
    let text = fs::read_to_string(&house.places.config)?;
    let key = house.places.key.display();
    let nowhere = house.room("nowhere");
    let connection = house.pg.connection_string();
    let more = format!(
        "{text}\n[cluster.lost]\nconnection = '{connection}'\nrepositories = ['gone']\n\n\
         [repository.gone]\nurl = '{}'\nkey = {{ file = '{key}' }}\n",
        nowhere.display()
    );
    Ok(fs::write(&house.places.config, more)?)
}

#[test]
fn a_connection_that_cannot_be_understood_is_critical_and_never_ok() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house.command(["status"]).succeed()?;
    let good = house.pg.connection_string();
    let asked = |why: &str, environment: (&str, &str)| -> Result<()> {
        let status = house.command(["status"]).env(environment.0, environment.1).fail(2)?.stdout;
        ensure!(status.starts_with("CRITICAL main: backup ") && status.lines().count() == 1);
        ensure!(status.contains("the server was not asked: "), "{why}: {status}");
        let json = house.command(["status", "--json"]).env(environment.0, environment.1);
        let json = json.fail(2)?.json()?;
        ensure!(json["clusters"][0]["level"] == "critical", "{why}: {json}");
        Ok(())
    };
    asked("an empty sslmode", ("PGSSLMODE", ""))?;
    for bad in ["service=nowhere", "hots=/tmp user=postgres", "port=many"] {
        configure_connection(&house, bad)?;
        asked(bad, ("PGAPPNAME", "x"))?;
        tells(&house.command(["info"]).fail(2)?, "SW0103")?;
    }
    let text = fs::read_to_string(&house.places.config)?;
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("connection")).collect();
    fs::write(&house.places.config, without.join("\n"))?;
    asked("no connection", ("PGAPPNAME", "x"))?;
    let given = house.command(["status", "--connection", &good]).succeed()?;
    ensure!(given.stdout.starts_with("OK main: "), "{}", given.stdout);
    Ok(())
}

#[test]
fn a_server_that_does_not_answer_or_may_not_is_critical_too() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house
        .pg
        .psql("CREATE ROLE guest LOGIN; REVOKE ALL ON FUNCTION pg_control_system() FROM PUBLIC")?;
    let guest = house.pg.connection_string().replace("user=postgres", "user=guest");
    let status = house.command(["status", "--connection", &guest]).fail(2)?.stdout;
    let grant = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO guest";
    ensure!(status.contains(grant) || status.contains("GRANT pg_read_all_settings"), "{status}");
    let nobody = house.pg.connection_string().replace("port=5432", "port=5433");
    let status = house.command(["status", "--connection", &nobody]).fail(2)?.stdout;
    ensure!(status.contains("the server does not answer: "), "{status}");
    configure_connection(&house, &nobody)?;
    let info = house.command(["info"]).succeed()?.stdout;
    ensure!(info.contains("at risk now: unknown: "), "{info}");
    Ok(())
}

#[test]
fn a_connection_to_another_cluster_says_nothing_of_this_one() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let other = quiet_cluster()?.own_system_identifier().config("archive_mode", "on");
    let other: PgCluster = other.config("archive_command", "/bin/true").start()?;
    let there = other.connection_string();
    let status = house.command(["status", "--connection", &there]).fail(2)?.stdout;
    ensure!(status.contains("the server is cluster ") && !status.contains("RPO"), "{status}");
    tells(&house.command(["backup", "--connection", &there]).fail(5)?, "SW0405")?;
    let check = ["check", "--json", "--wal-timeout", "1s", "--connection", &there];
    let check = house.command(check).fail(6)?.json()?;
    ensure!(check["findings"].to_string().contains("and the server is"), "{check}");
    configure_connection(&house, &there)?;
    let info = house.command(["info"]).fail(5)?;
    tells(&info, "SW0405")?;
    ensure!(info.stdout.contains("at risk now: unknown: "), "{}", info.stdout);
    Ok(())
}

#[test]
fn status_has_a_line_for_each_cluster_whatever_fails() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let lines = |arguments: &[&str]| -> Result<Vec<String>> {
        let call = house.command(["status"]).args(arguments.iter().copied());
        let told = call.fail(2)?.stdout.lines().map(str::to_owned).collect();
        let json = call.arg("--json").fail(2)?.json()?;
        let levels = json["clusters"].as_array().context("clusters")?.clone();
        ensure!(levels.iter().any(|one| one["level"] == "critical"), "{json}");
        Ok(told)
    };
    // One cluster's trouble is no other's.
    add_lost_cluster(&house)?;
    let [lost, main] = &lines(&[])?[..] else { anyhow::bail!("two lines") };
    ensure!(lost.starts_with("CRITICAL lost: ") && lost.contains("no repository"), "{lost}");
    ensure!(main.starts_with("OK main: backup "), "{main}");

    // No repository at all.
    let away = house.room("away");
    fs::rename(&house.places.repository, &away)?;
    let all = lines(&[])?;
    ensure!(all.len() == 2 && all.iter().all(|line| line.starts_with("CRITICAL ")), "{all:?}");
    let denied = |line: &String| line.contains("no backup yet") || line.contains("no WAL was ever");
    ensure!(!all.iter().any(denied), "away is not absent: {all:?}");
    fs::rename(&away, &house.places.repository)?;

    // A configuration with a fault in one cluster's section; one that is no TOML; and none.
    let good = fs::read_to_string(&house.places.config)?;
    fs::write(&house.places.config, good.replace("[cluster.lost]", "[cluster.lost]\nsauce = 1"))?;
    let all = lines(&[])?;
    ensure!(all.len() == 2 && all.iter().all(|line| line.contains("key \"sauce\"")), "{all:?}");
    ensure!(lines(&["main"])?.len() == 1);
    fs::write(&house.places.config, "[[[")?;
    ensure!(lines(&["main"])?.iter().all(|line| line.starts_with("CRITICAL main: ")));
    fs::remove_file(&house.places.config)?;
    let all = lines(&[])?;
    ensure!(all.len() == 1 && all.iter().all(|line| line.starts_with("CRITICAL: ")), "{all:?}");
    Ok(())
}

#[test]
fn status_of_a_repository_alone_has_a_line_too() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let kit = house.places.kit.display().to_string();
    let status = seawall()?.command(["status", "--kit", &kit]).fail(2)?.stdout;
    ensure!(status.starts_with("CRITICAL main: backup "), "{status}");
    ensure!(status.contains("the server was not asked: there is no connection"), "{status}");
    let room = TestDir::new()?;
    let (url, key) = (room.join("empty").display().to_string(), house.places.key.display());
    let empty = ["status", "--repo", &url, "--key", &key.to_string()];
    let status = seawall()?.command(empty).fail(2)?.stdout;
    ensure!(status.starts_with("CRITICAL: ") && status.lines().count() == 1, "{status}");
    Ok(())
}

#[test]
fn an_archiver_that_waits_for_a_restart_is_told_as_that() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    house.pg.set("archive_mode", "off")?;
    house.pg.restart()?;
    house.pg.psql(&house.init_sql)?;
    let status = house.command(["status"]).fail(2)?.stdout;
    ensure!(status.contains("archive_mode takes effect with the restart"), "{status}");
    Ok(())
}

/// The findings that count, but for the fullness of the machine's disk.
fn open_findings(check: &Value) -> Result<Vec<(String, String)>> {
    let findings = check["findings"].as_array().context("findings")?;
    let open = findings.iter().filter(|one| one["acknowledged"].is_null());
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let all: Vec<_> =
        open.map(|one| Ok((text(&one["id"])?, text(&one["severity"])?))).collect::<Result<_>>()?;
    Ok(all.into_iter().filter(|(id, _)| id != "wal_disk").collect())
}

#[test]
fn check_is_green_where_only_advice_is_left_or_what_is_known() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let check = |arguments: &[&str]| -> Result<(Vec<(String, String)>, bool)> {
        let call = house.command(["check", "--json"]).args(arguments.iter().copied()).run()?;
        let json = call.json()?;
        let full = json["findings"].to_string().contains("\"wal_disk\"");
        ensure!(full || call.code() == Some(0) || call.code() == Some(6), "{call:?}");
        Ok((open_findings(&json)?, full || call.code() == Some(0)))
    };
    let advice = ("one_repository".to_owned(), "advice".to_owned());
    // The test's storage is on the test's disk.
    let (found, _) = check(&[])?;
    ensure!(found == [("same_disk".to_owned(), "warning".to_owned()), advice.clone()], "{found:?}");
    house.pg.set("archive_timeout", "0")?;
    house.pg.reload()?;
    configure_cluster(&house, "acknowledge = { same_disk = \"the disk is copied every night\" }")?;
    let (found, green) = check(&[])?;
    let quiet = ("archive_timeout".to_owned(), "advice".to_owned());
    ensure!(found == [quiet, advice] && green, "{found:?}");
    let text = house.command(["check"]).run()?.stdout;
    ensure!(text.contains("reason: the disk is copied every night"), "{text}");
    ensure!(!check(&["--strict"])?.1 || text.contains("pg_wal's disk"));

    let config = fs::read_to_string(&house.places.config)?;
    let all = "one_repository = \"mirrored\", archive_timeout = \"busy\", same_disk";
    fs::write(&house.places.config, config.replace("same_disk", all))?;
    let (found, green) = check(&["--strict"])?;
    ensure!(found.is_empty() && green, "{found:?}");

    for (wrong, told) in [
        ("one_repositroy = \"x\"", "Did you mean \"one_repository\"?"),
        ("repository = \"x\"", "repository cannot be acknowledged"),
        ("one_repository = \" \"", "needs its reason"),
    ] {
        let text = format!("acknowledge = {{ {wrong} }}");
        let begun = config.lines().find(|line| line.starts_with("acknowledge")).context("line")?;
        fs::write(&house.places.config, config.replace(begun, &text))?;
        let refused = house.command(["check"]).fail(2)?;
        tells(&refused, "SW0004")?;
        tells(&refused, told)?;
    }
    Ok(())
}

#[test]
fn a_standby_does_not_vouch_for_what_its_primary_archives() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let standby = house.pg.standby()?;
    house.pg.set("archive_command", "/bin/false")?;
    house.pg.reload()?;
    configure_connection(&house, &standby.connection_string())?;
    let status = house.command(["status"]).fail(2)?.stdout;
    ensure!(status.contains("the server asked is a standby"), "{status}");
    ensure!(!status.contains("RPO"), "{status}");
    let info = house.command(["info"]).succeed()?.stdout;
    ensure!(info.contains("at risk now: unknown"), "{info}");
    Ok(())
}
