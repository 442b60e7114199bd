//! The machine is gone. What is left is a copy of the storage and the recovery kit.

#[path = "support/guide.rs"]
mod guide;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use guide::{RESTORING, Shell, code, with};
use seawall_testkit::ledger::{Bound, LedgerLog};
use seawall_testkit::{Invocation, Ledger, Owner, SeawallBin, StopMode, TestDir, oracles};
use support::{Arguments, LIMIT, Protected, open_restored, prove_restored, quiet_cluster};

/// What was carried to the new machine.
struct Luggage {
    seawall: SeawallBin,
    repository: PathBuf,
    kit: PathBuf,
    log: LedgerLog,
    before_mistake: String,
    bound: Bound,
    directory: TestDir,
}

/// Runs a cluster into a mistake and loses the machine with everything that was on it.
fn disaster() -> Result<Luggage> {
    let mut house = Protected::with(quiet_cluster()?, true)?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    house.backup()?;
    running.wait_for(20, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(20, LIMIT)?;
    let log = running.stop()?;
    house.pg.psql("DROP TABLE ledger")?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Immediate)?;

    let directory = TestDir::new()?;
    let repository = directory.join("carried");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(&house.places.repository).arg(&repository);
    ensure!(copy.status()?.success(), "{copy:?}");
    let kit = directory.join("kit.txt");
    fs::copy(&house.places.kit, &kit)?;
    house.pg.owner().chown(&kit)?;
    let seawall = house.seawall.clone();
    let (before_mistake, bound) = (moment.time.clone(), Bound::Time(moment.time_us));
    // The old machine goes here: configuration, key, repository, data directory.
    drop(house);
    Ok(Luggage { seawall, repository, kit, log, before_mistake, bound, directory })
}

impl Luggage {
    /// `seawall` as a user whose home has nothing of Seawall.
    fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Invocation> {
        let home = self.directory.join("home");
        if !home.exists() {
            Owner::of_servers()?.create_dir(&home, 0o700)?;
        }
        Ok(self.seawall.command(arguments).env("HOME", home).env("XDG_CONFIG_HOME", "/nowhere"))
    }

    /// Does what the kit says where the storage has moved.
    fn edit_kit(&self) -> Result<()> {
        let text = fs::read_to_string(&self.kit)?;
        let line = text.lines().find(|line| line.starts_with("repository: ")).context("no line")?;
        let moved = format!("repository: file://{}", self.repository.display());
        Ok(fs::write(&self.kit, text.replace(line, &moved))?)
    }

    fn prove(&self, directory: &Path, bound: &Bound) -> Result<()> {
        let mut restored = open_restored(directory)?;
        oracles::amcheck(restored.connection())?;
        let verdict = prove_restored(&mut restored, &self.log, bound)?;
        ensure!(verdict.required > 20, "{verdict:?}");
        Ok(())
    }
}

#[test]
fn e63_storage_and_kit_alone_bring_back_the_moment_before_the_mistake() -> Result<()> {
    let luggage = disaster()?;
    let kit = luggage.kit.to_string_lossy().into_owned();

    // The kit still names a place that does not exist here.
    let lost = luggage.command(["list", "--kit", &kit])?.fail(3)?;
    support::tells(&lost, "SW0301")?;
    luggage.edit_kit()?;
    let listed = luggage.command(["list", "--json", "--kit", &kit])?.succeed()?.json()?;
    let backups = listed["clusters"][0]["backups"].as_array().context("backups")?;
    ensure!(backups.len() == 1, "{listed}");

    let into = luggage.directory.join("by-kit");
    let target = ["--before", &luggage.before_mistake, "--yes"];
    let restore = luggage.command(["restore", "--kit", &kit, "--into"])?.arg(&into).args(target);
    restore.succeed()?;
    luggage.prove(&into, &luggage.bound)?;

    // The same with the storage's address and the kit as a key file, as the kit offers.
    let url = format!("file://{}", luggage.repository.display());
    let into = luggage.directory.join("by-url");
    let call = ["restore", "main", "--repo", &url, "--key", &kit, "--into"];
    luggage.command(call)?.arg(&into).args(target).succeed()?;
    luggage.prove(&into, &luggage.bound)
}

/// The last commits of a machine are nowhere but on its disk. What to type is taken from the guide.
#[test]
fn the_last_seconds_of_a_lost_machine_are_pushed_from_its_disk_as_the_guide_says() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    // What is archived, and what the server has recycled, is in pg_wal too.
    for _ in 0..3 {
        house.archive_everything()?;
        house.pg.psql("CHECKPOINT")?;
    }
    house.pg.psql("INSERT INTO t VALUES (2)")?;
    house.pg.kill9()?;
    let plan = house.restore("planned", ["--dry-run"]).succeed()?.stdout;
    let config = house.places.config.display();
    let typed = format!("`seawall wal push --partial FILE --cluster main --config {config}`");
    ensure!(plan.contains(&typed), "{plan}");

    let [push] = &code(RESTORING, "### The last seconds of a lost machine")?[..] else {
        bail!("more steps")
    };
    let old = house.pg.data_directory().display().to_string();
    let kit = house.places.kit.display().to_string();
    let push = with(push, &[("/mnt/old", &old), ("./main-recovery-kit.txt", &kit)])?;
    let mut shell = Shell::open(&house.seawall, house.pg.bin(), &house.places.rooms, None)?;
    // Segments that the server kept for later use are refused.
    let told = shell.enter(&push)?.output;
    ensure!(told.contains("Nothing of it is lost"), "{told}");
    ensure!(!told.contains("pushes the segment again"), "{told}");
    let restored = house.restore("restored", ["--latest"]).succeed();
    restored.with_context(|| told.clone())?;
    let restored = open_restored(&house.room("restored"))?;
    let rows = restored.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")?;
    ensure!(rows == "1,2", "{rows}: {told}");
    Ok(())
}
