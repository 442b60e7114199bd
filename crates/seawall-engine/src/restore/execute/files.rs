use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use seawall_core::{Code, Error, Progress, Result, Ulid};
use seawall_pgdata::PgMajor;
use seawall_pgdata::own_places::{is_own_directory, is_own_file};
use seawall_repo::manifest::{Content, Entry, EntryKind, ManifestReader};
use tokio::runtime::Handle;

use super::journal::Journal;
use super::worker::{FileToWrite, Worker, WriteTask, crc_of_zeroes};
use crate::cluster::stays_inside;
use crate::durable::{create_directory, create_file, local};
use crate::pace::Pace;
use crate::stored::{Layout, Sources};

/// Tasks that wait for a worker.
const JOBS_WAITING: usize = 16;

/// Small files that are written together at most.
const SMALL_FILES_MAX: usize = 64;

/// What is needed to write a backup's files.
pub(super) struct Writing<'w> {
    pub sources: Arc<Sources>,
    pub manifest: &'w ManifestReader,
    pub layout: &'w Layout,
    pub journal: &'w Journal,
    pub major: PgMajor,
    pub jobs: usize,
    /// How much one worker reads and writes at a time.
    pub piece_bytes: usize,
    pub pace: Arc<Pace>,
    pub progress: &'w dyn Progress,
}

impl Writing<'_> {
    /// Writes every directory, link and file of the backup; returns what a person should know.
    ///
    /// Blocks; `runtime` does the reading.
    pub fn run(&self, runtime: &Handle) -> Result<Vec<String>> {
        let work = |receiver: &Mutex<Receiver<WriteTask>>| self.work(runtime, receiver);
        in_parallel(self.jobs, &self.pace, |tasks| self.find(runtime, tasks), work)
    }

    fn work(&self, runtime: &Handle, receiver: &Mutex<Receiver<WriteTask>>) -> Result<()> {
        let (sources, pace) = (Arc::clone(&self.sources), Arc::clone(&self.pace));
        let mut worker = Worker::new(sources, runtime.clone(), pace, self.piece_bytes)?;
        while let Some(task) = next(receiver) {
            self.pace.refuse_stopped()?;
            worker.work(&task, &mut |file, crc| {
                let bytes = file.entry.size_bytes();
                self.progress.advance(bytes);
                self.journal.note(file.number, crc, bytes, self.layout)
            })?;
        }
        Ok(())
    }

    /// Goes through the manifest, makes directories and links, and gives files to the workers.
    fn find(&self, runtime: &Handle, tasks: &SyncSender<WriteTask>) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut number = 0;
        for page in 0..self.manifest.pages() {
            let entries = runtime.block_on(self.manifest.page(self.sources.store(), page))?;
            let mut small = SmallFiles::new();
            for entry in entries {
                self.pace.refuse_stopped()?;
                let location = self.layout.resolve(entry.path())?;
                let wanted = FileToWrite { number, location, entry };
                number += 1;
                if let Some(file) = self.look(wanted, &mut notes)? {
                    hand_over(file, &mut small, tasks)?;
                }
            }
            send_small(small, tasks)?;
        }
        Ok(notes)
    }

    /// Makes what is not a file; gives back a file that is still to be written.
    fn look(&self, wanted: FileToWrite, notes: &mut Vec<String>) -> Result<Option<FileToWrite>> {
        if !Layout::restores(wanted.entry.path()) {
            return Ok(None);
        }
        match wanted.entry.kind {
            EntryKind::Directory => {
                create_directory(&wanted.location, wanted.entry.mode | 0o700).map(|()| None)
            }
            EntryKind::Symlink => self.link(&wanted.entry, &wanted.location, notes).map(|()| None),
            EntryKind::File => {
                let finished = self.journal.finished(wanted.number).is_some();
                let there = fs::symlink_metadata(&wanted.location).ok();
                let same =
                    there.is_some_and(|it| it.is_file() && it.len() == wanted.entry.size_bytes());
                if finished && same {
                    self.progress.advance(wanted.entry.size_bytes());
                    return Ok(None);
                }
                if self.layout.leaves_out(wanted.entry.path()) {
                    return self.hole(&wanted).map(|()| None);
                }
                Ok(Some(wanted))
            }
        }
    }

    /// A file of a database that is left out: as long as it was, and one hole.
    fn hole(&self, wanted: &FileToWrite) -> Result<()> {
        let bytes = wanted.entry.size_bytes();
        let file = create_file(&wanted.location, wanted.entry.mode)?;
        file.set_len(bytes).map_err(|error| local(error, "writing", &wanted.location))?;
        self.progress.advance(bytes);
        self.journal.note(wanted.number, crc_of_zeroes(0, bytes), bytes, self.layout)
    }

    fn link(&self, entry: &Entry, location: &Path, notes: &mut Vec<String>) -> Result<()> {
        make_link((entry, self.major), location, notes)
    }
}

/// A link out of the data directory is made for nobody: through it the restored server would read and
/// write what is production's.
pub(in crate::restore) fn make_link(
    (entry, major): (&Entry, PgMajor),
    location: &Path,
    notes: &mut Vec<String>,
) -> Result<()> {
    let target = entry.link_target.as_ref().map(|target| target.as_slice()).unwrap_or_default();
    let target = Path::new(OsStr::from_bytes(target));
    if !stays_inside(entry.path(), target) {
        let path = String::from_utf8_lossy(entry.path());
        let lost = if is_own_directory(entry.path(), major) || is_own_file(entry.path(), major) {
            " What was behind it is PostgreSQL's own, and this backup does not have it."
        } else {
            " It is yours to make again, if what it leads to is this server's."
        };
        notes.push(format!(
            "The link {path} to {} was left out: production may write there.{lost}",
            target.display()
        ));
        return Ok(());
    }
    if fs::read_link(location).is_ok_and(|there| there == target) {
        return Ok(());
    }
    symlink(target, location).map_err(|error| local(error, "linking", location))
}

/// Has threads work on what `find` finds, until there is nothing more or something fails.
pub(in crate::restore) fn in_parallel<T: Send, F: Send>(
    jobs: usize,
    pace: &Pace,
    find: impl FnOnce(&SyncSender<T>) -> Result<F>,
    work: impl Fn(&Mutex<Receiver<T>>) -> Result<()> + Sync,
) -> Result<F> {
    let (sender, receiver) = sync_channel(JOBS_WAITING);
    // Once no worker is left, nobody holds it: whoever still sends is told.
    let receiver = Arc::new(Mutex::new(receiver));
    let failure = Mutex::new(None);
    let fail = |error: Error| {
        pace.stop();
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    let found = thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (receiver, fail, work) = (Arc::clone(&receiver), &fail, &work);
            let work = move || work(&receiver).map_err(fail);
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, work) {
                let none = Error::new(Code::LocalIo, "cannot start a thread");
                fail(none.with_source(error));
            }
        }
        drop(receiver);
        let found = find(&sender);
        // The workers end when there is nothing more to come.
        drop(sender);
        found.map_err(fail).ok()
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => found.ok_or_else(|| Error::new(Code::Internal, "nothing was found")),
    }
}

/// The next task, if there is one more.
pub(in crate::restore) fn next<T>(receiver: &Mutex<Receiver<T>>) -> Option<T> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Gives a file to the threads: one of blocks at once, a small one when those of its frame are known.
pub(in crate::restore) fn hand_over(
    file: FileToWrite,
    small: &mut SmallFiles,
    tasks: &SyncSender<WriteTask>,
) -> Result<()> {
    match file.entry.content {
        Some(Content::Mapped { .. }) => send(tasks, WriteTask::Mapped(Box::new(file)))?,
        Some(Content::Blob { pack, frame, .. }) => {
            small.entry(Some((pack, frame))).or_default().push(file);
        }
        None => small.entry(None).or_default().push(file),
    }
    Ok(())
}

/// Hands a task to whichever thread is free.
fn send<T>(tasks: &SyncSender<T>, task: T) -> Result<()> {
    tasks.send(task).map_err(|_| Error::new(Code::Internal, "no thread works on files any more"))
}

/// Small files by pack and frame; empty ones are in none.
pub(in crate::restore) type SmallFiles = BTreeMap<Option<(Ulid, u32)>, Vec<FileToWrite>>;

/// Sends small files in the order of their frames, so that each frame is read once.
pub(in crate::restore) fn send_small(
    small: SmallFiles,
    tasks: &SyncSender<WriteTask>,
) -> Result<()> {
    let mut batch = Vec::new();
    for files in small.into_values() {
        batch.extend(files);
        if batch.len() >= SMALL_FILES_MAX {
            send(tasks, WriteTask::Small(std::mem::take(&mut batch)))?;
        }
    }
    if batch.is_empty() { Ok(()) } else { send(tasks, WriteTask::Small(batch)) }
}
