use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_core::{Code, Ulid};
use seawall_engine::restore::{
    Archives, Login, Point, PromoteOptions, Promoted, Recovered, StartOptions, Target, promote,
    start,
};
use seawall_engine::restored::{Stop, TargetAction};
use seawall_pgdata::PgMajor;
use seawall_pgwire::{Conninfo, Environment};
use seawall_testkit::PgCluster;

use crate::house::{House, LIMIT};

/// The programs of the server's major, run by the servers' owner, as who `pg_ctl` must run.
fn programs(house: &House) -> Result<PathBuf> {
    let directory = house.room("programs");
    fs::create_dir_all(&directory)?;
    let (owner, real) = (house.pg.owner(), house.pg.bin().program("pg_ctl")?);
    let switch = if owner.is_another_user() {
        format!("runuser -u {} --", owner.name())
    } else {
        String::new()
    };
    let script = directory.join("pg_ctl");
    fs::write(&script, format!("#!/bin/sh\ncd /\nexec {switch} {} \"$@\"\n", real.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

fn options(house: &House, room: &str, port: u16) -> Result<StartOptions> {
    Ok(StartOptions {
        data_directory: house.room(room),
        programs: programs(house)?,
        port: Some(port),
        socket_directory: Some(house.room(room)),
        log_file: house.room(&format!("{room}.log")),
        restore_id: Ulid(1),
        login: as_postgres()?,
        timeout: LIMIT,
    })
}

fn promotion<'o>(data_directory: &'o Path, login: &'o Login) -> PromoteOptions<'o> {
    PromoteOptions {
        data_directory,
        login,
        timeout: LIMIT,
        log_file: Path::new("/not/there"),
        archives: Archives::default(),
        without_archive: false,
    }
}

/// Ends a server that was started with `pg_ctl`.
fn stop(house: &House, room: &str) -> Result<()> {
    let mut command = house.pg.owner().command(house.pg.bin().program("pg_ctl")?);
    let status = command.args(["stop", "-m", "immediate", "-D"]).arg(house.room(room)).status()?;
    ensure!(status.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_started_restore_is_proven_to_have_stopped_where_planned() -> Result<()> {
    let house = House::new().await?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup().await?;
    house.pg.psql("INSERT INTO t VALUES (1)")?;
    let xid: u64 = house.pg.psql("INSERT INTO t VALUES (2) RETURNING txid_current()")?.parse()?;
    house.pg.psql("INSERT INTO t VALUES (3)")?;
    house.archive_everything().await?;

    let mut request = house.request("promoted", Target::To(Point::Xid(xid)));
    let report = house.restore(&request).await?;
    let recovered = start(&options(&house, "promoted", 54_401)?, &report.plan).await?;
    ensure!(matches!(recovered, Recovered::Promoted { .. }), "{recovered:?}");
    stop(&house, "promoted")?;

    request = house.request("paused", Target::Before(Point::Xid(xid)));
    request.then = TargetAction::Pause;
    let report = house.restore(&request).await?;
    let recovered = start(&options(&house, "paused", 54_402)?, &report.plan).await?;
    let Stop::Before { lsn } = report.plan.stop else { anyhow::bail!("{:?}", report.plan.text()) };
    ensure!(recovered == Recovered::Paused { replayed_to: lsn }, "{recovered:?}, {lsn}");
    let login = as_postgres()?;
    for expected in [Promoted::Now { notes: Vec::new() }, Promoted::Before] {
        let promoted = promote(&promotion(&house.room("paused"), &login)).await?;
        ensure!(promoted == expected, "{promoted:?}");
    }
    let nowhere = house.room("nowhere");
    let error = promote(&promotion(&nowhere, &login)).await.expect_err("not there");
    ensure!(error.code() == Code::Usage && error.hint().is_some(), "{error:?}");
    stop(&house, "paused")?;
    let restored = PgCluster::open(house.pg.bin().major(), house.room("paused")).start()?;
    ensure!(restored.psql("SELECT sum(i) FROM t")? == "1");
    drop(restored);

    request = house.request("down", Target::To(Point::Xid(xid)));
    request.then = TargetAction::Shutdown;
    let report = house.restore(&request).await?;
    let recovered = start(&options(&house, "down", 54_403)?, &report.plan).await?;
    ensure!(matches!(recovered, Recovered::ShutDown { .. }), "{recovered:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_come_up_is_told_with_the_end_of_its_log() -> Result<()> {
    let house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    let report = house.restore(&house.request("room", Target::Latest)).await?;
    let mut options = options(&house, "room", 54_404)?;
    let auto = house.room("room").join("postgresql.auto.conf");
    let text = fs::read_to_string(&auto)?;
    fs::write(&auto, format!("{text}restore_command = 'exit 200'\n"))?;
    options.timeout = Duration::from_secs(30);
    let error = start(&options, &report.plan).await.expect_err("no WAL");
    ensure!(error.code() == Code::RestoredServerFailed);
    ensure!(error.message().contains("FATAL"), "{error:?}");

    // It recovered, but not as far as planned: PostgreSQL 13 and later refuse that themselves.
    fs::write(&auto, text)?;
    let mut elsewhere = report.plan.clone();
    elsewhere.stop = Stop::Before { lsn: elsewhere.backup.start_lsn };
    let error = start(&options, &elsewhere).await.expect_err("beyond the plan");
    ensure!(error.message().contains("was planned"), "{error:?}");
    stop(&house, "room")?;
    Ok(())
}

/// From 14 on a server that can be read by then pauses; before, it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_less_than_the_log_demands_is_told_at_once_whether_it_pauses_or_ends()
-> Result<()> {
    for (major, port) in PgMajor::ALL.into_iter().zip(54_410..) {
        too_little(major, port).await.with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

async fn too_little(major: PgMajor, port: u16) -> Result<()> {
    let builder = PgCluster::builder(major.number() as u16).without_fsync();
    let mut house = House::with(builder.config("max_connections", "30")).await?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup().await?;
    house.pg.set("max_connections", "77")?;
    house.pg.restart()?;
    house.pg.psql("INSERT INTO t VALUES (1)")?;
    house.archive_everything().await?;
    let report = house.restore(&house.request("room", Target::Latest)).await?;
    ensure!(report.plan.required.max_connections == 77, "{:?}", report.plan.text());
    let auto = house.room("room").join("postgresql.auto.conf");
    let text = fs::read_to_string(&auto)?;
    ensure!(text.contains("max_connections = '77'"), "{text}");
    fs::write(&auto, text.replace("max_connections = '77'", "max_connections = '30'"))?;

    let began = Instant::now();
    let error = start(&options(&house, "room", port)?, &report.plan).await.expect_err("too little");
    ensure!(error.code() == Code::RestoredServerFailed, "{error:?}");
    let told = if major < PgMajor::V14 { "ended by itself, saying: FATAL:" } else { "has paused" };
    let message = error.message();
    ensure!(message.contains(told) && message.contains("max_connections"), "{error:?}");
    ensure!(began.elapsed() < LIMIT / 2, "it took {:?}", began.elapsed());
    if major >= PgMajor::V14 {
        let hint = format!("{:?}", error.hint());
        ensure!(hint.contains("ALTER SYSTEM SET max_connections = 77;"), "{hint}");
        stop(&house, "room")?;
    }
    Ok(())
}

fn as_postgres() -> Result<Login> {
    let mut options = Conninfo::default();
    options.set("user", "postgres")?;
    Ok(Login::new(options, Environment::of_process()))
}
