use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use seawall_core::{BlockNumber, Code, Error, Result};
use seawall_pgdata::own_places::is_own_file;
use seawall_repo::manifest::{Entry, EntryKind};
use seawall_repo::pack::{BLOCK_BYTES, BundleSize};

use super::files::FilesSource;
use super::task::{CopyRule, FoundFile, SMALL_FILE_BYTES, SPAN_BYTES, Span, Task, Work};
use super::{Lacking, Packing, Wanted, bundle};
use crate::cluster::{FileKind, FoundPath};

/// How long the scan pauses when it is too far ahead.
const AHEAD_PAUSE: Duration = Duration::from_millis(2);

/// Files with so many changed blocks together are one task: two frames.
const CHANGED_BLOCKS: u64 = 64;

/// So many files are one task, however few blocks of them changed.
const CHANGED_FILES: usize = 16;

/// Turns what a scan finds into tasks.
pub(super) struct Planner<'p, P> {
    source: &'p FilesSource,
    tasks: &'p SyncSender<Task>,
    packing: &'p P,
    sequence: u64,
    /// Small files that wait for more, by who wants them.
    bundles: BTreeMap<Wanted, Bundled>,
    /// Files of which few blocks changed, likewise.
    changed: BTreeMap<Wanted, (Vec<FoundFile>, u64)>,
}

/// Small files for one frame.
#[derive(Default)]
struct Bundled {
    files: Vec<FoundFile>,
    size: BundleSize,
}

impl<'p, P: Packing> Planner<'p, P> {
    pub fn new(source: &'p FilesSource, tasks: &'p SyncSender<Task>, packing: &'p P) -> Self {
        Self {
            source,
            tasks,
            packing,
            sequence: 0,
            bundles: BTreeMap::new(),
            changed: BTreeMap::new(),
        }
    }

    /// Plans what is to be done about the next path.
    pub fn found(&mut self, found: &FoundPath) -> Result<()> {
        self.keep_pace()?;
        let sequence = self.sequence;
        self.sequence += 1;
        let entry = file_entry(found);
        if entry.kind != EntryKind::File {
            return self.packing.bare(sequence, &entry);
        }
        let rule = self.rule(found);
        // What seems empty may be about to be written.
        if found.size_bytes == 0 && matches!(rule, CopyRule::Replayed { .. }) {
            return self.packing.bare(sequence, &entry);
        }
        let Lacking { to, before } = self.packing.found(sequence, found, &entry)?;
        if to.is_empty() {
            return Ok(());
        }
        let file = FoundFile { sequence, location: found.location.clone(), rule, entry, before };
        if found.size_bytes <= SMALL_FILE_BYTES {
            return self.small(to, file);
        }
        match rule {
            CopyRule::Replayed { .. } if file.before.has_blocks(&to) => self.changed(to, file),
            CopyRule::Replayed { relation_block } => self.large(&to, &file, found, relation_block),
            CopyRule::Settled { .. } => self.task(to, Work::Settled(file)),
        }
    }

    /// All paths were found.
    pub fn end(mut self) -> Result<()> {
        self.flush()
    }

    /// Waits while the scan is too far ahead. Nothing may be held back meanwhile: the manifest could
    /// be waiting for just that.
    fn keep_pace(&mut self) -> Result<()> {
        if self.packing.is_far_behind(self.sequence) {
            self.flush()?;
        }
        while self.packing.is_far_behind(self.sequence) {
            self.source.pace.refuse_stopped()?;
            thread::sleep(AHEAD_PAUSE);
        }
        self.source.pace.refuse_stopped()
    }

    fn rule(&self, found: &FoundPath) -> CopyRule {
        match &found.kind {
            FileKind::Relation(file) => CopyRule::Replayed {
                relation_block: Some(
                    file.segment.saturating_mul(self.source.relation_segment_blocks),
                ),
            },
            FileKind::SimpleLog => CopyRule::Replayed { relation_block: None },
            FileKind::Plain | FileKind::Directory | FileKind::Symlink(_) => {
                CopyRule::Settled { is_own: is_own_file(&found.path, self.source.scan.major) }
            }
        }
    }

    fn small(&mut self, to: Wanted, file: FoundFile) -> Result<()> {
        let with = |size: BundleSize| size.with_file(file.entry.path(), file.entry.size_bytes());
        let bundled = self.bundles.entry(to.clone()).or_default();
        let mut full = Vec::new();
        if !bundle::fits(with(bundled.size)) {
            full = std::mem::take(bundled).files;
        }
        bundled.size = with(bundled.size);
        bundled.files.push(file);
        if full.is_empty() { Ok(()) } else { self.task(to, Work::Small(full)) }
    }

    /// Files of which few blocks changed share frames; one of which many did, or any may have, goes
    /// by itself.
    fn changed(&mut self, to: Wanted, file: FoundFile) -> Result<()> {
        let Some(blocks) = file.before.blocks_to_read().filter(|blocks| *blocks < CHANGED_BLOCKS)
        else {
            return self.task(to, Work::Changed(vec![file]));
        };
        let (files, waiting) = self.changed.entry(to.clone()).or_default();
        files.push(file);
        *waiting += blocks;
        if *waiting < CHANGED_BLOCKS && files.len() < CHANGED_FILES {
            return Ok(());
        }
        *waiting = 0;
        let files = std::mem::take(files);
        self.task(to, Work::Changed(files))
    }

    fn flush(&mut self) -> Result<()> {
        for (to, (files, _)) in std::mem::take(&mut self.changed) {
            if !files.is_empty() {
                self.task(to, Work::Changed(files))?;
            }
        }
        for (to, bundled) in std::mem::take(&mut self.bundles) {
            self.task(to, Work::Small(bundled.files))?;
        }
        Ok(())
    }

    fn large(
        &self,
        to: &Wanted,
        file: &FoundFile,
        found: &FoundPath,
        relation_block: Option<BlockNumber>,
    ) -> Result<()> {
        let blocks = u32::try_from(found.size_bytes.div_ceil(BLOCK_BYTES as u64));
        let spans = u32::try_from(found.size_bytes.div_ceil(SPAN_BYTES));
        let (Ok(_), Ok(spans)) = (blocks, spans) else {
            let path = String::from_utf8_lossy(&found.path).into_owned();
            return Err(Error::new(Code::UnsupportedCluster, format!("{path} is over 32 TiB")));
        };
        self.packing.large(to, file.sequence, &file.entry, spans);
        for number in 0..spans {
            let offset = u64::from(number) * SPAN_BYTES;
            let span = Span {
                sequence: file.sequence,
                number,
                location: found.location.clone(),
                path: found.path.clone(),
                relation_block,
                offset,
                length: SPAN_BYTES.min(found.size_bytes - offset),
            };
            self.task(to.clone(), Work::Span(span))?;
        }
        Ok(())
    }

    fn task(&self, to: Wanted, what: Work) -> Result<()> {
        let stopped = |_| Error::new(Code::Interrupted, "copying was stopped");
        self.tasks.send(Task { to, what }).map_err(stopped)
    }
}

/// The manifest's entry of what was found, still without content.
fn file_entry(found: &FoundPath) -> Entry {
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
