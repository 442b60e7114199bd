use jiff::Timestamp;
use seawall_core::{BackupId, Lsn, Result, TimelineId};
use seawall_repo::manifest::{Incidents, LeftOut, PageError};

use super::destination::LedOn;
use crate::cluster::Survey;

/// What a backup did that at least one destination has.
#[derive(Debug)]
pub struct BackupReport {
    /// Its id.
    pub id: BackupId,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where the cluster is consistent.
    pub stop_lsn: Lsn,
    /// The timeline of the stop.
    pub timeline: TimelineId,
    /// When it began.
    pub started: Timestamp,
    /// When the last destination that has it published it.
    pub finished: Timestamp,
    /// Bytes of all files.
    pub cluster_bytes: u64,
    /// Bytes read from the cluster, once for all destinations.
    pub read_bytes: u64,
    /// Number of files.
    pub files: u64,
    /// Pages with errors, the first thousand.
    pub page_errors: Vec<PageError>,
    /// How many pages have errors.
    pub page_error_count: u64,
    /// Files that are not PostgreSQL's and changed each time they were read.
    pub left_out: Vec<LeftOut>,
    /// What was met in blocks that WAL does not name.
    pub incidents: Incidents,
    /// Links that were followed, or lead to what is in no backup.
    pub links: Survey,
    /// What came of each destination, in the order in which they were asked for.
    pub destinations: Vec<DestinationReport>,
}

/// What came of the backup at one destination.
#[derive(Debug)]
pub struct DestinationReport {
    /// What people call the repository.
    pub name: String,
    /// What it has, or why it has no backup.
    pub outcome: Result<Kept>,
}

/// A backup in a repository.
#[derive(Debug, Clone)]
pub struct Kept {
    /// When it was published.
    pub finished: Timestamp,
    /// Bytes added to the repository.
    pub stored_bytes: u64,
    /// Files taken over from an attempt that died.
    pub reused_files: u64,
    /// That attempt.
    pub resumed: Option<BackupId>,
    /// Files that are as they were in the backup that this one leads on from.
    pub unchanged_files: u64,
    /// What the backup leads on from there.
    pub led_on: LedOn,
}

impl BackupReport {
    /// The destinations that have the backup, by name.
    pub fn kept<'a>(&'a self) -> impl Iterator<Item = (&'a str, &'a Kept)> {
        let kept = |it: &'a DestinationReport| Some((it.name.as_str(), it.outcome.as_ref().ok()?));
        self.destinations.iter().filter_map(kept)
    }

    /// Bytes added to all repositories together.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.kept().map(|(_, kept)| kept.stored_bytes).sum()
    }
}
