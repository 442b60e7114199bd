//! A repository that has an object of every kind, and copies of it to be spoilt.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use seawall_core::Lsn;
use seawall_testkit::edges::{self, Cut, Edge};
use seawall_testkit::faults::SmallDisk;
use seawall_testkit::{Output, PgCluster, StopMode};

use crate::harm::{Inventory, Kind};
use crate::support::{LIMIT, Protected, quiet_cluster};

/// Everything that a sweep knows of the whole repository. The server is down: nothing is added.
#[derive(Debug)]
pub struct Site {
    pub protected: Protected,
    pub inventory: Inventory,
    /// The backup that restores are asked to use.
    pub backup: String,
    /// Objects that it cannot do without.
    pub needed: BTreeSet<String>,
    /// Objects that only the attempt that died uses.
    pub orphans: BTreeSet<String>,
    /// Segments of the archive that are not the last of their timeline, and their bytes.
    pub segments: Vec<(String, Vec<u8>)>,
    /// The repository, whole.
    whole: PathBuf,
    /// In memory, so that a restore does not wait for a disk.
    memory: SmallDisk,
    /// What a restore from it gives: path and hash of every file.
    pub restored: BTreeSet<(PathBuf, u64)>,
}

impl Site {
    pub fn build() -> Result<Self> {
        let mut protected = Protected::with(quiet_cluster()?, false)?;
        protected.configure_repository("pack_size = \"1MiB\"")?;
        fill(&protected.pg, "first")?;
        protected.backup()?;
        branch_off(&mut protected.pg)?;
        fill(&protected.pg, "second")?;
        protected.archive_everything()?;
        let before = names(&protected.places.repository)?;
        let backup = protected.backup()?;
        let text = |key: &str| backup.get(key).and_then(|text| text.as_str()).map(str::to_owned);
        let start: Lsn = text("start_lsn").context("no start LSN")?.parse()?;
        let backup = text("id").context("no id")?;
        let after = names(&protected.places.repository)?;
        die_in_a_backup(&protected)?;
        let attempt = names(&protected.places.repository)?;
        fill(&protected.pg, "third")?;
        protected.archive_everything()?;
        protected.pg.stop(StopMode::Fast)?;
        // Writes down what exists, so that what goes from now on is missed.
        protected.command(["verify"]).succeed()?;

        let orphans = attempt.difference(&after).filter(|name| is_content(name)).cloned().collect();
        let repository = protected.places.repository.clone();
        let inventory = Inventory::of(names(&repository)?)?;
        let whole = protected.room("whole");
        let written = after.difference(&before).cloned().collect();
        let needed = needed(&written, start, &inventory);
        let mut site = Self {
            segments: Vec::new(),
            restored: BTreeSet::new(),
            protected,
            inventory,
            backup,
            needed,
            orphans,
            whole,
            memory: SmallDisk::mount(512)?,
        };
        fs::rename(&repository, &site.whole)?;
        site.renew()?;
        site.look()?;
        Ok(site)
    }

    /// What a whole repository gives.
    fn look(&mut self) -> Result<()> {
        let ranges = self.inventory.all(Kind::Wal).iter();
        let names: BTreeSet<String> =
            ranges.map(|name| segment_name(name)).collect::<Result<_>>()?;
        let timeline = |name: &String| name.get(..8).unwrap_or_default().to_owned();
        for (name, next) in names.iter().zip(names.iter().skip(1)) {
            // The last one of a timeline may be a part only.
            if timeline(name) == timeline(next) {
                let (output, bytes) = self.fetch(name)?;
                output.success().with_context(|| name.clone())?;
                self.segments.push((name.clone(), bytes.context("nothing fetched")?));
            }
        }
        ensure!(!self.segments.is_empty(), "too little WAL for a sweep");
        self.restore()?.success()?;
        self.restored = tree(&self.target())?;
        fs::remove_dir_all(self.target())?;
        Ok(())
    }

    /// Puts a whole repository into place again, as links to the one that is kept.
    pub fn renew(&self) -> Result<()> {
        let place = &self.protected.places.repository;
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        let status = Command::new("cp").arg("-al").arg(&self.whole).arg(place).status()?;
        ensure!(status.success(), "cp -al: {status}");
        Ok(())
    }

    /// Where restores go.
    pub fn target(&self) -> PathBuf {
        self.memory.path().join("target")
    }

    /// Restores the backup and everything after it.
    pub fn restore(&self) -> Result<Output> {
        let what = ["restore", "main", "--yes", "--latest", "--backup", &self.backup, "--into"];
        self.protected.command(what).arg(self.target()).run()
    }

    /// Fetches a file of the archive; its bytes, if there are any afterwards.
    pub fn fetch(&self, name: &str) -> Result<(Output, Option<Vec<u8>>)> {
        let file = self.protected.room("fetched");
        let output = self.protected.command(["wal", "fetch", name]).arg(&file).run()?;
        let bytes = fs::read(&file).ok();
        if bytes.is_some() {
            fs::remove_file(&file)?;
        }
        Ok((output, bytes))
    }
}

/// Tables, indexes and small files; more than one segment of WAL.
fn fill(pg: &PgCluster, name: &str) -> Result<()> {
    pg.psql(&format!(
        "CREATE TABLE {name} AS SELECT i, md5(i::text) || md5((i + 1)::text) AS text \
           FROM generate_series(1, 60000) AS i; \
         ALTER TABLE {name} ADD PRIMARY KEY (i); \
         SELECT pg_switch_wal(); \
         UPDATE {name} SET text = md5(text) WHERE i % 3 = 0; CHECKPOINT; SELECT pg_switch_wal()"
    ))?;
    Ok(())
}

/// Ends a recovery, so that there is a second timeline and its history.
fn branch_off(pg: &mut PgCluster) -> Result<()> {
    pg.stop(StopMode::Fast)?;
    pg.set("restore_command", "/bin/false")?;
    let signal = pg.data_directory().join("recovery.signal");
    fs::write(&signal, "")?;
    pg.owner().chown(&signal)?;
    pg.start()?;
    pg.wait_promoted(LIMIT)
}

/// A backup that is killed just before it is published: packs, maps, a manifest, pins and a head
/// are left.
fn die_in_a_backup(protected: &Protected) -> Result<()> {
    let Protected { pg, seawall, places, .. } = protected;
    let line = [seawall.path().as_os_str(), "backup".as_ref(), "--config".as_ref()];
    let line = line.into_iter().chain([places.config.as_os_str()]).map(OsString::from).collect();
    let naming = |path: &Path| path.components().any(|part| part.as_os_str() == "backup");
    let naming = move |path: &Path| naming(path).then(|| "commit".to_owned());
    let cut = Cut { edge: Edge { call: "link", place: "commit".to_owned() }, occurrence: 0 };
    let traced = edges::run(pg.owner().clone(), line, Box::new(naming), Some(cut))?;
    ensure!(traced.was_cut(), "the backup was not killed: {:?}", traced.output);
    Ok(())
}

/// The archiver adds WAL and history files of its own while a backup runs.
fn is_content(name: &str) -> bool {
    matches!(Kind::of(name), Ok(Kind::Pack | Kind::Map | Kind::Manifest | Kind::Pin))
}

/// What a restore of the backup that wrote `written` needs for certain: its commit, manifest, maps
/// and packs, the keys, and the WAL of the second timeline from its start on.
fn needed(written: &BTreeSet<String>, start: Lsn, inventory: &Inventory) -> BTreeSet<String> {
    let of = |kinds: &[Kind]| -> Vec<&String> {
        kinds.iter().flat_map(|kind| inventory.all(*kind)).collect()
    };
    let written = of(&[Kind::Commit, Kind::Manifest, Kind::Map, Kind::Pack])
        .into_iter()
        .filter(|name| written.contains(*name));
    let first = format!("/wal/hot/00000002/{:016X}/", start.0 & !0xFF_FFFF);
    let since = of(&[Kind::Wal]).into_iter().filter(|name| {
        let at = name.find("/wal/hot/").and_then(|at| name.get(at..));
        at.is_some_and(|place| place >= first.as_str())
    });
    written.chain(since).chain(of(&[Kind::Format, Kind::Key])).cloned().collect()
}

/// The file name of the segment that a range is in, for segments of 16 MiB.
pub fn segment_name(range: &str) -> Result<String> {
    let parts: Vec<&str> = range.rsplit('/').collect();
    let [_, segment, timeline, ..] = parts.as_slice() else { anyhow::bail!("{range}") };
    let number = u64::from_str_radix(segment, 16)? >> 24;
    Ok(format!("{timeline}{:08X}{:08X}", number >> 8, number & 0xFF))
}

/// The names of a repository's objects.
pub fn names(repository: &Path) -> Result<BTreeSet<String>> {
    let objects = crate::support::objects(repository)?;
    objects
        .into_iter()
        .map(|(path, _)| Ok(path.strip_prefix(repository)?.display().to_string()))
        .collect()
}

/// Every file below a directory, with a hash of its bytes; but not the two that tell of the
/// restore itself, when it was and what it was called.
pub fn tree(directory: &Path) -> Result<BTreeSet<(PathBuf, u64)>> {
    let mut files = BTreeSet::new();
    for (path, bytes) in crate::support::objects(directory)? {
        let path = path.strip_prefix(directory)?.to_owned();
        if !["backup_manifest", "seawall.restore"].iter().any(|told| path == Path::new(told)) {
            files.insert((path, hash(&bytes)));
        }
    }
    Ok(files)
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
