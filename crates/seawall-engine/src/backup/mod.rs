//! Full backups from the files beside the database.
//!
//! ```text
//! look → pin → start → WAL up to the start → copy → pg_control → stop → WAL up to the stop → publish
//! ```
//! A backup that dies leaves packs, maps and a journal. The next one takes what that attempt
//! finished and WAL proves unchanged, and does not read it again.

mod bundle;
mod collector;
mod config_files;
mod copy;
mod file_copies;
mod history;
mod journal;
mod pack_sink;
mod page_rule;
mod parent;
mod publish;
mod settled;
mod source;
mod start;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{
    Action, BackupId, Error, Hint, Key, Lsn, Progress, Result, Stage, TimelineId, hint,
};
use seawall_pgwire::Config;
use seawall_repo::Line;
use seawall_repo::manifest::{LeftOut, PageError};
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::{BackupSession, ScanOptions, Server, Survey};
use crate::delivery::{ByArchiver, WalDelivery};
use crate::pace::{Crew, Pace};
use collector::{Collector, Totals};
use copy::{CopyJob, Copying};
use page_rule::{PageRule, ReplayLimit};
use start::Started;

pub use start::Look;
pub(crate) use start::survey_cluster;

/// How often a copy looks whether PostgreSQL still knows of the backup.
const PULSE: Duration = Duration::from_secs(10);

/// What to do about a backup that was given up.
fn again() -> Hint {
    let backup = Action::Backup { cluster: None };
    hint!["Run ", backup, " again; files already copied are not read again."]
}

/// What a backup is asked to do.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The id it gets; no other backup or attempt has it.
    pub id: BackupId,
    /// Where the cluster's server is.
    pub connection: Config,
    /// Where its files are; `None` for where the server says.
    pub data_directory: Option<PathBuf>,
    /// The user's notes.
    pub annotations: BTreeMap<String, String>,
    /// Worker threads.
    pub jobs: usize,
    /// Whose threads they are, and how fast they may read the cluster's files.
    pub crew: Crew,
    /// zstd level of the frames.
    pub compression_level: i32,
    /// A pack is closed when it has so many bytes.
    pub pack_bytes: u64,
    /// Let PostgreSQL make its checkpoint at once instead of spreading it.
    pub fast_checkpoint: bool,
    /// How long WAL may take to arrive in the repository without any progress.
    pub wal_timeout: Duration,
    /// The program's name and version, for the manifest.
    pub program: String,
}

impl BackupRequest {
    /// The way in which the cluster's WAL comes into the repository.
    fn delivery(&self) -> Box<dyn WalDelivery> {
        Box::new(ByArchiver { patience: self.wal_timeout })
    }
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// Its id.
    pub id: BackupId,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where the cluster is consistent.
    pub stop_lsn: Lsn,
    /// The timeline of the stop.
    pub timeline: TimelineId,
    /// When it began.
    pub started: Timestamp,
    /// When it was published.
    pub finished: Timestamp,
    /// Bytes of all files.
    pub cluster_bytes: u64,
    /// Bytes read from the cluster.
    pub read_bytes: u64,
    /// Bytes added to the repository.
    pub stored_bytes: u64,
    /// Number of files.
    pub files: u64,
    /// Files taken over from an attempt that died.
    pub reused_files: u64,
    /// That attempt.
    pub resumed: Option<BackupId>,
    /// Pages with errors, the first thousand.
    pub page_errors: Vec<PageError>,
    /// How many pages have errors.
    pub page_error_count: u64,
    /// Files that are not PostgreSQL's and changed each time they were read.
    pub left_out: Vec<LeftOut>,
    /// Links that were followed, or lead to what is in no backup.
    pub links: Survey,
}

/// Makes a full backup of a cluster into one repository.
///
/// # Errors
/// Those of the server, among them `BackupAborted`; `DatabaseFilesLost`; `ClusterUnreadable` for the cluster's files;
/// `WalNotArrived`; and those of the repository. What was copied until then is kept for the next
/// attempt.
pub async fn run(
    line: &Line,
    request: &BackupRequest,
    progress: &dyn Progress,
) -> Result<BackupReport> {
    let (started, id) = (Timestamp::now(), request.id);
    let look = start::look(line, request).await?;
    let outcome = attempt(line, request, &look, id, started, progress).await;
    if let Err(Failed { worth_keeping: false, .. }) = &outcome {
        // Nothing that a later attempt could use: leave no trace. If even that fails, the next
        // backup sees an attempt whose process is gone.
        let _ = line.unpin(id.0).await;
    }
    outcome.map_err(|failed| failed.error.with_pair(Key::Cluster, line.cluster()))
}

/// Why an attempt ended, and whether it finished anything.
struct Failed {
    error: Error,
    worth_keeping: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, worth_keeping: false }
    }
}

async fn attempt(
    line: &Line,
    request: &BackupRequest,
    look: &Look,
    id: BackupId,
    started: Timestamp,
    progress: &dyn Progress,
) -> Result<BackupReport, Failed> {
    let Started { mut session, journal, tablespaces, parent, packs, maps, dead } =
        start::start(line, request, look, id, progress).await?;
    let resumed = parent.as_ref().map(|(id, _)| *id);
    let mut collector = Collector::begin(line.clone(), packs, maps, journal).await?;
    let (runtime, mut server) =
        (tokio::runtime::Handle::current(), Server::connect(&request.connection).await?);
    let limit = ReplayLimit::new(session.start_lsn, move || runtime.block_on(server.insert_lsn()));
    let rule =
        PageRule { data_checksums: look.facts.data_checksums, start: session.start_lsn, limit };
    let copying = Copying::start(CopyJob {
        scan: ScanOptions {
            root: look.data_directory.clone(),
            major: look.facts.major,
            tablespaces: tablespaces.clone(),
            links: look.survey.rules.clone(),
        },
        relation_segment_blocks: look.control.relseg_size,
        line: line.clone(),
        rule: Arc::new(rule),
        parent: parent.map(|(_, parent)| parent),
        emitted: collector.emitted(),
        pace: Arc::new(Pace::new(&request.crew)),
        jobs: request.jobs,
        level: request.compression_level,
        pack_bytes: request.pack_bytes,
    })?;
    progress.stage(Stage::Copying, None);
    let copied = copy(copying, &mut collector, &mut session, progress).await;
    let worth_keeping = collector.is_worth_keeping();
    let keep = |error| Failed { error, worth_keeping };
    copied.map_err(keep)?;

    let collected = collector.finish().await.map_err(keep)?;
    let totals = collected.totals.clone();
    let copied = publish::Copied { id, started, resumed, dead, session, tablespaces, collected };
    let published = publish::publish(line, request, look, copied, progress).await.map_err(keep)?;
    Ok(report(id, (started, resumed), totals, look, &published))
}

/// Collects until the copying threads are done, and looks now and then whether the backup lives.
async fn copy(
    mut copying: Copying,
    collector: &mut Collector,
    session: &mut BackupSession,
    progress: &dyn Progress,
) -> Result<()> {
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            copied = copying.next() => match copied {
                Some(copied) => {
                    progress.advance(copied.read_bytes());
                    collector.collect(copied).await?;
                }
                None => break,
            },
            _ = pulse.tick() => {
                session.prove_alive().await?;
                collector.heartbeat().await?;
            }
        }
    }
    copying.finish().await?;
    collector.end().await
}

fn report(
    id: BackupId,
    (started, resumed): (Timestamp, Option<BackupId>),
    totals: Totals,
    look: &Look,
    published: &publish::Published,
) -> BackupReport {
    BackupReport {
        id,
        start_lsn: published.start_lsn,
        stop_lsn: published.stop_lsn,
        timeline: published.timeline,
        started,
        finished: Timestamp::now(),
        cluster_bytes: totals.cluster_bytes,
        read_bytes: totals.read_bytes,
        stored_bytes: totals.stored_bytes,
        files: totals.files,
        reused_files: totals.reused_files,
        resumed,
        page_errors: totals.page_errors,
        page_error_count: totals.page_error_count,
        left_out: totals.left_out,
        links: look.survey.clone(),
    }
}
