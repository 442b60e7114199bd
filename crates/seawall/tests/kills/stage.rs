//! A cluster with writers that never rest, and what must be true of it and its repository after
//! every kill.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seawall_testkit::edges::{self, Cut, Traced};
use seawall_testkit::ledger::{Bound, LedgerOptions};
use seawall_testkit::process::wait_until;
use seawall_testkit::{Ledger, Output, oracles};

use crate::support::{LIMIT, Protected, open_restored, prove_restored, quiet_cluster};

/// Whether a backup that was under way is to be there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Yes,
    No,
    /// It was killed, maybe after it was published.
    Perhaps,
}

/// A protected cluster under load.
#[derive(Debug)]
pub struct Stage {
    pub protected: Protected,
    ledger: Ledger,
    /// Complete backups, as `list` names them.
    pub backups: BTreeSet<String>,
}

impl Stage {
    pub fn new() -> Result<Self> {
        let protected = Protected::with(quiet_cluster()?, false)?;
        protected.configure_repository("pack_size = \"1MiB\"")?;
        protected.pg.psql(
            "CREATE TABLE ballast AS SELECT i, md5(i::text) AS text \
             FROM generate_series(1, 50000) AS i; ALTER TABLE ballast ADD PRIMARY KEY (i)",
        )?;
        let pause = Duration::from_millis(20);
        let options = LedgerOptions { writers: 2, pause, ..LedgerOptions::default() };
        let ledger = Ledger::start_with(&protected.pg, options)?;
        ledger.wait_for(5, LIMIT)?;
        Ok(Self { protected, ledger, backups: BTreeSet::new() })
    }

    /// The words of a command line.
    fn line(&self, arguments: &[&str]) -> Vec<OsString> {
        let program = [self.protected.seawall.path().as_os_str().to_owned()];
        let config = ["--config".into(), self.protected.places.config.clone().into()];
        let arguments = arguments.iter().map(OsString::from);
        program.into_iter().chain(arguments).chain(config).collect()
    }

    /// Runs `seawall` under watch. Edges are named by the part of the repository or of the
    /// restored directory they are about.
    pub fn trace(&self, arguments: &[&str], cut: Option<Cut>) -> Result<Traced> {
        let places = self.protected.places.clone();
        let naming = move |path: &Path| {
            let in_repository = path.strip_prefix(&places.repository).ok().map(name_in_repository);
            in_repository.or_else(|| path.strip_prefix(&places.rooms).ok().map(name_in_restored))
        };
        let owner = self.protected.pg.owner().clone();
        edges::run(owner, self.line(arguments), Box::new(naming), cut)
    }

    /// A backup that nobody disturbs.
    pub fn back_up(&mut self) -> Result<()> {
        self.protected.backup()?;
        let listed = self.list()?;
        ensure!(listed.len() == self.backups.len() + 1, "not one more: {listed:?}");
        self.backups = listed;
        Ok(())
    }

    /// The complete backups; one that is anything else is an error.
    fn list(&self) -> Result<BTreeSet<String>> {
        let overview = self.protected.command(["list", "--json"]).succeed()?.json()?;
        let backups = overview.pointer("/clusters/0/backups").and_then(|list| list.as_array());
        let mut complete = BTreeSet::new();
        for backup in backups.context("no list of backups")? {
            let text = |key| backup.get(key).and_then(|value| value.as_str());
            ensure!(text("state") == Some("complete"), "half published: {backup}");
            complete.insert(text("id").context("a backup without an id")?.to_owned());
        }
        Ok(complete)
    }

    /// What holds at any moment: nothing is damaged, and every backup is there and whole.
    pub fn prove_sound(&mut self, published: Published) -> Result<()> {
        self.protected.prove_undamaged()?;
        let listed = self.list()?;
        ensure!(listed.is_superset(&self.backups), "lost: {listed:?}, had {:?}", self.backups);
        let fits = match listed.len() - self.backups.len() {
            0 => published != Published::Yes,
            1 => published != Published::No,
            _ => false,
        };
        ensure!(fits, "published: {published:?}, but now {listed:?}, had {:?}", self.backups);
        self.backups = listed;
        Ok(())
    }

    /// Makes a segment that PostgreSQL's archiver leaves alone; its file.
    pub fn segment(&self) -> Result<PathBuf> {
        let pg = &self.protected.pg;
        pg.psql("SELECT pg_logical_emit_message(true, 'kills', repeat('x', 50000))")?;
        let name = pg.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
        let ready = pg.data_directory().join(format!("pg_wal/archive_status/{name}.ready"));
        wait_until("a segment to push", LIMIT, || Ok(ready.exists()))?;
        Ok(pg.data_directory().join("pg_wal").join(name))
    }

    /// Takes the archiver out, or gives it back what `init` gave it.
    pub fn archiving(&self, on: bool) -> Result<()> {
        let pg = &self.protected.pg;
        if on {
            pg.psql(&self.protected.init_sql)?;
        } else {
            pg.set("archive_command", "/bin/false")?;
        }
        pg.reload()?;
        if on { self.protected.archive_everything() } else { Ok(()) }
    }

    /// Fetches a segment; its bytes if the archive has it.
    pub fn fetch(&self, name: &str) -> Result<(Output, Option<Vec<u8>>)> {
        let file = self.protected.room("fetched");
        let output = self.protected.command(["wal", "fetch", name]).arg(&file).run()?;
        let bytes = fs::read(&file).ok();
        if bytes.is_some() {
            fs::remove_file(&file)?;
        }
        Ok((output, bytes))
    }

    /// The end of a stage: everything that was ever acknowledged comes back.
    pub fn finish(mut self) -> Result<()> {
        self.back_up()?;
        let log = self.ledger.stop()?;
        self.protected.archive_everything()?;
        self.protected.restore("final", ["--latest"]).succeed()?;
        let restored = self.protected.room("final");
        oracles::pg_verifybackup(self.protected.pg.bin(), &restored)?;
        let mut pg = open_restored(&restored)?;
        prove_restored(&mut pg, &log, &Bound::Everything)?;
        Ok(())
    }
}

/// The directory of the format an object is in; a file that has not got its name yet is told
/// from one that has.
fn name_in_repository(path: &Path) -> String {
    let text = path.display().to_string();
    let parts: Vec<&str> = text.split('/').collect();
    let place = match parts.as_slice() {
        ["c", _, "i", _, place, ..] | [place, ..] => place,
        [] => "",
    };
    let unnamed = if text.ends_with(".seawall-tmp") { " (unnamed)" } else { "" };
    format!("{place}{unnamed}")
}

/// The first part of a path below the restored directory; `pg_control` by itself.
fn name_in_restored(path: &Path) -> String {
    let text = path.display().to_string();
    let parts: Vec<&str> = text.split('/').skip(1).collect();
    match parts.as_slice() {
        ["global", file, ..] if file.starts_with("pg_control") => "pg_control".to_owned(),
        [first, ..] => format!("restored {first}"),
        [] => "restored".to_owned(),
    }
}
