//! What an attempt that died has done already.

use std::collections::BTreeMap;

use seawall_core::{BackupId, Lsn, Result, TimelineId};
use seawall_pgdata::relation_path::{Fork, RelationFile};
use seawall_pgdata::wal::{ChangedBlocks, RelFileLocator};
use seawall_repo::Attempt;
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::map::MapInfo;
use seawall_repo::pack::{BLOCK_BYTES, PackInfo};

use super::pack_sink::PackList;
use crate::cluster::{FileKind, Found};

/// The files an attempt finished, and what WAL says has changed since it began.
#[derive(Debug)]
pub(super) struct Parent {
    entries: BTreeMap<Vec<u8>, (u64, Content)>,
    changes: ChangedBlocks,
    relation_segment_blocks: u32,
}

/// What an attempt left behind, before anything is known about changes.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub id: BackupId,
    pub start_lsn: Lsn,
    pub start_timeline: TimelineId,
    pub packs: Vec<(u32, PackInfo)>,
    pub maps: Vec<MapInfo>,
    entries: BTreeMap<Vec<u8>, (u64, Content)>,
}

impl Inheritance {
    /// Reads an attempt's records. `None` if it finished nothing.
    pub fn of(attempt: Attempt) -> Option<Self> {
        let mut all = Self {
            id: attempt.id,
            start_lsn: Lsn::INVALID,
            start_timeline: TimelineId(0),
            packs: Vec::new(),
            maps: Vec::new(),
            entries: BTreeMap::new(),
        };
        for record in attempt.records {
            if record.start_lsn.is_valid() {
                all.start_lsn = record.start_lsn;
                all.start_timeline = record.start_timeline;
            }
            all.packs.extend(record.packs.iter().map(|pack| (pack.index, pack.info)));
            all.maps.extend(record.maps);
            for entry in record.entries {
                let Entry { path, size_bytes: Some(size), content: Some(content), .. } = entry
                else {
                    continue;
                };
                all.entries.insert(path.into(), (size, content));
            }
        }
        (all.start_lsn.is_valid() && !all.entries.is_empty()).then_some(all)
    }

    /// How much of the cluster the attempt finished.
    pub fn bytes(&self) -> u64 {
        self.entries.values().map(|(size, _)| size).sum()
    }

    /// Puts the attempt's packs first into the new backup's list, and renumbers its entries.
    pub fn adopt(
        self,
        packs: &PackList,
        changes: ChangedBlocks,
        relation_segment_blocks: u32,
    ) -> Result<Parent> {
        let mut numbers = BTreeMap::new();
        for (old, info) in &self.packs {
            numbers.insert(*old, packs.add(*info)?);
        }
        let renumber = |content: Content| match content {
            Content::Blob { pack, frame, offset, hashes } => {
                numbers.get(&pack).map(|pack| Content::Blob { pack: *pack, frame, offset, hashes })
            }
            mapped @ Content::Mapped(_) => Some(mapped),
        };
        let entries = self
            .entries
            .into_iter()
            .filter_map(|(path, (size, content))| Some((path, (size, renumber(content)?))))
            .collect();
        Ok(Parent { entries, changes, relation_segment_blocks })
    }
}

impl Parent {
    /// The content of a file that certainly has not changed since the attempt copied it.
    ///
    /// Only relations' main and init forks can be certain: every change of their pages is in WAL.
    /// A file of another size was extended or cut, perhaps without a record of its zero pages.
    pub fn content(&self, found: &Found) -> Option<Content> {
        let FileKind::Relation(file) = &found.kind else { return None };
        if !matches!(file.fork, Fork::Main | Fork::Init) {
            return None;
        }
        let (size, content) = self.entries.get(&found.path)?;
        (*size == found.size_bytes && self.is_untouched(file, found.size_bytes))
            .then(|| content.clone())
    }

    fn is_untouched(&self, file: &RelationFile, size_bytes: u64) -> bool {
        let first = file.segment.saturating_mul(self.relation_segment_blocks);
        let blocks = size_bytes.div_ceil(BLOCK_BYTES as u64) as u32;
        let locator = RelFileLocator {
            tablespace: file.tablespace,
            database: file.database,
            relation: file.relation,
        };
        !self.changes.touches(locator, file.fork, first..first.saturating_add(blocks))
    }
}
