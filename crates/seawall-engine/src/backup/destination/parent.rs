//! The backup that an incremental one leads on from: which one it is, and what of its files still
//! holds.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use seawall_core::{BackupId, BlockNumber, Code, Error, Lsn, Result, Ulid};
use seawall_pgdata::history::Ancestry;

use seawall_pgdata::relation_path::{Fork, RelationFile};
use seawall_pgdata::wal::{BlockSet, ChangedBlocks, RelFileLocator, RelationState};
use seawall_repo::hash::BlockHash;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{AuditShare, BackupInfo, Content, Entry, ManifestReader};
use seawall_repo::map::{BlockMap, LeafAddress, LeafPair, MapInfo, MapReader};
use seawall_repo::pack::{BLOCK_BYTES, PackInfo};
use seawall_repo::wal::{LsnRange, WalArchive};
use seawall_repo::{BackupSummary, Line};
use tokio::runtime::Handle;

use super::audit::{Audit, ChangeWindow};
use super::enter::{Start, is_of_no_use};
use crate::backup::look::Seen;
use crate::backup::request::ParentChoice;
use crate::backup::source::Before;
use crate::cluster::{FileKind, FoundPath};
use crate::events::{Verdict, standing_of};

/// What a backup need not read or store because the one before has it.
#[derive(Debug)]
pub(in crate::backup) struct Parent {
    pub id: BackupId,
    pub packs: Vec<PackInfo>,
    pub maps: Vec<MapInfo>,
    line: Line,
    manifest: ManifestReader,
    changes: Option<ChangedBlocks>,
    /// Files that had page errors: what is stored of them may be wrong.
    faulty: BTreeSet<Vec<u8>>,
    relation_segment_blocks: u32,
    /// From the parent's start to this one's.
    pub window: ChangeWindow,
    audit: Audit,
    runtime: Handle,
    cursor: Mutex<Cursor>,
    opened: Mutex<BTreeMap<Ulid, Arc<MapReader>>>,
    /// What kept it from being of more use.
    trouble: Mutex<Option<String>>,
}

/// Where the blocks of a file were, for who has what changed of it.
#[derive(Debug)]
pub(in crate::backup) struct Base {
    pub content: Content,
    pub size_bytes: u64,
    /// The blocks that may differ; `None` if any may.
    pub changed: Option<BlockSet>,
    /// Others, which may not: they must not have been changed within this.
    pub audited: BlockSet,
    pub window: ChangeWindow,
    pub map: BlockMap,
    /// Where the hashes are, and how many.
    pub hash_leaf: LeafAddress,
    pub hash_count: usize,
    /// The hashes of all blocks.
    hashes: Vec<BlockHash>,
}

impl Base {
    /// Nothing more is compared: the hashes are the most of it.
    pub fn forget_hashes(&mut self) {
        self.hashes = Vec::new();
    }

    /// The hash of a block, if it had this length.
    pub fn hash_of(&self, block: u32, bytes: usize) -> Option<BlockHash> {
        let offset = u64::from(block) * BLOCK_BYTES as u64;
        let length = self.size_bytes.checked_sub(offset)?.min(BLOCK_BYTES as u64);
        self.hashes.get(block as usize).copied().filter(|_| length == bytes as u64)
    }
}

/// Where in the manifest the scan has come to; both go by the order of paths.
#[derive(Debug, Default)]
struct Cursor {
    next_page: usize,
    entries: std::vec::IntoIter<Entry>,
    entry: Option<Entry>,
}

/// What a parent says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backup) enum FromParent {
    /// Nothing that is of use.
    Nothing,
    /// It has not changed.
    Same(Content),
    /// It may have changed.
    Before(Before),
}

impl Parent {
    /// The backup to lead on from, if there is one of use; else why not. It may go again until
    /// [`Parent::prove_there`] has found it after it was pinned.
    ///
    /// # Errors
    /// A store that fails. [`Code::NoSuchBackup`] if a certain one is asked for, and it is not there
    /// or of no use.
    pub async fn find(
        line: &Line,
        choice: ParentChoice,
        (archive, ancestry): (&WalArchive, &Ancestry),
        seen: &Seen,
        start: Start,
    ) -> Result<std::result::Result<Self, Option<String>>> {
        let info = match chosen(line, choice, ancestry, seen, start.lsn).await? {
            Ok(info) => info,
            Err(why) => return useless(choice, why),
        };
        let id = BackupId(info.id);
        let opened = async {
            let gone = || Error::new(Code::NoSuchBackup, "it is gone");
            let manifest = line.manifest(id).await?.ok_or_else(gone)?;
            let packs = manifest.packs(line.store()).await?;
            Ok::<_, Error>((manifest, packs))
        };
        let (manifest, packs) = match opened.await {
            Ok(opened) => opened,
            Err(error) if !is_of_no_use(&error) => return Err(error),
            Err(error) => {
                let why = format!("backup {id} is of no use: {}", error.chain());
                return useless(choice, Some(why));
            }
        };
        let changes = archive.changes(ancestry, info.start_lsn, start.lsn).await;
        let changes = changes.map_err(|error| error.chain());
        let changes = changes.and_then(|changes| match changes.unusable() {
            Some(why) => Err(why),
            None => Ok(changes.blocks),
        });
        let is_doubted = info.incidents.as_ref().is_some_and(|incidents| incidents.unmarked > 0);
        let (changes, trouble) = match changes {
            Ok(_) if is_doubted => {
                let what = format!(
                    "backup {id} met blocks that WAL does not account for; all is read and compared"
                );
                (None, Some(what))
            }
            Ok(changes) => (Some(changes), None),
            Err(why) => {
                let what = format!(
                    "WAL does not tell what changed since: {why}; all is read and compared"
                );
                (None, Some(what))
            }
        };
        Ok(Ok(Self {
            id,
            packs,
            maps: manifest.commit.parts.maps.clone(),
            line: line.clone(),
            faulty: info.page_errors.iter().map(|error| error.path.to_vec()).collect(),
            relation_segment_blocks: seen.control.relseg_size,
            manifest,
            changes,
            window: ChangeWindow(LsnRange { start: info.start_lsn, end: start.lsn }),
            audit: Audit::new(info.cluster_bytes, info.audit),
            runtime: Handle::current(),
            cursor: Mutex::default(),
            opened: Mutex::default(),
            trouble: Mutex::new(trouble),
        }))
    }

    /// Proves that all is there that is used of it, once a pin tells so: what is to be deleted is of no
    /// use, and what was deleted is gone. What is spoilt is found by `verify`.
    ///
    /// # Errors
    /// [`Code::Condemned`], [`Code::ObjectMissing`], or a store that fails.
    pub async fn prove_there(&self) -> Result<()> {
        let commit = LineObject::Backup(self.id, self.manifest.commit.info.generation);
        let packs = self.packs.iter().map(|pack| LineObject::Pack(pack.id));
        let maps = self.maps.iter().map(|map| LineObject::Map(map.id));
        let used: Vec<LineObject> = packs.chain(maps).chain([commit]).collect();
        // In this order: what tells that something goes is itself taken away last.
        self.line.refuse_condemned(used.iter().cloned()).await?;
        let path = |object| self.line.paths().path(object);
        let mut missing: BTreeSet<_> = used.iter().map(path).collect::<Result<_>>()?;
        for below in ["backup", "pack", "map"] {
            let below = self.line.paths().below(below)?;
            for path in self.line.repository().list(&below).await? {
                missing.remove(&path);
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(path) => Err(Error::new(Code::ObjectMissing, format!("{path} is not there"))),
        }
    }

    /// Which share of what did not change was looked at, and how much that was.
    pub fn audited(&self) -> AuditShare {
        self.audit.share_taken()
    }

    /// Which of some blocks, that have these page LSNs now, had changed when the backup began and are
    /// older in the parent. Other differences are hints. For threads that may wait.
    pub fn changed_since_stored(&self, map: &BlockMap, blocks: &[(u32, Lsn)]) -> Vec<u32> {
        let changed = self.runtime.block_on(self.audit.changed_since_stored(
            &self.line,
            &self.manifest,
            map,
            blocks,
        ));
        changed.inspect_err(|error| self.note(error)).unwrap_or_default()
    }

    /// What kept it from being of more use: what it could not tell was read from the cluster.
    pub fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    fn note(&self, error: &Error) {
        locked(&self.trouble).get_or_insert_with(|| error.chain());
    }

    /// What the parent says of the next file; nothing from where it cannot be read any more. Files
    /// are asked for in the order of their paths, on a thread that may wait.
    pub fn file(&self, found: &FoundPath) -> FromParent {
        self.audit.begin();
        let mut cursor = locked(&self.cursor);
        match self.entry(&mut cursor, &found.path) {
            Ok(Some(entry)) if !self.faulty.contains(&found.path) => {
                let changes = self.changes.as_ref();
                let plan = plan_file(found, entry, changes, self.relation_segment_blocks);
                self.audit.add(plan, found, entry)
            }
            Ok(_) => FromParent::Nothing,
            Err(error) => {
                self.note(&error);
                cursor.next_page = self.manifest.pages();
                FromParent::Nothing
            }
        }
    }

    /// Where the blocks of a file were; nothing if it has no block map, or one that cannot be read.
    /// For threads that may wait.
    pub fn base(&self, before: &Before) -> Option<Base> {
        let Content::Mapped { leaves, .. } = &before.content else { return None };
        let read = self.runtime.block_on(self.leaves(leaves));
        let (map, leaf) = read.inspect_err(|error| self.note(error)).ok()?;
        let hash_count = leaf.len();
        let hashes = map.hashes(leaf).filter(|_| map.file_bytes == before.size_bytes);
        let wrong =
            || self.note(&Error::new(Code::ObjectInconsistent, "a block map is of another file"));
        let Some(hashes) = hashes else {
            wrong();
            return None;
        };
        Some(Base {
            content: before.content.clone(),
            size_bytes: before.size_bytes,
            changed: before.changed.clone(),
            audited: before.audited.clone(),
            window: self.window,
            map,
            hash_leaf: leaves.hashes,
            hash_count,
            hashes,
        })
    }

    async fn leaves(&self, leaves: &LeafPair) -> Result<(BlockMap, Vec<BlockHash>)> {
        let store = self.line.store();
        let map = self.map(leaves.runs.map).await?.runs(store, &leaves.runs).await?;
        let hashes = self.map(leaves.hashes.map).await?.hashes(store, &leaves.hashes).await?;
        Ok((map, hashes))
    }

    async fn map(&self, id: Ulid) -> Result<Arc<MapReader>> {
        if let Some(opened) = locked(&self.opened).get(&id) {
            return Ok(Arc::clone(opened));
        }
        let gone = || Error::new(Code::ObjectInconsistent, format!("map {id} is not listed"));
        let info = self.maps.iter().find(|map| map.id == id).ok_or_else(gone)?;
        let path = self.line.paths().path(&LineObject::Map(id))?;
        let reader = MapReader::read(self.line.store(), self.line.keyring(), &path, info).await?;
        let reader = Arc::new(reader);
        locked(&self.opened).insert(id, Arc::clone(&reader));
        Ok(reader)
    }

    /// The entry of a path that comes after all that were asked for.
    fn entry<'c>(&self, cursor: &'c mut Cursor, path: &[u8]) -> Result<Option<&'c Entry>> {
        loop {
            if cursor.entry.as_ref().is_some_and(|entry| entry.path() >= path) {
                break;
            }
            cursor.entry = cursor.entries.next();
            if cursor.entry.is_none() {
                if cursor.next_page == self.manifest.pages() {
                    return Ok(None);
                }
                let page = self.manifest.page(self.line.store(), cursor.next_page);
                cursor.entries = self.runtime.block_on(page)?.into_iter();
                cursor.next_page += 1;
            }
        }
        Ok(cursor.entry.as_ref().filter(|entry| entry.path() == path))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// That there is no parent: where a certain one was asked for, there is no backup.
fn useless<T>(
    choice: ParentChoice,
    why: Option<String>,
) -> Result<std::result::Result<T, Option<String>>> {
    let ParentChoice::This(asked) = choice else { return Ok(Err(why)) };
    let why = why.unwrap_or_else(|| format!("backup {asked} is not in this repository"));
    Err(Error::new(Code::NoSuchBackup, format!("{asked} cannot be the parent: {why}"))
        .with_hint("Name none, and the newest backup that is of use is taken."))
}

/// So many are looked at first: mostly one of them is of use.
const LOOKED_AT_FIRST: usize = 8;

/// The commit of the newest backup that is of use, or of the one that was asked for; else why none is.
async fn chosen(
    line: &Line,
    choice: ParentChoice,
    ancestry: &Ancestry,
    seen: &Seen,
    start: Lsn,
) -> Result<std::result::Result<BackupInfo, Option<String>>> {
    let few = match choice {
        ParentChoice::This(_) => Vec::new(),
        ParentChoice::Newest | ParentChoice::Nothing => line.last_backups(LOOKED_AT_FIRST).await?,
    };
    let is_all = (1..LOOKED_AT_FIRST).contains(&few.len());
    if let Ok(info) = among(line, few, ancestry, seen, start).await? {
        return Ok(Ok(info));
    }
    let mut all =
        if is_all { line.last_backups(LOOKED_AT_FIRST).await? } else { line.backups().await? };
    if let ParentChoice::This(asked) = choice {
        all.retain(|backup| backup.id == asked);
    }
    among(line, all, ancestry, seen, start).await
}

async fn among(
    line: &Line,
    backups: Vec<BackupSummary>,
    ancestry: &Ancestry,
    seen: &Seen,
    start: Lsn,
) -> Result<std::result::Result<BackupInfo, Option<String>>> {
    let mut unread = None;
    let mut newest_first = Vec::new();
    for BackupSummary { id, info, .. } in backups {
        match info {
            Ok(info) => newest_first.push(info),
            Err(error) => unread = Some(format!("backup {id} cannot be read: {}", error.chain())),
        }
    }
    newest_first.sort_by_key(|info| std::cmp::Reverse((info.stop_lsn, info.id)));
    let mut first = None;
    for info in newest_first {
        let id = BackupId(info.id);
        let mut why = unfit(&info, ancestry, seen, start);
        if why.is_none() {
            why = match doubt(line, id).await {
                Err(error) if is_of_no_use(&error) => {
                    Some(format!("it is not known what became of backup {id}: {}", error.chain()))
                }
                doubt => doubt?,
            };
        }
        match why {
            None => return Ok(Ok(info)),
            Some(why) => _ = first.get_or_insert(why),
        }
    }
    Ok(Err(first.or(unread)))
}

/// Why nothing should lead on from a backup, by what was noted of it since it was made.
async fn doubt(line: &Line, id: BackupId) -> Result<Option<String>> {
    let standing = standing_of(line, id).await?;
    Ok(match standing.verdict {
        Some(Verdict::Damaged(_)) => Some(format!("backup {id} was found damaged")),
        _ if standing.is_asked_to_go_at(Timestamp::now()) => {
            Some(format!("backup {id} is asked to be deleted"))
        }
        Some(Verdict::Whole { .. }) | None => None,
    })
}

/// Why nothing can lead on from a backup, if nothing can.
fn unfit(info: &BackupInfo, ancestry: &Ancestry, seen: &Seen, start: Lsn) -> Option<String> {
    let BackupInfo { stop_lsn, stop_timeline, .. } = info;
    let id = BackupId(info.id);
    if *stop_lsn > start || !ancestry.contains(*stop_timeline, *stop_lsn) {
        return Some(format!(
            "backup {id} is not on the way to here: it ends at {stop_lsn} on timeline {stop_timeline}"
        ));
    }
    if info.data_checksums != seen.facts.data_checksums {
        return Some("data checksums were switched, which no WAL tells".to_owned());
    }
    if info.relation_segment_blocks != seen.control.relseg_size
        || info.major != seen.facts.major.number()
    {
        return Some(format!("backup {id} is of another server"));
    }
    let is_cut = info.page_error_count > info.page_errors.len() as u64;
    is_cut.then(|| format!("backup {id} has more page errors than it lists"))
}

/// What a file's entry in the parent is good for.
///
/// Only of relations' main and init forks WAL tells every change. A file without a whole number of
/// pages is no relation that PostgreSQL made, and one that is shorter without a record of it is
/// doubted: both are compared.
fn plan_file(
    found: &FoundPath,
    before: &Entry,
    changes: Option<&ChangedBlocks>,
    relation_segment_blocks: u32,
) -> FromParent {
    let Some(content) = before.content.clone() else { return FromParent::Nothing };
    let size_bytes = before.size_bytes();
    let compared = |content| {
        FromParent::Before(Before { content, size_bytes, changed: None, audited: BlockSet::new() })
    };
    let (FileKind::Relation(file), Some(changes)) = (&found.kind, changes) else {
        return compared(content);
    };
    let changed =
        changed_blocks(file, size_bytes, found.size_bytes, changes, relation_segment_blocks);
    match changed {
        None => compared(content),
        Some(changed) if changed.is_empty() && size_bytes == found.size_bytes => {
            FromParent::Same(content)
        }
        changed => {
            FromParent::Before(Before { content, size_bytes, changed, audited: BlockSet::new() })
        }
    }
}

/// Which blocks of a relation's file may differ; `None` if WAL does not tell.
fn changed_blocks(
    file: &RelationFile,
    before_bytes: u64,
    now_bytes: u64,
    changes: &ChangedBlocks,
    relation_segment_blocks: u32,
) -> Option<BlockSet> {
    let whole_blocks = |bytes: u64| {
        let whole = bytes.is_multiple_of(BLOCK_BYTES as u64);
        whole.then(|| u32::try_from(bytes / BLOCK_BYTES as u64).ok())?
    };
    let (before, now) = (whole_blocks(before_bytes)?, whole_blocks(now_bytes)?);
    let first = file.segment.checked_mul(relation_segment_blocks)?;
    let end: BlockNumber = first.checked_add(now)?;
    let locator = RelFileLocator {
        tablespace: file.tablespace,
        database: file.database,
        relation: file.relation,
    };
    if !matches!(file.fork, Fork::Main | Fork::Init) {
        return None;
    }
    let (mut changed, limit) = match changes.relation_state(locator, file.fork) {
        RelationState::DatabaseIsNew => return None,
        RelationState::Untouched => (BlockSet::new(), None),
        RelationState::Changed(changes) => (changes.within(first..end), changes.limit),
    };
    if now < before && limit.is_none_or(|limit| limit > end) {
        return None;
    }
    changed.insert_range(before.min(now)..now);
    Some(changed)
}
