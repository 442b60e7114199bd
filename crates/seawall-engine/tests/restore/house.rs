//! A real cluster that archives into a real repository, and restores of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use seawall_core::{BackupId, BranchNumber, LineId, NoProgress, Progress, TimelineId, WalFileName};
use seawall_engine::Crew;
use seawall_engine::backup::{self, BackupReport, BackupRequest, Destination, ParentChoice};
use seawall_engine::cluster::read_control;
use seawall_engine::restore::{
    RestoreOptions, RestoreReport, RestoreRequest, Target, TimelineChoice, plan_restore,
};
use seawall_engine::restored::{Mode, TargetAction};
use seawall_pgwire::{Config, Environment};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::records::About;
use seawall_repo::wal::{SegmentKind, WalArchive};
use seawall_repo::{CreateOptions, Line, Repository, new_ulid};
use seawall_store::{OpenOptions, Store, StoreUrl, open_or_create};
use seawall_testkit::ledger::{self, Bound, LedgerLog, Verdict};
use seawall_testkit::{Owner, PgBin, PgCluster, PgClusterBuilder, StopMode, TestDir, oracles};

/// How long anything may take that should take seconds.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A repository that gets a backup.
pub fn destination(line: &Line) -> Destination {
    Destination {
        name: "main".to_owned(),
        line: line.clone(),
        compression_level: 1,
        pack_bytes: 64 << 20,
    }
}

pub struct House {
    pub pg: PgCluster,
    pub line: Line,
    pub wal: WalArchive,
    pub archive: PathBuf,
    pub repository: PathBuf,
    pub key: Unlock,
    rooms: PathBuf,
    stop: Arc<AtomicBool>,
    _directory: TestDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl House {
    pub async fn new() -> Result<Self> {
        Self::with(PgCluster::builder(PgBin::default_major()?)).await
    }

    /// A cluster of any shape, archiving; what it archives is stored in the repository.
    pub async fn with(builder: PgClusterBuilder) -> Result<Self> {
        let directory = TestDir::new()?;
        let archive = directory.join("archive");
        Owner::of_servers()?.create_dir(&archive, 0o700)?;
        let (to, name) = (archive.display(), "%f");
        let pg = builder
            .config("archive_mode", "on")
            .config(
                "archive_command",
                &format!("cp %p {to}/.{name} && mv {to}/.{name} {to}/{name}"),
            )
            .config("autovacuum", "off")
            .start()?;
        let rooms = directory.join("rooms");
        pg.owner().create_dir(&rooms, 0o755)?;
        let repository = directory.join("repository");
        let url = StoreUrl::from_directory(&repository)?;
        let store = open_or_create(&url, &OpenOptions::default()).await?;
        let key = Unlock::KeyFile(KeyFile::generate()?);
        let line = new_line(&pg, store, &key).await?;
        let wal = WalArchive::open(line.clone()).await?;
        let stop = Arc::new(AtomicBool::new(false));
        tokio::spawn(ingest(wal.clone(), archive.clone(), Arc::clone(&stop)));
        let _directory = directory;
        Ok(Self { pg, line, wal, archive, repository, key, rooms, stop, _directory })
    }

    /// A line of another cluster's name in the same repository, with the same WAL.
    pub async fn other_line(&self, cluster: &str) -> Result<Line> {
        let other = self.line.repository().line(&cluster.parse()?, self.line.id())?;
        let about = self.line.about().await?.context("the line")?;
        other.create(&About { cluster: cluster.to_owned(), ..about }).await?;
        let wal = WalArchive::open(other.clone()).await?;
        tokio::spawn(ingest(wal, self.archive.clone(), Arc::clone(&self.stop)));
        Ok(other)
    }

    pub async fn backup(&self) -> Result<BackupReport> {
        self.backup_with(&NoProgress).await
    }

    pub async fn backup_with(&self, progress: &dyn Progress) -> Result<BackupReport> {
        self.backup_by(Crew::default(), progress).await
    }

    pub async fn backup_by(&self, crew: Crew, progress: &dyn Progress) -> Result<BackupReport> {
        let request = self.backup_request(crew)?;
        Ok(backup::run(&[destination(&self.line)], &request, progress).await?)
    }

    pub fn backup_request(&self, crew: Crew) -> Result<BackupRequest> {
        Ok(BackupRequest {
            parent: ParentChoice::Nothing,
            id: BackupId(new_ulid(Timestamp::now())?),
            connection: Config::parse(&self.pg.connection_string(), &Environment::of_process())?,
            data_directory: None,
            annotations: BTreeMap::new(),
            jobs: 2,
            memory_bytes: 128 << 20,
            crew,
            fast_checkpoint: true,
            wal_timeout: LIMIT,
            store_timeout: LIMIT,
            other_repository_is_away: false,
            program: "test".to_owned(),
        })
    }

    /// Ends the segment and waits until the repository has it.
    pub async fn archive_everything(&self) -> Result<()> {
        self.pg.psql("SELECT pg_create_restore_point('archived')")?;
        let end = self.pg.switch_wal()?;
        let ancestry = self.wal.ancestries().await?.known.pop().context("an ancestry")?;
        for _ in 0..LIMIT.as_millis() / 50 {
            let reached = self.wal.coverage(&ancestry, end).await?;
            if reached.last().is_some_and(|stretch| stretch.complete_to >= end) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("{end} is not in the repository: {}", self.pg.logs()?)
    }

    /// Waits until the repository knows a timeline and has WAL of it.
    pub async fn wait_for_timeline(&self, timeline: TimelineId) -> Result<()> {
        for _ in 0..LIMIT.as_millis() / 50 {
            let covered = self.wal.timeline_coverage(timeline).await?;
            if self.wal.timelines().await?.contains(&timeline) && !covered.ranges.is_empty() {
                // What is archived last is the segment that ends at the shutdown.
                tokio::time::sleep(Duration::from_millis(500)).await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("timeline {timeline} is not in the repository")
    }

    /// A directory to restore into; not created.
    pub fn room(&self, name: &str) -> PathBuf {
        self.rooms.join(name)
    }

    pub fn request(&self, room: &str, target: Target) -> RestoreRequest {
        RestoreRequest {
            target_text: format!("{target:?}"),
            asked_at: Timestamp::now(),
            target,
            backup: None,
            timeline: TimelineChoice::Current,
            mode: Mode::Clone,
            then: TargetAction::Promote,
            into: self.room(room),
            tablespaces: Vec::new(),
            databases: Vec::new(),
            delta: None,
            starts: false,
        }
    }

    pub fn options(&self, progress: Arc<dyn Progress>) -> RestoreOptions {
        RestoreOptions {
            jobs: 2,
            memory_bytes: 64 << 20,
            crew: Crew::default(),
            proves_first: false,
            restore_command: format!("cp {}/%f %p", self.archive.display()).into(),
            progress,
        }
    }

    /// Plans, proves and writes; hands the result to the servers' owner.
    pub async fn restore(&self, request: &RestoreRequest) -> seawall_core::Result<RestoreReport> {
        self.restore_with(request, &self.options(Arc::new(NoProgress))).await
    }

    pub async fn restore_with(
        &self,
        request: &RestoreRequest,
        options: &RestoreOptions,
    ) -> seawall_core::Result<RestoreReport> {
        let planned = plan_restore(&self.line, &self.wal, request).await?;
        let report = planned.prove(&self.wal, options).await?.run().await?;
        self.give_away(&request.into);
        Ok(report)
    }

    /// Tests run as root, restored servers do not.
    pub fn give_away(&self, directory: &Path) {
        self.pg.owner().chown_all(directory).expect("chown");
    }

    /// Undoes [`House::give_away`].
    pub fn take_back(&self, directory: &Path) {
        if self.pg.owner().is_another_user() {
            let mut command = std::process::Command::new("chown");
            let status = command.args(["-hR", "0:0"]).arg(directory).status().expect("chown");
            assert!(status.success());
        }
    }

    /// Starts a server on a restored directory and waits until it takes writes.
    pub fn open(&self, room: &str) -> Result<PgCluster> {
        let mut pg = PgCluster::open(self.pg.bin().major(), self.room(room)).create()?;
        pg.start()?;
        pg.wait_promoted(LIMIT)?;
        Ok(pg)
    }

    /// Whether PostgreSQL comes up on a directory, not even to be read.
    pub fn starts(&self, room: &str) -> Result<bool> {
        let mut pg = PgCluster::open(self.pg.bin().major(), self.room(room)).create()?;
        Ok(pg.start().is_ok())
    }

    /// Verifies the files, starts the server, and proves its rows, indexes and checksums, with
    /// those of PostgreSQL's tools that this major is installed with.
    pub fn prove(&self, room: &str, log: &LedgerLog, bound: &Bound) -> Result<Verdict> {
        let bin = self.pg.bin();
        let manifest = self.room(room).join("backup_manifest").exists();
        ensure!(manifest == (bin.major() >= 13), "a backup_manifest: {manifest}");
        if manifest && bin.client("pg_verifybackup").is_ok() {
            oracles::pg_verifybackup(bin, &self.room(room))?;
        }
        let mut restored = self.open(room)?;
        let rows = ledger::read_rows(restored.connection())?;
        let verdict = log.verify_prefix(&rows, bound)?;
        oracles::amcheck(restored.connection())?;
        restored.stop(StopMode::Fast)?;
        if bin.program("pg_checksums").is_ok() {
            oracles::pg_checksums(bin, restored.data_directory())?;
        }
        Ok(verdict)
    }
}

/// Makes a repository in an empty store, and the cluster's line in it.
pub async fn new_line(pg: &PgCluster, store: Arc<dyn Store>, key: &Unlock) -> Result<Line> {
    let options = CreateOptions { unlock: key, label: "test", now: Timestamp::now() };
    let repository = Repository::create(store, &options).await?;
    let control = read_control(pg.data_directory())?;
    let id = LineId { system_id: control.system_id, branch: BranchNumber(0) };
    let line = repository.line(&"main".parse()?, id)?;
    line.create(&About {
        cluster: "main".to_owned(),
        system_id: id.system_id,
        branch: id.branch,
        major: control.major.number(),
        catalog_version: control.catalog_version,
        control_version: control.control_version,
        block_bytes: control.block_size,
        relation_segment_blocks: control.relseg_size,
        wal_segment_bytes: control.wal_segment_size.bytes() as u32,
        wal_block_bytes: control.wal_block_size,
        data_checksum_version: control.data_checksum_version,
        created_us: 0,
    })
    .await?;
    Ok(line)
}

/// Stores what PostgreSQL archived, in the order of its names, until told to stop.
pub async fn ingest(wal: WalArchive, archive: PathBuf, stop: Arc<AtomicBool>) {
    let mut stored = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let names = fs::read_dir(&archive).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        for name in names {
            if !stored.contains(&name) && !name.starts_with('.') {
                store(&wal, &archive, &name).await.expect("WAL that PostgreSQL archived");
                stored.insert(name);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn store(wal: &WalArchive, archive: &Path, name: &str) -> Result<()> {
    let bytes = fs::read(archive.join(name))?;
    let parsed = WalFileName::parse(name, wal.segment_size()).context("a WAL file")?;
    match parsed {
        WalFileName::Segment(segment) => {
            wal.store_segment(segment, SegmentKind::Whole, &bytes).await?;
        }
        WalFileName::Partial(segment) => {
            wal.store_segment(segment, SegmentKind::Partial, &bytes).await?;
        }
        other => {
            wal.store_history(other, &bytes).await?;
        }
    }
    ensure!(!bytes.is_empty());
    Ok(())
}
