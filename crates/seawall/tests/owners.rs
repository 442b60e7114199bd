//! Whoever runs Seawall, root or PostgreSQL's own user: files belong to whom they must, and what
//! `init` prints works as it is.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use seawall_testkit::{Invocation, Owner, TestDir, process};
use support::{Protected, open_restored, quiet_cluster, seawall, tells};

#[test]
fn what_root_sets_up_belongs_to_the_server_s_user() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, true)?;
    whole_story(&house, Invocation::as_test_user)
}

#[test]
fn what_the_server_s_user_sets_up_needs_no_root() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, false)?;
    whole_story(&house, |call| call)
}

#[test]
fn root_runs_no_command_out_of_a_configuration_that_is_not_root_s() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, false)?;
    let config = &house.places.config;
    let text = fs::read_to_string(config)?;
    let line = text.lines().find(|line| line.starts_with("key = ")).context("no key")?;
    let file = line.split('"').nth(1).context("no file")?;
    let command = format!("key = {{ command = \"cat '{file}'\" }}");
    fs::write(config, text.replace(line, &command))?;
    house.command(["key", "rotate"]).succeed()?;
    // Root becomes the owner for good, and only then asks for the key.
    house.command(["list"]).as_test_user().succeed()?;
    if nix::unistd::geteuid().is_root() {
        let refused = house.command(["key", "rotate"]).as_test_user().fail(2)?;
        ensure!(refused.stderr.contains("SW0007"), "{}", refused.stderr);
        let refused = house.restore("room", ["--latest"]).as_test_user().fail(2)?;
        ensure!(refused.stderr.contains("SW0007"), "{}", refused.stderr);
    }
    Ok(())
}

#[test]
fn init_as_root_follows_no_link_that_the_server_s_user_has_planted() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, true)?;
    let (config, places) = (&house.places.config, &house.places);
    let precious = places.rooms.with_file_name("precious");
    fs::write(&precious, "root's")?;
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600))?;
    let before = fs::symlink_metadata(&precious)?.uid();
    let mut beside = config.clone().into_os_string();
    beside.push(".seawall-tmp");
    house.pg.owner().symlink(&precious, Path::new(&beside))?;
    // There is something to write again.
    fs::write(config, "# mine\n")?;

    let init = house.seawall.command(["init", "main", "--no-kit", "--connection"]);
    let init = init.arg(house.pg.connection_string()).arg("--config").arg(config);
    let init = init.arg("--repo").arg(&places.repository).arg("--key").arg(&places.key);
    init.as_test_user().succeed()?;
    ensure!(fs::read(&precious)? == b"root's", "it was written through a link");
    ensure!(fs::symlink_metadata(&precious)?.uid() == before, "it was given away");
    let text = fs::read_to_string(config)?;
    ensure!(text.starts_with("# mine\n") && text.contains("[repository.primary]"), "{text}");
    belongs(house.pg.owner(), config)
}

#[test]
fn where_owners_cannot_be_changed_init_uses_what_will_do_and_tells_what_will_not() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let pg = quiet_cluster()?.start()?;
    let (directory, seawall) = (TestDir::new()?, seawall()?);
    let init = |repository: &Path, config: &Path| {
        // Root that may not, as on FAT or a network mount.
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set=-chown", "--inh-caps=-chown", "--"]).arg(seawall.path());
        command.args(["init", "main", "--no-kit", "--connection"]).arg(pg.connection_string());
        command.arg("--config").arg(config).arg("--repo").arg(repository);
        process::run(&mut command, None, support::LIMIT)
    };
    // Mounted so that all is the server's user's.
    let mounted = directory.join("mounted");
    for path in [mounted.clone(), mounted.join("repository"), mounted.join("etc")] {
        pg.owner().create_dir(&path, 0o755)?;
    }
    let config = mounted.join("etc/seawall.toml");
    init(&mounted.join("repository"), &config)?.success()?;
    belongs(pg.owner(), &config)?;

    // All is root's there.
    let root_s = tempfile::tempdir()?;
    fs::set_permissions(root_s.path(), fs::Permissions::from_mode(0o755))?;
    let config = root_s.path().join("etc/seawall.toml");
    let refused = init(&root_s.path().join("repository"), &config)?;
    ensure!(!refused.status.success(), "{refused:?}");
    for told in ["SW0008", "lets nobody change owners", "sudo -u postgres"] {
        tells(&refused, told)?;
    }
    Ok(())
}

#[test]
fn a_password_that_is_missing_is_told_with_the_file_where_it_was_looked_for() -> Result<()> {
    let pg = quiet_cluster()?.start()?;
    let hba = pg.data_directory().join("pg_hba.conf");
    pg.psql("CREATE ROLE locked SUPERUSER LOGIN PASSWORD 'x'")?;
    fs::write(&hba, "local all locked scram-sha-256\nlocal all all trust\n")?;
    pg.reload()?;
    let directory = TestDir::new()?;
    let connection = pg.connection_string().replace("user=postgres", "user=locked");
    let init = seawall()?.command(["init", "main", "--no-kit", "--connection"]);
    let init = init.arg(connection).arg("--config").arg(directory.join("seawall.toml"));
    let refused = init.arg("--repo").arg(directory.join("r")).as_test_user().run()?;
    let server = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(pg.owner().uid()))?;
    let server = server.context("the servers' user")?;
    // Root asks as the server's user, and has a file of its own.
    tells(&refused, &format!("of user {}", server.name))?;
    tells(&refused, &server.dir.join(".pgpass").display().to_string())
}

fn whole_story(house: &Protected, as_whom: fn(Invocation) -> Invocation) -> Result<()> {
    archive_command_is_what_init_printed(house)?;
    house.pg.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a")?;
    as_whom(house.command(["backup"])).succeed()?;
    house.pg.psql("INSERT INTO t SELECT 0")?;
    house.archive_everything()?;
    for view in ["info", "list"] {
        as_whom(house.command([view])).succeed()?;
    }
    as_whom(house.restore("room", ["--latest"])).succeed()?;
    everything_belongs(house)?;
    everything_restored_belongs(house.pg.owner(), &house.room("room"))?;

    let restored = open_restored(&house.room("room"))?;
    ensure!(restored.psql("SELECT count(*) FROM t")? == "1001");
    Ok(())
}

fn archive_command_is_what_init_printed(house: &Protected) -> Result<()> {
    let mut lines = house.init_sql.lines();
    let start = "ALTER SYSTEM SET archive_command = '";
    let printed = lines.find_map(|line| line.strip_prefix(start)).context("no archive_command")?;
    let (printed, _) = printed.split_once("';").context("no end")?;
    let shown = house.pg.psql("SHOW archive_command")?;
    ensure!(shown == printed.replace("''", "'"), "{shown} is not {printed}");
    let program = house.seawall.path().display().to_string();
    let config = format!("--config {}", house.places.config.display());
    ensure!(shown.starts_with(&program) && shown.contains(&config), "{shown}");
    ensure!(house.pg.psql("SHOW archive_mode")? == "on");

    house.archive_everything()?;
    ensure!(house.pg.psql("SELECT failed_count FROM pg_stat_archiver")? == "0");
    Ok(())
}

fn everything_belongs(house: &Protected) -> Result<()> {
    let (owner, places) = (house.pg.owner(), &house.places);
    ensure!(mode(&places.key)? == 0o600, "the key has mode {:o}", mode(&places.key)?);
    ensure!(mode(&places.kit)? == 0o600, "the kit has mode {:o}", mode(&places.kit)?);
    ensure!(mode(&places.config)? & 0o022 == 0, "others may write the configuration");
    ensure!(mode(&places.repository)? & 0o077 == 0, "others may read the repository");
    let mut all = walk(&places.repository)?;
    ensure!(all.len() > 10, "{all:?}");
    all.extend([places.key.clone(), places.config.clone()]);
    for path in all {
        belongs(owner, &path)?;
    }
    Ok(())
}

fn everything_restored_belongs(owner: &Owner, room: &Path) -> Result<()> {
    ensure!(mode(room)? == 0o700, "PGDATA has mode {:o}", mode(room)?);
    let all = walk(room)?;
    ensure!(all.len() > 500, "{} files", all.len());
    for path in all {
        belongs(owner, &path)?;
        ensure!(mode(&path)? & 0o077 == 0, "{} has mode {:o}", path.display(), mode(&path)?);
    }
    Ok(())
}

fn belongs(owner: &Owner, path: &Path) -> Result<()> {
    let file = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    let is = (file.uid(), file.gid());
    ensure!(is == (owner.uid(), owner.gid()), "{} belongs to {is:?}", path.display());
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o7777)
}

/// A directory and all below it.
fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                found.push(entry?.path());
            }
        }
    }
    Ok(found)
}

#[test]
fn a_key_that_others_can_read_is_refused_and_stops_no_archiver() -> Result<()> {
    let house = Protected::start()?;
    let (key, kit) = (&house.places.key, &house.places.kit);
    for path in [key, kit] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    }
    let refused = house.command(["backup"]).fail(5)?;
    tells(&refused, "SW0313")?;
    ensure!(refused.stderr.contains(&format!("chmod go= {}", key.display())), "{}", refused.stderr);
    let by_kit = ["list", "main", "--kit", &kit.display().to_string()].map(str::to_owned);
    tells(&seawall()?.command(by_kit).fail(5)?, "SW0313")?;

    // What PostgreSQL runs goes on.
    house.pg.psql("CREATE TABLE t AS SELECT 1")?;
    house.archive_everything()?;
    let log = house.pg.logs()?;
    ensure!(log.contains("SW0313"), "the server's log does not tell");

    fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
    house.command(["backup"]).succeed()?;
    Ok(())
}

#[test]
fn root_restores_into_no_directory_on_a_way_that_somebody_else_decides() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, true)?;
    house.command(["backup"]).succeed()?;
    let theirs = house.room("theirs");
    fs::create_dir(&theirs)?;
    let nobody = 65_534;
    if chown(&theirs, Some(nobody), Some(nobody)).is_err() {
        return Ok(()); // not root
    }
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o777))?;
    let into = theirs.join("restored").display().to_string();
    let restore = ["restore", "--into", &into, "--latest", "--yes"];
    tells(&house.command(restore).as_test_user().fail(2)?, "SW0007")?;
    ensure!(fs::read_dir(&theirs)?.next().is_none(), "something was written");
    Ok(())
}
