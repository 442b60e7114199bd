use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use seawall_core::{BackupId, Code, Error, Result, Ulid};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{
    AuditShare, BackupKind, Content, Entry, EntryKind, Incidents, LeftOut, ManifestWriter,
    PageError, Parts,
};
use seawall_repo::map::{BlockMapBuilder, Exception, MapBuilder, MapInfo};
use seawall_repo::pack::PackInfo;
use seawall_repo::{Line, new_ulid};
use seawall_store::ObjectWriter;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::enter::Ready;
use super::journal::Journal;
use super::parent::{Base, Parent};
use crate::backup::going::{Failed, Journaled, PULSE};
use crate::backup::packing::{Blocks, Had, Packed, PackingInto};
use crate::backup::request::Destination;

/// A map object is closed at this size, so that it can be held in memory until it is written.
const MAP_BYTES: u64 = 8 << 20;

/// Manifest bytes go to the store in parts of this size.
const MANIFEST_PART_BYTES: usize = 4 << 20;

/// A manifest lists so many page errors and counts the rest.
const PAGE_ERRORS_LISTED: usize = 1000;

/// More files than these are not left out: something is wrong with the cluster as a whole.
const LEFT_OUT_MAX: usize = 1000;

/// What a copy amounts to.
#[derive(Debug, Clone, Default)]
pub(in crate::backup) struct Totals {
    pub cluster_bytes: u64,
    pub read_bytes: u64,
    pub stored_bytes: u64,
    pub files: u64,
    pub reused_files: u64,
    pub unchanged_files: u64,
    pub page_errors: Vec<PageError>,
    pub page_error_count: u64,
    pub left_out: Vec<LeftOut>,
    pub incidents: Incidents,
}

/// Puts what the copying threads did for a destination into the order of the paths, and writes its
/// block maps, journal and manifest as it goes. Holds what is out of order, never the whole.
pub(in crate::backup) struct Collector {
    line: Line,
    into: Option<PackingInto>,
    /// What comes from the packing half.
    results: Option<mpsc::Receiver<Packed>>,
    dead: Vec<BackupId>,
    resumed: Option<BackupId>,
    parent: Option<Arc<Parent>>,
    /// The parent's packs.
    parents: BTreeSet<Ulid>,
    why_full: Option<String>,
    manifest: ManifestWriter,
    manifest_object: Box<dyn ObjectWriter>,
    manifest_part: Vec<u8>,
    open_map: Option<OpenMap>,
    /// What is durable of the backup.
    packs: Vec<PackInfo>,
    maps: Vec<MapInfo>,
    journal: Journal,
    next: u64,
    /// The same number, for the scan to keep pace with.
    emitted: Arc<AtomicU64>,
    waiting: BTreeMap<u64, Waiting>,
    /// Files with page errors: a later attempt is to look at them again.
    faulty: BTreeSet<Vec<u8>>,
    totals: Totals,
}

/// A copy of which everything is durable, and nothing names it yet.
pub(in crate::backup) struct Collected {
    pub journal: Journal,
    pub dead: Vec<BackupId>,
    pub resumed: Option<BackupId>,
    pub led_on: LedOn,
    pub parts: Parts,
    pub totals: Totals,
}

/// What a backup leads on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedOn {
    /// Nothing: it is a full one.
    Nothing {
        /// Why, unless it was asked to be, or is the first.
        why: Option<String>,
    },
    /// Another backup: it stores what changed.
    From {
        /// That backup.
        parent: BackupId,
        /// What was looked at though it had not changed.
        audited: AuditShare,
        /// Why more was read than had changed.
        trouble: Option<String>,
    },
}

impl LedOn {
    /// What kind of backup it is.
    #[must_use]
    pub const fn kind(&self) -> BackupKind {
        match self {
            Self::Nothing { .. } => BackupKind::Full,
            Self::From { .. } => BackupKind::Incremental,
        }
    }

    /// What was looked at though it had not changed.
    #[must_use]
    pub const fn audited(&self) -> Option<AuditShare> {
        match self {
            Self::Nothing { .. } => None,
            Self::From { audited, .. } => Some(*audited),
        }
    }

    /// The backup that it leads on from.
    #[must_use]
    pub const fn parent(&self) -> Option<BackupId> {
        match self {
            Self::Nothing { .. } => None,
            Self::From { parent, .. } => Some(*parent),
        }
    }

    /// Why it is a full one, or why more was read than had changed.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Nothing { why } | Self::From { trouble: why, .. } => why.as_deref(),
        }
    }
}

struct OpenMap {
    builder: MapBuilder,
    bytes: Vec<u8>,
    path: seawall_store::ObjectPath,
}

/// A path whose turn has not come, or whose file is not complete.
enum Waiting {
    /// Complete; `None` if the file vanished.
    Ready(Option<Entry>),
    /// Spans of a large file are still being copied.
    Large(LargeFile),
}

struct LargeFile {
    entry: Entry,
    spans: Vec<Option<Blocks>>,
    left: usize,
    gone: bool,
}

impl Collector {
    /// Begins the manifest.
    pub async fn begin(destination: &Arc<Destination>, ready: Ready) -> Result<Self> {
        let Ready { journal, dead, predecessor, parent, why_full, mut packs, mut maps } = ready;
        let parent = parent.map(Arc::new);
        let parents: BTreeSet<Ulid> =
            parent.iter().flat_map(|parent| &parent.packs).map(|pack| pack.id).collect();
        packs.extend(parent.iter().flat_map(|parent| &parent.packs));
        maps.extend(parent.iter().flat_map(|parent| &parent.maps));
        let line = destination.line.clone();
        let id = new_ulid(Timestamp::now())?;
        let path = line.paths().path(&LineObject::Manifest(id))?;
        let mut manifest_part = Vec::new();
        let manifest = ManifestWriter::begin(line.keyring(), id, &path, &mut manifest_part)?;
        let manifest_object = line.store().create_large(&path).await?;
        let (resumed, predecessor) = predecessor.unzip();
        let emitted = Arc::<AtomicU64>::default();
        let (into, results) = PackingInto::new(
            Arc::clone(destination),
            predecessor,
            parent.clone(),
            Arc::clone(&emitted),
        );
        Ok(Self {
            line,
            into: Some(into),
            results: Some(results),
            dead,
            resumed,
            parent,
            parents,
            why_full,
            manifest,
            manifest_object,
            manifest_part,
            open_map: None,
            packs,
            maps,
            journal,
            next: 0,
            emitted,
            waiting: BTreeMap::new(),
            faulty: BTreeSet::new(),
            totals: Totals::default(),
        })
    }

    /// The destination as the packing half sees it; given once.
    pub const fn packing(&mut self) -> Option<PackingInto> {
        self.into.take()
    }

    /// Collects until nothing more comes. Once it has failed, nothing more is packed for it.
    pub async fn collect_all(&mut self) -> Result<()> {
        let Some(mut results) = self.results.take() else {
            return Err(Error::new(Code::Internal, "nothing is left to collect"));
        };
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                packed = results.recv() => match packed {
                    Some(packed) => self.collect(packed).await?,
                    None => return Ok(()),
                },
                _ = pulse.tick() => self.journal.heartbeat(&self.line).await?,
            }
        }
    }

    /// Takes one result.
    async fn collect(&mut self, packed: Packed) -> Result<()> {
        match packed {
            Packed::Entry { sequence, entry, had } => {
                self.totals.reused_files += u64::from(had == Some(Had::FromPredecessor));
                self.totals.unchanged_files += u64::from(had == Some(Had::FromParent));
                self.waiting.insert(sequence, Waiting::Ready(Some(entry)));
            }
            Packed::Small { sequence, entry, errors, read_bytes } => {
                let is_had = entry.packs().any(|pack| self.parents.contains(&pack));
                self.totals.unchanged_files += u64::from(is_had);
                self.read(read_bytes, errors);
                self.waiting.insert(sequence, Waiting::Ready(Some(entry)));
            }
            Packed::Large { sequence, entry, spans } => {
                let left = spans as usize;
                let spans = std::iter::repeat_with(|| None).take(left).collect();
                let file = LargeFile { entry, spans, left, gone: false };
                self.waiting.insert(sequence, Waiting::Large(file));
            }
            Packed::Span { sequence, span, blocks, errors, read_bytes } => {
                self.read(read_bytes, errors);
                self.span(sequence, span, Some(blocks)).await?;
            }
            Packed::Whole { sequence, entry, blocks, errors, read_bytes } => {
                self.read(read_bytes, errors);
                let spans = vec![Some(blocks)];
                let entry = self.map(LargeFile { entry, spans, left: 0, gone: false }).await?;
                self.waiting.insert(sequence, Waiting::Ready(Some(entry)));
            }
            Packed::Changed { sequence, entry, base, exceptions, errors, read_bytes } => {
                self.read(read_bytes, errors);
                let entry = self.changed(entry, &base, &exceptions).await?;
                self.waiting.insert(sequence, Waiting::Ready(Some(entry)));
            }
            Packed::Incident(incident) => {
                // An attempt that leads on from this one is to meet it too.
                self.faulty.insert(incident.path.to_vec());
                self.totals.incidents.add(incident);
            }
            Packed::LeftOut { sequence, file } => {
                self.leave_out(file)?;
                self.waiting.insert(sequence, Waiting::Ready(None));
            }
            Packed::SpanGone { sequence, span } => self.span(sequence, span, None).await?,
            Packed::Gone { sequence } => {
                self.waiting.insert(sequence, Waiting::Ready(None));
            }
            Packed::Pack(pack) => {
                self.totals.stored_bytes += pack.length_bytes;
                self.packs.push(pack);
                self.journal.pack(pack);
                self.write_journal().await?;
            }
            Packed::Failed(error) => return Err(error),
        }
        self.emit().await?;
        if self.journal.is_full() { self.write_journal().await } else { Ok(()) }
    }

    /// Makes durable what the journal is to name, and writes it.
    async fn write_journal(&mut self) -> Result<()> {
        self.close_map().await?;
        self.journal.write(&self.line).await
    }

    /// Ends the copy, and makes the manifest durable: every path must have been accounted for.
    pub async fn finish(mut self) -> Result<Collected, Failed> {
        if let Err(error) = self.end().await {
            return Err(self.failed(error));
        }
        let fruitless = !self.journal.is_worth_keeping();
        self.write_manifest().await.map_err(|error| Failed { error, fruitless })
    }

    /// A failure of this destination.
    pub const fn failed(&self, error: Error) -> Failed {
        Failed::with(&self.journal, error)
    }

    async fn end(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            return Err(Error::new(Code::Internal, "some files were found and never copied"));
        }
        self.write_journal().await
    }

    async fn write_manifest(mut self) -> Result<Collected> {
        let parts = self.manifest.finish(&self.packs, &self.maps, &mut self.manifest_part)?;
        self.manifest_object.write(Bytes::from(self.manifest_part)).await?;
        let written = self.manifest_object.finish().await?;
        for manifest in &parts.manifests {
            self.journal.manifest(*manifest);
        }
        if parts.manifests.iter().map(|manifest| manifest.length_bytes).sum::<u64>() != written {
            let what = "a manifest has another length than was written";
            return Err(Error::new(Code::Internal, what));
        }
        self.totals.stored_bytes += written;
        let Self { journal, dead, resumed, parent, why_full, totals, .. } = self;
        let led_on = match parent {
            Some(parent) => {
                let (audited, trouble) = (parent.audited(), parent.trouble());
                LedOn::From { parent: parent.id, audited, trouble }
            }
            None => LedOn::Nothing { why: why_full },
        };
        Ok(Collected { journal, dead, resumed, led_on, parts, totals })
    }

    fn read(&mut self, bytes: u64, errors: Vec<PageError>) {
        self.totals.read_bytes += bytes;
        self.totals.page_error_count += errors.len() as u64;
        self.faulty.extend(errors.first().map(|error| error.path.to_vec()));
        let room = PAGE_ERRORS_LISTED.saturating_sub(self.totals.page_errors.len());
        self.totals.page_errors.extend(errors.into_iter().take(room));
    }

    fn leave_out(&mut self, file: LeftOut) -> Result<()> {
        if self.totals.left_out.len() < LEFT_OUT_MAX {
            self.totals.left_out.push(file);
            return Ok(());
        }
        let what = format!("more than {LEFT_OUT_MAX} files changed each time they were read");
        Err(Error::new(Code::ClusterUnreadable, what).with_hint(
            "Something that is not PostgreSQL writes into the data directory: let it write elsewhere.",
        ))
    }

    async fn span(&mut self, sequence: u64, span: u32, copied: Option<Blocks>) -> Result<()> {
        let Some(Waiting::Large(file)) = self.waiting.get_mut(&sequence) else {
            return Err(Error::new(Code::Internal, "a span of an unknown file was copied"));
        };
        file.gone |= copied.is_none();
        file.left -= 1;
        if let Some(slot) = file.spans.get_mut(span as usize) {
            *slot = copied;
        }
        if file.left > 0 {
            return Ok(());
        }
        let Some(Waiting::Large(file)) = self.waiting.remove(&sequence) else { return Ok(()) };
        let entry = if file.gone { None } else { Some(self.map(file).await?) };
        self.waiting.insert(sequence, Waiting::Ready(entry));
        Ok(())
    }

    /// Adds the leaves of a complete file to the open map.
    async fn map(&mut self, file: LargeFile) -> Result<Entry> {
        let LargeFile { mut entry, spans, .. } = file;
        let mut builder = BlockMapBuilder::default();
        let mut hashes = Vec::new();
        for blocks in spans.into_iter().flatten() {
            builder.append(blocks.map);
            hashes.extend(blocks.hashes);
        }
        let map = builder.finish(entry.size_bytes()).ok_or_else(|| {
            let path = String::from_utf8_lossy(entry.path()).into_owned();
            Error::new(Code::Internal, format!("the block map does not cover {path}"))
        })?;
        let open = self.open_map()?;
        let leaves = open.builder.add(&map, &hashes, &mut open.bytes)?;
        entry.content = Some(Content::Mapped { leaves, packs: map.packs() });
        self.close_full_map().await?;
        Ok(entry)
    }

    /// Adds the leaf of a file of which some blocks changed; nothing if none did.
    async fn changed(
        &mut self,
        mut entry: Entry,
        base: &Base,
        exceptions: &[Exception],
    ) -> Result<Entry> {
        if exceptions.is_empty() && entry.size_bytes() == base.size_bytes {
            self.totals.unchanged_files += 1;
            entry.content = Some(base.content.clone());
            return Ok(entry);
        }
        let map = base.map.changed(entry.size_bytes(), exceptions).ok_or_else(|| {
            let path = String::from_utf8_lossy(entry.path()).into_owned();
            Error::new(Code::Internal, format!("what changed of {path} does not make it whole"))
        })?;
        let open = self.open_map()?;
        let leaves =
            open.builder.add_changed(&map, base.hash_leaf, base.hash_count, &mut open.bytes)?;
        entry.content = Some(Content::Mapped { leaves, packs: map.packs() });
        self.close_full_map().await?;
        Ok(entry)
    }

    fn open_map(&mut self) -> Result<&mut OpenMap> {
        if self.open_map.is_none() {
            self.open_map = Some(self.begin_map()?);
        }
        self.open_map.as_mut().ok_or_else(|| Error::new(Code::Internal, "no map is open"))
    }

    async fn close_full_map(&mut self) -> Result<()> {
        let bytes = self.open_map.as_ref().map_or(0, |open| open.builder.stored_bytes());
        if bytes >= MAP_BYTES { self.close_map().await } else { Ok(()) }
    }

    fn begin_map(&self) -> Result<OpenMap> {
        let id = new_ulid(Timestamp::now())?;
        let path = self.line.paths().path(&LineObject::Map(id))?;
        let mut bytes = Vec::new();
        let builder = MapBuilder::begin(self.line.keyring(), id, &path, &mut bytes)?;
        Ok(OpenMap { builder, bytes, path })
    }

    async fn close_map(&mut self) -> Result<()> {
        let Some(mut open) = self.open_map.take() else { return Ok(()) };
        let info = open.builder.finish(&mut open.bytes)?;
        self.line.store().create(&open.path, Bytes::from(open.bytes)).await?;
        self.totals.stored_bytes += info.length_bytes;
        self.maps.push(info);
        self.journal.map(info);
        Ok(())
    }

    /// Writes every entry whose turn has come.
    async fn emit(&mut self) -> Result<()> {
        while let Some(Waiting::Ready(_)) = self.waiting.get(&self.next) {
            if let Some(Waiting::Ready(Some(entry))) = self.waiting.remove(&self.next) {
                self.totals.cluster_bytes += entry.size_bytes();
                self.totals.files += u64::from(entry.kind == EntryKind::File);
                self.manifest.entry(&entry, &mut self.manifest_part)?;
                // What is the parent's too a later attempt finds there.
                let is_own = entry.packs().all(|pack| !self.parents.contains(&pack));
                if is_own && !self.faulty.contains(entry.path()) {
                    self.journal.entry(entry);
                }
            }
            self.next += 1;
        }
        self.emitted.store(self.next, Ordering::Relaxed);
        if self.manifest_part.len() >= MANIFEST_PART_BYTES {
            let part = std::mem::take(&mut self.manifest_part);
            self.manifest_object.write(Bytes::from(part)).await?;
        }
        Ok(())
    }
}

impl Journaled for Collector {
    fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

impl Journaled for Collected {
    fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }
}
