//! A small cluster, a repository of it in memory, and copies of that to be played with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use seawall_core::{BackupId, NoProgress};
use seawall_engine::Crew;
use seawall_engine::backup::{self, BackupReport, BackupRequest, Destination, ParentChoice};
use seawall_engine::restore::{
    RestoreOptions, RestoreReport, RestoreRequest, Target, TimelineChoice, plan_restore,
};
use seawall_engine::restored::{Mode, TargetAction};
use seawall_engine::verify::{self, VerifyReport, VerifyRequest};
use seawall_pgwire::{Config, Environment};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::records::Pin;
use seawall_repo::wal::WalArchive;
use seawall_repo::{CreateOptions, Line, Repository, new_ulid};
use seawall_store::testing::MemoryStore;
use seawall_store::{ObjectPrefix, Store};
use seawall_testkit::faults::SmallDisk;
use seawall_testkit::{Owner, PgBin, PgCluster, TestDir};

use crate::house::{LIMIT, ingest, new_line};

/// The cluster, and a repository that has a backup of it and the WAL around that.
pub struct Site {
    pub pg: PgCluster,
    pub connection: Config,
    /// Where its server archives to.
    pub archive: PathBuf,
    /// Opens the repository.
    pub key: Unlock,
    pub repository: MemoryStore,
    pub backup: BackupId,
    /// Segments that are archived: their names, and their bytes.
    pub segments: Vec<(String, Vec<u8>)>,
    /// One more, that is not in the repository yet.
    pub next: (String, Vec<u8>),
    /// What a restore gives.
    pub restored: BTreeSet<(PathBuf, Vec<u8>)>,
    /// In memory, so that a restore does not wait for a disk.
    memory: SmallDisk,
    pub directory: TestDir,
}

/// A repository that only one round uses: a copy of the site's.
pub struct Copy {
    pub store: MemoryStore,
    pub key: Unlock,
}

impl Site {
    pub async fn build() -> Result<Self> {
        Self::with(|_| Ok(())).await
    }

    /// `prepare` is given the cluster before anything is made of it.
    pub async fn with(prepare: impl FnOnce(&mut PgCluster) -> Result<()>) -> Result<Self> {
        let directory = TestDir::new()?;
        let archive = directory.join("archive");
        Owner::of_servers()?.create_dir(&archive, 0o700)?;
        let to = archive.display();
        let mut pg = PgCluster::builder(PgBin::default_major()?)
            .wal_segment_mb(1)
            .config("archive_mode", "on")
            .config("archive_command", &format!("cp %p {to}/.%f && mv {to}/.%f {to}/%f"))
            .config("autovacuum", "off")
            .start()?;
        prepare(&mut pg)?;
        for database in ["template0", "template1"] {
            pg.psql(&format!("ALTER DATABASE {database} IS_TEMPLATE false"))?;
            pg.psql(&format!("DROP DATABASE {database}"))?;
        }
        let environment = Environment::of_process();
        let mut site = Self {
            connection: Config::parse(&pg.connection_string(), &environment)?,
            pg,
            archive,
            key: Unlock::KeyFile(KeyFile::generate()?),
            repository: MemoryStore::new(),
            backup: BackupId(seawall_core::Ulid::from_parts(0, 0)),
            segments: Vec::new(),
            next: Default::default(),
            restored: BTreeSet::new(),
            memory: SmallDisk::mount(256)?,
            directory,
        };
        site.renew().await?;
        Ok(site)
    }

    /// Begins a new repository: rounds add WAL that all later ones would have to read.
    pub async fn renew(&mut self) -> Result<()> {
        self.pg.psql("CREATE TABLE IF NOT EXISTS t (a int)")?;
        self.archive_a_segment().await?;
        for file in fs::read_dir(&self.archive)? {
            fs::remove_file(file?.path())?;
        }
        self.repository = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(self.repository.clone());
        let line = new_line(&self.pg, store, &self.key).await?;
        self.backup = {
            let _archiver = Archiver::begin(&self.archive, &line).await?;
            let backup = self.back_up(&line).await?.id;
            self.archive_a_segment().await?;
            self.archive_a_segment().await?;
            self.arrived(&line).await?;
            backup
        };
        let known = self.archived()?;
        self.segments = known.clone();
        self.archive_a_segment().await?;
        let news = self.archived()?.into_iter().rfind(|it| !known.contains(it));
        self.next = news.context("nothing new is archived")?;
        let room = self.room("whole");
        self.restore(&line, &room).await?;
        self.restored = tree(&room)?;
        fs::remove_dir_all(room)?;
        Ok(())
    }

    /// Ends a segment and waits until it is in the archive's directory: then all before it are.
    pub async fn archive_a_segment(&self) -> Result<()> {
        self.pg.psql("INSERT INTO t VALUES (1)")?;
        let name = self.pg.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
        let file = self.archive.join(name.trim());
        for _ in 0..LIMIT.as_millis() / 20 {
            if file.exists() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("PostgreSQL does not archive {}: {}", file.display(), self.pg.logs()?)
    }

    /// Waits until the repository has all that is in the archive's directory.
    pub async fn arrived(&self, line: &Line) -> Result<()> {
        let last = self.archived()?.pop().context("nothing is archived")?.0;
        let wal = WalArchive::open(line.clone()).await?;
        let segment = match seawall_core::WalFileName::parse(&last, wal.segment_size()) {
            Some(seawall_core::WalFileName::Segment(segment)) => segment,
            other => anyhow::bail!("{last} is {other:?}"),
        };
        for _ in 0..LIMIT.as_millis() / 20 {
            if wal
                .timeline_coverage(segment.timeline)
                .await?
                .ranges
                .last()
                .is_some_and(|range| range.end >= segment.end())
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("{last} did not arrive")
    }

    /// The segments in the archive's directory, in order.
    fn archived(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.archive)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.len() == 24 {
                files.push((name, fs::read(entry.path())?));
            }
        }
        files.sort();
        Ok(files)
    }

    /// A copy of the repository.
    pub fn copy(&self) -> Copy {
        Copy { store: self.repository.fork(), key: self.key.clone() }
    }

    /// A directory to restore into.
    pub fn room(&self, name: &str) -> PathBuf {
        self.memory.path().join(name)
    }

    pub async fn back_up(&self, line: &Line) -> seawall_core::Result<BackupReport> {
        let request = BackupRequest {
            parent: ParentChoice::Newest,
            id: BackupId(new_ulid(Timestamp::now())?),
            connection: self.connection.clone(),
            data_directory: None,
            annotations: Default::default(),
            jobs: 2,
            memory_bytes: 128 << 20,
            crew: Crew::default(),
            fast_checkpoint: true,
            wal_timeout: LIMIT,
            store_timeout: LIMIT,
            other_repository_is_away: false,
            program: "test".to_owned(),
        };
        let destination = Destination {
            name: "main".to_owned(),
            line: line.clone(),
            compression_level: 1,
            // Several, so that some are there when a store fails.
            pack_bytes: 1 << 20,
        };
        backup::run(&[destination], &request, &NoProgress).await
    }

    pub async fn restore(&self, line: &Line, into: &Path) -> seawall_core::Result<RestoreReport> {
        self.restore_with(line, into, false).await
    }

    /// `proves_first` as in [`RestoreOptions`].
    pub async fn restore_with(
        &self,
        line: &Line,
        into: &Path,
        proves_first: bool,
    ) -> seawall_core::Result<RestoreReport> {
        let request = RestoreRequest {
            target_text: "the backup".to_owned(),
            asked_at: Timestamp::now(),
            target: Target::BackupOnly,
            backup: None,
            timeline: TimelineChoice::Current,
            mode: Mode::Clone,
            then: TargetAction::Promote,
            into: into.to_owned(),
            tablespaces: Vec::new(),
            databases: Vec::new(),
            delta: None,
            starts: false,
        };
        let options = RestoreOptions {
            jobs: 2,
            memory_bytes: 64 << 20,
            crew: Crew::default(),
            proves_first,
            restore_command: format!("cp {}/%f %p", self.archive.display()).into(),
            progress: Arc::new(NoProgress),
        };
        let wal = WalArchive::open(line.clone()).await?;
        let planned = plan_restore(line, &wal, &request).await?;
        planned.prove(&wal, &options).await?.run().await
    }
}

impl Copy {
    /// The line as it is, without any fault.
    pub async fn line(&self) -> Result<Line> {
        only_line(&Repository::open(Arc::new(self.store.clone()), &self.key).await?).await
    }

    /// The names of all that is in it.
    pub async fn names(&self) -> Result<BTreeSet<String>> {
        let page = self.store.list(&ObjectPrefix::root(), None, usize::MAX).await?;
        ensure!(page.next.is_none(), "too many objects");
        Ok(page.objects.into_iter().map(|object| object.path.to_string()).collect())
    }

    /// Nothing is damaged, and every backup that is listed is one.
    pub async fn is_sound(&self) -> Result<()> {
        let repository = Repository::open(Arc::new(self.store.clone()), &self.key).await?;
        let report = verify_all(&repository).await?;
        ensure!(report.findings.is_empty(), "damage: {:#?}", report.findings);
        ensure!(report.unrecorded.is_none(), "{:?}", report.unrecorded);
        for backup in only_line(&repository).await?.backups().await? {
            backup.info.with_context(|| format!("backup {}", backup.id))?;
        }
        Ok(())
    }

    /// The process of every attempt that has not ended is gone. Here all of them are this one.
    pub async fn bury_attempts(&self) -> Result<()> {
        let line = self.line().await?;
        for attempt in line.attempts().await? {
            for number in 0..=attempt.newest_record {
                let path = line.paths().path(&LineObject::Pin(attempt.id.0, number))?;
                let Ok(pin) = line.repository().read_record::<Pin>(&path).await else { continue };
                self.store.delete(&path).await?;
                let pin = Pin { process_started: Some(1), ..pin };
                line.repository().create_record(&path, &pin).await?;
            }
        }
        Ok(())
    }
}

/// The line of the cluster that is written: the youngest.
pub async fn only_line(repository: &Repository) -> Result<Line> {
    let (cluster, id) = repository.lines().await?.pop().context("no line")?;
    Ok(repository.line(&cluster, id)?)
}

pub async fn verify_all(repository: &Repository) -> seawall_core::Result<VerifyReport> {
    let request = VerifyRequest { sample_percent: 100, jobs: 2, ..VerifyRequest::default() };
    verify::run(repository, &request, &NoProgress).await
}

pub fn key_options(unlock: &Unlock) -> CreateOptions<'_> {
    CreateOptions { unlock, label: "test", now: Timestamp::now() }
}

/// Stores what PostgreSQL archives, until it is dropped.
pub struct Archiver(Arc<AtomicBool>);

impl Archiver {
    pub async fn begin(archive: &Path, line: &Line) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let wal = WalArchive::open(line.clone()).await?;
        tokio::spawn(ingest(wal, archive.to_owned(), Arc::clone(&stop)));
        Ok(Self(stop))
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every file of a directory and its bytes, without those that tell of the restore itself.
pub fn tree(directory: &Path) -> Result<BTreeSet<(PathBuf, Vec<u8>)>> {
    let mut files = BTreeSet::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(within) = directories.pop() {
        for entry in fs::read_dir(within)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(directory)?.to_owned();
            if !["backup_manifest", "seawall.restore"].iter().any(|told| name == Path::new(told)) {
                let bytes = fs::read(&path)?;
                files.insert((name, bytes));
            }
        }
    }
    Ok(files)
}
