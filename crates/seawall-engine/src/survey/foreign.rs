//! WAL that is archived beside that of the timeline whose server is protected.

use seawall_core::{Action, BackupId, ClusterName, ExitClass, Hint, Lsn, Result, TimelineId, hint};
use seawall_repo::layout::LineObject;
use seawall_repo::records::Head;
use seawall_repo::wal::{LsnRange, WalArchive};
use serde::Serialize;

use super::KnownBackup;
use crate::wal::{TimelineListing, WalListing};

/// WAL that the newest timeline does not continue, and of which some came after a backup of that
/// timeline: another server archives beside the one that writes it, unless somebody pushed what an
/// old one had left.
///
/// What a restore to a point in time leaves behind, and the end of the segment in which a standby was
/// promoted, is archived when the new timeline has its first backup. The head that a backup names
/// tells what there was then, so that no clock has to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeignWal {
    /// The repository's name.
    pub repository: String,
    /// The timeline it is of.
    pub timeline: TimelineId,
    /// Where it is archived up to.
    pub archived_to: Lsn,
    /// Where the newest timeline left that one; `None` if it never was on it.
    pub left_at: Option<Lsn>,
    /// The newest timeline.
    pub newest: TimelineId,
    /// Its newest backup.
    #[serde(with = "crate::as_text")]
    pub backup: BackupId,
}

impl ForeignWal {
    /// What one repository has of it. Without a backup of the newest timeline, or without its history,
    /// nobody can tell; that there is none is told for itself.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub(super) async fn of(
        archive: &WalArchive,
        listing: &WalListing,
        backups: &[KnownBackup],
        repository: &str,
    ) -> Result<Vec<Self>> {
        let Some(newest) = listing.timelines.iter().map(|it| it.timeline).max() else {
            return Ok(Vec::new());
        };
        if listing.lost().any(|lost| lost.timeline == newest) {
            return Ok(Vec::new());
        }
        let ancestry = archive.ancestry(newest).await?;
        let mut beside = Vec::new();
        for listed in listing.timelines.iter().filter(|it| it.timeline != newest) {
            let left_at = ancestry.fork_lsn_of(listed.timeline);
            beside.push((listed, left_at, beyond(listed, left_at)));
        }
        beside.retain(|(_, _, ranges)| !ranges.is_empty());
        let of_newest = backups.iter().filter(|it| it.is_complete() && it.timeline == Some(newest));
        let backup = of_newest.max_by_key(|backup| backup.age());
        let Some((backup, head)) = backup.and_then(|it| Some((it.id, it.head?))) else {
            return Ok(Vec::new());
        };
        if beside.is_empty() {
            return Ok(Vec::new());
        }
        let line = archive.line();
        let path = line.paths().path(&LineObject::Head(head))?;
        let head: Head = match line.repository().read_record(&path).await {
            Ok(head) => head,
            // `verify` tells of it.
            Err(error) if error.exit_class() == ExitClass::Integrity => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let came_after = |(listed, left_at, mut ranges): (&TimelineListing, _, Vec<LsnRange>)| {
            let archived_to = ranges.last()?.end;
            let before = head.wal.iter().filter(|wal| wal.timeline == listed.timeline);
            for span in before.flat_map(|wal| &wal.spans) {
                LsnRange::from(span).subtract_from(&mut ranges);
            }
            let (timeline, repository) = (listed.timeline, repository.to_owned());
            let wal = Self { repository, timeline, archived_to, left_at, newest, backup };
            (!ranges.is_empty()).then_some(wal)
        };
        Ok(beside.into_iter().filter_map(came_after).collect())
    }

    /// What is known of it.
    #[must_use]
    pub fn what(&self) -> String {
        let Self { repository, timeline, archived_to, left_at, newest, backup } = self;
        let left = left_at.map_or_else(
            || format!("timeline {newest} does not come from it"),
            |lsn| format!("timeline {newest} left it at {lsn}"),
        );
        format!(
            "{repository} has WAL of timeline {timeline} up to LSN {archived_to}, {left}, and some \
             of that came after backup {backup} of timeline {newest}: another server archives too, \
             unless its last WAL was pushed by hand; if it takes writes, there are two pasts \
             (SW0609)"
        )
    }

    /// The same, and what to do.
    #[must_use]
    pub fn told(&self, cluster: Option<&ClusterName>) -> Hint {
        let backup = Action::Backup { cluster: cluster.cloned() };
        hint![format!("{}: stop it, then ", self.what()), backup]
    }
}

/// What is archived of a timeline behind the place where another one left it.
fn beyond(listed: &TimelineListing, left_at: Option<Lsn>) -> Vec<LsnRange> {
    let mut ranges = listed.ranges.clone();
    let continued = LsnRange { start: Lsn::INVALID, end: left_at.unwrap_or(Lsn::INVALID) };
    continued.subtract_from(&mut ranges);
    ranges
}
