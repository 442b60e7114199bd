//! Making what is in the directory what the backup has.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use seawall_core::{Code, Error, Result};
use seawall_repo::manifest::{Content, Entry, EntryKind};
use tokio::runtime::Handle;

use super::compare::{Compared, Comparer, Difference};
use super::local::{Stamp, clear, look, usable};
use super::patch::Patch;
use super::prove::ProvenDelta;
use crate::cluster::stays_inside;
use crate::durable::{create_directory, local};
use crate::restore::execute::{
    Execution, FileBlocks, FileToWrite, SmallFiles, Worker, WriteTask, hand_over, in_parallel,
    make_link, next, send_small,
};
use crate::stored::Layout;

/// Files that are being mended.
pub(super) struct Mending<'m> {
    pub execution: &'m Execution,
    pub delta: &'m ProvenDelta,
    pub runtime: &'m Handle,
    /// CRC-32C of each entry's file.
    pub checksums: Mutex<Vec<Option<u32>>>,
    pub written_bytes: AtomicU64,
    pub written_files: AtomicU64,
    /// Bytes that were compared once more.
    pub compared_bytes: AtomicU64,
}

/// What one thread works with.
struct Hand<'h> {
    comparer: Comparer<'h>,
    worker: Worker,
}

impl Mending<'_> {
    /// Mends everything; returns what a person should know.
    ///
    /// # Errors
    /// Damage, a store that fails, [`Code::LocalIo`], [`Code::TargetDiskFull`].
    pub fn run(&self) -> Result<Vec<String>> {
        let Execution { jobs, pace, .. } = self.execution;
        let work = |receiver: &Mutex<Receiver<WriteTask>>| self.work(receiver);
        in_parallel(*jobs, pace, |tasks| self.find(tasks), work)
    }

    pub fn checksum(&self, number: u32) -> Option<u32> {
        let checksums = self.checksums.lock().unwrap_or_else(PoisonError::into_inner);
        checksums.get(number as usize).copied().flatten()
    }

    fn find(&self, tasks: &SyncSender<WriteTask>) -> Result<Vec<String>> {
        let Execution { sources, manifest, layout, pace, .. } = self.execution;
        let (mut notes, mut number) = (Vec::new(), 0);
        for page in 0..manifest.pages() {
            let mut small = SmallFiles::new();
            for entry in self.runtime.block_on(manifest.page(sources.store(), page))? {
                pace.refuse_stopped()?;
                let file = FileToWrite { number, location: layout.resolve(entry.path())?, entry };
                number += 1;
                if !Layout::restores(file.entry.path()) {
                    continue;
                }
                match file.entry.kind {
                    EntryKind::Directory => {
                        create_directory(&file.location, file.entry.mode | 0o700)?;
                    }
                    EntryKind::Symlink => self.link(&file, &mut notes)?,
                    EntryKind::File if self.is_same(&file)? => {}
                    EntryKind::File => hand_over(file, &mut small, tasks)?,
                }
            }
            send_small(small, tasks)?;
        }
        Ok(notes)
    }

    /// A link that is there and leads out of the directory is the user's, whatever the backup has.
    fn link(&self, file: &FileToWrite, notes: &mut Vec<String>) -> Result<()> {
        let there = fs::read_link(&file.location).ok();
        if there.as_ref().is_some_and(|there| !stays_inside(file.entry.path(), there)) {
            return Ok(());
        }
        if there.is_some_and(|there| !leads_to(&file.entry, &there)) {
            clear(&file.location)?;
        }
        make_link((&file.entry, self.execution.major), &file.location, notes)
    }

    /// Whether a file was found to be the backup's, and was not changed since.
    fn is_same(&self, file: &FileToWrite) -> Result<bool> {
        let compared = self.delta.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Compared::Same { stamp: Some(stamp), crc }) = compared.get(file.number as usize)
        else {
            return Ok(false);
        };
        let (stamp, crc) = (*stamp, *crc);
        drop(compared);
        let found = usable(&file.location)?.filter(|found| Stamp::of(found) == Some(stamp));
        let Some(found) = found else { return Ok(false) };
        self.is_right(file, found.mode(), crc)?;
        Ok(true)
    }

    fn work(&self, receiver: &Mutex<Receiver<WriteTask>>) -> Result<()> {
        let Execution { sources, pace, piece_bytes, progress, .. } = self.execution;
        let hasher = sources.line().keyring().hasher().clone();
        // What is compared once more is not what the stage is about.
        let comparer = Comparer::new(hasher, Arc::clone(pace), &seawall_core::NoProgress);
        let (runtime, pace) = (self.runtime.clone(), Arc::clone(pace));
        let worker = Worker::new(Arc::clone(sources), runtime, pace, *piece_bytes)?;
        let mut hand = Hand { comparer, worker };
        while let Some(task) = next(receiver) {
            let files = match &task {
                WriteTask::Mapped(file) => std::slice::from_ref(file.as_ref()),
                WriteTask::Small(files) => files.as_slice(),
            };
            for file in files {
                self.execution.pace.refuse_stopped()?;
                let written = self.mend(file, &mut hand)?;
                progress.advance(written);
            }
        }
        self.compared_bytes.fetch_add(hand.comparer.read_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a file right; returns how many bytes were written.
    fn mend(&self, file: &FileToWrite, hand: &mut Hand<'_>) -> Result<u64> {
        let blocks = match &file.entry.content {
            Some(Content::Mapped { leaves, .. }) => {
                Some(hand.worker.blocks.blocks_of(&file.entry, leaves)?)
            }
            Some(Content::Blob { .. }) | None => None,
        };
        let known = self.still_known(file)?;
        let compared = match known {
            Some(known) => known,
            None => hand.comparer.compare(file, blocks.as_ref())?,
        };
        match (compared, &blocks) {
            (Compared::Same { crc, .. }, _) => {
                let mode = look(&file.location)?.map_or(0, |found| found.mode());
                self.is_right(file, mode, crc)?;
                Ok(0)
            }
            (Compared::Differs { difference, .. }, Some(blocks)) => {
                self.patch(file, blocks, &difference, hand)
            }
            (Compared::Differs { .. }, None) => {
                Err(Error::new(Code::Internal, "a small file is compared as a whole"))
            }
            (Compared::Whole | Compared::Forgotten, _) => self.write(file, hand),
        }
    }

    /// What the comparison found, if the file was not changed since. It is taken out: a file is mended
    /// once.
    fn still_known(&self, file: &FileToWrite) -> Result<Option<Compared>> {
        let mut all = self.delta.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.get_mut(file.number as usize);
        let known = place.map(|place| std::mem::replace(place, Compared::Forgotten));
        drop(all);
        let stamp = match &known {
            Some(Compared::Whole) => return Ok(known),
            Some(Compared::Same { stamp, .. } | Compared::Differs { stamp, .. }) => *stamp,
            Some(Compared::Forgotten) | None => None,
        };
        let now = usable(&file.location)?.and_then(|found| Stamp::of(&found));
        Ok(known.filter(|_| stamp.is_some() && stamp == now))
    }

    fn patch(
        &self,
        file: &FileToWrite,
        blocks: &FileBlocks,
        difference: &Difference,
        hand: &mut Hand<'_>,
    ) -> Result<u64> {
        let FileToWrite { location, entry, .. } = file;
        let stored = difference.stored(&blocks.hashes);
        let mut patch = Patch::open(location, entry.size_bytes(), &blocks.hashes, difference)?;
        hand.worker.blocks.copy(entry, blocks, Some(&stored), &mut patch)?;
        let patched = patch.finish()?;
        let mode = look(location)?.map_or(0, |found| found.mode());
        self.is_right(file, mode, patched.crc)?;
        self.count(patched.written_bytes);
        Ok(patched.written_bytes)
    }

    /// Writes a file anew. What cannot be written into makes room first.
    fn write(&self, file: &FileToWrite, hand: &mut Hand<'_>) -> Result<u64> {
        if usable(&file.location)?.is_none() {
            clear(&file.location)?;
        }
        let crc = hand.worker.write(file)?;
        self.note(file.number, crc);
        self.count(file.entry.size_bytes());
        Ok(file.entry.size_bytes())
    }

    /// Notes a file whose content is right, and gives it its mode.
    fn is_right(&self, file: &FileToWrite, mode: u32, crc: u32) -> Result<()> {
        if mode & 0o7777 != file.entry.mode {
            give_mode(&file.location, file.entry.mode)?;
        }
        self.note(file.number, crc);
        Ok(())
    }

    fn note(&self, number: u32, crc: u32) {
        let mut checksums = self.checksums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = checksums.get_mut(number as usize) {
            *place = Some(crc);
        }
    }

    fn count(&self, bytes: u64) {
        self.written_files.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn leads_to(entry: &Entry, target: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let wanted = entry.link_target.as_ref().map(|target| target.as_slice()).unwrap_or_default();
    target.as_os_str().as_bytes() == wanted
}

fn give_mode(location: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(location, Permissions::from_mode(mode))
        .map_err(|error| local(error, "changing the mode of", location))
}
