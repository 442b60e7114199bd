//! A password that somebody typed is repeated nowhere, and stays in no file that others can read.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{Invocation, Output};
use support::{Arguments, Protected, seawall};

const SECRET: &str = "hunter2";

/// Runs a command with everything logged, and looks for the secret in all it says.
fn silent_about_it(what: &str, command: Invocation) -> Result<Output> {
    let output = command.env("SEAWALL_LOG", "trace").run()?;
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(!said.contains(SECRET), "{what}: {said}");
    Ok(output)
}

#[test]
fn nothing_that_is_typed_wrong_repeats_a_password() -> Result<()> {
    let house = Protected::start()?;
    for connection in [
        "pgsql://u:hunter2@127.0.0.1/db",
        "pgsql://u:hunter2@127.0.0.1/db?sslmode=require",
        "jdbc:postgresql://127.0.0.1/db?user=u&password=hunter2",
        "u:hunter2@127.0.0.1/db",
        "postgresql://u:hunter2@127.0.0.1:port/db",
        "postgresql://u:p@127.0.0.1:hunter2/db",
        "postgresql://u:hunter2#127.0.0.1:5432/db",
        "host=127.0.0.1 port=5432,password=hunter2",
        "host=127.0.0.1;password=hunter2",
        "host=127.0.0.1 password='hunter2",
        "host=127.0.0.1 pass=hunter2",
        // Right, but nobody is there.
        "host=127.0.0.1 port=1 user=u password=hunter2",
        "postgresql://u:hunter2@127.0.0.1:1/db",
    ] {
        for command in [["check", "main"], ["status", "main"], ["backup", "main"]] {
            let command = house.command(command).args(["--connection", connection]);
            silent_about_it(connection, command)?;
        }
        let init = house.command(["init", "second", "--no-kit", "--connection", connection]);
        silent_about_it(connection, init.arg("--repo").arg(&house.places.repository))?;
        let variable = house.command(["check", "main"]).env("SEAWALL_CONNECTION", connection);
        silent_about_it(connection, variable)?;
    }
    // What a shell makes of a missing quote; and a repository that nobody knows.
    for words in [
        vec!["check", "main", "--connection", "host=h", "password=hunter2"],
        vec!["check", "password=hunter2"],
        vec!["check", "postgresql://u:hunter2@h/db"],
        vec!["check", "--conection=host=h password=hunter2"],
        vec!["backup", "--repo", "s3://key:hunter2@bucket/place"],
        vec!["backup", "--repo", "key:hunter2@bucket"],
        vec!["init", "x", "--no-kit", "--repo", "password=hunter2"],
        vec!["backup", "--jobs", "password=hunter2"],
        vec!["wal", "list", "--cluster", "password=hunter2"],
    ] {
        let shown = words.join(" ");
        let output = silent_about_it(&shown, house.command(words))?;
        ensure!(!output.status.success(), "{shown}");
    }
    Ok(())
}

#[test]
fn init_keeps_a_password_out_of_the_configuration() -> Result<()> {
    let house = Protected::start()?;
    let connection = format!("{} password={SECRET}", house.pg.connection_string());
    let (config, repository) = (house.room("other.toml"), house.room("other"));
    let init = |with: &str, value: &Path| {
        let command = seawall()?.command(["init", "main", "--no-kit"]).arg("--config").arg(&config);
        anyhow::Ok(command.arg("--repo").arg(&repository).arg(with).arg(value))
    };
    let refused = silent_about_it("init", init("--connection", Path::new(&connection))?)?;
    ensure!(refused.status.code() == Some(2), "{}", refused.stderr);
    for way in [".pgpass", "--connection-file"] {
        ensure!(refused.stderr.contains(way), "{}", refused.stderr);
    }
    ensure!(!config.exists() && !repository.exists());

    // The file that the hint offers: others must not read it, and then it works.
    let file = house.room("connection");
    fs::write(&file, &connection)?;
    house.pg.owner().chown(&file)?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    let refused = silent_about_it("an open file", init("--connection-file", &file)?)?;
    ensure!(refused.stderr.contains("chmod"), "{}", refused.stderr);
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    let done = silent_about_it("init", init("--connection-file", &file)?)?;
    ensure!(done.status.success(), "{}", done.stderr);
    let text = fs::read_to_string(&config)?;
    ensure!(!text.contains(SECRET) && text.contains("connection = { file = "), "{text}");
    let check = seawall()?.command(["--config"]).arg(&config).arg("check").arg("main");
    let check = silent_about_it("check", check.env("SEAWALL_WAL_TIMEOUT", "1s"))?;
    ensure!(!check.stderr.contains("SW0"), "{}", check.stderr);
    Ok(())
}

#[test]
fn a_configuration_with_a_password_is_for_its_owner_alone_and_archiving_goes_on() -> Result<()> {
    let house = Protected::start()?;
    let text = fs::read_to_string(&house.places.config)?;
    let secret = text.replace("user=postgres", &format!("user=postgres password={SECRET}"));
    ensure!(secret != text, "{text}");
    fs::write(&house.places.config, secret)?;
    let open = Permissions::from_mode(0o644);
    fs::set_permissions(&house.places.config, open)?;
    for command in ["check", "backup"] {
        let output = silent_about_it(command, house.command([command]))?;
        ensure!(output.status.code() == Some(2), "{command}: {}", output.stderr);
        ensure!(output.stderr.contains("chmod"), "{command}: {}", output.stderr);
    }
    // PostgreSQL's own archiver goes on.
    house.pg.psql("CREATE TABLE t AS SELECT 1")?;
    house.archive_everything()?;
    ensure!(house.pg.logs()?.contains("others can read a password"), "it is not warned of");
    ensure!(!house.pg.logs()?.contains(SECRET));

    fs::set_permissions(&house.places.config, Permissions::from_mode(0o600))?;
    let output = house.command(["backup"]).succeed().context("mode 0600")?;
    ensure!(!output.stderr.contains(SECRET));
    Ok(())
}
