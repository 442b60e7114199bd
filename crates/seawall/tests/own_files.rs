//! What is backed up is the server's own, and no copy that looks like it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;
use seawall_testkit::{Output, PgBin, PgCluster, TestDir, process};
use support::{LIMIT, Protected, quiet_cluster, seawall, tells};

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp {}", from.display());
    Ok(())
}

/// A server with a tablespace and a table in it, and a copy of that tablespace from before its last
/// rows.
struct World {
    pg: PgCluster,
    space: PathBuf,
    stale: PathBuf,
}

impl World {
    fn start(major: u16) -> Result<Self> {
        let pg = PgCluster::builder(major).config("autovacuum", "off").start()?;
        let (space, stale) = (pg.scratch().join("space"), pg.scratch().join("stale"));
        pg.owner().create_dir(&space, 0o700)?;
        pg.psql(&format!(
            "CREATE TABLESPACE space LOCATION '{}'; \
             CREATE TABLE kept TABLESPACE space AS SELECT g FROM generate_series(1, 100) g; \
             CHECKPOINT",
            space.display()
        ))?;
        copy(&space, &stale)?;
        pg.psql("INSERT INTO kept SELECT g FROM generate_series(101, 200) g; CHECKPOINT")?;
        Ok(Self { pg, space, stale })
    }
}

/// Runs `seawall` with mounts of its own, as beside a server in a container: what the server has at
/// `place` is here what is in `instead`.
fn elsewhere<'a>(
    mounted: Option<(&Path, &Path)>,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<Output> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    match mounted {
        Some((instead, place)) => {
            command.arg("mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"");
            command.arg("sh").arg(instead).arg(place);
        }
        None => drop(command.args(["exec \"$@\"", "sh"])),
    }
    command.arg(seawall()?.path()).args(arguments);
    process::run(&mut command, None, LIMIT)
}

/// Other mounts are root's to make.
fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("only root makes mounts: nothing is proven of a server that sees other paths");
    }
    root
}

#[test]
fn a_stale_copy_at_a_tablespace_s_path_is_never_backed_up() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let World { pg, space, stale } = World::start(PgBin::default_major()?)?;
    let house = Protected::named(pg, seawall()?, "house")?;
    let config = house.places.config.display().to_string();
    let data = house.pg.data_directory().display().to_string();
    let backup = ["--config", &config, "backup", "--data-directory", &data];
    let refused = elsewhere(Some((&stale, &space)), backup)?;
    ensure!(refused.code() == Some(5), "{refused:?}");
    tells(&refused, "SW0405")?;
    tells(&refused, &space.display().to_string())?;
    let check = ["--config", &config, "check", "--json", "--data-directory", &data];
    let found = elsewhere(Some((&stale, &space)), check)?.json()?;
    ensure!(found["findings"].to_string().contains("\"data_directory\""), "{found}");

    // Other mounts, and the right ones.
    elsewhere(None, backup)?.success()?;
    house.backup().map(drop)
}

/// A world of its own for each `init`, and what it exits with.
fn init(
    world: &World,
    connection: &str,
    data: &Path,
    mounted: Option<(&Path, &Path)>,
) -> Result<Output> {
    let room = TestDir::new()?;
    world.pg.owner().chown(room.path())?;
    let (config, repository) = (room.join("etc/seawall.toml"), room.join("repository"));
    let texts = [&config, &repository, &data.to_owned()].map(|path| path.display().to_string());
    let [config, repository, data] = &texts;
    let common = ["--config", config, "init", "main", "--no-kit", "--repo", repository];
    let more = ["--connection", connection, "--data-directory", data];
    let output = elsewhere(mounted, common.into_iter().chain(more))?;
    ensure!(output.status.success() == Path::new(repository).exists(), "{output:?}");
    Ok(output)
}

fn every_tree_is_proven(major: u16) -> Result<()> {
    let world = World::start(major)?;
    let (pg, space, stale) = (&world.pg, &world.space, &world.stale);
    let (data, connection) = (pg.data_directory(), pg.connection_string());
    let other = Some((stale.as_path(), space.as_path()));
    init(&world, &connection, data, None)?.success()?;
    let refused = init(&world, &connection, data, other)?;
    ensure!(refused.code() == Some(5), "{refused:?}");
    tells(&refused, "SW0405")?;

    // A data directory copied while the server runs has the same pg_control.
    let decoy = pg.scratch().join("decoy");
    copy(data, &decoy)?;
    let refused = init(&world, &connection, &decoy, None)?;
    ensure!(refused.code() == Some(5), "{refused:?}");
    tells(&refused, "is not the one the server works in")?;

    // Without a superuser, the right to ask in a tablespace is one GRANT.
    pg.psql("CREATE ROLE seawall LOGIN; GRANT pg_read_all_settings TO seawall")?;
    let connection = connection.replace("user=postgres", "user=seawall");
    let refused = init(&world, &connection, data, None)?;
    tells(&refused, "SW0107")?;
    let grant = refused.stderr.lines().find_map(|line| line.split_once("As a superuser: "));
    let (_, grant) = grant.context("no GRANT")?;
    ensure!(grant == "GRANT CREATE ON TABLESPACE space TO seawall;", "{grant}");
    pg.psql(grant)?;
    init(&world, &connection, data, None)?.success()?;
    let refused = init(&world, &connection, data, other)?;
    ensure!(refused.code() == Some(5), "{refused:?}");
    Ok(())
}

macro_rules! on_majors {
    ($($name:ident: $major:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            if PgBin::find($major).is_err() {
                eprintln!("PostgreSQL {} is not installed: nothing is proven of it", $major);
                return Ok(());
            }
            if is_root() { every_tree_is_proven($major) } else { Ok(()) }
        }
    )*};
}

on_majors! {
    every_tree_is_proven_to_be_the_server_s_own_on_12: 12;
    every_tree_is_proven_to_be_the_server_s_own_on_13: 13;
    every_tree_is_proven_to_be_the_server_s_own_on_14: 14;
    every_tree_is_proven_to_be_the_server_s_own_on_15: 15;
    every_tree_is_proven_to_be_the_server_s_own_on_16: 16;
    every_tree_is_proven_to_be_the_server_s_own_on_17: 17;
    every_tree_is_proven_to_be_the_server_s_own_on_18: 18;
}

#[test]
fn a_copy_of_the_data_directory_is_refused_by_every_command_and_on_a_standby() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, false)?;
    house.backup()?;
    house.pg.psql("CHECKPOINT")?;
    let decoy = house.room("decoy");
    copy(house.pg.data_directory(), &decoy)?;
    for command in ["backup", "adopt"] {
        let refused = house.command([command, "--data-directory"]).arg(&decoy).fail(5)?;
        tells(&refused, "SW0405")?;
        tells(&refused, "is not the one the server works in")?;
    }
    let findings = |connection: &str, data: &Path| -> Result<String> {
        let check = ["check", "--json", "--wal-timeout", "1s", "--connection", connection];
        let check = house.command(check).arg("--data-directory").arg(data).run()?.json()?;
        Ok(check["findings"].to_string())
    };
    let primary = house.pg.connection_string();
    ensure!(findings(&primary, &decoy)?.contains("\"data_directory\""));
    let standby = house.pg.standby()?;
    standby.psql("CHECKPOINT")?;
    let there = standby.connection_string();
    ensure!(!findings(&there, standby.data_directory())?.contains("\"data_directory\""));
    let decoy = house.room("decoy of the standby");
    copy(standby.data_directory(), &decoy)?;
    let found = findings(&there, &decoy)?;
    ensure!(found.contains("is not the one the server works in"), "{found}");
    ensure!(findings(&there, house.pg.data_directory())?.contains("\"data_directory\""));
    fs::remove_dir_all(decoy)?;
    Ok(())
}
