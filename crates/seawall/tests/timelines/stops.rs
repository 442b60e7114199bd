//! What recovery finds in an archive that lost or changed something it needs: an error, and never
//! the end of the log. 12 would promote and 13 to 18 end differently on the same mistake.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{PgCluster, StopMode};

use super::support::{LIMIT, Protected, archive_everything, tells};

/// Two timelines with a few segments, and a directory restored to the end of the second.
struct Scene {
    house: Protected,
    /// The starts of timeline 2's whole segments.
    segments: Vec<u64>,
}

impl Scene {
    fn new(major: u16) -> Result<Self> {
        let builder = PgCluster::builder(major).config("autovacuum", "off").without_fsync();
        let mut house = Protected::with(builder, false)?;
        house.pg.psql("CREATE TABLE t (i int)")?;
        house.backup()?;
        house.pg.psql("INSERT INTO t VALUES (1)")?;
        archive_everything(&house.pg)?;
        house.pg.stop(StopMode::Fast)?;
        house.restore("primary", ["--latest", "--as", "primary"]).succeed()?;
        let primary = PgCluster::open(major, house.room("primary")).config("fsync", "off");
        let mut primary = primary.start()?;
        primary.wait_promoted(LIMIT)?;
        let mut segments = Vec::new();
        for row in 2..5 {
            primary.psql(&format!("INSERT INTO t VALUES ({row})"))?;
            segments.push(primary.current_lsn()?.0 & !0xFF_FFFF);
            archive_everything(&primary)?;
        }
        primary.stop(StopMode::Fast)?;
        house.restore("restored", ["--latest"]).succeed()?;
        Ok(Self { house, segments })
    }

    /// Objects whose path has `part` in it.
    fn objects(&self, part: &str) -> Result<Vec<PathBuf>> {
        let paths = self.house.objects()?.into_iter().map(|(path, _)| path);
        let found: Vec<_> = paths.filter(|path| path.to_string_lossy().contains(part)).collect();
        ensure!(!found.is_empty(), "no object in {part}");
        Ok(found)
    }

    fn segment(&self, at: usize) -> Result<Vec<PathBuf>> {
        let start = self.segments.get(at).context("no such segment")?;
        self.objects(&format!("wal/hot/00000002/{start:016X}/"))
    }

    /// The restored directory once more, as it was when nothing had been started on it.
    fn server(&self) -> Result<PgCluster> {
        let directory = self.house.room("tried");
        fs::remove_dir_all(&directory).ok();
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).arg(self.house.room("restored")).arg(&directory);
        ensure!(copy.status()?.success(), "{copy:?}");
        let major = self.house.pg.bin().major();
        PgCluster::open(major, directory).config("fsync", "off").create()
    }

    /// Recovery ends with the complaint, and has not promoted.
    fn fails(&self, complaint: &str) -> Result<()> {
        let mut pg = self.server()?;
        pg.start_without_waiting()?;
        let status = pg.wait_ended(LIMIT).with_context(|| pg.logs().unwrap_or_default())?;
        let log = pg.logs()?;
        ensure!(status == Some(1), "{status:?}: {log}");
        ensure!(log.contains("FATAL:  could not restore file"), "{log}");
        ensure!(log.contains(complaint), "no {complaint}: {log}");
        ensure!(!log.contains("archive recovery complete"), "it was promoted: {log}");
        let timeline_3 = pg.data_directory().join("pg_wal/00000003.history");
        ensure!(!timeline_3.exists(), "a new timeline was begun");
        Ok(())
    }

    /// A restore that begins now is refused before it writes.
    fn refuses(&self, code: &str) -> Result<()> {
        let refused = self.house.restore("late", ["--latest"]).run()?;
        ensure!(refused.code() == Some(4), "{refused:?}");
        tells(&refused, code)?;
        ensure!(!self.house.room("late").exists(), "a refused restore left a directory");
        Ok(())
    }

    /// Recovery reaches the plan's end.
    fn succeeds(&self) -> Result<()> {
        let mut pg = self.server()?;
        pg.start()?;
        pg.wait_promoted(LIMIT)?;
        ensure!(pg.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")? == "1,2,3,4");
        Ok(())
    }

    /// A restore of timeline 1 comes to its end, and gives its own timeline another number than 2.
    fn goes_on_beside(&self) -> Result<()> {
        let arguments = ["--latest", "--timeline", "1", "--as", "primary"];
        self.house.restore("beside", arguments).succeed()?;
        let major = self.house.pg.bin().major();
        let mut pg =
            PgCluster::open(major, self.house.room("beside")).config("fsync", "off").start()?;
        pg.wait_promoted(LIMIT)?;
        ensure!(pg.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")? == "1");
        let name = pg.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
        ensure!(name.starts_with("00000003"), "{name}: 2 is taken");
        archive_everything(&pg)
    }

    /// While `objects` are as `harm` leaves them.
    fn while_harmed(
        &self,
        objects: &[PathBuf],
        harm: impl Fn(&Path) -> Result<()>,
        check: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let whole: Vec<_> = objects.iter().map(fs::read).collect::<Result<_, _>>()?;
        objects.iter().try_for_each(|path| harm(path))?;
        check()?;
        for (path, bytes) in objects.iter().zip(&whole) {
            fs::write(path, bytes)?;
            self.house.pg.owner().chown(path)?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    Ok(fs::remove_file(path)?)
}

fn flip_a_bit(path: &Path) -> Result<()> {
    let middle = fs::metadata(path)?.len() / 2;
    seawall_testkit::faults::flip_bit(path, middle)
}

/// Whatever is lost or altered, recovery stops before it; once it is there again, it goes on.
pub fn never_short_of_the_plan(major: u16) -> Result<()> {
    let scene = Scene::new(major)?;
    let lost = |at, check: &dyn Fn() -> Result<()>| {
        scene.while_harmed(&scene.segment(at)?, remove, || {
            scene.fails("SW0506")?;
            check()
        })
    };
    lost(1, &|| scene.refuses("SW0505")).context("a segment in the middle is lost")?;
    // Nothing follows it: to PostgreSQL alone that looks like the end of the log.
    lost(2, &|| Ok(())).context("the last segment is lost")?;
    scene
        .while_harmed(&scene.segment(1)?, flip_a_bit, || scene.fails("SW0305"))
        .context("a segment is damaged")?;

    let history = scene.objects("history/00000002")?;
    let history: Vec<_> = history.into_iter().filter(|path| path.ends_with("00000002")).collect();
    scene
        .while_harmed(&history, remove, || scene.fails("SW0506"))
        .context("the timeline's history is lost")?;
    let foreign = scene.objects(".backup")?;
    let swap = |path: &Path| Ok(fs::copy(foreign.first().context("none")?, path).map(drop)?);
    scene
        .while_harmed(&history, swap, || scene.fails("SW03"))
        .context("another file is in the place of the timeline's history")?;
    scene.succeeds()?;
    scene
        .while_harmed(&history, flip_a_bit, || scene.goes_on_beside())
        .context("the history of a timeline beside the restore is damaged")
}
