use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use seawall_core::{Error, Progress, Result, Stage, Ulid};
use seawall_repo::manifest::{Content, Entry, ManifestReader};
use seawall_repo::map::{BlockMap, BlockSource, ExceptionSource, LeafPair};
use seawall_repo::pack::{BLOCK_BYTES, FrameKind};

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
        Some(Content::Blob { pack, frame, .. }) => {
            let pack = sources.pack_number(*pack)?;
            let blocks = u32::try_from(entry.size_bytes().div_ceil(BLOCK_BYTES as u64))
                .map_err(|_| contradiction("is too long"))?;
            Ok(vec![Use { pack, first: *frame, frames: 1, blocks, kind: FrameKind::Blob }])
        }
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
    let mut uses = Vec::new();
    for run in &map.runs {
        if let BlockSource::Frames { pack, first_frame } = run.source {
            uses.push(Use {
                pack: sources.pack_number(pack)?,
                first: first_frame,
                frames: run.frames(),
                blocks: run.blocks,
                kind: FrameKind::Base,
            });
        }
    }
    for (pack, frame, blocks) in deltas(&map) {
        let pack = sources.pack_number(pack)?;
        uses.push(Use { pack, first: frame, frames: 1, blocks, kind: FrameKind::Delta });
    }
    Ok((uses, map, hashes.len()))
}

/// The delta frames of a file, and how many blocks in a row each has of it.
fn deltas(map: &BlockMap) -> Vec<(Ulid, u32, u32)> {
    let mut deltas: Vec<(Ulid, u32, u32)> = Vec::new();
    for exception in &map.exceptions {
        let ExceptionSource::Delta { pack, frame, .. } = exception.source else { continue };
        match deltas.last_mut() {
            Some(last) if (last.0, last.1) == (pack, frame) => last.2 += 1,
            _ => deltas.push((pack, frame, 1)),
        }
    }
    deltas
}

/// The frames of all packs: a byte each for the kind, and a bit for whether the backup uses it.
struct Frames {
    kinds: Vec<Vec<FrameKind>>,
    used: Vec<Vec<u64>>,
}

impl Frames {
    async fn read(sources: &Sources) -> Result<Self> {
        let kinds: Vec<Vec<FrameKind>> = stream::iter(0..sources.packs())
            .map(|pack| async move { Ok(sources.read_table(pack).await?.into_kinds()) })
            .buffered(READS)
            .try_collect::<Vec<_>>()
            .await
            .map_err(|error: Error| error)?;
        let used = kinds.iter().map(|kinds| vec![0; kinds.len().div_ceil(64)]).collect();
        Ok(Self { kinds, used })
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

    /// Reads the stored bytes of every frame that is used and compares their checksums.
    async fn check_stored(
        &self,
        sources: &Sources,
        pace: &Pace,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.stage(Stage::Verifying, None);
        stream::iter(self.used.iter().enumerate())
            .map(|(pack, used)| check_pack(sources, pack, used, pace, progress))
            .buffer_unordered(4)
            .try_collect::<()>()
            .await
    }
}

async fn check_pack(
    sources: &Sources,
    pack: usize,
    used: &[u64],
    pace: &Pace,
    progress: &dyn Progress,
) -> Result<()> {
    let table = sources.read_table(pack).await?;
    let is_used = |frame: u32| {
        used.get(frame as usize / 64).is_some_and(|word| word & (1 << (frame % 64)) != 0)
    };
    let mut frame = 0;
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
        frame += count;
    }
    Ok(())
}
