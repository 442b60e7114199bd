//! Plans: what a restore will do, decided before anything is written.
//!
//! Nothing here reads or writes. [`choose_timeline`] and [`Planner`] take what is known of a line
//! as data; a [`Resolver`] is fed the WAL's facts in LSN order.

mod databases;
mod lost;
mod planner;
mod removals;
mod resolver;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
#[cfg(test)]
mod timeline_tests;

use jiff::Timestamp;
use seawall_core::{BackupId, Lsn, TimelineId};
use seawall_pgdata::history::Ancestry;
use seawall_repo::manifest::BackupInfo;

pub use databases::{
    FIRST_NORMAL_OID, databases_left_out, quoted, warning_of_invalid_pages, warnings_of,
};
pub use lost::warning_of_lost;
pub(in crate::restore) use planner::record_position;
pub use planner::{Decision, PlanInput, Planner};
pub(in crate::restore) use removals::{RemovalLog, TOLD};
pub use resolver::Resolver;
pub(in crate::restore) use text::shown;
pub use timeline::{Branch, Chosen, choose_timeline};

use crate::events::FoundDamaged;
use crate::restored::{PathSpan, PlannedBackup};

/// A backup, as far as planning is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFacts {
    /// Its id.
    pub id: BackupId,
    /// Which manifest of it.
    pub generation: u32,
    /// Where replay must begin.
    pub start_lsn: Lsn,
    /// The timeline of the start.
    pub start_timeline: TimelineId,
    /// Where it is consistent.
    pub stop_lsn: Lsn,
    /// The timeline of the stop.
    pub stop_timeline: TimelineId,
    /// When it was done, by the clock of the host that made it.
    pub finished_at: Timestamp,
    /// How many pages had errors when it was taken.
    pub page_errors: u64,
    /// What the last verification found gone or spoilt.
    pub found_damaged: Option<FoundDamaged>,
    /// Bytes of all its files.
    pub cluster_bytes: u64,
}

impl From<&BackupInfo> for BackupFacts {
    fn from(info: &BackupInfo) -> Self {
        Self {
            id: BackupId(info.id),
            generation: info.generation,
            start_lsn: info.start_lsn,
            start_timeline: info.start_timeline,
            stop_lsn: info.stop_lsn,
            stop_timeline: info.stop_timeline,
            finished_at: Timestamp::from_microsecond(info.finished_us).unwrap_or_default(),
            page_errors: info.page_error_count,
            found_damaged: None,
            cluster_bytes: info.cluster_bytes,
        }
    }
}

/// The timelines on the way to `tip`, oldest first; the last has no end.
#[must_use]
pub fn path_to(ancestry: &Ancestry, tip: TimelineId) -> Vec<PathSpan> {
    ancestry
        .spans()
        .filter(|span| span.timeline <= tip)
        .map(|span| PathSpan {
            timeline: span.timeline,
            begin: span.begin,
            end: span.end.filter(|_| span.timeline != tip),
        })
        .collect()
}

impl From<&BackupFacts> for PlannedBackup {
    fn from(backup: &BackupFacts) -> Self {
        Self {
            id: backup.id.to_string(),
            ulid: backup.id.0,
            generation: backup.generation,
            start_lsn: backup.start_lsn,
            stop_lsn: backup.stop_lsn,
            timeline: backup.stop_timeline,
            finished_at: backup.finished_at,
            cluster_bytes: backup.cluster_bytes,
            found_damaged: None,
        }
    }
}
