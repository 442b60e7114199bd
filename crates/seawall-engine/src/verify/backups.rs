//! Every backup: are its parts there, and do they fit together?

use std::collections::{BTreeMap, BTreeSet};

use seawall_core::{BackupId, Lsn, Result, TimelineId, Ulid};
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{Content, Entry, ManifestReader};
use seawall_repo::map::{BlockMap, BlockSource, LeafPair, MapReader};
use seawall_repo::pack::{BLOCK_BYTES, FrameKind, FrameTable};
use seawall_store::ObjectPath;

use super::{Findings, VerifyRequest, name_of};

/// What a look at a line's backups gives.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Backups whose parts fit together, and the objects each uses.
    pub whole: Vec<(BackupId, BTreeSet<ObjectPath>)>,
    /// How many others there are.
    pub broken: u64,
    /// All objects that the backups looked at use.
    pub objects: BTreeSet<ObjectPath>,
    /// The WAL each backup needs: timeline, start and stop.
    pub spans: Vec<(BackupId, TimelineId, Lsn, Lsn)>,
}

/// Checks the backups of a line.
pub(super) async fn check(
    line: &Line,
    request: &VerifyRequest,
    findings: &mut Findings,
) -> Result<Checked> {
    let mut checked = Checked::default();
    for summary in line.backups().await? {
        if request.backup.is_some_and(|wanted| wanted != summary.id) {
            continue;
        }
        match check_backup(line, summary.id, &mut checked).await {
            Ok(objects) => checked.whole.push((summary.id, objects)),
            Err(error) => {
                checked.broken += 1;
                let name = name_of(line, &LineObject::Backup(summary.id, 0));
                findings.error(format!("{name} (backup {})", summary.id), &error);
            }
        }
    }
    Ok(checked)
}

/// The parts of a backup, opened as far as is needed to compare them.
struct Parts<'l> {
    line: &'l Line,
    /// What each frame of each pack is: a byte a frame.
    kinds: Vec<Vec<FrameKind>>,
    numbers: BTreeMap<Ulid, usize>,
    maps: Vec<MapReader>,
}

async fn check_backup(
    line: &Line,
    id: BackupId,
    checked: &mut Checked,
) -> Result<BTreeSet<ObjectPath>> {
    let Some(reader) = line.manifest(id).await? else { return Ok(BTreeSet::new()) };
    let info = &reader.manifest.info;
    checked.spans.push((id, info.stop_timeline, info.start_lsn, info.stop_lsn));
    let manifest = line.paths().path(&LineObject::Backup(id, info.generation))?;
    let (parts, mut objects) = Parts::open(line, &reader).await?;
    objects.insert(manifest.clone());
    checked.objects.extend(objects.iter().cloned());
    if let Some(head) = info.head {
        let path = line.paths().path(&LineObject::Head(head))?;
        line.store().stat(&path).await?;
    }
    for page in 0..reader.pages() {
        for entry in reader.page(line.store(), page).await? {
            parts.check(&entry).await.map_err(|error| {
                error.context(format_args!("file {}", String::from_utf8_lossy(entry.path())))
            })?;
        }
    }
    Ok(objects)
}

impl<'l> Parts<'l> {
    async fn open(line: &'l Line, reader: &ManifestReader) -> Result<(Self, BTreeSet<ObjectPath>)> {
        let mut objects = BTreeSet::new();
        let mut parts =
            Parts { line, kinds: Vec::new(), numbers: BTreeMap::new(), maps: Vec::new() };
        for (number, info) in reader.packs(line.store()).await?.into_iter().enumerate() {
            let path = line.paths().path(&LineObject::Pack(info.id))?;
            let table = FrameTable::read(line.store(), line.keyring(), &path, &info).await?;
            parts.kinds.push(table.into_kinds());
            parts.numbers.insert(info.id, number);
            objects.insert(path);
        }
        for info in &reader.manifest.maps {
            let path = line.paths().path(&LineObject::Map(info.id))?;
            parts.maps.push(MapReader::read(line.store(), line.keyring(), &path, info).await?);
            objects.insert(path);
        }
        Ok((parts, objects))
    }

    fn kind(&self, pack: usize, frame: u32) -> Option<FrameKind> {
        self.kinds.get(pack)?.get(frame as usize).copied()
    }

    async fn check(&self, entry: &Entry) -> Result<()> {
        match &entry.content {
            None if entry.size_bytes() == 0 => Ok(()),
            None => Err(contradiction("it has a length and no content")),
            Some(Content::Blob { pack, frame, hashes, .. }) => {
                let kind = self.kind(*pack as usize, *frame);
                let blocks = entry.size_bytes().div_ceil(BLOCK_BYTES as u64);
                if kind == Some(FrameKind::Blob) && hashes.len() as u64 == 8 * blocks {
                    Ok(())
                } else {
                    Err(contradiction("it is not in the frame it should be in"))
                }
            }
            Some(Content::Mapped(leaves)) => self.check_leaves(entry, leaves).await,
        }
    }

    async fn check_leaves(&self, entry: &Entry, leaves: &LeafPair) -> Result<()> {
        let map = |number: u32| {
            self.maps
                .get(number as usize)
                .ok_or_else(|| contradiction("its block map is not in the manifest's list"))
        };
        let store = self.line.store();
        let runs = map(leaves.runs.map)?.runs(store, &leaves.runs).await?;
        let hashes = map(leaves.hashes.map)?.hashes(store, &leaves.hashes).await?;
        if runs.file_bytes != entry.size_bytes() || hashes.len() != runs.blocks() as usize {
            return Err(contradiction("its block map is of a file of another length"));
        }
        self.check_runs(&runs)
    }

    fn check_runs(&self, map: &BlockMap) -> Result<()> {
        for run in &map.runs {
            let BlockSource::Frames { pack, first_frame } = run.source else { continue };
            let number = self.numbers.get(&pack).copied();
            let last = first_frame.saturating_add(run.frames()).saturating_sub(1);
            let base =
                |frame| number.and_then(|number| self.kind(number, frame)) == Some(FrameKind::Base);
            if !base(first_frame) || !base(last) {
                return Err(contradiction("its block map names frames that are not there"));
            }
        }
        Ok(())
    }
}

fn contradiction(what: &str) -> seawall_core::Error {
    seawall_core::Error::new(seawall_core::Code::ObjectInconsistent, what.to_owned())
}
