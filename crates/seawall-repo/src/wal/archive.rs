use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seawall_core::{
    Action, Code, Error, Key, Lsn, Result, SystemId, TimelineId, WalSegment, WalSegmentSize, hint,
};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::Ancestry;

use super::names::WalNames;
use super::range::DEFAULT_COMPRESSION_LEVEL;
use crate::layout::LineObject;
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
    /// Ancestries of timelines whose own history file was read.
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
        WalNames { line: &self.line, segment_size: self.segment_size, without: None }
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
}
