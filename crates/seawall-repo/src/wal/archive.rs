use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::{
    Action, Code, Error, Key, Lsn, Result, SystemId, TimelineId, WalSegment, WalSegmentSize, hint,
};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::Ancestry;

use super::names::{WalNames, timelines_with_wal};
use super::range::DEFAULT_COMPRESSION_LEVEL;
use crate::layout::{LineObject, ObjectName};
use crate::records::HistoryFile;
use crate::{Line, error};

/// How many small objects are read at the same time.
pub(super) const READS_AT_ONCE: usize = 16;

/// The WAL of one line.
///
/// Cheap to clone; clones share what they remember of objects, which never change.
#[derive(Debug, Clone)]
pub struct WalArchive {
    line: Line,
    system_id: SystemId,
    major: PgMajor,
    segment_size: WalSegmentSize,
    compression_level: i32,
    memory: Arc<Mutex<Memory>>,
}

/// What was learnt of objects that cannot change.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Ancestries of timelines whose history file was read.
    pub ancestries: BTreeMap<TimelineId, Ancestry>,
}

impl WalArchive {
    /// The archive of a line that exists.
    ///
    /// # Errors
    /// [`Code::NoSuchCluster`] if it does not, [`Code::UnknownPostgresVersion`], damage, or a store
    /// that fails.
    pub async fn open(line: Line) -> Result<Self> {
        let Some(about) = line.about().await? else {
            return Err(Error::new(
                Code::NoSuchCluster,
                format!("the repository has no line {} of cluster {}", line.id(), line.cluster()),
            )
            .with_pair(Key::Cluster, line.cluster())
            .with_hint(hint![
                "Add the cluster to the repository: ",
                Action::Init {
                    cluster: Some(line.cluster().clone()),
                    repository: Some(line.store().url().to_string()),
                },
                "."
            ]));
        };
        let path = line.paths().path(&LineObject::About)?;
        let segment_size = WalSegmentSize::new(about.wal_segment_bytes)
            .map_err(|what| error::inconsistent(&path, what))?;
        let major = PgMajor::from_number(about.major).ok_or_else(|| {
            let what = format!("PostgreSQL {} is not known to this program", about.major);
            Error::new(Code::UnknownPostgresVersion, what)
                .with_hint("Use a newer Seawall with this cluster.")
        })?;
        Ok(Self {
            system_id: about.system_id,
            major,
            segment_size,
            compression_level: DEFAULT_COMPRESSION_LEVEL,
            memory: Arc::default(),
            line,
        })
    }

    /// The same archive, writing with another zstd level.
    #[must_use]
    pub const fn with_compression_level(mut self, level: i32) -> Self {
        self.compression_level = level;
        self
    }

    /// The line whose WAL it is.
    #[must_use]
    pub const fn line(&self) -> &Line {
        &self.line
    }

    /// The cluster's identifier, which every segment carries.
    #[must_use]
    pub const fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// The major that writes the WAL.
    #[must_use]
    pub const fn major(&self) -> PgMajor {
        self.major
    }

    /// The cluster's segment size.
    #[must_use]
    pub const fn segment_size(&self) -> WalSegmentSize {
        self.segment_size
    }

    /// Its names.
    pub(super) const fn names(&self) -> WalNames<'_> {
        WalNames { line: &self.line, segment_size: self.segment_size }
    }

    pub(super) const fn compression_level(&self) -> i32 {
        self.compression_level
    }

    /// The segment of a timeline that holds `lsn`.
    #[must_use]
    pub const fn segment_at(&self, timeline: TimelineId, lsn: Lsn) -> WalSegment {
        WalSegment::containing(timeline, lsn, self.segment_size)
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A timeline with its ancestors, as its archived history file tells; one whose history is not
    /// archived is taken to have none.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn ancestry(&self, timeline: TimelineId) -> Result<Ancestry> {
        Ok(self.known_ancestry(timeline).await?.unwrap_or_else(|| Ancestry::root(timeline)))
    }

    /// A timeline with its ancestors; `None` if its history is not archived.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn known_ancestry(&self, timeline: TimelineId) -> Result<Option<Ancestry>> {
        if let Some(known) = self.memory().ancestries.get(&timeline) {
            return Ok(Some(known.clone()));
        }
        let Some(file) = self.timeline_history(timeline).await? else { return Ok(None) };
        let ancestry = Ancestry::parse(timeline, &file.content).map_err(|what| {
            let path = self.line.paths().path(&LineObject::History(timeline));
            path.map_or_else(|error| error, |path| error::inconsistent(&path, what))
        })?;
        self.memory().ancestries.insert(timeline, ancestry.clone());
        Ok(Some(ancestry))
    }

    /// A timeline's history file; `None` if it is not archived.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn timeline_history(&self, timeline: TimelineId) -> Result<Option<HistoryFile>> {
        self.read_history(&LineObject::History(timeline)).await
    }

    /// Every timeline that has WAL or a history in the archive, in order.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn timelines(&self) -> Result<Vec<TimelineId>> {
        let (histories, wal) =
            try_join(self.history_timelines(), timelines_with_wal(&self.line)).await?;
        Ok(histories.union(&wal).copied().collect())
    }

    /// The timelines whose history file is archived.
    async fn history_timelines(&self) -> Result<BTreeSet<TimelineId>> {
        let below = self.line.paths().below("history")?;
        let paths = self.line.repository().list(&below).await?;
        Ok(paths
            .iter()
            .filter_map(|path| match ObjectName::parse(path) {
                Some(ObjectName::Line(_, _, LineObject::History(timeline))) => Some(timeline),
                _ => None,
            })
            .collect())
    }

    /// Every timeline with its ancestors.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn ancestries(&self) -> Result<Vec<Ancestry>> {
        let timelines = self.timelines().await?.into_iter();
        let reads: Vec<_> = timelines.map(|timeline| self.ancestry(timeline).boxed()).collect();
        stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await
    }

    /// The timelines that no other one continues. A line whose history never branched has one.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn tips(&self) -> Result<Vec<Ancestry>> {
        let all = self.ancestries().await?;
        let is_left = |timeline: TimelineId| {
            all.iter().any(|other| other.tip() != timeline && other.span(timeline).is_some())
        };
        Ok(all.iter().filter(|ancestry| !is_left(ancestry.tip())).cloned().collect())
    }

    /// Where known timelines forked off from `timeline`, in order.
    pub(super) async fn forks_of(&self, timeline: TimelineId) -> Result<Vec<Lsn>> {
        let mut forks = BTreeSet::new();
        for child in self.history_timelines().await? {
            forks.extend(self.ancestry(child).await?.fork_lsn_of(timeline));
        }
        Ok(forks.into_iter().collect())
    }
}
