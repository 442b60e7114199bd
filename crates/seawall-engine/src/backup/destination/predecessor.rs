//! What an attempt that died has done already.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use seawall_core::{BackupId, BlockNumber, Lsn, Result, TimelineId, Ulid};
use seawall_pgdata::relation_path::{Fork, RelationFile};
use seawall_pgdata::wal::{ChangedBlocks, RelFileLocator};
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{Content, Entry};
use seawall_repo::map::{MapInfo, MapReader};
use seawall_repo::pack::{BLOCK_BYTES, FrameTable, PackInfo};
use seawall_repo::records::Pin;

use crate::cluster::{FileKind, FoundPath};

/// How many objects are looked at at once.
const READS: usize = 16;

/// A file an attempt finished.
#[derive(Debug)]
struct Finished {
    size_bytes: u64,
    modified_us: Option<i64>,
    content: Content,
}

/// The files an attempt finished, and what WAL says has changed since it began.
#[derive(Debug)]
pub(in crate::backup) struct Predecessor {
    entries: BTreeMap<Vec<u8>, Finished>,
    changes: ChangedBlocks,
    relation_segment_blocks: u32,
}

/// What an attempt left behind, before anything is known about changes.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub id: BackupId,
    pub start_lsn: Lsn,
    pub start_timeline: TimelineId,
    pub packs: Vec<PackInfo>,
    pub maps: Vec<MapInfo>,
    entries: BTreeMap<Vec<u8>, Finished>,
}

impl Inheritance {
    /// What an attempt's records say, of which those that are of use are given. `None` if it
    /// finished nothing.
    pub fn of(id: BackupId, records: Vec<Pin>) -> Option<Self> {
        let mut all = Self {
            id,
            start_lsn: Lsn::INVALID,
            start_timeline: TimelineId(0),
            packs: Vec::new(),
            maps: Vec::new(),
            entries: BTreeMap::new(),
        };
        let (mut packs, mut maps) = (BTreeSet::<Ulid>::new(), BTreeSet::<Ulid>::new());
        let (mut used_packs, mut used_maps) = (BTreeSet::new(), BTreeSet::new());
        for record in records {
            if record.start_lsn.is_valid() {
                all.start_lsn = record.start_lsn;
                all.start_timeline = record.start_timeline;
            }
            packs.extend(record.packs.iter().map(|pack| pack.id));
            maps.extend(record.maps.iter().map(|map| map.id));
            all.packs.extend(record.packs);
            all.maps.extend(record.maps);
            for entry in record.files.0 {
                let (of_packs, of_maps): (Vec<Ulid>, Vec<Ulid>) =
                    (entry.packs().collect(), entry.maps().collect());
                let is_durable = of_packs.iter().all(|pack| packs.contains(pack))
                    && of_maps.iter().all(|map| maps.contains(map));
                let Entry { path, size_bytes: Some(size_bytes), modified_us, content, .. } = entry
                else {
                    continue;
                };
                if let Some(content) = content.filter(|_| is_durable) {
                    let finished = Finished { size_bytes, modified_us, content };
                    all.entries.insert(path.into(), finished);
                    used_packs.extend(of_packs);
                    used_maps.extend(of_maps);
                }
            }
        }
        // It may have named what it then did without.
        all.packs.retain(|pack| used_packs.contains(&pack.id));
        all.maps.retain(|map| used_maps.contains(&map.id));
        (all.start_lsn.is_valid() && !all.entries.is_empty()).then_some(all)
    }

    /// How much of the cluster the attempt finished.
    pub fn bytes(&self) -> u64 {
        self.entries.values().map(|finished| finished.size_bytes).sum()
    }

    /// Whether WAL can tell what changed since the attempt began.
    ///
    /// It read pages that are newer than its start. On a timeline that was left since, some of what
    /// they hold may lie behind the fork, where the log that is followed now says nothing of it.
    pub fn is_on_the_way(&self, timeline: TimelineId, start_lsn: Lsn) -> bool {
        self.start_timeline == timeline && self.start_lsn <= start_lsn
    }

    /// Proves that what the attempt finished is there and stays. A pin names it already.
    pub async fn prove(&self, line: &Line) -> Result<()> {
        let (store, keyring) = (line.store(), line.keyring());
        let packs = self.packs.iter().map(|pack| LineObject::Pack(pack.id));
        let maps = self.maps.iter().map(|map| LineObject::Map(map.id));
        line.refuse_condemned(packs.chain(maps)).await?;
        let packs = self.packs.iter().map(async |info| {
            let path = line.paths().path(&LineObject::Pack(info.id))?;
            FrameTable::read(store, keyring, &path, info).await.map(drop)
        });
        stream::iter(packs).buffer_unordered(READS).try_collect::<()>().await?;
        let maps = self.maps.iter().map(async |info| {
            let path = line.paths().path(&LineObject::Map(info.id))?;
            MapReader::read(store, keyring, &path, info).await.map(drop)
        });
        stream::iter(maps).buffer_unordered(READS).try_collect::<()>().await
    }

    /// The files, for whoever knows what has changed since the attempt began.
    pub fn adopt(self, changes: ChangedBlocks, relation_segment_blocks: u32) -> Predecessor {
        Predecessor { entries: self.entries, changes, relation_segment_blocks }
    }
}

impl Predecessor {
    /// The content of a file that certainly has not changed since the attempt copied it.
    ///
    /// Only relations' main and init forks can be certain: every change of their pages is in WAL.
    /// A file of another size was extended or cut, perhaps without a record of its zero pages. One
    /// of another age may have been written to while no server ran, as `pg_checksums` does.
    pub fn content(&self, found: &FoundPath) -> Option<Content> {
        let FileKind::Relation(file) = &found.kind else { return None };
        if !matches!(file.fork, Fork::Main | Fork::Init) {
            return None;
        }
        let finished = self.entries.get(&found.path)?;
        let same = finished.size_bytes == found.size_bytes
            && finished.modified_us == Some(found.modified_us)
            && self.is_untouched(file, found.size_bytes);
        same.then(|| finished.content.clone())
    }

    fn is_untouched(&self, file: &RelationFile, size_bytes: u64) -> bool {
        let first = file.segment.saturating_mul(self.relation_segment_blocks);
        let blocks =
            u32::try_from(size_bytes.div_ceil(BLOCK_BYTES as u64)).unwrap_or(BlockNumber::MAX);
        let locator = RelFileLocator {
            tablespace: file.tablespace,
            database: file.database,
            relation: file.relation,
        };
        !self.changes.touches(locator, file.fork, first..first.saturating_add(blocks))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use seawall_core::Code;
    use seawall_pgdata::PgMajor;
    use seawall_pgdata::relation_path::RelationPath;
    use seawall_repo::keys::{KeyFile, Unlock};
    use seawall_repo::manifest::{EntryKind, Page};
    use seawall_repo::records::{Condemnation, PinRole};
    use seawall_repo::{CreateOptions, Repository};
    use seawall_store::testing::MemoryStore;

    use super::*;

    const PATH: &[u8] = b"base/5/16384";
    const LOCATOR: RelFileLocator =
        RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };

    const PACK: Ulid = Ulid(1);

    /// An attempt that began at 0/100 on timeline 1 and finished one file of two blocks.
    fn records(packs: Vec<PackInfo>) -> (BackupId, Vec<Pin>) {
        let entry = Entry {
            path: PATH.to_vec().into(),
            kind: EntryKind::File,
            mode: 0o600,
            size_bytes: Some(16384),
            modified_us: Some(7),
            content: Some(Content::Blob { pack: PACK, frame: 0, offset: 0, hashes: vec![1; 16] }),
            link_target: None,
        };
        let id = BackupId::new(jiff::Timestamp::UNIX_EPOCH, 1).unwrap();
        let pin = Pin {
            role: PinRole::Writer,
            host: String::new(),
            boot_id: String::new(),
            process_id: 1,
            time_us: 0,
            purpose: String::new(),
            start_lsn: Lsn(0x100),
            start_timeline: TimelineId(1),
            copied_until: Lsn(0x100),
            packs,
            maps: Vec::new(),
            files: Page(vec![entry]),
            backups: Vec::new(),
            process_started: None,
            namespaces: None,
            manifests: Vec::new(),
            ended_us: None,
        };
        (id, vec![pin])
    }

    fn inheritance() -> Inheritance {
        let pack = PackInfo { id: PACK, length_bytes: 1, footer_hash: Default::default() };
        let (id, records) = records(vec![pack]);
        Inheritance::of(id, records).unwrap()
    }

    fn predecessor(changes: ChangedBlocks) -> Predecessor {
        inheritance().adopt(changes, 131_072)
    }

    fn found() -> FoundPath {
        let Some(RelationPath::File(file)) = RelationPath::parse(PATH, PgMajor::V15) else {
            panic!("a relation");
        };
        FoundPath {
            path: PATH.to_vec(),
            location: PathBuf::new(),
            kind: FileKind::Relation(file),
            mode: 0o600,
            size_bytes: 16384,
            modified_us: 7,
            link: None,
        }
    }

    #[test]
    fn a_file_whose_pack_is_not_noted_as_finished_is_not_taken_over() {
        let (id, records) = records(Vec::new());
        assert!(Inheritance::of(id, records).is_none());
    }

    #[test]
    fn an_attempt_on_a_timeline_that_was_left_is_not_gone_on_with() {
        let attempt = inheritance();
        assert!(attempt.is_on_the_way(TimelineId(1), Lsn(0x200)));
        assert!(!attempt.is_on_the_way(TimelineId(1), Lsn(0xFF)), "the cluster was set back");
        // It began before the fork, and may have read pages that were written behind it.
        assert!(!attempt.is_on_the_way(TimelineId(2), Lsn(0x200)));
    }

    #[test]
    fn only_a_file_that_is_the_same_in_every_respect_is_taken_over() {
        let untouched = predecessor(ChangedBlocks::new());
        assert!(untouched.content(&found()).is_some());
        assert!(untouched.content(&FoundPath { size_bytes: 24576, ..found() }).is_none());
        // `pg_checksums --enable` writes every page and no WAL.
        assert!(untouched.content(&FoundPath { modified_us: 8, ..found() }).is_none());
        assert!(untouched.content(&FoundPath { kind: FileKind::Plain, ..found() }).is_none());
        assert!(
            untouched.content(&FoundPath { path: b"base/5/16385".to_vec(), ..found() }).is_none()
        );
        let mut changes = ChangedBlocks::new();
        changes.mark(LOCATOR, Fork::Main, 1);
        assert!(predecessor(changes).content(&found()).is_none());
    }

    #[tokio::test]
    async fn what_is_to_be_deleted_is_not_taken_over_whether_it_is_there_or_not() {
        let unlock = Unlock::KeyFile(KeyFile::generate().unwrap());
        let now = jiff::Timestamp::now();
        let options = CreateOptions { unlock: &unlock, label: "test", now };
        let store = std::sync::Arc::new(MemoryStore::new());
        let repository = Repository::create(store, &options).await.unwrap();
        let line = repository.line(&"main".parse().unwrap(), "7-0".parse().unwrap()).unwrap();
        let pack = PackInfo { id: PACK, length_bytes: 1, footer_hash: Default::default() };
        let unused = PackInfo { id: Ulid(2), ..pack };
        let (id, records) = records(vec![pack, unused]);
        let inheritance = Inheritance::of(id, records).unwrap();
        assert_eq!(inheritance.packs, [pack], "what no file of it is in is of no use");
        let refused = inheritance.prove(&line).await.unwrap_err();
        assert_eq!(refused.code(), Code::ObjectMissing);
        let names = vec![line.paths().name(&LineObject::Pack(PACK)).unwrap()];
        let condemnation = Condemnation { time_us: 0, names, grace_s: 900 };
        let path = line.paths().path(&LineObject::Gc(Ulid(1), LineObject::CONDEMNED)).unwrap();
        repository.create_record(&path, &condemnation).await.unwrap();
        let refused = inheritance.prove(&line).await.unwrap_err();
        assert_eq!(refused.code(), Code::Condemned);
    }
}
