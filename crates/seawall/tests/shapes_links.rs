//! Clusters of which parts are links that people made, or are not theirs to be read.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use seawall_testkit::oracles::Dump;
use seawall_testkit::{PgCluster, PgClusterBuilder, StopMode};
use support::{Protected, open_restored, prove_same_content, quiet_cluster, seawall, tells};

/// A cluster with content in a database of its own, stopped; and that database's number.
fn with_database(builder: PgClusterBuilder) -> Result<(PgCluster, String)> {
    let mut pg = builder.start()?;
    pg.psql("CREATE DATABASE shop")?;
    pg.psql("CREATE TABLE t AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 5000) g")?;
    let database = pg.psql("SELECT oid FROM pg_database WHERE datname = 'shop'")?;
    pg.stop(StopMode::Fast)?;
    Ok((pg, database))
}

/// Moves what is at a path of the data directory to another disk, and leaves a link.
fn move_away(pg: &PgCluster, path: &str) -> Result<PathBuf> {
    let from = pg.data_directory().join(path);
    let to = pg.scratch().join("disk").join(path.replace('/', "-"));
    if !pg.scratch().join("disk").exists() {
        pg.owner().create_dir(&pg.scratch().join("disk"), 0o700)?;
    }
    fs::rename(&from, &to).with_context(|| format!("moving {}", from.display()))?;
    pg.owner().symlink(&to, &from)?;
    Ok(to)
}

/// Every link below a directory.
fn links(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if entry.file_type()?.is_symlink() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

#[test]
fn what_was_moved_behind_links_is_backed_up_and_no_restore_leads_back_to_it() -> Result<()> {
    let (mut pg, database) = with_database(quiet_cluster()?)?;
    pg.start()?;
    let table = pg.psql("SELECT pg_relation_filepath('t')")?;
    pg.stop(StopMode::Fast)?;
    let moved = [
        format!("base/{database}"),
        table,
        "pg_xact".to_owned(),
        "pg_multixact/members".to_owned(),
    ];
    for path in &moved {
        move_away(&pg, path)?;
    }
    // What is not PostgreSQL's own stays behind, and is told.
    let (log, logs) = (pg.data_directory().join("log"), pg.scratch().join("logs"));
    pg.owner().create_dir(&logs, 0o700)?;
    pg.owner().symlink(&logs, &log)?;
    pg.start()?;
    let house = Protected::named(pg, seawall()?, "seawall")?;
    let backup = house.command(["backup"]).succeed()?;
    let check = house.command(["check"]).run()?.stdout;
    for path in moved.iter().map(String::as_str).chain(["log"]) {
        tells(&backup, &format!("note: {path} is a link to"))?;
        ensure!(check.contains(&format!("{path} to ")), "no {path} in {check}");
    }
    house.pg.psql("INSERT INTO t SELECT g, 'after the backup' FROM generate_series(1, 500) g")?;
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(house.pg.connection())?;

    for mode in ["primary", "clone"] {
        let told = house.restore(mode, ["--latest", "--as", mode]).succeed()?;
        tells(&told, &format!("link log to {} was left out", logs.display()))?;
        ensure!(links(&house.room(mode))?.is_empty(), "{mode}: {:?}", links(&house.room(mode))?);
    }
    prove_same_content(&house.room("clone"), &dump)?;
    let restored = open_restored(&house.room("clone"))?;
    restored.psql("CREATE TABLE of_the_clone AS SELECT 1")?;
    drop(restored);
    Dump::take_without_tablespaces(house.pg.connection())?.same_as(&dump)
}

#[test]
fn a_link_that_leads_nowhere_where_data_should_be_ends_the_backup_by_name() -> Result<()> {
    let house = Protected::start()?;
    let data = house.pg.data_directory();
    house.pg.owner().symlink(Path::new("/not/mounted"), &data.join("base/99999"))?;
    house.pg.owner().symlink(Path::new("."), &data.join("pg_logical/mappings/loop"))?;
    house.pg.owner().symlink(Path::new("global"), &data.join("base/88888"))?;
    house.pg.owner().symlink(Path::new("../.."), &data.join("base/77777"))?;
    let refused = house.command(["backup"]).fail(1)?;
    tells(&refused, "SW0401")?;
    for named in ["base/99999 (a link to /not/mounted", "base/88888 (", "base/77777/data ("] {
        tells(&refused, named)?;
    }
    let check = house.command(["check"]).fail(6)?.stdout;
    ensure!(check.contains("base/99999"), "{check}");
    for link in ["base/99999", "base/88888", "base/77777"] {
        fs::remove_file(data.join(link))?;
    }
    house.backup().map(drop)
}

#[test]
fn lost_and_found_is_passed_over_and_all_unreadable_paths_are_told_at_once() -> Result<()> {
    let house = Protected::start()?;
    if !house.pg.owner().is_another_user() {
        return Ok(()); // Whoever is not root makes nothing that is root's.
    }
    let data = house.pg.data_directory();
    let lost = data.join("lost+found");
    fs::create_dir(&lost)?;
    fs::set_permissions(&lost, fs::Permissions::from_mode(0o700))?;
    house.backup()?;

    let strange = ["notes.txt", "base/secret", "global/dump.sql"].map(|name| data.join(name));
    for file in &strange {
        fs::write(file, "root's")?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    }
    // Not where a file system begins, it is a directory like any other.
    let deeper = data.join("base/lost+found");
    fs::create_dir(&deeper)?;
    fs::set_permissions(&deeper, fs::Permissions::from_mode(0o700))?;
    let refused = house.command(["backup"]).fail(1)?;
    let check = house.command(["check"]).fail(6)?.stdout;
    for path in strange.iter().chain([&deeper]) {
        tells(&refused, &path.display().to_string())?;
        ensure!(check.contains(&path.display().to_string()), "no {} in {check}", path.display());
    }
    tells(&refused, "4 paths")?;
    ensure!(!refused.stderr.contains("data/lost+found"), "{}", refused.stderr);
    strange.iter().try_for_each(fs::remove_file)?;
    fs::remove_dir(&deeper)?;

    // Where a file system begins, a restore finds such a directory too.
    house.archive_everything()?;
    let disk = house.room("disk");
    house.pg.owner().create_dir(&disk, 0o700)?;
    fs::create_dir(disk.join("lost+found"))?;
    house.restore("disk", ["--latest"]).succeed()?;
    open_restored(&disk).map(drop)
}

/// Configuration as tools manage it: PostgreSQL's own names are links to where it is kept.
fn managed(pg: &PgCluster) -> Result<PathBuf> {
    let (data, kept) = (pg.data_directory(), pg.scratch().join("managed"));
    for directory in [kept.clone(), kept.join("conf.d")] {
        pg.owner().create_dir(&directory, 0o755)?;
    }
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(data.join(name), kept.join(name))?;
        pg.owner().symlink(&kept.join(name), &data.join(name))?;
    }
    let conf = kept.join("postgresql.conf");
    let text = fs::read_to_string(&conf)?;
    fs::write(&conf, format!("{text}\ninclude_dir = 'conf.d'\ninclude 'one.conf'\n"))?;
    // Recovery needs as many as the primary has.
    fs::write(kept.join("conf.d/10-local.conf"), "max_connections = 250\nwork_mem = 5MB\n")?;
    fs::write(kept.join("one.conf"), "maintenance_work_mem = 77MB\n")?;
    for name in ["conf.d", "one.conf"] {
        pg.owner().symlink(&kept.join(name), &data.join(name))?;
    }
    // A key that a package keeps, which PostgreSQL would not take from its own user.
    fs::write(kept.join("server.key"), "secret")?;
    fs::set_permissions(kept.join("server.key"), fs::Permissions::from_mode(0o640))?;
    pg.owner().symlink(&kept.join("server.key"), &data.join("server.key"))?;
    pg.owner().chown_all(&kept)?;
    Ok(kept)
}

#[test]
fn configuration_behind_links_comes_along_as_plain_files() -> Result<()> {
    let mut pg = quiet_cluster()?.create()?;
    let kept = managed(&pg)?;
    pg.start()?;
    let house = Protected::named(pg, seawall()?, "seawall")?;
    ensure!(house.pg.psql("SHOW max_connections")? == "250");
    let hba = fs::read(kept.join("pg_hba.conf"))?;
    let backup = house.command(["backup"]).succeed()?;
    for path in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d", "one.conf"] {
        tells(&backup, &format!("note: {path} is a link to"))?;
    }
    house.archive_everything()?;

    fs::rename(&kept, kept.with_extension("lost"))?;
    let room = house.room("room");
    house.restore("room", ["--latest"]).succeed()?;
    ensure!(links(&room)?.is_empty(), "{:?}", links(&room)?);
    ensure!(fs::read(room.join("pg_hba.conf"))? == hba);
    let key = fs::metadata(room.join("server.key"))?;
    ensure!(key.mode() & 0o777 == 0o600, "mode {:o}", key.mode());
    let restored = open_restored(&room)?;
    for (name, value) in
        [("max_connections", "250"), ("work_mem", "5MB"), ("maintenance_work_mem", "77MB")]
    {
        let found = restored.psql(&format!("SHOW {name}"))?;
        ensure!(found == value, "{name} is {found}");
    }
    Ok(())
}
