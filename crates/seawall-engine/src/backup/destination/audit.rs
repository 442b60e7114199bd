//! What an incremental backup looks at though no record says that it changed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use seawall_core::{BlockNumber, Lsn, Result};
use seawall_pgdata::page::page_lsn;
use seawall_pgdata::wal::BlockSet;
use seawall_repo::Line;
use seawall_repo::manifest::{AuditShare, Entry, ManifestReader};
use seawall_repo::map::BlockMap;
use seawall_repo::pack::BLOCK_BYTES;
use seawall_repo::wal::LsnRange;
use tokio::sync::OnceCell;

use super::parent::FromParent;
use crate::backup::source::Before;
use crate::cluster::FoundPath;
use crate::stored::{Sources, read_block};

/// Of blocks that differ from what is stored so many are compared with it in a backup: each costs a
/// frame. Without data checksums hints alone make many differ.
const COMPARED_MAX: u64 = 2000;

/// Frame tables kept meanwhile.
const TABLES_BYTES: usize = 1 << 20;

/// The log from the parent's start, where it has what changed before, to this backup's.
#[derive(Debug, Clone, Copy)]
pub(in crate::backup) struct ChangeWindow(pub LsnRange);

impl ChangeWindow {
    /// Whether a change of this LSN was made within it.
    pub fn contains(self, lsn: Lsn) -> bool {
        self.0.start < lsn && lsn <= self.0.end
    }

    /// Whether a change of this LSN was made before it, by a record.
    pub fn begins_after(self, lsn: Lsn) -> bool {
        Lsn::INVALID < lsn && lsn <= self.0.start
    }
}

/// The share of what did not change that this backup looks at all the same. After as many backups as
/// there are shares all has been looked at.
#[derive(Debug)]
pub(super) struct Audit {
    shares: u64,
    turn: u64,
    /// Since when files are found.
    began: OnceLock<Instant>,
    /// How many blocks were looked at.
    blocks: AtomicU64,
    /// How many of them were compared with what is stored.
    compared: AtomicU64,
    sources: OnceCell<Sources>,
}

/// At least so much is looked at, and at most.
const AUDIT_BYTES: std::ops::RangeInclusive<u64> = (64 << 20)..=(4 << 30);

/// In so many backups all is looked at, unless that would be more.
const AUDIT_TURNS: u64 = 90;

/// Files that are found later are not looked at.
const AUDIT_TIME: Duration = Duration::from_secs(60);

/// Blocks are looked at in pieces of so many.
const AUDIT_BLOCKS: u32 = 128;

impl Audit {
    /// The share that comes after the parent's.
    pub fn new(cluster_bytes: u64, before: Option<AuditShare>) -> Self {
        let bytes = (cluster_bytes / AUDIT_TURNS).clamp(*AUDIT_BYTES.start(), *AUDIT_BYTES.end());
        let shares = cluster_bytes.div_ceil(bytes).max(1);
        let turn = before.map_or(0, |before| before.turn.saturating_add(1)) % shares;
        let (blocks, compared) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { shares, turn, began: OnceLock::new(), blocks, compared, sources: OnceCell::new() }
    }

    /// The same plan, with what is to be looked at.
    pub fn add(&self, plan: FromParent, found: &FoundPath, before: &Entry) -> FromParent {
        let mapped = match plan {
            FromParent::Same(content) => {
                let size_bytes = before.size_bytes();
                let (changed, audited) = (Some(BlockSet::new()), BlockSet::new());
                Before { content, size_bytes, changed, audited }
            }
            FromParent::Before(before) if before.is_mapped() && before.changed.is_some() => before,
            plan => return plan,
        };
        let audited = self.share(&found.path, mapped.size_bytes);
        self.blocks.fetch_add(audited.len(), Ordering::Relaxed);
        match mapped.changed.as_ref().is_some_and(BlockSet::is_empty) && audited.is_empty() {
            true => FromParent::Same(mapped.content),
            false => FromParent::Before(Before { audited, ..mapped }),
        }
    }

    /// Which blocks of a file are looked at in this turn.
    fn share(&self, path: &[u8], size_bytes: u64) -> BlockSet {
        let mut share = BlockSet::new();
        if self.began.get().is_some_and(|began| began.elapsed() > AUDIT_TIME) {
            return share;
        }
        let blocks = u32::try_from(size_bytes / BLOCK_BYTES as u64).unwrap_or(BlockNumber::MAX);
        let [a, b, c, d, ..] = *blake3::hash(path).as_bytes();
        let from = u64::from(u32::from_le_bytes([a, b, c, d]));
        for (piece, first) in (from..).zip((0..blocks).step_by(AUDIT_BLOCKS as usize)) {
            if piece % self.shares == self.turn {
                share.insert_range(first..first.saturating_add(AUDIT_BLOCKS).min(blocks));
            }
        }
        share
    }

    /// The first file is looked for.
    pub fn begin(&self) {
        self.began.get_or_init(Instant::now);
    }

    /// Which share it is, and how much was looked at.
    pub fn share_taken(&self) -> AuditShare {
        let Self { shares, turn, .. } = *self;
        AuditShare { turn, shares, blocks: self.blocks.load(Ordering::Relaxed) }
    }

    /// As [`super::parent::Parent::changed_since_stored`].
    pub async fn changed_since_stored(
        &self,
        line: &Line,
        manifest: &ManifestReader,
        map: &BlockMap,
        blocks: &[(u32, Lsn)],
    ) -> Result<Vec<u32>> {
        let mut changed = Vec::new();
        for (done, (block, lsn)) in (0..).zip(blocks) {
            // Until it is compared it is not looked at.
            let left = blocks.len() as u64 - done;
            if self.compared.fetch_add(1, Ordering::Relaxed) >= COMPARED_MAX {
                self.blocks.fetch_sub(left, Ordering::Relaxed);
                break;
            }
            let stored = async {
                let open = || Sources::open(line, manifest, TABLES_BYTES);
                read_block(self.sources.get_or_try_init(open).await?, map, *block).await
            };
            let stored =
                stored.await.inspect_err(|_| _ = self.blocks.fetch_sub(left, Ordering::Relaxed))?;
            if stored.as_slice().try_into().is_ok_and(|page| page_lsn(page) < *lsn) {
                changed.push(*block);
            }
        }
        Ok(changed)
    }
}
