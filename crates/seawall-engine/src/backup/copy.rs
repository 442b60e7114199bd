//! Copying the cluster's files: one thread finds them, several read and pack them, and the caller
//! collects what they did in the order of the paths.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use seawall_core::{BlockNumber, Code, Error, Result};
use seawall_pgdata::own_places::is_own_file;
use seawall_repo::Line;
use seawall_repo::hash::BlockHash;
use seawall_repo::manifest::{Entry, EntryKind, LeftOut, PageError};
use seawall_repo::map::BlockMapBuilder;
use seawall_repo::pack::{BLOCK_BYTES, BlobSize, PackInfo};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::bundle;
use super::pack_sink::PackSink;
use super::page_rule::PageRule;
use super::parent::Parent;
use super::worker::Worker;
use crate::cluster::{FileKind, Found, ScanOptions, scan};
use crate::pace::Pace;

/// Files up to this size share frames with others.
pub(super) const SMALL_FILE_BYTES: u64 = 64 * 1024;

/// A large file is copied in spans of this size, so that all workers can share one.
pub(super) const SPAN_BYTES: u64 = SPAN_STEP as u64;

/// The same, as steps are counted.
pub(super) const SPAN_STEP: usize = 32 << 20;

/// Tasks that wait for a worker. Enough to keep all busy; files found too early grow meanwhile.
const TASKS_WAITING: usize = 32;

/// The scan runs at most so many paths ahead of the manifest, which bounds what is held out of order.
const PATHS_AHEAD: u64 = 20_000;

/// How long the scan pauses when it is that far ahead.
const AHEAD_PAUSE: Duration = Duration::from_millis(2);

/// Results that wait to be collected.
const RESULTS_WAITING: usize = 256;

/// A piece of work.
#[derive(Debug)]
pub(super) enum Task {
    /// Small files for one frame.
    Small(Vec<SmallFile>),
    /// A large file that has to be read as it is at one moment, by one worker.
    Settled(SmallFile),
    /// A span of a large file.
    Span(Span),
}

#[derive(Debug)]
pub(super) struct SmallFile {
    pub sequence: u64,
    pub location: PathBuf,
    pub rule: CopyRule,
    pub entry: Entry,
}

/// What makes the copy of a file right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyRule {
    /// Replay does, page by page. It has the length with which it was found; the number within the
    /// relation of its first page is absent for what is not a relation.
    Replayed { relation_block: Option<BlockNumber> },
    /// Only that it was so at one moment. A file that is PostgreSQL's own must be had.
    Settled { is_own: bool },
}

impl CopyRule {
    /// The number of the first page, for what is made of pages that can be judged.
    pub const fn relation_block(self) -> Option<BlockNumber> {
        match self {
            Self::Replayed { relation_block } => relation_block,
            Self::Settled { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Span {
    pub sequence: u64,
    pub number: u32,
    pub location: PathBuf,
    pub path: Vec<u8>,
    pub relation_block: Option<BlockNumber>,
    pub offset: u64,
    pub length: u64,
}

/// What came of the work, for the collector. Sequence numbers count paths in their order.
#[derive(Debug)]
pub(super) enum Copied {
    /// A path without content of its own, or with content that is in the repository already.
    Entry { sequence: u64, entry: Entry, reused: bool },
    /// A large file was begun; its spans follow.
    Large { sequence: u64, entry: Entry, spans: u32 },
    /// A small file is in a frame.
    Small { sequence: u64, entry: Entry, errors: Vec<PageError>, read_bytes: u64 },
    /// A span is in frames.
    Span {
        sequence: u64,
        span: u32,
        map: BlockMapBuilder,
        hashes: Vec<BlockHash>,
        errors: Vec<PageError>,
        read_bytes: u64,
    },
    /// A large file is in frames, all of it.
    Whole {
        sequence: u64,
        entry: Entry,
        map: BlockMapBuilder,
        hashes: Vec<BlockHash>,
        read_bytes: u64,
    },
    /// A file changed each time it was read.
    LeftOut { sequence: u64, file: LeftOut },
    /// A file vanished before it was read.
    Gone { sequence: u64 },
    /// A large file vanished before this span was read.
    SpanGone { sequence: u64, span: u32 },
    /// A pack is durable.
    Pack(PackInfo),
}

impl Copied {
    /// The bytes read for it, for a progress display.
    pub const fn read_bytes(&self) -> u64 {
        match self {
            Self::Small { read_bytes, .. }
            | Self::Span { read_bytes, .. }
            | Self::Whole { read_bytes, .. } => *read_bytes,
            _ => 0,
        }
    }
}

/// What a copy needs.
pub(super) struct CopyJob {
    pub scan: ScanOptions,
    pub relation_segment_blocks: u32,
    pub line: Line,
    pub rule: Arc<PageRule>,
    pub parent: Option<Parent>,
    /// How many paths the manifest has; the collector counts.
    pub emitted: Arc<AtomicU64>,
    pub pace: Arc<Pace>,
    pub jobs: usize,
    pub level: i32,
    pub pack_bytes: u64,
}

/// A copy that is going on. Dropping it stops the threads.
pub(super) struct Copying {
    results: mpsc::Receiver<Copied>,
    threads: Vec<thread::JoinHandle<Result<()>>>,
    pace: Arc<Pace>,
}

impl Copying {
    /// Starts the threads. Must be called within a tokio runtime.
    pub fn start(job: CopyJob) -> Result<Self> {
        let runtime = Handle::current();
        let (result_sender, results) = mpsc::channel(RESULTS_WAITING);
        let (task_sender, tasks) = sync_channel(TASKS_WAITING);
        let tasks = Arc::new(Mutex::new(tasks));
        let pace = Arc::clone(&job.pace);
        let mut threads = Vec::new();
        for number in 0..job.jobs.max(1) {
            let sink = PackSink::new(job.line.clone(), runtime.clone(), job.level, job.pack_bytes)?;
            let hasher = job.line.keyring().hasher().clone();
            let worker = Worker::new(Arc::clone(&job.rule), Arc::clone(&job.pace), hasher, sink);
            let (tasks, results) = (Arc::clone(&tasks), result_sender.clone());
            threads.push(spawn(&format!("copy-{number}"), &pace, move |pace| {
                run_worker(worker, &tasks, &results, pace)
            })?);
        }
        threads.push(spawn("scan", &pace, move |_| {
            Planner {
                job: &job,
                tasks: &task_sender,
                results: &result_sender,
                sequence: 0,
                bundle: Vec::new(),
                bundle_size: BlobSize::default(),
            }
            .run()
        })?);
        Ok(Self { results, threads, pace })
    }

    /// The next result; `None` when all work is done or has failed: see [`Copying::finish`].
    pub async fn next(&mut self) -> Option<Copied> {
        self.results.recv().await
    }

    /// Waits for the threads.
    ///
    /// # Errors
    /// What made one of them fail.
    pub async fn finish(mut self) -> Result<()> {
        self.results.close();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            let mut outcome = Ok(());
            for thread in threads {
                let result = thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::new(Code::Internal, "a copying thread died")));
                outcome = more_telling(outcome, result);
            }
            outcome
        });
        joined.await.unwrap_or_else(|_| Err(Error::new(Code::Internal, "a copying thread died")))
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.pace.stop();
    }
}

fn spawn(
    name: &str,
    pace: &Arc<Pace>,
    body: impl FnOnce(&Pace) -> Result<()> + Send + 'static,
) -> Result<thread::JoinHandle<Result<()>>> {
    let (pace, member) = (Arc::clone(pace), pace.member());
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _member = member;
            let result = body(&pace);
            if result.is_err() {
                pace.stop();
            }
            result
        })
        .map_err(|error| Error::new(Code::LocalIo, "cannot start a thread").with_source(error))
}

/// The outcome of two threads: a thread that only stopped because another failed tells nothing.
fn more_telling(one: Result<()>, other: Result<()>) -> Result<()> {
    match (&one, &other) {
        (Ok(()), _) => other,
        (Err(error), Err(_)) if error.code() == Code::Interrupted => other,
        _ => one,
    }
}

fn stopped() -> Error {
    Error::new(Code::Interrupted, "copying was stopped")
}

fn run_worker(
    mut worker: Worker,
    tasks: &Mutex<Receiver<Task>>,
    results: &mpsc::Sender<Copied>,
    pace: &Pace,
) -> Result<()> {
    let mut done = |copied| results.blocking_send(copied).map_err(|_| stopped());
    loop {
        pace.refuse_stopped()?;
        let next =
            tasks.lock().map_err(|_| Error::new(Code::Internal, "a copying thread died"))?.recv();
        match next {
            Ok(task) => worker.work(task, &mut done)?,
            Err(_) => return worker.end(&mut done),
        }
    }
}

/// Turns what a scan finds into tasks.
struct Planner<'j> {
    job: &'j CopyJob,
    tasks: &'j SyncSender<Task>,
    results: &'j mpsc::Sender<Copied>,
    sequence: u64,
    bundle: Vec<SmallFile>,
    bundle_size: BlobSize,
}

impl Planner<'_> {
    fn run(mut self) -> Result<()> {
        let options = self.job.scan.clone();
        scan(&options, &mut |found| self.found(&found))?;
        self.flush()
    }

    /// Waits while the scan is too far ahead. Nothing may be held back meanwhile: the manifest could
    /// be waiting for just that.
    fn keep_pace(&mut self) -> Result<()> {
        let ahead = |planner: &Self| {
            planner.sequence >= planner.job.emitted.load(Ordering::Relaxed) + PATHS_AHEAD
        };
        if ahead(self) {
            self.flush()?;
        }
        while ahead(self) {
            self.job.pace.refuse_stopped()?;
            thread::sleep(AHEAD_PAUSE);
        }
        self.job.pace.refuse_stopped()
    }

    fn found(&mut self, found: &Found) -> Result<()> {
        self.keep_pace()?;
        let sequence = self.sequence;
        self.sequence += 1;
        let entry = file_entry(found);
        if entry.kind != EntryKind::File {
            return self.result(Copied::Entry { sequence, entry, reused: false });
        }
        let rule = self.rule(found);
        // What seems empty may be about to be written.
        if found.size_bytes == 0 && matches!(rule, CopyRule::Replayed { .. }) {
            return self.result(Copied::Entry { sequence, entry, reused: false });
        }
        if let Some(content) = self.job.parent.as_ref().and_then(|parent| parent.content(found)) {
            let entry = Entry { content: Some(content), ..entry };
            return self.result(Copied::Entry { sequence, entry, reused: true });
        }
        let file = SmallFile { sequence, location: found.location.clone(), rule, entry };
        if found.size_bytes <= SMALL_FILE_BYTES {
            return self.small(file);
        }
        match rule {
            CopyRule::Replayed { relation_block } => {
                self.large(sequence, found, relation_block, file.entry)
            }
            CopyRule::Settled { .. } => self.task(Task::Settled(file)),
        }
    }

    fn rule(&self, found: &Found) -> CopyRule {
        match &found.kind {
            FileKind::Relation(file) => CopyRule::Replayed {
                relation_block: Some(file.segment.saturating_mul(self.job.relation_segment_blocks)),
            },
            FileKind::SimpleLog => CopyRule::Replayed { relation_block: None },
            FileKind::Plain | FileKind::Directory | FileKind::Symlink(_) => {
                CopyRule::Settled { is_own: is_own_file(&found.path, self.job.scan.major) }
            }
        }
    }

    fn small(&mut self, file: SmallFile) -> Result<()> {
        let with = |size: BlobSize| size.with(file.entry.path(), file.entry.size_bytes());
        let mut size = with(self.bundle_size);
        if !bundle::fits(size) {
            self.flush()?;
            size = with(self.bundle_size);
        }
        self.bundle_size = size;
        self.bundle.push(file);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.bundle_size = BlobSize::default();
        let bundle = std::mem::take(&mut self.bundle);
        if bundle.is_empty() { Ok(()) } else { self.task(Task::Small(bundle)) }
    }

    fn large(
        &mut self,
        sequence: u64,
        found: &Found,
        relation_block: Option<BlockNumber>,
        entry: Entry,
    ) -> Result<()> {
        let blocks = u32::try_from(found.size_bytes.div_ceil(BLOCK_BYTES as u64));
        let spans = u32::try_from(found.size_bytes.div_ceil(SPAN_BYTES));
        let (Ok(_), Ok(spans)) = (blocks, spans) else {
            let path = String::from_utf8_lossy(&found.path).into_owned();
            return Err(Error::new(Code::UnsupportedCluster, format!("{path} is over 32 TiB")));
        };
        self.result(Copied::Large { sequence, entry, spans })?;
        for number in 0..spans {
            let offset = u64::from(number) * SPAN_BYTES;
            self.task(Task::Span(Span {
                sequence,
                number,
                location: found.location.clone(),
                path: found.path.clone(),
                relation_block,
                offset,
                length: SPAN_BYTES.min(found.size_bytes - offset),
            }))?;
        }
        Ok(())
    }

    fn task(&self, task: Task) -> Result<()> {
        self.tasks.send(task).map_err(|_| stopped())
    }

    fn result(&self, copied: Copied) -> Result<()> {
        self.results.blocking_send(copied).map_err(|_| stopped())
    }
}

/// The manifest's entry of what was found, still without content.
fn file_entry(found: &Found) -> Entry {
    let (kind, link_target) = match &found.kind {
        FileKind::Directory => (EntryKind::Directory, None),
        FileKind::Symlink(target) => (EntryKind::Symlink, Some(target.clone().into())),
        FileKind::Relation(_) | FileKind::SimpleLog | FileKind::Plain => (EntryKind::File, None),
    };
    let is_file = kind == EntryKind::File;
    Entry {
        path: found.path.clone().into(),
        kind,
        mode: found.mode,
        size_bytes: is_file.then_some(found.size_bytes),
        modified_us: is_file.then_some(found.modified_us),
        content: None,
        link_target,
    }
}
