//! Clusters whose parts lie elsewhere, are called oddly or are open to a group.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use seawall_testkit::oracles::Dump;
use seawall_testkit::{PgBin, PgCluster, SeawallBin, TestDir};
use support::{Protected, open_restored, prove_same_content, quiet_cluster, seawall};

/// Some content of every kind, a backup amid it, and what all of it is in the end.
fn story(house: &Protected) -> Result<Dump> {
    house.pg.psql(
        "CREATE TABLE t AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g; \
         CREATE INDEX ON t (b)",
    )?;
    house.backup()?;
    house.pg.psql("INSERT INTO t SELECT g, 'after the backup' FROM generate_series(1, 500) g")?;
    house.archive_everything()?;
    Dump::take_without_tablespaces(house.pg.connection())
}

/// `check` finds WAL arriving, and nothing critical; how full the disk is depends on the machine.
fn reads_back(house: &Protected) -> Result<()> {
    let output = house.command(["check"]).fail(6)?.stdout;
    ensure!(output.contains("reads back as it was written"), "{output}");
    ensure!(!output.contains("critical"), "{output}");
    Ok(())
}

/// Moves a directory and leaves a link in its place.
fn move_behind_link(pg: &PgCluster, from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    pg.owner().symlink(to, from)
}

#[test]
fn e56_a_data_directory_and_pg_wal_behind_links_are_restored_as_plain_directories() -> Result<()> {
    let mut pg = quiet_cluster()?.create()?;
    let (data, scratch) = (pg.data_directory().to_owned(), pg.scratch().to_owned());
    move_behind_link(&pg, &data.join("pg_wal"), &scratch.join("wal disk"))?;
    // The link leads to a link.
    move_behind_link(&pg, &data, &scratch.join("second"))?;
    move_behind_link(&pg, &scratch.join("second"), &scratch.join("data disk"))?;
    pg.start()?;
    let house = Protected::named(pg, seawall()?, "seawall")?;
    let dump = story(&house)?;
    reads_back(&house)?;

    house.restore("room", ["--latest"]).succeed()?;
    let room = house.room("room");
    for directory in [room.clone(), room.join("pg_wal"), room.join("pg_wal/archive_status")] {
        let found = fs::symlink_metadata(&directory)?;
        ensure!(found.is_dir(), "{} is no directory", directory.display());
    }
    ensure!(fs::read_dir(room.join("pg_wal"))?.count() == 1, "WAL came along");
    prove_same_content(&room, &dump)?;

    // A directory to restore into may be a link as well, to an empty one.
    let (disk, link) = (house.room("disk"), house.room("link"));
    house.pg.owner().create_dir(&disk, 0o700)?;
    house.pg.owner().symlink(&disk, &link)?;
    house.restore("link", ["--latest"]).succeed()?;
    ensure!(fs::symlink_metadata(&link)?.is_symlink());
    prove_same_content(&link, &dump).map(drop)
}

/// As Debian has them: the configuration in a directory of its own, which names the data.
fn debian(pg: &PgCluster) -> Result<PathBuf> {
    let (data, etc) = (pg.data_directory(), pg.scratch().join("etc"));
    for directory in [etc.clone(), etc.join("conf.d"), etc.join("more")] {
        pg.owner().create_dir(&directory, 0o755)?;
    }
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(data.join(name), etc.join(name))?;
    }
    let conf = etc.join("postgresql.conf");
    let text = fs::read_to_string(&conf)?;
    let at = etc.display();
    fs::write(
        &conf,
        format!(
            "{text}\ndata_directory = '{}'\nhba_file = '{at}/pg_hba.conf'\n\
             ident_file = '{at}/pg_ident.conf'\nexternal_pid_file = '{at}/main.pid'\n\
             include_dir = 'conf.d'\ninclude 'more/one.conf'\n\
             include_if_exists = '{at}/not-there.conf'\n",
            data.display()
        ),
    )?;
    // Recovery needs as many as the primary has.
    fs::write(etc.join("conf.d/10-local.conf"), "max_connections = 250\nwork_mem = 5MB\n")?;
    fs::write(etc.join("more/one.conf"), "include 'two.conf'\n")?;
    fs::write(etc.join("more/two.conf"), "maintenance_work_mem = 77MB\n")?;
    pg.owner().chown_all(&etc)?;
    Ok(conf)
}

#[test]
fn configuration_outside_the_data_directory_comes_along_and_the_cluster_starts() -> Result<()> {
    let stopped = quiet_cluster()?.create()?;
    let conf = debian(&stopped)?;
    let major = stopped.bin().major();
    let pg = PgCluster::open(major, stopped.data_directory());
    let pg = pg.config("config_file", &conf.display().to_string()).start()?;
    let house = Protected::named(pg, seawall()?, "seawall")?;
    ensure!(house.pg.psql("SHOW max_connections")? == "250");
    let dump = story(&house)?;
    let etc = conf.parent().context("a directory")?.to_owned();

    // On the same machine, where the original files are still there.
    house.restore("beside", ["--latest"]).succeed()?;
    same_settings(&house.room("beside"))?;
    let pid_file = etc.join("main.pid");
    ensure!(fs::read_to_string(&pid_file)?.trim() == postmaster(&house.pg)?, "it was overwritten");

    // And where they are gone with the machine.
    fs::rename(&etc, etc.with_extension("lost"))?;
    house.restore("room", ["--latest"]).succeed()?;
    prove_same_content(&house.room("room"), &dump)?;
    same_settings(&house.room("room"))
}

fn postmaster(pg: &PgCluster) -> Result<String> {
    Ok(pg.postmaster_pid().context("it runs")?.to_string())
}

fn same_settings(room: &Path) -> Result<()> {
    let restored = open_restored(room)?;
    for (name, value) in
        [("max_connections", "250"), ("work_mem", "5MB"), ("maintenance_work_mem", "77MB")]
    {
        let found = restored.psql(&format!("SHOW {name}"))?;
        ensure!(found == value, "{name} is {found}");
    }
    let data = restored.psql("SHOW data_directory")?;
    ensure!(Path::new(&data) == room, "it runs on {data}");
    let hba = restored.psql("SHOW hba_file")?;
    ensure!(Path::new(&hba).exists(), "no {hba}");
    Ok(())
}

/// A name that a shell, a configuration file or a URL would take to pieces.
const ODD: &str = "it's \"my\" $HOME [1] #2 100%f \\ =ünï";

/// Files that extensions and people leave in a data directory.
const ODD_FILES: [&[u8]; 7] = [
    b"a b'c\"d",
    b"back\\slash",
    b"[brackets] #hash =equals",
    b"new\nline\rreturn\ttab",
    "ünïcödé 漢字".as_bytes(),
    b"not UTF-8: \xff\xfe\x80",
    b"-rf *",
];

#[test]
fn e58_odd_names_of_everything_survive_the_way_there_and_back() -> Result<()> {
    let mut pg = quiet_cluster()?.create()?;
    let data = pg.scratch().join(ODD);
    fs::rename(pg.data_directory(), &data)?;
    let directory = data.join("odd directory");
    pg.owner().create_dir(&directory, 0o700)?;
    for name in ODD_FILES {
        let file = directory.join(OsStr::from_bytes(name));
        fs::write(&file, name)?;
        pg.owner().chown(&file)?;
    }
    let scratch = pg;
    pg = PgCluster::open(scratch.bin().major(), &data).start()?;
    // The program's own path goes into archive_command and restore_command too.
    let programs = TestDir::new()?;
    pg.owner().create_dir(&programs.join(ODD), 0o755)?;
    let program = programs.join(ODD).join("sea wall");
    fs::copy(seawall()?.path(), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let house = Protected::named(pg, SeawallBin::at(&program)?, ODD)?;
    for database in ["it's \"\"a\"\" \\b", "x=y#[z] %f", "ünïcödé 漢字"] {
        house.pg.psql(&format!("CREATE DATABASE \"{database}\""))?;
    }
    let dump = story(&house)?;
    reads_back(&house)?;
    for command in [["status"], ["list"], ["info"], ["verify"]] {
        house.command(command).succeed()?;
    }

    // The last WAL comes by restore_command.
    let room = format!("room of {ODD}");
    house.restore(&room, ["--latest"]).succeed()?;
    for name in ODD_FILES {
        let file = house.room(&room).join("odd directory").join(OsStr::from_bytes(name));
        ensure!(fs::read(&file)? == name, "{}", file.display());
    }
    prove_same_content(&house.room(&room), &dump).map(drop)
}

#[test]
fn group_access_is_as_it_was() -> Result<()> {
    let house = Protected::with(quiet_cluster()?.initdb("--allow-group-access"), false)?;
    let dump = story(&house)?;
    let as_in_source = |room: &Path| -> Result<()> {
        let mut found = vec![room.to_owned()];
        while let Some(path) = found.pop() {
            let metadata = fs::symlink_metadata(&path)?;
            let mode = metadata.mode() & 0o777;
            let wanted = if metadata.is_dir() { 0o750 } else { 0o640 };
            ensure!(mode == wanted, "{} has mode {mode:o}", path.display());
            if metadata.is_dir() {
                for entry in fs::read_dir(&path)? {
                    found.push(entry?.path());
                }
            }
        }
        Ok(())
    };
    house.restore("room", ["--latest"]).succeed()?;
    as_in_source(&house.room("room"))?;
    prove_same_content(&house.room("room"), &dump)?;
    let restored = PgCluster::open(PgBin::default_major()?, house.room("room")).start()?;
    ensure!(restored.psql("SHOW data_directory_mode")? == "0750");
    Ok(())
}
