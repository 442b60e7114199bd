use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use seawall_core::{Error, Progress, Result, Stage, Ulid};
use seawall_pgdata::wal::BlockSet;
use seawall_repo::manifest::{Content, Entry, ManifestReader};
use seawall_repo::map::{BlockMap, BlockSource, ExceptionSource, LeafPair};
use seawall_repo::pack::{BLOCK_BYTES, FRAME_BLOCKS, FrameKind};

use super::content::needs_frame;
use super::layout::Layout;
use super::sources::{Sources, inconsistent};
use crate::pace::Pace;

/// How many small reads are under way at once.
const READS: usize = 16;

/// How much of a pack is read at a time.
const READ_BYTES: u64 = 4 << 20;

/// Filesystems give out space in pieces of this size.
const ALLOCATION_BYTES: u64 = 4096;

/// What a look at all parts of a backup gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Bytes to be written below each of [`Layout::directories`], holes left out.
    pub bytes: Vec<u64>,
    /// How many entries the manifest has.
    pub entries: usize,
    /// Whether the cluster's group may read its files (`initdb --allow-group-access`).
    pub group_access: bool,
}

impl Proven {
    /// Bytes to be written in all.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// Reads every page of a manifest and every leaf it names, and proves that all packs and frames
/// they use are there. With a pace the frames' stored bytes are read and checked too.
///
/// # Errors
/// Damage, missing or contradicting objects.
pub(crate) async fn prove_backup(
    sources: &Sources,
    manifest: &ManifestReader,
    layout: &Layout,
    stored: Option<&Pace>,
    progress: &dyn Progress,
) -> Result<Proven> {
    let mut frames = Frames::read(sources).await?;
    let bytes = vec![0; layout.directories().count()];
    let mut proven = Proven { bytes, entries: 0, group_access: false };
    let (mut packs, mut maps) = (BTreeSet::new(), BTreeSet::new());
    for page in 0..manifest.pages() {
        let entries = manifest.page(sources.store(), page).await?;
        proven.entries += entries.len();
        packs.extend(entries.iter().flat_map(Entry::packs));
        maps.extend(entries.iter().flat_map(Entry::maps));
        let mut looks = stream::iter(entries)
            .map(|entry| async move {
                let needs_none = layout.leaves_out(entry.path());
                let uses = if needs_none { Vec::new() } else { look(sources, &entry).await? };
                Ok::<_, Error>((entry, uses))
            })
            .buffer_unordered(READS);
        while let Some((entry, uses)) = looks.try_next().await? {
            layout.resolve(entry.path())?;
            // The data directory itself is no entry; PostgreSQL gives both the same mode.
            proven.group_access |= entry.path() == b"base" && entry.mode & 0o050 == 0o050;
            let bytes = frames.mark(sources, &entry, &uses)?;
            if let Some(sum) = proven.bytes.get_mut(layout.directory_of(entry.path())) {
                *sum += bytes.next_multiple_of(ALLOCATION_BYTES);
            }
        }
    }
    sources.prove_lists(&packs, &maps)?;
    if let Some(pace) = stored {
        frames.check_stored(sources, pace, progress).await?;
    }
    Ok(proven)
}

/// Frames of one pack a file uses, and its blocks in them.
struct Use {
    pack: usize,
    first: u32,
    frames: u32,
    blocks: u32,
    kind: FrameKind,
}

/// What an entry uses. What it says is compared with its leaves.
async fn look(sources: &Sources, entry: &Entry) -> Result<Vec<Use>> {
    let path = String::from_utf8_lossy(entry.path());
    let contradiction = |what: &str| inconsistent(format!("the backup's entry of {path} {what}"));
    match &entry.content {
        None => Ok(Vec::new()),
        Some(Content::Blob { pack, frame, .. }) => Ok(vec![blob(sources, entry, *pack, *frame)?]),
        Some(Content::Mapped { leaves, packs }) => {
            let looked = look_at_leaves(sources, leaves).await;
            let (uses, map, hashes) =
                looked.map_err(|error| error.context(format_args!("file {path}")))?;
            if map.file_bytes != entry.size_bytes() || hashes < map.run_blocks() as usize {
                return Err(contradiction("has another length than its block map"));
            }
            let (named, used) = (sorted(packs.clone()), sorted(map.packs()));
            if named == used {
                Ok(uses)
            } else {
                Err(contradiction("names other packs than its block map"))
            }
        }
    }
}

fn blob(sources: &Sources, entry: &Entry, pack: Ulid, frame: u32) -> Result<Use> {
    let too_long = |_| {
        let path = String::from_utf8_lossy(entry.path());
        inconsistent(format!("the backup's entry of {path} is too long"))
    };
    let blocks = u32::try_from(entry.size_bytes().div_ceil(BLOCK_BYTES as u64));
    let (pack, blocks) = (sources.pack_number(pack)?, blocks.map_err(too_long)?);
    Ok(Use { pack, first: frame, frames: 1, blocks, kind: FrameKind::Blob })
}

fn sorted(mut packs: Vec<Ulid>) -> Vec<Ulid> {
    packs.sort();
    packs
}

async fn look_at_leaves(
    sources: &Sources,
    leaves: &LeafPair,
) -> Result<(Vec<Use>, BlockMap, usize)> {
    let (runs, hashes) = sources.map_of(leaves)?;
    let map = runs.runs(sources.store(), &leaves.runs).await?;
    let hashes = hashes.hashes(sources.store(), &leaves.hashes).await?;
    Ok((uses_of(sources, &map, None)?, map, hashes.len()))
}

/// The frames that hold a file's blocks: all of them, or those that are wanted.
fn uses_of(sources: &Sources, map: &BlockMap, wanted: Option<&BlockSet>) -> Result<Vec<Use>> {
    let mut uses = Vec::new();
    for run in &map.runs {
        let BlockSource::Frames { pack, first_frame } = run.source else { continue };
        let (pack, kind) = (sources.pack_number(pack)?, FrameKind::Base);
        if wanted.is_none() {
            let (frames, blocks) = (run.frames(), run.blocks);
            uses.push(Use { pack, first: first_frame, frames, blocks, kind });
            continue;
        }
        let end = run.first_block.saturating_add(run.blocks);
        for (first, frame) in (first_frame..first_frame.saturating_add(run.frames())).zip(0..) {
            let begin = run.first_block.saturating_add(frame * FRAME_BLOCKS);
            let blocks = begin..begin.saturating_add(FRAME_BLOCKS).min(end);
            if needs_frame(map, blocks.clone(), wanted) {
                let blocks = blocks.end - blocks.start;
                uses.push(Use { pack, first, frames: 1, blocks, kind });
            }
        }
    }
    for (pack, frame, blocks) in deltas(map, wanted) {
        let pack = sources.pack_number(pack)?;
        uses.push(Use { pack, first: frame, frames: 1, blocks, kind: FrameKind::Delta });
    }
    Ok(uses)
}

/// The delta frames of a file, and how many blocks in a row each has of it.
fn deltas(map: &BlockMap, wanted: Option<&BlockSet>) -> Vec<(Ulid, u32, u32)> {
    let is_wanted = |block: u32| wanted.is_none_or(|wanted| wanted.contains(block));
    let mut deltas: Vec<(Ulid, u32, u32)> = Vec::new();
    for exception in map.exceptions.iter().filter(|exception| is_wanted(exception.block)) {
        let ExceptionSource::Delta { pack, frame, .. } = exception.source else { continue };
        match deltas.last_mut() {
            Some(last) if (last.0, last.1) == (pack, frame) => last.2 += 1,
            _ => deltas.push((pack, frame, 1)),
        }
    }
    deltas
}

/// The frames of all packs: a byte each for the kind, and a bit for whether they are needed.
pub(crate) struct Frames {
    kinds: Vec<Vec<FrameKind>>,
    used: Vec<Vec<u64>>,
}

impl Frames {
    /// Reads the tables of all packs. None of their frames is needed yet.
    ///
    /// # Errors
    /// Damage, a missing pack, a store that fails.
    pub async fn read(sources: &Sources) -> Result<Self> {
        let kinds: Vec<Vec<FrameKind>> = stream::iter(0..sources.packs())
            .map(|pack| async move { Ok(sources.read_table(pack).await?.into_kinds()) })
            .buffered(READS)
            .try_collect::<Vec<_>>()
            .await
            .map_err(|error: Error| error)?;
        let used = kinds.iter().map(|kinds| vec![0; kinds.len().div_ceil(64)]).collect();
        Ok(Self { kinds, used })
    }

    /// Notes that the frame of a small file is needed.
    ///
    /// # Errors
    /// As [`prove_backup`].
    pub fn need_file(&mut self, sources: &Sources, entry: &Entry) -> Result<()> {
        let Some(Content::Blob { pack, frame, .. }) = &entry.content else { return Ok(()) };
        let blob = blob(sources, entry, *pack, *frame)?;
        self.mark(sources, entry, &[blob]).map(drop)
    }

    /// Notes that the frames of a file's blocks are needed: of all, or of those that are wanted.
    ///
    /// # Errors
    /// As [`prove_backup`].
    pub fn need_blocks(
        &mut self,
        sources: &Sources,
        entry: &Entry,
        map: &BlockMap,
        wanted: Option<&BlockSet>,
    ) -> Result<()> {
        let uses = uses_of(sources, map, wanted)?;
        self.mark(sources, entry, &uses).map(drop)
    }

    /// Notes what an entry uses; returns how many bytes it will take on disk.
    fn mark(&mut self, sources: &Sources, entry: &Entry, uses: &[Use]) -> Result<u64> {
        let mut blocks = 0;
        for using in uses {
            let end = using.first.saturating_add(using.frames);
            let kinds = self.kinds.get(using.pack);
            let there = kinds.and_then(|kinds| kinds.get(using.first as usize..end as usize));
            if there.is_none_or(|kinds| kinds.iter().any(|kind| *kind != using.kind)) {
                let path = String::from_utf8_lossy(entry.path()).into_owned();
                let packs = sources.packs();
                return Err(inconsistent(format!(
                    "{path} is in frames {} to {end} of pack {} of {packs}, which do not exist",
                    using.first, using.pack
                )));
            }
            if let Some(used) = self.used.get_mut(using.pack) {
                for frame in using.first..end {
                    if let Some(word) = used.get_mut(frame as usize / 64) {
                        *word |= 1 << (frame % 64);
                    }
                }
            }
            blocks += u64::from(using.blocks);
        }
        Ok((blocks * BLOCK_BYTES as u64).min(entry.size_bytes()))
    }

    /// Reads the stored bytes of every frame that is needed and compares their checksums. Returns how
    /// many bytes these are.
    ///
    /// # Errors
    /// Damage, a store that fails.
    pub async fn check_stored(
        &self,
        sources: &Sources,
        pace: &Pace,
        progress: &dyn Progress,
    ) -> Result<u64> {
        progress.stage(Stage::Verifying, None);
        stream::iter(self.used.iter().enumerate())
            .map(|(pack, used)| check_pack(sources, pack, used, pace, progress))
            .buffer_unordered(4)
            .try_fold(0, async |sum, bytes| Ok(sum + bytes))
            .await
    }
}

async fn check_pack(
    sources: &Sources,
    pack: usize,
    used: &[u64],
    pace: &Pace,
    progress: &dyn Progress,
) -> Result<u64> {
    if used.iter().all(|word| *word == 0) {
        return Ok(0);
    }
    let table = sources.read_table(pack).await?;
    let is_used = |frame: u32| {
        used.get(frame as usize / 64).is_some_and(|word| word & (1 << (frame % 64)) != 0)
    };
    let (mut frame, mut stored_bytes) = (0, 0);
    while frame < table.frames() {
        if !is_used(frame) {
            frame += 1;
            continue;
        }
        let run = (frame..table.frames()).take_while(|frame| is_used(*frame));
        let count = table.frames_within(frame, run.last().unwrap_or(frame), READ_BYTES);
        let frames = table.fetch(sources.store(), frame, count).await?;
        table.check_stored(&frames)?;
        pace.wait(frames.stored_bytes()).await?;
        progress.advance(frames.stored_bytes());
        stored_bytes += frames.stored_bytes();
        frame += count;
    }
    Ok(stored_bytes)
}
