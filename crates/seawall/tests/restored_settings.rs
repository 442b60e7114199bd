//! Settings that a restored server must not have as they were backed up, on every major.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use seawall_pgdata::PgMajor;
use seawall_testkit::process;
use seawall_testkit::{Invocation, PgCluster, PgClusterBuilder, PgConnection, StopMode};
use serde_json::Value;
use support::{Arguments, LIMIT, Protected, tells};

/// What replay demands: the setting, its value at the backup, and later.
const DEMANDED: [(&str, u32, u32); 5] = [
    ("max_connections", 30, 77),
    ("max_worker_processes", 5, 12),
    ("max_wal_senders", 4, 14),
    ("max_prepared_transactions", 1, 21),
    ("max_locks_per_transaction", 30, 97),
];

fn builder(major: PgMajor) -> PgClusterBuilder {
    PgCluster::builder(major.number() as u16).without_fsync().config("autovacuum", "off")
}

/// A restore that may start a server of the cluster's major.
fn restore<'a>(
    house: &Protected,
    room: &str,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<Invocation> {
    let pg_ctl = house.pg.bin().program("pg_ctl")?;
    let programs = pg_ctl.parent().context("its directory")?;
    Ok(house.restore(room, arguments).env("SEAWALL_PG_BIN", programs))
}

/// `pg_ctl` on a restored directory.
fn pg_ctl(house: &Protected, directory: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = house.pg.owner().command(house.pg.bin().program("pg_ctl")?);
    command.args(arguments).arg("-w").arg("-D").arg(directory);
    process::run(&mut command, None, LIMIT)?.success().map(drop)
}

/// A restored server that `seawall` has started; it is stopped at the end.
struct Started<'h> {
    house: &'h Protected,
    directory: PathBuf,
    role: &'static str,
    socket_directory: String,
    port: u16,
}

impl Started<'_> {
    fn ask(&self, sql: &str) -> Result<String> {
        as_role(self.house, self.role, (&self.socket_directory, self.port), sql)
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        pg_ctl(self.house, &self.directory, &["stop", "-m", "immediate"]).expect("it stops");
    }
}

/// Restores and starts a server, which has to come to a state.
fn start<'h>(
    house: &'h Protected,
    room: &str,
    arguments: &[&str],
    state: &str,
) -> Result<Started<'h>> {
    let port = free_port()?.to_string();
    let arguments = arguments.iter().copied().chain(["--start", "--port", &port, "--json"]);
    let output = restore(house, room, arguments)?.succeed()?.json()?;
    let started = &output["started"];
    ensure!(started["state"] == state, "{output}");
    Ok(Started {
        house,
        directory: house.room(room),
        role: "postgres",
        socket_directory: started["socket_directory"].as_str().context("no directory")?.to_owned(),
        port: started["port"].to_string().parse()?,
    })
}

/// Runs SQL as any role on any server.
fn as_role(house: &Protected, role: &str, server: (&str, u16), sql: &str) -> Result<String> {
    let mut psql = house.pg.connection().client("psql")?;
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", server.0, "-p", &server.1.to_string()]);
    psql.args(["-U", role, "-d", "postgres", "-c", sql]);
    let output = process::run(&mut psql, None, LIMIT)?.success()?;
    Ok(output.stdout.trim_end().to_owned())
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[test]
fn what_the_log_demands_of_five_settings_is_planned_and_given() -> Result<()> {
    for major in PgMajor::ALL {
        demanded(major).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn demanded(major: PgMajor) -> Result<()> {
    let builder = DEMANDED.iter().fold(builder(major), |builder, (name, before, _)| {
        builder.config(name, &before.to_string())
    });
    let mut house = Protected::with(builder, false)?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup()?;
    for (name, _, after) in DEMANDED {
        house.pg.set(name, &after.to_string())?;
    }
    house.pg.restart()?;
    // Lower again: the log in between demands more than the server has at its end.
    for (name, before, _) in DEMANDED {
        house.pg.set(name, &before.to_string())?;
    }
    house.pg.psql("INSERT INTO t VALUES (1)")?;
    house.pg.restart()?;
    house.pg.psql("INSERT INTO t VALUES (2)")?;
    house.archive_everything()?;

    let plan = house.plan(["--latest"])?;
    for (name, _, after) in DEMANDED {
        ensure!(plan["required"][name] == after, "{plan}");
    }
    let started = start(&house, "room", &["--latest"], "promoted")?;
    let shown = started.ask("SELECT sum(i), current_setting('max_connections') FROM t")?;
    ensure!(shown == "3|77", "{shown}");
    drop(started);

    // What the configuration has on top of that stays.
    let set = format!("{}", 200);
    house.pg.set("max_connections", &set)?;
    house.backup()?;
    house.archive_everything()?;
    house.restore("higher", ["--latest"]).succeed()?;
    let text = fs::read_to_string(house.room("higher").join("postgresql.auto.conf"))?;
    ensure!(text.lines().any(|line| line == "max_connections = '200'"), "{text}");
    Ok(())
}

#[test]
fn the_superuser_is_whoever_the_backup_was_taken_as() -> Result<()> {
    for major in PgMajor::ALL {
        other_superuser(major).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

/// A cluster whose only superuser that logs in is `admin`, with a backup and a commit after it.
fn house_of_admin(major: PgMajor) -> Result<Protected> {
    let house = Protected::with(builder(major), false)?;
    house.pg.psql("CREATE TABLE t (i int); CREATE ROLE admin SUPERUSER LOGIN")?;
    let socket_directory = house.pg.connection().socket_directory().display().to_string();
    let admin = |sql: &str| as_role(&house, "admin", (&socket_directory, PgConnection::PORT), sql);
    admin("ALTER ROLE postgres RENAME TO former")?;
    admin("ALTER ROLE former NOLOGIN")?;
    let config = fs::read_to_string(&house.places.config)?;
    fs::write(&house.places.config, config.replace("user=postgres", "user=admin"))?;
    house.backup()?;
    admin("INSERT INTO t VALUES (7)")?;
    let segment = admin("SELECT pg_walfile_name(pg_switch_wal())")?;
    let archived = format!("SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver");
    process::wait_until("the archive", LIMIT, || Ok(admin(&archived)? == "t"))?;
    Ok(house)
}

fn other_superuser(major: PgMajor) -> Result<()> {
    let house = house_of_admin(major)?;
    for (room, arguments, state) in
        [("paused", ["--then", "pause"], "paused"), ("standby", ["--as", "standby"], "following")]
    {
        let mut started = start(&house, room, &arguments, state)?;
        started.role = "admin";
        ensure!(started.ask("SELECT i FROM t")? == "7");
        house.command(["promote", "--yes"]).arg(house.room(room)).succeed()?;
        started.ask("INSERT INTO t VALUES (8)")?;
    }
    Ok(())
}

#[test]
fn a_server_that_cannot_be_asked_is_told_to_be_running_and_how_to_stop_it() -> Result<()> {
    let house = house_of_admin(PgMajor::V15)?;
    let port = free_port()?.to_string();
    let arguments =
        ["--then", "pause", "--start", "--port", &port, "--user", "nobody-of-that-name"];
    let refused = restore(&house, "room", arguments)?.fail(1)?;
    let stop = format!("pg_ctl stop -D {}", house.room("room").display());
    for told in ["SW0608", "nobody-of-that-name", "still runs", &stop, "--user"] {
        tells(&refused, told)?;
    }
    pg_ctl(&house, &house.room("room"), &["stop", "-m", "immediate"])
}

#[test]
fn what_is_left_over_in_a_backup_is_set_right_or_told_before_anything_is_written() -> Result<()> {
    let house = Protected::with(builder(PgMajor::V15), false)?;
    let logs = house.room("production-logs");
    house.pg.owner().create_dir(&logs, 0o700)?;
    // Written, and never read by this server.
    for (name, value) in [
        ("recovery_min_apply_delay", "1h"),
        ("synchronous_standby_names", "nobody"),
        ("ssl", "on"),
        ("ssl_cert_file", "/nowhere/server.crt"),
        ("logging_collector", "on"),
        ("log_directory", &logs.display().to_string()),
        ("shared_preload_libraries", "no_such_library"),
    ] {
        house.pg.set(name, value)?;
    }
    house.backup()?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.archive_everything()?;

    for (mode, told) in [
        ("clone", ["1h", "(was nobody)", "no_such_library", "production-logs"]),
        ("primary", ["'nobody'", "/nowhere/server.crt", "no_such_library", "production-logs"]),
        ("standby", ["1h", "/nowhere/server.crt", "no_such_library", "production-logs"]),
    ] {
        let plan = restore(&house, "planned", ["--as", mode, "--dry-run"])?.succeed()?;
        for told in told {
            ensure!(plan.stdout.contains(told), "{mode}: no {told} in {}", plan.stdout);
        }
    }
    house.pg.psql("ALTER SYSTEM RESET shared_preload_libraries")?;
    house.backup()?;
    house.archive_everything()?;
    let clone = start(&house, "clone", &["--latest"], "promoted")?;
    ensure!(clone.ask("SHOW ssl")? == "off");
    // Commits wait for nobody, and nothing is written where production's log is.
    clone.ask("INSERT INTO t VALUES (1)")?;
    pg_ctl(&house, &house.room("clone"), &["restart", "-o", &format!("-p {}", clone.port)])?;
    ensure!(clone.ask("SHOW log_directory")? == "log");
    ensure!(fs::read_dir(&logs)?.count() == 0, "the clone logs where production does");
    drop(clone);

    house.pg.set("ssl", "off")?;
    house.backup()?;
    house.archive_everything()?;
    let standby = start(&house, "standby", &["--as", "standby"], "following")?;
    ensure!(standby.ask("SHOW recovery_min_apply_delay")? == "0");
    Ok(())
}

#[test]
fn own_tls_files_named_by_absolute_paths_are_missing_only_where_they_do_not_come_out() -> Result<()>
{
    let mut house = Protected::with(builder(PgMajor::V15), false)?;
    let data = house.pg.data_directory().to_owned();
    let tls = data.join("tls");
    house.pg.owner().create_dir(&tls, 0o700)?;
    fs::write(tls.join("server.crt"), "a certificate")?;
    fs::write(data.join("server.key"), "a key")?;
    house.pg.owner().chown_all(&tls)?;
    house.pg.owner().chown(&data.join("server.key"))?;
    // Written, and never read by this server.
    house.pg.set("ssl", "on")?;
    house.pg.set("ssl_cert_file", &tls.join("server.crt").display().to_string())?;
    house.pg.set("ssl_key_file", "./server.key")?;
    house.backup()?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Fast)?;
    // The machine is another one.
    let away = data.with_extension("away");
    fs::rename(&data, &away)?;
    let plan = |into: &Path, mode: &str| -> Result<Value> {
        let restore =
            house.command(["restore", "main", "--latest", "--dry-run", "--json", "--into"]);
        restore.arg(into).args(["--as", mode]).succeed()?.json()
    };
    for mode in ["clone", "primary"] {
        let there = plan(&data, mode)?.to_string();
        ensure!(!there.contains("ssl"), "{mode}: {there}");
    }
    let elsewhere = plan(&house.room("elsewhere"), "primary")?["warnings"].to_string();
    ensure!(
        elsewhere.contains("ssl_cert_file") && !elsewhere.contains("ssl_key_file"),
        "{elsewhere}"
    );
    let clone = plan(&house.room("elsewhere"), "clone")?["settings"].to_string();
    ensure!(clone.contains("\"ssl\""), "{clone}");
    fs::rename(&away, &data)?;
    Ok(())
}

#[test]
fn a_pause_that_postgres_skips_is_told_as_that() -> Result<()> {
    for major in [PgMajor::V12, PgMajor::V15, PgMajor::V18] {
        skipped_pause(major).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn skipped_pause(major: PgMajor) -> Result<()> {
    let house = Protected::with(builder(major), false)?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    let mut session = house.pg.connection().session()?;
    session.run("BEGIN")?;
    for number in 0..70 {
        session.run(&format!("SAVEPOINT s; INSERT INTO t VALUES ({number})"))?;
    }
    house.backup()?;
    house.pg.psql("INSERT INTO t VALUES (1000)")?;
    house.archive_everything()?;
    let port = free_port()?.to_string();
    let arguments = ["--then", "pause", "--start", "--port", &port];
    let refused = restore(&house, "room", arguments)?.fail(1)?;
    for told in ["SW0608", "did not pause", "subtransactions", "still runs", "takes writes"] {
        tells(&refused, told)?;
    }
    pg_ctl(&house, &house.room("room"), &["stop", "-m", "immediate"])?;
    // It is not to be read as long as the transaction goes on, and the standby says so.
    let arguments = ["--as", "standby", "--start", "--port", &port];
    let refused = restore(&house, "standby", arguments)?.fail(1)?;
    for told in ["SW0608", "cannot be read yet", "subtransactions", "still runs"] {
        tells(&refused, told)?;
    }
    pg_ctl(&house, &house.room("standby"), &["stop", "-m", "immediate"])
}

#[test]
fn a_primary_is_started_where_its_configuration_says_and_stays_there() -> Result<()> {
    let house = Protected::with(builder(PgMajor::V15), false)?;
    let (sockets, port) = (house.room("sockets"), free_port()?);
    house.pg.owner().create_dir(&sockets, 0o755)?;
    house.pg.set("port", &port.to_string())?;
    house.pg.set("unix_socket_directories", &sockets.display().to_string())?;
    house.backup()?;
    house.archive_everything()?;

    let taken = TcpListener::bind(("127.0.0.1", port))?;
    let refused = restore(&house, "early", ["--as", "primary", "--start"])?.fail(1)?;
    tells(&refused, &format!("port {port} is taken"))?;
    ensure!(!house.room("early").exists(), "it was found out after the restore");
    drop(taken);

    let output = restore(&house, "room", ["--as", "primary", "--start"])?.succeed()?.stdout;
    let directory = house.room("room");
    let server = format!("-h {} -p {port}", sockets.display());
    ensure!(output.contains(&format!("psql {server} -U postgres")), "{output}");
    let connection = format!("host={} port={port} user=postgres", sockets.display());
    ensure!(output.contains(&connection), "{output}");
    pg_ctl(&house, &directory, &["stop", "-m", "fast"])?;
    pg_ctl(&house, &directory, &["start", "-s", "-l", "/dev/null"])?;
    let answer = as_role(&house, "postgres", (&sockets.display().to_string(), port), "SELECT 1");
    pg_ctl(&house, &directory, &["stop", "-m", "immediate"])?;
    ensure!(answer? == "1");
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_noticed_before_the_restore() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    house.archive_everything()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    for arguments in [["--start", "--port", &port], ["--dry-run", "--start", "--port"]] {
        let call = house.restore("room", arguments);
        let call = if arguments[0] == "--dry-run" { call.arg(&port) } else { call };
        let refused = call.fail(1)?;
        tells(&refused, &format!("port {port} is taken"))?;
        ensure!(!house.room("room").exists());
    }
    Ok(())
}
