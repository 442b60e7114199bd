//! One flipped byte in a timeline's history: it is that timeline's harm alone, heals where another
//! history tells the same, and the way out that is told leads out.

#[path = "support/moved.rs"]
mod moved;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use moved::moved;
use seawall_testkit::faults::flip_bit;
use seawall_testkit::process::wait_until;
use seawall_testkit::{Output, PgCluster, StopMode};
use support::{Arguments, LIMIT, Protected, archive_everything, open_restored, tells};

/// Timelines 1, 2 and 3 one after the other, each with a row of its own; a server writes on the
/// third.
struct Site {
    house: Protected,
    server: PgCluster,
}

impl Site {
    fn new() -> Result<Self> {
        let mut house = Protected::start()?;
        house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
        house.backup()?;
        house.archive_everything()?;
        house.pg.stop(StopMode::Fast)?;
        let mut second = goes_on(&house, "second", 2)?;
        second.stop(StopMode::Fast)?;
        let server = goes_on(&house, "third", 3)?;
        moved(&house, &server)?;
        house.backup()?;
        Ok(Self { house, server })
    }

    /// The object that holds the history of a timeline.
    fn history(&self, timeline: u32) -> Result<PathBuf> {
        let name = format!("history/{timeline:08X}");
        let mut paths = self.house.objects()?.into_iter().map(|(path, _)| path);
        paths.find(|path| path.ends_with(&name)).with_context(|| name)
    }

    fn damage(&self, timeline: u32) -> Result<PathBuf> {
        let path = self.history(timeline)?;
        flip_bit(&path, fs::metadata(&path)?.len() / 2)?;
        Ok(path)
    }

    /// The rows at the end of a timeline, by a restore.
    fn rows(&self, timeline: &[&str]) -> Result<String> {
        let room = timeline.last().map_or("latest", |timeline| timeline);
        let restored = self.house.restore(room, ["--latest"]).args(timeline.iter().copied());
        restored.succeed()?;
        let mut pg = open_restored(&self.house.room(room))?;
        let rows = pg.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")?;
        pg.stop(StopMode::Immediate)?;
        fs::remove_dir_all(self.house.room(room))?;
        Ok(rows)
    }

    fn push(&self, name: &str) -> Result<Output> {
        let path = self.server.data_directory().join("pg_wal").join(name);
        self.house.command(["wal", "push"]).arg(path).run()
    }

    fn status(&self) -> Result<Output> {
        self.house.command(["status", "--max-rpo", "1h"]).run()
    }

    /// Nothing is wrong, and everything can be restored.
    fn is_well(&self) -> Result<()> {
        self.house.command(["wal", "list"]).succeed()?;
        // It takes back what one before found of backups.
        self.house.command(["verify"]).succeed()?;
        let status = self.status()?;
        ensure!(status.code() == Some(0), "{status:?}");
        ensure!(self.rows(&[])? == "1,2,3,4");
        Ok(())
    }
}

/// Production is restored, and goes on on the next timeline.
fn goes_on(house: &Protected, room: &str, row: u32) -> Result<PgCluster> {
    house.restore(room, ["--latest", "--as", "primary"]).succeed()?;
    let pg = open_restored(&house.room(room))?;
    pg.psql(&format!("INSERT INTO t VALUES ({row})"))?;
    archive_everything(&pg)?;
    Ok(pg)
}

/// As the hint says: out of the repository with it.
fn move_out(object: &Path) -> Result<()> {
    Ok(fs::rename(object, object.with_file_name("moved-out"))?)
}

#[test]
fn a_damaged_history_that_a_descendant_tells_as_well_hinders_nobody() -> Result<()> {
    let site = Site::new()?;
    let object = site.damage(2)?;
    let house = &site.house;
    ensure!(site.rows(&["--timeline", "2"])? == "1,2");
    ensure!(site.rows(&[])? == "1,2,3");
    site.server.psql("INSERT INTO t VALUES (4)")?;
    archive_everything(&site.server)?;

    // It is told all the same, and what to do.
    let status = site.status()?;
    ensure!(status.code() == Some(1), "{status:?}");
    ensure!(status.stdout.contains("the history of timeline 2 is damaged"), "{status:?}");
    let list = house.command(["wal", "list"]).fail(4)?;
    ensure!(list.stdout.lines().count() == 4, "all three timelines: {list:?}");
    tells(&list, "SW0305")?;
    tells(&list, "wal push pg_wal/00000002.history")?;
    let info = house.command(["info", "--json"]).fail(4)?.json()?;
    ensure!(info["clusters"][0]["damaged_histories"][0]["timeline"] == 2, "{info}");
    ensure!(info["clusters"][0]["damaged_histories"][0]["told_by"] == 3, "{info}");
    let verified = house.command(["verify", "--json"]).fail(4)?.json()?;
    let whole = &verified["repositories"][0]["report"]["verified"];
    ensure!(whole.as_array().is_some_and(|it| it.len() == 2), "{verified}");

    // The same bytes as PostgreSQL's, so that they can be put back from there too.
    let name = "00000002.history";
    let fetched = house.room("fetched.history");
    house.command(["wal", "fetch", name]).arg(&fetched).succeed()?;
    let own = site.server.data_directory().join("pg_wal").join(name);
    ensure!(fs::read(&fetched)? == fs::read(&own)?);

    let refused = site.push(name)?;
    ensure!(refused.code() == Some(4), "{refused:?}");
    tells(&refused, "out of the repository")?;
    move_out(&object)?;
    ensure!(site.push(name)?.code() == Some(0));
    fs::remove_file(object.with_file_name("moved-out"))?;
    archive_everything(&site.server)?;
    site.is_well()
}

#[test]
fn a_damaged_history_of_the_newest_timeline_leaves_the_others_and_there_is_a_way_out() -> Result<()>
{
    let site = Site::new()?;
    let object = site.damage(3)?;
    let house = &site.house;
    ensure!(site.rows(&["--timeline", "1"])? == "1");
    for choice in [&[][..], &["--timeline", "latest"], &["--timeline", "3"]] {
        let refused =
            house.restore("refused", ["--latest"]).args(choice.iter().copied()).fail(4)?;
        tells(&refused, "the history of timeline 3 is damaged")?;
        if *choice != ["--timeline", "3"] {
            tells(&refused, "--timeline 2")?;
        }
        tells(&refused, "wal push pg_wal/00000003.history")?;
        ensure!(!house.room("refused").exists(), "a refused restore left a directory");
    }
    let status = site.status()?;
    ensure!(status.code() == Some(2), "{status:?}");
    ensure!(status.stdout.contains("the history of timeline 3 is damaged"), "{status:?}");
    let list = house.command(["wal", "list"]).fail(4)?;
    ensure!(list.stdout.lines().count() == 4, "all three timelines: {list:?}");
    tells(&list, "wal push pg_wal/00000003.history")?;
    house.command(["verify"]).fail(4)?;

    // What nobody could read afterwards is not acknowledged: PostgreSQL keeps it, and says why.
    site.server.psql("INSERT INTO t VALUES (4); SELECT pg_switch_wal()")?;
    wait_until("the refusal", LIMIT, || Ok(site.server.logs()?.contains("SW0305")))?;
    ensure!(site.server.logs()?.contains("wal push pg_wal/00000003.history"));

    move_out(&object)?;
    // To PostgreSQL it is archived: that does not push it again.
    let status = "pg_wal/archive_status/00000003.history.done";
    ensure!(site.server.data_directory().join(status).exists());
    ensure!(site.push("00000003.history")?.code() == Some(0));
    fs::remove_file(object.with_file_name("moved-out"))?;
    archive_everything(&site.server)?;
    site.is_well()
}

#[test]
fn a_missing_history_is_told_and_nobody_takes_the_number_of_its_timeline() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.archive_everything()?;
    let mut second = goes_on(&house, "second", 2)?;
    second.stop(StopMode::Fast)?;
    // The server it was made of goes on as well.
    house.pg.psql("INSERT INTO t VALUES (9)")?;
    house.archive_everything()?;
    house.archive_everything()?;
    let mut objects = house.objects()?.into_iter().map(|(path, _)| path);
    let object = objects.find(|path| path.ends_with("history/00000002")).context("no history")?;
    fs::remove_file(object)?;

    let list = house.command(["wal", "list"]).fail(4)?;
    tells(&list, "the history of timeline 2 is missing")?;
    tells(&list, "wal push pg_wal/00000002.history")?;
    let status = house.command(["status", "--max-rpo", "1h"]).fail(2)?;
    ensure!(status.stdout.contains("the history of timeline 2 is missing"), "{status:?}");
    let refused = house.restore("latest", ["--latest"]).fail(4)?;
    tells(&refused, "`--timeline 1`")?;
    tells(&refused, "wal push pg_wal/00000002.history")?;

    house.restore("third", ["--latest", "--timeline", "1", "--as", "primary"]).succeed()?;
    let mut third = open_restored(&house.room("third"))?;
    let file = third.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
    ensure!(file.starts_with("00000003"), "it took a number that is taken: {file}");
    third.stop(StopMode::Fast)?;

    // Another server that took the number all the same is refused before it archives any WAL.
    let strange = house.room("00000002.history");
    let lsn = house.pg.psql("SELECT pg_current_wal_lsn()")?;
    fs::write(&strange, format!("1\t{}\tno recovery target specified\n", lsn.trim()))?;
    let refused = house.command(["wal", "push"]).arg(&strange).fail(5)?;
    tells(&refused, "another server that took that number")?;

    let own = second.data_directory().join("pg_wal/00000002.history");
    house.command(["wal", "push"]).arg(&own).succeed()?;
    house.command(["wal", "list"]).succeed()?;
    house.restore("again", ["--latest", "--timeline", "2"]).succeed()?;
    let mut again = open_restored(&house.room("again"))?;
    ensure!(again.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")? == "1,2");
    again.stop(StopMode::Immediate)
}

#[test]
fn a_promoted_server_archives_though_the_history_it_came_from_is_damaged() -> Result<()> {
    let mut site = Site::new()?;
    for (setting, value) in [
        ("restore_command", "/bin/false"),
        ("recovery_target_lsn", ""),
        ("recovery_target_timeline", "current"),
    ] {
        site.server.set(setting, value)?;
    }
    site.server.stop(StopMode::Fast)?;
    let object = site.damage(3)?;
    // Only what agrees with what is there is let in.
    let own = fs::read_to_string(site.server.data_directory().join("pg_wal/00000003.history"))?;
    let other = own.replace("2\t0/", "2\t1/");
    ensure!(other != own, "{own}");
    let strange = site.house.room("00000004.history");
    fs::write(&strange, format!("{other}3\t2/0\tno recovery target specified\n"))?;
    let refused = site.house.command(["wal", "push"]).arg(&strange).fail(4)?;
    tells(&refused, "00000004.history cannot be archived")?;
    tells(&refused, "wal push pg_wal/00000003.history")?;

    fs::write(site.server.data_directory().join("recovery.signal"), "")?;
    site.server.start()?;
    wait_until("promoted", LIMIT, || {
        Ok(site.server.psql("SELECT pg_is_in_recovery()")?.starts_with('f'))
    })?;
    let file = site.server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
    ensure!(file.starts_with("00000004"), "{file}");
    site.server.psql("INSERT INTO t VALUES (4)")?;
    archive_everything(&site.server)?;
    site.house.backup()?;

    let status = site.status()?;
    ensure!(status.code() == Some(1), "{status:?}");
    ensure!(status.stdout.contains("the history of timeline 3 is damaged"), "{status:?}");
    let list = site.house.command(["wal", "list"]).fail(4)?;
    tells(&list, "the history of timeline 4 tells the same")?;
    ensure!(site.rows(&[])? == "1,2,3,4");
    move_out(&object)?;
    ensure!(site.push("00000003.history")?.code() == Some(0));
    fs::remove_file(object.with_file_name("moved-out"))?;
    site.is_well()
}
