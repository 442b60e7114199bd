//! Relations' files of every shape: several segments, pages of zeros, and sizes that change while
//! they are copied.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use seawall_testkit::oracles::{self, Dump};
use seawall_testkit::{PgCluster, StopMode};
use serde_json::Value;
use support::{Protected, open_restored, prove_same_content};

const PAGE_BYTES: u64 = 8192;
/// A relation's segment file (`RELSEG_SIZE`).
const SEGMENT_BYTES: u64 = 1 << 30;

/// A table with two rows on a page.
fn wide_table(pg: &PgCluster, name: &str) -> Result<()> {
    pg.psql(&format!(
        "CREATE TABLE {name} (a int, b text); ALTER TABLE {name} ALTER b SET STORAGE PLAIN; \
         INSERT INTO {name} SELECT g, repeat('w', 3900) FROM generate_series(1, 20) g; CHECKPOINT"
    ))
    .map(drop)
}

fn file_of(pg: &PgCluster, table: &str) -> Result<PathBuf> {
    let sql = format!("SELECT pg_relation_filepath('{table}')");
    Ok(pg.data_directory().join(pg.psql(&sql)?))
}

fn size_of(pg: &PgCluster, table: &str) -> Result<u64> {
    Ok(pg.psql(&format!("SELECT pg_relation_size('{table}')"))?.parse()?)
}

/// Makes a table longer by pages of zeros, as a server does that crashes between extending a file
/// and writing to it.
fn extend_by_crash(pg: &mut PgCluster, table: &str, bytes: u64) -> Result<()> {
    let path = file_of(pg, table)?;
    pg.stop(StopMode::Fast)?;
    File::options().write(true).open(path)?.set_len(bytes)?;
    pg.start()
}

/// Takes backups while `weather` is played again and again.
fn backups_amid(house: &Protected, count: u64, weather: &str) -> Result<Vec<Value>> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let storm = scope.spawn(|| -> Result<u32> {
            let (mut session, mut gusts) = (house.pg.connection().session()?, 0);
            while !stop.load(Ordering::Relaxed) {
                session.run(weather)?;
                gusts += 1;
            }
            Ok(gusts)
        });
        let backups: Result<Vec<Value>> = (0..count).map(|_| house.backup()).collect();
        stop.store(true, Ordering::Relaxed);
        let gusts = storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))??;
        ensure!(gusts > 1, "a lull: {gusts}");
        backups
    })
}

/// Restores from each backup to the end of the archive, where all are the same.
fn prove_each(house: &Protected, backups: &[Value]) -> Result<()> {
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(house.pg.connection())?;
    for backup in backups {
        ensure!(backup["page_errors"] == 0, "false alarm: {backup}");
        let id = backup["id"].as_str().context("id")?;
        house.restore(id, ["--latest", "--backup", id]).succeed()?;
        prove_same_content(&house.room(id), &dump)?;
    }
    Ok(())
}

#[test]
fn e33_a_relation_that_grows_over_the_end_of_its_first_segment_keeps_all_its_pages() -> Result<()> {
    let mut house = Protected::start()?;
    wide_table(&house.pg, "wide")?;
    // All but the last pages of the first segment: holes on this disk, pages to PostgreSQL.
    extend_by_crash(&mut house.pg, "wide", SEGMENT_BYTES - 20 * PAGE_BYTES)?;
    house.pg.psql("INSERT INTO wide VALUES (0, 'before')")?;
    let before = size_of(&house.pg, "wide")?;
    ensure!(before < SEGMENT_BYTES, "{before}");
    let weather = "INSERT INTO wide SELECT g, repeat('w', 3900) FROM generate_series(1, 30) g; \
         SELECT pg_sleep(0.02)";
    let growing = backups_amid(&house, 1, weather)?;
    let after = size_of(&house.pg, "wide")?;
    ensure!(after > SEGMENT_BYTES, "{after}");
    // And one that finds it as it is then, in two segments.
    let backup = house.backup()?;
    house.pg.psql("CREATE INDEX ON wide (a)")?;
    let relative = house.pg.psql("SELECT pg_relation_filepath('wide')")?;
    prove_each(&house, &growing)?;
    ensure!(backup["page_errors"] == 0, "false alarm: {backup}");
    let id = backup["id"].as_str().context("id")?;
    house.restore("two", ["--backup-only", "--backup", id]).succeed()?;
    oracles::pg_verifybackup(house.pg.bin(), &house.room("two"))?;

    let first = house.room("two").join(relative);
    let second = first.with_extension("1");
    let lengths = (fs::metadata(&first)?.len(), fs::metadata(&second)?.len());
    ensure!(lengths == (SEGMENT_BYTES, after - SEGMENT_BYTES), "{lengths:?} of {after}");
    let on_disk = fs::metadata(&first)?.blocks() * 512;
    ensure!(on_disk < SEGMENT_BYTES / 8, "zeros take {on_disk} bytes");
    let mut page = [0; PAGE_BYTES as usize];
    File::open(&second)?.read_exact_at(&mut page, 0)?;
    ensure!(page.iter().any(|byte| *byte != 0), "the second segment is empty");
    Ok(())
}

#[test]
fn e34_pages_of_zeros_are_neither_errors_nor_left_out() -> Result<()> {
    let mut house = Protected::start()?;
    wide_table(&house.pg, "holed")?;
    wide_table(&house.pg, "ended")?;
    // In the middle: PostgreSQL goes on at the file's end. And at the end, where nobody does.
    extend_by_crash(&mut house.pg, "holed", 60 * PAGE_BYTES)?;
    house.pg.psql("INSERT INTO holed VALUES (0, 'behind the hole'); CHECKPOINT")?;
    extend_by_crash(&mut house.pg, "ended", 33 * PAGE_BYTES)?;
    let backup = house.backup()?;
    let files = ["holed", "ended"].map(|table| file_of(&house.pg, table));
    prove_each(&house, std::slice::from_ref(&backup))?;
    let room = house.room(backup["id"].as_str().context("id")?);
    for file in files {
        let file = file?;
        let restored = room.join(file.strip_prefix(house.pg.data_directory())?);
        // Hint bits and the visibility map's bits may differ; zeros may not.
        let (is, was) = (fs::read(&restored)?, fs::read(&file)?);
        ensure!(is.len() == was.len(), "{} of {} bytes", is.len(), was.len());
        let zeros = |bytes: &[u8]| -> Vec<bool> {
            bytes.chunks(8192).map(|page| page.iter().all(|byte| *byte == 0)).collect()
        };
        ensure!(zeros(&is) == zeros(&was), "other pages are zeros in {}", file.display());
        ensure!(zeros(&is).iter().filter(|zero| **zero).count() >= 20);
    }
    let restored = open_restored(&room)?;
    restored.psql("INSERT INTO holed SELECT * FROM ended; VACUUM holed, ended")?;
    ensure!(restored.psql("SELECT count(*) FROM holed")? == "41");
    Ok(())
}

#[test]
fn e27_what_a_file_grows_by_while_it_is_copied_comes_from_wal() -> Result<()> {
    let house = Protected::start()?;
    wide_table(&house.pg, "growing")?;
    house.pg.psql("CREATE INDEX ON growing (a); CREATE INDEX ON growing USING hash (a)")?;
    let weather = "INSERT INTO growing SELECT g, repeat('w', 3900) FROM generate_series(1, 50) g; \
         SELECT pg_sleep(0.01)";
    let backups = backups_amid(&house, 1 + support::rounds(), weather)?;
    let sizes: Vec<_> = backups.iter().map(|backup| backup["cluster_bytes"].as_u64()).collect();
    ensure!(sizes.is_sorted_by(|one, next| one < next), "nothing grew: {sizes:?}");
    prove_each(&house, backups.get(1..).context("backups")?)
}

#[test]
fn e28_a_file_that_shrinks_to_nothing_while_it_is_copied_does_no_harm() -> Result<()> {
    let house = Protected::start()?;
    wide_table(&house.pg, "tide")?;
    house.pg.psql("CREATE TABLE beach AS SELECT g AS a FROM generate_series(1, 100000) g")?;
    // Over the size that is copied in several spans; gone whole, then cut to its first pages.
    let weather = "INSERT INTO tide SELECT g, repeat('w', 3900) FROM generate_series(21, 9000) g; \
         CHECKPOINT; DELETE FROM tide; VACUUM tide; \
         INSERT INTO tide SELECT g, repeat('w', 3900) FROM generate_series(1, 900) g; \
         CHECKPOINT; DELETE FROM tide WHERE a > 20; VACUUM tide";
    let backups = backups_amid(&house, 1 + support::rounds(), weather)?;
    let size = size_of(&house.pg, "tide")?;
    ensure!(size < 1 << 20, "it is not cut: {size}");
    prove_each(&house, backups.get(1..).context("backups")?)
}
