//! Names and paths that are no text in anybody's encoding.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_testkit::faults::Random;
use seawall_testkit::{PgBin, PgCluster};
use serde_json::Value;
use support::{LIMIT, Protected, quiet_cluster, seawall, tells};

/// `café`, as LATIN1 has it.
const CAFE: &[u8] = b"caf\xe9";

/// A path below another that ends in [`CAFE`].
fn cafe(above: &Path) -> PathBuf {
    above.join(OsStr::from_bytes(CAFE))
}

/// A literal of a path that [`cafe`] made.
fn literal(above: &Path) -> String {
    format!("E'{}/caf\\351'", above.display())
}

/// A cluster in a directory of that name, with a tablespace, a database and an included file of it.
/// The second fixture is the server; the files are the first one's.
fn cluster(major: u16, encoding: &str) -> Result<(PgCluster, PgCluster)> {
    let created = PgCluster::builder(major)
        .initdb(&format!("--encoding={encoding}"))
        .initdb("--locale=C")
        .config("autovacuum", "off")
        .without_fsync()
        .create()?;
    let data = cafe(created.scratch());
    fs::rename(created.data_directory(), &data)?;
    let outside = created.scratch().join("etc");
    for directory in
        [&outside, &created.scratch().join("space"), &cafe(&created.scratch().join("space"))]
    {
        created.owner().create_dir(directory, 0o700)?;
    }
    fs::write(cafe(&outside), "work_mem = 5MB\n")?;
    created.owner().chown_all(&outside)?;
    let conf = data.join("postgresql.conf");
    let line = [b"\ninclude '", cafe(&outside).as_os_str().as_bytes(), b"'\n"].concat();
    fs::write(&conf, [fs::read(&conf)?, line].concat())?;
    let mut pg = PgCluster::open(major, &data).create()?;
    pg.start()?;
    let space = literal(&created.scratch().join("space"));
    let mut anything = "postgres";
    if encoding == "UTF8" {
        pg.psql("CREATE DATABASE plain; CREATE DATABASE other")?;
        pg.psql("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII'")?;
        anything = "ascii";
    }
    // In a database where any bytes are text.
    let any = |sql: &str| pg.connection().psql_in(anything, sql);
    any(&format!("CREATE TABLESPACE space LOCATION {space}"))?;
    any("UPDATE pg_database SET datname = E'caf\\351' WHERE datname = 'plain'")?;
    pg.psql("CREATE TABLE far TABLESPACE space AS SELECT generate_series(1, 1000) AS a")?;
    Ok((created, pg))
}

/// A backup, and a restore of it that starts; all commands and refusals too if `thorough`.
fn there_and_back(major: u16, encoding: &str, thorough: bool) -> Result<()> {
    let (_files, pg) = cluster(major, encoding)?;
    let above = pg.data_directory().parent().context("a parent")?.to_owned();
    let house = Protected::named(pg, seawall()?, "seawall")?;
    let config = fs::read_to_string(&house.places.config)?;
    ensure!(!config.contains("data_directory"), "{config}");
    house.command(["backup"]).succeed()?;
    if thorough {
        tells_stdout(&house.command(["check"]).run()?.stdout, "reads back")?;
        house.command(["status"]).succeed()?;
    }
    house.pg.psql("INSERT INTO far SELECT 0")?;
    house.archive_everything()?;

    let (old, new) = (cafe(&above.join("space")), cafe(&house.room("space")));
    house.pg.owner().create_dir(&house.room("space"), 0o700)?;
    if thorough {
        let refused = house.restore("room", ["--latest"]).fail(5)?;
        tells(&refused, "--map-tablespace $'")?;
        tells(&refused, "/caf\\351=/new/directory")?;
    }
    let room = cafe(&house.places.rooms);
    let mapping = [old.as_os_str().as_bytes(), b"=", new.as_os_str().as_bytes()].concat();
    let restore = |room: &Path| {
        let restore = house.command(["restore", "main", "--yes", "--latest", "--into"]).arg(room);
        restore.arg("--map-tablespace").arg(OsStr::from_bytes(&mapping))
    };
    restore(&room).arg("--json").succeed()?;
    fs::rename(above.join("etc"), above.join("lost"))?;
    let mut restored = PgCluster::open(major, &room).config("fsync", "off").create()?;
    restored.start()?;
    restored.wait_promoted(LIMIT)?;
    ensure!(restored.psql("SELECT count(*) FROM far")? == "1001");
    ensure!(restored.psql("SHOW work_mem")? == "5MB");
    let location = "SELECT encode(pg_tablespace_location(oid)::bytea, 'hex') \
         FROM pg_tablespace WHERE spcname = 'space'";
    let told: Vec<String> =
        new.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(restored.psql(location)? == told.concat());
    drop(restored);

    if !thorough {
        return Ok(());
    }
    // One database of that name.
    fs::remove_dir_all(&new)?;
    let part = house.room("part");
    let told =
        restore(&part).arg("--database").arg(OsStr::from_bytes(CAFE)).arg("--dry-run").run()?;
    ensure!(told.code() == Some(0), "{}", told.stderr);
    tells_stdout(&told.stdout, "databases other (OID")?;
    Ok(())
}

fn tells_stdout(stdout: &str, what: &str) -> Result<()> {
    ensure!(stdout.contains(what), "no {what} in {stdout}");
    Ok(())
}

#[test]
fn paths_and_names_are_bytes_from_the_server_to_the_command_line_on_every_major() -> Result<()> {
    for (number, major) in (12..=18).enumerate() {
        let encoding = if number % 2 == 0 { "SQL_ASCII" } else { "LATIN1" };
        there_and_back(major, encoding, false).with_context(|| format!("{major}, {encoding}"))?;
    }
    Ok(())
}

#[test]
fn bytes_that_the_databases_encoding_does_not_have_are_told_and_taken_by_every_command()
-> Result<()> {
    there_and_back(PgBin::default_major()?, "UTF8", true)
}

/// Files as tools write them: whole ones renamed into place, and careless ones cut and written anew.
#[test]
fn files_that_change_while_they_are_read_are_what_they_were_at_one_moment() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, false)?;
    let directory = house.pg.data_directory().join("made by others");
    house.pg.owner().create_dir(&directory, 0o700)?;
    let name = |number: u64| format!("{number:03}");
    let content =
        |version: u64| vec![b'a' + (version % 26) as u8; 1 + (version * 37 % 3000) as usize];
    for number in 0..300 {
        fs::write(directory.join(name(number)), content(number))?;
    }
    let log = directory.join("log");
    fs::write(&log, "line\n".repeat(40_000))?;
    house.pg.owner().chown_all(&directory)?;
    let stop = AtomicBool::new(false);
    let backup = thread::scope(|scope| {
        let others = scope.spawn(|| -> Result<()> {
            let new = directory.with_extension("new");
            for version in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                fs::write(&new, content(version))?;
                house.pg.owner().chown(&new)?;
                fs::rename(&new, directory.join(name(version % 300)))?;
            }
            Ok(())
        });
        let backup = house.backup();
        stop.store(true, Ordering::Relaxed);
        others.join().expect("the others' thread").and(backup)
    });
    backup?;
    house.restore("room", ["--backup-only"]).succeed()?;
    for number in 0..300 {
        let path = house.room("room/made by others").join(name(number));
        let restored = fs::read(&path)?;
        let first = *restored.first().context("an empty file")?;
        ensure!(restored.iter().all(|byte| *byte == first), "{} is a mixture", path.display());
        let whole = (0..26 * 3000).filter(|version| b'a' + (version % 26) as u8 == first);
        let mut lengths = whole.map(|version| 1 + (version * 37 % 3000) as usize);
        ensure!(lengths.any(|length| length == restored.len()), "{} was cut", path.display());
    }
    ensure!(fs::read(house.room("room/made by others/log"))? == fs::read(&log)?);
    Ok(())
}

/// What is in a pack stays there, also of a copy that came to nothing.
#[test]
fn a_large_file_that_never_rests_is_left_out_and_not_stored_again_and_again() -> Result<()> {
    const FILE_BYTES: u64 = 8 << 20;
    let house = Protected::with(quiet_cluster()?, false)?;
    let stored = |backup: &Value| backup["stored_bytes"].as_u64().context("no stored_bytes");
    let without = stored(&house.backup()?)?;
    let path = house.pg.data_directory().join("restless");
    let mut random = Random::new(7);
    let words = (0..FILE_BYTES / 8).flat_map(|_| random.next_u64().to_ne_bytes());
    fs::write(&path, words.collect::<Vec<_>>())?;
    house.pg.owner().chown(&path)?;
    let file = File::options().write(true).open(&path)?;
    let stop = AtomicBool::new(false);
    let backup = thread::scope(|scope| {
        let others = scope.spawn(|| -> Result<()> {
            for version in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                file.write_all_at(&version.to_ne_bytes(), 0)?;
                thread::sleep(Duration::from_micros(100));
            }
            Ok(())
        });
        let backup = house.command(["backup", "--json"]).run();
        stop.store(true, Ordering::Relaxed);
        others.join().expect("the others' thread").and(backup)
    })?;
    let copies = stored(&backup.json()?)?.saturating_sub(without) / FILE_BYTES;
    ensure!(copies <= 3, "{copies} copies: {}", backup.stdout);
    // On a machine that lets the backup run and not the file's writer, it did rest.
    ensure!(matches!(backup.code(), Some(0 | 6)), "{}", backup.stderr);
    Ok(())
}
