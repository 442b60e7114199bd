//! Files of which a destination has what was before: what differs goes into delta frames.

use seawall_core::{Code, Error, Lsn, Result};
use seawall_pgdata::page::{is_all_zero, page_lsn};
use seawall_pgdata::wal::BlockSet;
use seawall_repo::envelope::Compressor;
use seawall_repo::hash::{ContentHasher, FullBlockHash};
use seawall_repo::manifest::{Content, Incident, IncidentKind, PageError};
use seawall_repo::map::{BlockMap, Exception, ExceptionSource};
use seawall_repo::pack::{BLOCK_BYTES, BundleSize, DeltaFile, FrameBody, FramePayload};

use super::Packed;
use super::pack_sink::{PackSink, Placed};
use crate::backup::destination::{Base, ChangeWindow};
use crate::backup::source::{Before, SmallRead, WholeRead};

/// So many exceptions of a hundred blocks, and a file is stored anew: who restores it would read
/// too much that is not its own any more.
const EXCEPTIONS_PERCENT_MAX: u64 = 30;

/// What changed, as one thread reads it for one destination.
pub(super) struct Changes {
    compressor: Compressor,
    body: FrameBody,
    files: Vec<ChangedFile>,
    open: OpenDelta,
}

/// A file of which some blocks changed.
struct ChangedFile {
    base: Base,
    exceptions: Vec<Exception>,
    /// Blocks that changed and no record names.
    unmarked: Vec<u32>,
    /// Others that no record names and that differ, with their page LSNs: it may be hints only.
    doubtful: Vec<(u32, Lsn)>,
    /// What is known of it once all of it was read.
    read: Option<WholeRead>,
}

/// A frame that is not sealed yet.
#[derive(Default)]
struct OpenDelta {
    files: Vec<DeltaFile>,
    size: BundleSize,
    payload: Vec<u8>,
    hashes: Vec<FullBlockHash>,
    /// Of each block, the file it is of and which exception it is there.
    owners: Vec<(usize, usize)>,
}

/// Whether a file that changed is better stored by what changed than anew.
pub(super) fn is_worth_changing(base: &Base) -> bool {
    let may_change = base.changed.as_ref().map_or(0, BlockSet::len);
    let exceptions = (base.map.exceptions.len() as u64).saturating_add(may_change);
    exceptions.saturating_mul(100) <= u64::from(base.map.blocks()) * EXCEPTIONS_PERCENT_MAX
}

impl Changes {
    /// Changes that are compressed at this level.
    pub fn new(level: i32) -> Result<Self> {
        let (files, open) = (Vec::new(), OpenDelta::default());
        Ok(Self { compressor: Compressor::new(level)?, body: FrameBody::new(), files, open })
    }

    /// Begins a file; the number it has until [`Changes::take_files`].
    pub fn begin(&mut self, base: Base) -> usize {
        let (exceptions, unmarked, doubtful) = (Vec::new(), Vec::new(), Vec::new());
        self.files.push(ChangedFile { base, exceptions, unmarked, doubtful, read: None });
        self.files.len() - 1
    }

    /// Adds the blocks of a file that have to be read, unless that is all of them.
    pub fn reads_into(&self, file: usize, blocks: &mut BlockSet) -> bool {
        let base = self.files.get(file).map(|file| &file.base);
        let Some((base, changed)) = base.and_then(|base| Some((base, base.changed.as_ref()?)))
        else {
            return false;
        };
        blocks.insert_all(changed);
        blocks.insert_all(&base.audited);
        true
    }

    /// Whether a block of this path may not fit any more.
    pub fn is_full(&self, path: &[u8]) -> bool {
        !self.open.size.with_blocks(path, 1).fits()
    }

    /// Takes a block, if it differs from what was before. There must be room for it.
    pub fn block(
        &mut self,
        file: usize,
        (path, block): (&[u8], u32),
        bytes: &[u8],
        hasher: &ContentHasher,
    ) -> Result<()> {
        let lost = || Error::new(Code::Internal, "a block of an unknown file was read");
        let changed = self.files.get_mut(file).ok_or_else(lost)?;
        let base = &changed.base;
        if base.changed.as_ref().is_some_and(|changed| !changed.contains(block)) {
            if base.audited.contains(block) {
                changed.look_at(block, bytes, hasher);
            }
            return Ok(());
        }
        let full = (!is_all_zero(bytes)).then(|| hasher.block(bytes));
        let hash = full.as_ref().map(FullBlockHash::short).unwrap_or_default();
        if base.hash_of(block, bytes.len()) == Some(hash) {
            return Ok(());
        }
        changed.exceptions.push(Exception { block, source: ExceptionSource::Zero, hash });
        if let Some(full) = full {
            self.open.owners.push((file, changed.exceptions.len() - 1));
            self.open.add(path, block, bytes, full)?;
        }
        Ok(())
    }

    /// The blocks of a file that are to be compared with what is stored, and where that is.
    pub fn doubtful(&self, file: usize) -> Option<(&BlockMap, &[(u32, Lsn)])> {
        let file = self.files.get(file).filter(|file| !file.doubtful.is_empty())?;
        Some((&file.base.map, &file.doubtful))
    }

    /// Blocks of a file had changed though no record names them.
    pub fn add_unmarked(&mut self, file: usize, blocks: Vec<u32>) {
        if let Some(file) = self.files.get_mut(file) {
            file.unmarked.extend(blocks);
        }
    }

    /// All of a file that had to come has come. If a block had changed although no record of the log
    /// names it, nothing comes of what was read.
    pub fn end(&mut self, file: usize, mut read: WholeRead) -> Vec<Incident> {
        let Some(changed) = self.files.get_mut(file) else { return Vec::new() };
        changed.base.forget_hashes();
        let mut unmarked = std::mem::take(&mut changed.unmarked);
        let mut incidents = Vec::new();
        if let Some(marked) = &changed.base.changed {
            // What is stored of the others is not what was read.
            let (errors, beside): (Vec<_>, Vec<_>) =
                read.errors.into_iter().partition(|error| marked.contains(error.block));
            unmarked.retain(|block| beside.iter().all(|error| error.block != *block));
            incidents = incidents_of(read.entry.path(), &unmarked, &beside);
            read.errors = errors;
        }
        changed.read = unmarked.is_empty().then_some(read);
        incidents
    }

    /// Whether blocks wait for a frame.
    pub fn has_blocks(&self) -> bool {
        !self.open.owners.is_empty()
    }

    /// Seals a frame of the blocks that wait.
    pub fn seal(&mut self, packs: &mut PackSink) -> Result<()> {
        let open = std::mem::take(&mut self.open);
        let what = FramePayload::Delta { files: &open.files };
        self.body.fill(what, &open.payload, &mut self.compressor)?;
        let Placed { pack, frame } = packs.frame(&self.body, &open.hashes)?;
        for (slot, (file, exception)) in (0..).zip(open.owners) {
            let changed = self.files.get_mut(file);
            if let Some(exception) = changed.and_then(|it| it.exceptions.get_mut(exception)) {
                exception.source = ExceptionSource::Delta { pack, frame, slot };
            }
        }
        Ok(())
    }

    /// What came of the files that were read. No blocks may wait. Files that were given up are
    /// forgotten.
    pub fn take_files(&mut self) -> impl Iterator<Item = Packed> {
        std::mem::take(&mut self.files).into_iter().filter_map(|file| {
            let ChangedFile { base, exceptions, read, .. } = file;
            let WholeRead { sequence, entry, errors, read_bytes } = read?;
            let base = Box::new(base);
            Some(Packed::Changed { sequence, entry, base, exceptions, errors, read_bytes })
        })
    }
}

impl ChangedFile {
    /// Looks at a block that no record names.
    fn look_at(&mut self, block: u32, bytes: &[u8], hasher: &ContentHasher) {
        let Ok(lsn) = bytes.try_into().map(page_lsn) else { return };
        let is_same = || {
            let hash = if is_all_zero(bytes) { [0; 8] } else { hasher.block(bytes).short() };
            self.base.hash_of(block, bytes.len()) == Some(hash)
        };
        if self.base.window.contains(lsn) {
            self.unmarked.push(block);
        } else if self.base.window.begins_after(lsn) && !is_same() {
            self.doubtful.push((block, lsn));
        }
    }
}

impl OpenDelta {
    fn add(&mut self, path: &[u8], block: u32, bytes: &[u8], hash: FullBlockHash) -> Result<()> {
        let length = u32::try_from(bytes.len())
            .map_err(|_| Error::new(Code::Internal, "a block is longer than a block"))?;
        self.size = self.size.with_blocks(path, 1);
        self.payload.extend_from_slice(bytes);
        self.hashes.push(hash);
        match self.files.last_mut() {
            Some(file)
                if file.path.as_slice() == path
                    && file.length % BLOCK_LENGTH == 0
                    && file.blocks.last().is_some_and(|last| *last < block) =>
            {
                file.length += length;
                file.blocks.push(block);
            }
            _ => {
                let (path, blocks) = (path.to_vec().into(), vec![block]);
                self.files.push(DeltaFile { path, length, blocks });
            }
        }
        Ok(())
    }
}

/// The length of a whole block, as a frame states it.
#[expect(clippy::cast_possible_truncation, reason = "8192")]
const BLOCK_LENGTH: u32 = BLOCK_BYTES as u32;

/// What is to be told of blocks that WAL does not name. A damaged page's LSN tells nothing. If some
/// had changed, the file is read anew, and is stored with the damage that is met then.
fn incidents_of(path: &[u8], unmarked: &[u32], damaged: &[PageError]) -> Vec<Incident> {
    let incident = |block, kind| Incident { path: path.to_vec().into(), block, kind };
    if unmarked.is_empty() {
        return damaged.iter().map(|it| incident(it.block, IncidentKind::Damaged)).collect();
    }
    unmarked.iter().map(|block| incident(*block, IncidentKind::Unmarked)).collect()
}

/// What a small file that was read is to one who has it from before.
pub(super) enum SmallNow {
    /// What he has is to be kept. What was wrong with what was read.
    Kept { errors: Vec<PageError>, incidents: Vec<Incident> },
    /// It is to be stored.
    Anew { incidents: Vec<Incident> },
}

/// Compares a small file with what was before.
pub(super) fn small_now(
    before: &Before,
    file: &SmallRead,
    window: ChangeWindow,
    hasher: &ContentHasher,
) -> SmallNow {
    let anew = |incidents| SmallNow::Anew { incidents };
    let Content::Blob { hashes, .. } = &before.content else { return anew(Vec::new()) };
    if before.size_bytes != file.entry.size_bytes() {
        return anew(Vec::new());
    }
    let (before_hashes, _): (&[[u8; 8]], _) = hashes.as_chunks();
    let blocks = || file.bytes.chunks(BLOCK_BYTES);
    let hash = |block| if is_all_zero(block) { [0; 8] } else { hasher.block(block).short() };
    if blocks().map(hash).eq(before_hashes.iter().copied()) {
        return SmallNow::Kept { errors: file.errors.clone(), incidents: Vec::new() };
    }
    if before.changed.as_ref().is_none_or(|changed| !changed.is_empty()) {
        return anew(Vec::new());
    }
    // No record names any of it. What is damaged is kept as it was; of the rest it may be hints only
    // that differ, and to store them costs less than to find that out.
    let is_damaged = |block: u32| file.errors.iter().any(|error| error.block == block);
    let changed = (0..).zip(blocks()).filter(|(block, page)| {
        let lsn = (*page).try_into().map(page_lsn);
        lsn.is_ok_and(|lsn| window.contains(lsn)) && !is_damaged(*block)
    });
    let unmarked: Vec<u32> = changed.map(|(block, _)| block).collect();
    let incidents = incidents_of(file.entry.path(), &unmarked, &file.errors);
    match unmarked.is_empty() && !file.errors.is_empty() {
        true => SmallNow::Kept { errors: Vec::new(), incidents },
        false => anew(incidents),
    }
}
