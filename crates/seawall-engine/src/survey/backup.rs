use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{BackupId, LineId, Lsn, TimelineId, Ulid};
use seawall_repo::BackupSummary;
use seawall_repo::manifest::{BackupInfo, BackupKind, BackupSource, IncidentKind, Incidents};
use serde::Serialize;

use crate::events::{Hold, Standing, Verdict};
use crate::verify::NotWhole;
use crate::wal::BackupPlace;

/// What can be said of a backup without reading it whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupState {
    /// Its commit is whole, and no verification found anything gone or spoilt.
    Complete,
    /// It is to be deleted, and of no use any more.
    Going,
    /// Its commit or what a verification read of it is not.
    #[serde(untagged)]
    Not(NotWhole),
}

impl fmt::Display for BackupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Going => f.write_str("going"),
            Self::Not(why) => why.fmt(f),
        }
    }
}

impl BackupState {
    /// What its commit, or why that could not be read, and the last verification say.
    #[must_use]
    pub fn of(summary: &BackupSummary, verdict: Option<&Verdict>) -> Self {
        if summary.goes_at.is_some() {
            return Self::Going;
        }
        match (&summary.info, verdict) {
            (_, Some(Verdict::Damaged(_))) => Self::Not(NotWhole::Damaged),
            (Err(error), _) => Self::Not(NotWhole::of(error.code())),
            (Ok(_), _) => Self::Complete,
        }
    }
}

/// A backup in one repository that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupCopy {
    /// The repository's name.
    pub repository: String,
    /// What can be said of it there.
    pub state: BackupState,
    /// Why it is not known to be whole.
    pub problem: Option<String>,
    /// If it is to be deleted there, until when it stays at least, by the clock of the repository.
    pub goes_at: Option<Timestamp>,
}

/// A backup, over all repositories that have it. What a commit that cannot be read does not tell
/// is `None`.
#[derive(Debug, Clone, Serialize)]
pub struct KnownBackup {
    /// Its id.
    #[serde(with = "crate::as_text")]
    pub id: BackupId,
    /// The line it is in.
    #[serde(with = "crate::as_text")]
    pub line: LineId,
    /// How much of the cluster it read.
    #[serde(serialize_with = "crate::as_text::serialize_known")]
    pub kind: Option<BackupKind>,
    /// How the cluster's files were read.
    #[serde(serialize_with = "crate::as_text::serialize_known")]
    pub source: Option<BackupSource>,
    /// What can be said of it.
    pub state: BackupState,
    /// The timeline of its stop.
    pub timeline: Option<TimelineId>,
    /// Where replay begins.
    pub start_lsn: Option<Lsn>,
    /// Where it is consistent.
    pub stop_lsn: Option<Lsn>,
    /// When it began, by the clock of the host that made it.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the same clock.
    pub finished_at: Option<Timestamp>,
    /// How long it took, in seconds.
    pub duration_s: Option<f64>,
    /// Bytes of the cluster.
    pub cluster_bytes: Option<u64>,
    /// Bytes that were read of it.
    pub read_bytes: Option<u64>,
    /// Bytes the repository grew by.
    pub stored_bytes: Option<u64>,
    /// Whether somebody holds it in a repository that has it.
    pub held: bool,
    /// Until when, and why.
    pub hold: Option<Hold>,
    /// When somebody asked for it to go, in a repository that has it.
    pub delete_asked_at: Option<Timestamp>,
    /// What people noted.
    pub annotations: BTreeMap<String, String>,
    /// Pages that are damaged in the database.
    pub page_errors: Option<u64>,
    /// Blocks that were not as they should be though WAL names no change of them.
    pub incidents: Option<u64>,
    /// When it was last found whole in every repository that has it.
    pub verified_at: Option<Timestamp>,
    /// Drills are made by a later version.
    pub drilled_at: Option<Timestamp>,
    /// The repositories that have it, by name.
    pub repositories: Vec<String>,
    /// What can be said of it in each of them.
    pub copies: Vec<BackupCopy>,
    /// In the repository that was looked at, the head that lists what there was when it was made.
    #[serde(skip)]
    pub(super) head: Option<Ulid>,
    /// What its commit tells beside.
    #[serde(skip)]
    pub details: Option<BackupDetails>,
}

/// What a commit tells of a backup beside, for people who look at one.
#[derive(Debug, Clone)]
pub struct BackupDetails {
    /// The major of PostgreSQL.
    pub postgres_major: u32,
    /// How many files it has.
    pub files: u64,
    /// Whether the cluster has data checksums.
    pub data_checksums: bool,
    /// What made it.
    pub program: String,
    /// Path and reason, of the files that were left out.
    pub left_out: Vec<(String, String)>,
    /// Path, block and what is wrong, of the pages that are listed.
    pub bad_pages: Vec<(String, u32, String)>,
    /// Path, block and what is with it, of the incidents that are listed.
    pub incidents: Vec<(String, u32, IncidentKind)>,
}

impl KnownBackup {
    /// What one repository says of a line's backups, in their order.
    pub(super) fn of_line(
        summaries: &[BackupSummary],
        standings: &BTreeMap<BackupId, Standing>,
        line: LineId,
        repository: &str,
    ) -> Vec<Self> {
        let known = summaries
            .iter()
            .map(|summary| Self::new(summary, line, repository, standings.get(&summary.id)));
        known.collect()
    }

    /// What one repository says of a backup.
    fn new(
        summary: &BackupSummary,
        line: LineId,
        repository: &str,
        standing: Option<&Standing>,
    ) -> Self {
        let nothing = Standing::default();
        let standing = standing.unwrap_or(&nothing);
        let verdict = standing.verdict.as_ref();
        let hold = standing.hold_at(Timestamp::now()).cloned();
        let info = summary.info.as_ref().ok();
        let time = |us: i64| Timestamp::from_microsecond(us).ok();
        let state = BackupState::of(summary, verdict);
        let problem = match (&summary.info, verdict) {
            (_, Some(Verdict::Damaged(found))) => Some(format!("found {found}")),
            (Err(error), _) => Some(format!("{} ({})", error.chain(), error.code())),
            (Ok(_), _) => None,
        };
        Self {
            id: summary.id,
            line,
            kind: info.map(|info| info.kind),
            source: info.map(|info| info.source),
            state,
            timeline: info.map(|info| info.stop_timeline),
            start_lsn: info.map(|info| info.start_lsn),
            stop_lsn: info.map(|info| info.stop_lsn),
            started_at: info.and_then(|info| time(info.started_us)),
            finished_at: info.and_then(|info| time(info.finished_us)),
            duration_s: info.map(duration_s),
            cluster_bytes: info.map(|info| info.cluster_bytes),
            read_bytes: info.map(|info| info.read_bytes),
            stored_bytes: info.map(|info| info.stored_bytes),
            held: hold.is_some(),
            hold,
            delete_asked_at: standing.delete_asked_at,
            annotations: standing
                .annotated(info.map_or(&BTreeMap::new(), |info| &info.annotations)),
            page_errors: info.map(|info| info.page_error_count),
            incidents: info.map(|info| info.incidents.as_ref().map_or(0, Incidents::count)),
            verified_at: match verdict {
                Some(Verdict::Whole { at }) => Some(*at),
                Some(Verdict::Damaged(_)) | None => None,
            },
            drilled_at: None,
            repositories: vec![repository.to_owned()],
            copies: vec![BackupCopy {
                repository: repository.to_owned(),
                state,
                problem,
                goes_at: summary.goes_at,
            }],
            head: info.and_then(|info| info.head),
            details: info.map(BackupDetails::of),
        }
    }

    /// Takes in what another repository says of the same backup: a whole copy speaks for it.
    pub(super) fn merge(&mut self, other: Self) {
        let mut repositories = std::mem::take(&mut self.repositories);
        repositories.extend(other.repositories.iter().cloned());
        let mut copies = std::mem::take(&mut self.copies);
        copies.extend(other.copies.iter().cloned());
        // One that was never read is not verified by another one's being so.
        let verified_at = self.verified_at.min(other.verified_at);
        let hold = self.hold.take().or_else(|| other.hold.clone());
        let delete_asked_at = self.delete_asked_at.max(other.delete_asked_at);
        let mut annotations = other.annotations.clone();
        annotations.append(&mut self.annotations);
        if !self.is_complete() {
            *self = other;
        }
        self.verified_at = verified_at;
        (self.held, self.hold) = (hold.is_some(), hold);
        self.delete_asked_at = delete_asked_at;
        self.annotations = annotations;
        self.repositories = repositories;
        self.copies = copies;
    }

    /// Whether somebody asked for it to go, and nobody holds it.
    #[must_use]
    pub const fn is_asked_to_go(&self) -> bool {
        self.delete_asked_at.is_some() && !self.held
    }

    /// Whether nothing is known to be wrong with it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == BackupState::Complete
    }

    /// If it is to be deleted in all repositories that have it, until when it stays in one of them at
    /// least, by the clocks of the repositories.
    #[must_use]
    pub fn goes_at(&self) -> Option<Timestamp> {
        let goes_at = self.copies.iter().map(|copy| copy.goes_at);
        goes_at.reduce(|one, other| Some(one?.max(other?))).flatten()
    }

    /// How far in the log it is: the greatest is the newest. Ids are in the order of clocks, which
    /// can be wrong.
    #[must_use]
    pub fn age(&self) -> (Option<TimelineId>, Option<Lsn>) {
        (self.timeline, self.stop_lsn)
    }

    /// Where it is in the log, if its commit tells.
    #[must_use]
    pub fn place(&self) -> Option<BackupPlace> {
        Some(BackupPlace {
            id: self.id,
            start_lsn: self.start_lsn?,
            stop_lsn: self.stop_lsn?,
            stop_timeline: self.timeline?,
            finished_at: self.finished_at?,
        })
    }

    /// How long it took.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.duration_s.map(Duration::from_secs_f64)
    }
}

impl BackupDetails {
    fn of(info: &BackupInfo) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let left_out = info.left_out.iter().map(|file| (text(&file.path), file.reason.clone()));
        let bad_pages = info.page_errors.iter();
        let incidents = info.incidents.iter().flat_map(|incidents| &incidents.listed);
        Self {
            postgres_major: info.major,
            files: info.files,
            data_checksums: info.data_checksums,
            program: info.program.clone(),
            left_out: left_out.collect(),
            bad_pages: bad_pages
                .map(|page| (text(&page.path), page.block, page.reason.clone()))
                .collect(),
            incidents: incidents.map(|it| (text(&it.path), it.block, it.kind)).collect(),
        }
    }
}

fn duration_s(info: &BackupInfo) -> f64 {
    let us = u64::try_from(info.finished_us.saturating_sub(info.started_us)).unwrap_or_default();
    Duration::from_micros(us).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use seawall_core::{Code, Error};

    use super::*;

    fn unread(code: Code) -> KnownBackup {
        let summary = BackupSummary {
            id: BackupId(Ulid(7)),
            info: Err(Error::new(code, "x")),
            goes_at: None,
        };
        KnownBackup::new(&summary, "7-0".parse().unwrap(), "primary", None)
    }

    fn copy_in(repository: &str) -> BackupCopy {
        let repository = repository.to_owned();
        BackupCopy { repository, state: BackupState::Complete, problem: None, goes_at: None }
    }

    #[test]
    fn a_whole_copy_speaks_for_a_damaged_one() {
        let mut damaged = unread(Code::ObjectDamaged);
        let whole = KnownBackup {
            state: BackupState::Complete,
            page_errors: Some(2),
            repositories: vec!["offsite".to_owned()],
            copies: vec![copy_in("offsite")],
            ..damaged.clone()
        };
        let read = Some(Timestamp::UNIX_EPOCH);
        damaged.merge(KnownBackup { verified_at: read, ..whole.clone() });
        assert_eq!(damaged.verified_at, None, "the other copy was not read");
        damaged = KnownBackup { verified_at: read, ..unread(Code::ObjectDamaged) };
        damaged.merge(KnownBackup { verified_at: read, ..whole });
        assert_eq!(damaged.verified_at, read);
        assert_eq!((damaged.state, damaged.page_errors), (BackupState::Complete, Some(2)));
        assert_eq!(damaged.repositories, ["primary", "offsite"]);
        let states: Vec<BackupState> = damaged.copies.iter().map(|copy| copy.state).collect();
        assert_eq!(states, [BackupState::Not(NotWhole::Damaged), BackupState::Complete]);
    }
}
