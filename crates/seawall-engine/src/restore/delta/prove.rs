//! Comparing the directory with the backup, and proving that all that differs can be had, before
//! anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use seawall_core::{Code, Error, Oid, Progress, Result, Stage};
use seawall_repo::manifest::{Content, EntryKind, ManifestReader};
use seawall_repo::pack::BLOCK_BYTES;
use tokio::runtime::Handle;

use super::Delta;
use super::compare::{Compared, Comparer};
use super::local::look;
use crate::pace::{Pace, StopWhenDropped};
use crate::restore::execute::{
    FileBlocks, FileToWrite, SmallFiles, WriteTask, hand_over, in_parallel, next, send_small,
};
use crate::stored::{Frames, Layout, Sources};

/// What is proven before a restore goes onto a directory.
pub(in crate::restore) struct ProvenDelta {
    pub delta: Delta,
    /// The places of tablespaces that the backup has not.
    pub surplus: BTreeMap<Oid, PathBuf>,
    /// What is known of each entry's file.
    pub(super) compared: Mutex<Vec<Compared>>,
    /// Bytes that were read and compared.
    pub compared_bytes: u64,
    /// Bytes that are to be written, as far as is known.
    pub differing_bytes: u64,
    /// Bytes as they are stored that are needed of the repository.
    pub fetched_bytes: u64,
    /// Room that is needed on the file system of each of [`Layout::directories`].
    pub grows_bytes: Vec<u64>,
}

/// What is needed to compare a directory with a backup.
pub(in crate::restore) struct Proving {
    pub sources: Arc<Sources>,
    pub manifest: Arc<ManifestReader>,
    pub layout: Layout,
    pub jobs: usize,
    /// How much may be kept of what is found to differ.
    pub kept_bytes_max: usize,
    pub pace: Arc<Pace>,
    pub progress: Arc<dyn Progress>,
}

impl Proving {
    /// Compares all files that are there, and reads all of the repository that is needed.
    ///
    /// # Errors
    /// Damage, a store that fails, [`Code::ClusterUnreadable`] for a file that cannot be read.
    pub async fn run(
        self,
        delta: Delta,
        surplus: BTreeMap<Oid, PathBuf>,
        entries: usize,
    ) -> Result<ProvenDelta> {
        let needed = Mutex::new(Frames::read(&self.sources).await?);
        let (pace, progress) = (Arc::clone(&self.pace), Arc::clone(&self.progress));
        let guard = StopWhenDropped(Arc::clone(&pace));
        let (sources, member) = (Arc::clone(&self.sources), pace.member());
        let runtime = Handle::current();
        let compare = move || {
            let _member = member;
            let found = Comparing {
                grows_bytes: self.layout.directories().map(|_| AtomicU64::new(0)).collect(),
                compared: Mutex::new(
                    std::iter::repeat_with(Compared::default).take(entries).collect(),
                ),
                needed,
                kept_bytes: AtomicUsize::new(0),
                compared_bytes: AtomicU64::new(0),
                differing_bytes: AtomicU64::new(0),
                by: &self,
                runtime: &runtime,
            };
            found.run().map(|()| found.found())
        };
        let compared = tokio::task::spawn_blocking(compare).await;
        drop(guard);
        let compared = compared.unwrap_or_else(|error| {
            Err(Error::new(Code::Internal, "the comparing thread died").with_source(error))
        });
        let Found { compared, needed, compared_bytes, differing_bytes, grows_bytes } = compared?;
        let pace = pace.again();
        let fetched_bytes = needed.check_stored(&sources, &pace, progress.as_ref()).await?;
        Ok(ProvenDelta {
            delta,
            surplus,
            compared,
            compared_bytes,
            differing_bytes,
            fetched_bytes,
            grows_bytes,
        })
    }
}

/// A comparison that is going on.
struct Comparing<'c> {
    by: &'c Proving,
    runtime: &'c Handle,
    compared: Mutex<Vec<Compared>>,
    needed: Mutex<Frames>,
    kept_bytes: AtomicUsize,
    compared_bytes: AtomicU64,
    differing_bytes: AtomicU64,
    grows_bytes: Vec<AtomicU64>,
}

/// What a comparison found.
struct Found {
    compared: Mutex<Vec<Compared>>,
    needed: Frames,
    compared_bytes: u64,
    differing_bytes: u64,
    grows_bytes: Vec<u64>,
}

impl Comparing<'_> {
    fn run(&self) -> Result<()> {
        let total = self.by.manifest.commit.info.cluster_bytes;
        self.by.progress.stage(Stage::Comparing, Some(total));
        let work = |receiver: &Mutex<Receiver<WriteTask>>| self.work(receiver);
        in_parallel(self.by.jobs, &self.by.pace, |tasks| self.find(tasks), work)
    }

    fn found(self) -> Found {
        Found {
            compared: self.compared,
            needed: self.needed.into_inner().unwrap_or_else(PoisonError::into_inner),
            compared_bytes: self.compared_bytes.into_inner(),
            differing_bytes: self.differing_bytes.into_inner(),
            grows_bytes: self.grows_bytes.into_iter().map(AtomicU64::into_inner).collect(),
        }
    }

    /// Goes through the manifest. What is below something that is no directory is not there.
    fn find(&self, tasks: &SyncSender<WriteTask>) -> Result<()> {
        let Proving { sources, manifest, layout, pace, .. } = self.by;
        let mut absent: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut number = 0;
        for page in 0..manifest.pages() {
            let mut small = SmallFiles::new();
            for entry in self.runtime.block_on(manifest.page(sources.store(), page))? {
                pace.refuse_stopped()?;
                let file = FileToWrite { number, location: layout.resolve(entry.path())?, entry };
                number += 1;
                let path = file.entry.path();
                let slash = path.iter().rposition(|byte| *byte == b'/');
                let parent = slash.and_then(|slash| path.get(..slash));
                let is_below_absent = parent.is_some_and(|parent| absent.contains(parent));
                match file.entry.kind {
                    EntryKind::Directory => {
                        let is_there = look(&file.location)?.is_some_and(|found| found.is_dir());
                        let is_place = layout.directories().any(|it| it == file.location);
                        let is_there = is_there || is_place && file.location.is_dir();
                        if is_below_absent && !is_place || !is_there {
                            absent.insert(path.to_vec());
                        }
                    }
                    EntryKind::Symlink => {}
                    EntryKind::File if !Layout::restores(path) => {}
                    EntryKind::File if is_below_absent => {
                        let blocks = self.blocks_of(&file)?;
                        self.note(&file, blocks.as_ref(), Compared::Whole)?;
                    }
                    EntryKind::File => hand_over(file, &mut small, tasks)?,
                }
            }
            send_small(small, tasks)?;
        }
        Ok(())
    }

    fn work(&self, receiver: &Mutex<Receiver<WriteTask>>) -> Result<()> {
        let Proving { sources, pace, progress, .. } = self.by;
        let hasher = sources.line().keyring().hasher().clone();
        let mut comparer = Comparer::new(hasher, Arc::clone(pace), progress.as_ref());
        while let Some(task) = next(receiver) {
            let files = match &task {
                WriteTask::Mapped(file) => std::slice::from_ref(file.as_ref()),
                WriteTask::Small(files) => files.as_slice(),
            };
            for file in files {
                pace.refuse_stopped()?;
                let blocks = self.blocks_of(file)?;
                let compared = comparer.compare(file, blocks.as_ref())?;
                self.note(file, blocks.as_ref(), compared)?;
            }
        }
        self.compared_bytes.fetch_add(comparer.read_bytes, Ordering::Relaxed);
        Ok(())
    }

    fn blocks_of(&self, file: &FileToWrite) -> Result<Option<FileBlocks>> {
        let Some(Content::Mapped { leaves, .. }) = &file.entry.content else { return Ok(None) };
        let read = FileBlocks::read(&self.by.sources, &file.entry, leaves);
        self.runtime.block_on(read).map(Some)
    }

    /// Notes what was found of a file, and what is needed to make it right.
    fn note(
        &self,
        file: &FileToWrite,
        blocks: Option<&FileBlocks>,
        compared: Compared,
    ) -> Result<()> {
        let (entry, sources) = (&file.entry, &self.by.sources);
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        let (differing, grows) = match (&compared, blocks) {
            (Compared::Same { .. } | Compared::Forgotten, _) => (0, 0),
            (Compared::Whole, None) => {
                needed.need_file(sources, entry)?;
                (entry.size_bytes(), entry.size_bytes())
            }
            (Compared::Whole, Some(blocks)) => {
                needed.need_blocks(sources, entry, &blocks.map, None)?;
                let stored = blocks.hashes.iter().filter(|hash| **hash != [0; 8]).count() as u64;
                let bytes = (stored * BLOCK_BYTES as u64).min(entry.size_bytes());
                (bytes, bytes)
            }
            (Compared::Differs { .. }, None) => {
                return Err(Error::new(Code::Internal, "a small file is compared as a whole"));
            }
            (Compared::Differs { difference, .. }, Some(blocks)) => {
                let stored = difference.stored(&blocks.hashes);
                needed.need_blocks(sources, entry, &blocks.map, Some(&stored))?;
                let there = look(&file.location)?.map_or(0, |found| found.len());
                let differing = difference.blocks.len() * BLOCK_BYTES as u64;
                (differing, entry.size_bytes().saturating_sub(there))
            }
        };
        drop(needed);
        self.differing_bytes.fetch_add(differing, Ordering::Relaxed);
        let directory = self.by.layout.directory_of(entry.path());
        if let Some(sum) = self.grows_bytes.get(directory) {
            sum.fetch_add(grows.next_multiple_of(4096), Ordering::Relaxed);
        }
        self.keep(file.number, compared);
        Ok(())
    }

    fn keep(&self, number: u32, mut compared: Compared) {
        if let Compared::Differs { difference, .. } = &compared {
            let bytes = difference.memory_bytes();
            let before = self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
            if before.saturating_add(bytes) > self.by.kept_bytes_max {
                self.kept_bytes.fetch_sub(bytes, Ordering::Relaxed);
                compared = Compared::Forgotten;
            }
        }
        let mut all = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = all.get_mut(number as usize) {
            *place = compared;
        }
    }
}
