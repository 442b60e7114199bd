//! The repository over everything that is done with it. The numbers are those of the hazards
//! known to have destroyed backups.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use support::{Protected, open_restored};

/// What was in the repository, to be found there ever after.
#[derive(Default)]
struct Witness {
    seen: BTreeMap<PathBuf, Vec<u8>>,
}

impl Witness {
    fn look(&mut self, house: &Protected, after: &str) -> Result<()> {
        let now: BTreeMap<PathBuf, Vec<u8>> = house.objects()?.into_iter().collect();
        for (path, bytes) in &self.seen {
            let same = now.get(path).is_some_and(|now| now == bytes);
            ensure!(same || is_pin(path), "{} changed or went after {after}", path.display());
        }
        self.seen.extend(now);
        Ok(())
    }
}

/// A pin says that somebody is at work, and goes when he is done.
fn is_pin(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "pin")
}

#[test]
fn e64_no_object_ever_changes_or_vanishes() -> Result<()> {
    let house = Protected::start()?;
    let mut witness = Witness::default();
    witness.look(&house, "init")?;
    for round in 0..2 + support::rounds() {
        house.pg.psql("CREATE TABLE IF NOT EXISTS t (a int); INSERT INTO t SELECT 1")?;
        house.archive_everything()?;
        witness.look(&house, "wal push")?;
        house.backup()?;
        witness.look(&house, "backup")?;
        for command in
            [&["info"][..], &["list"], &["show", "latest"], &["wal", "list"], &["verify"]]
        {
            house.command(command.iter().copied()).succeed()?;
            witness.look(&house, &command.join(" "))?;
        }
        house.command(["check"]).run()?;
        witness.look(&house, "check")?;
        let room = format!("room-{round}");
        house.restore(&room, ["--latest"]).succeed()?;
        witness.look(&house, "restore")?;
        drop(open_restored(&house.room(&room))?);
        witness.look(&house, "recovery")?;
        // A backup that fails, and an init that finds everything there.
        house.command(["backup", "nobody"]).fail(3)?;
        witness.look(&house, "a backup of another cluster")?;
    }
    let backups = |path: &&PathBuf| path.components().any(|part| part.as_os_str() == "backup");
    ensure!(witness.seen.keys().filter(backups).count() > 2, "no backups were seen");
    Ok(())
}
