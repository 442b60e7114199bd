use std::time::Instant;

use jiff::Timestamp;
use seawall_core::{ClusterName, Error, LineId, Lsn, SystemId, TimelineId};
use serde::{Serialize, Serializer};

use super::health::ANOTHER_ARCHIVER;
use super::{
    ArchivedWal, Archiving, DamagedTimeline, ForeignWal, KnownBackup, KnownJob, RecoveryWindow,
    UnusableWal,
};
use crate::wal::Reach;

/// A cluster, over all its repositories.
#[derive(Debug, Serialize)]
pub struct ClusterSurvey {
    /// Its name.
    pub name: ClusterName,
    /// What `initdb` gave the cluster whose line is written now.
    pub system_identifier: Option<SystemId>,
    /// Its version; the major, until its server was asked.
    pub postgres_version: Option<String>,
    /// The line that is written now.
    #[serde(serialize_with = "crate::as_text::serialize_known")]
    pub line: Option<LineId>,
    /// Of all lines, oldest first: line by line, and in each by the log.
    pub backups: Vec<KnownBackup>,
    /// Of all lines and repositories.
    pub wal: Vec<ArchivedWal>,
    /// The moments it can be restored to.
    pub recovery_window: Option<RecoveryWindow>,
    /// Seconds of commits that would be lost if the server were lost now; `None` if unknown.
    pub rpo_seconds: Option<f64>,
    /// Why that cannot be told though the server was to be asked.
    pub server_error: Option<String>,
    /// Archived WAL that no backup leads to, by repository.
    pub blocked_wal: Vec<UnusableWal>,
    /// Timelines whose history is damaged, of all lines and repositories.
    pub damaged_histories: Vec<DamagedTimeline>,
    /// WAL that another server archives, as it seems.
    pub foreign_wal: Vec<ForeignWal>,
    /// What each repository has that could be looked at, as if there were no other; none where there
    /// is one only. In JSON, what of it differs for people.
    #[serde(rename = "by_repository", serialize_with = "windows")]
    pub alone: Vec<(String, Self)>,
    /// Jobs that began and have not ended, as far as a repository knows of them.
    pub jobs: Vec<KnownJob>,
    /// Up to where the line that is written can be restored, from the repository that leads
    /// farthest.
    #[serde(skip)]
    pub reach: Option<Reach>,
    /// The repositories that could not be looked at, or not wholly. What is in none of the others
    /// may be in one of these.
    #[serde(skip)]
    pub unseen: Vec<String>,
    /// When the look at the repositories began.
    #[serde(skip)]
    pub(super) looked_at: Instant,
}

impl ClusterSurvey {
    /// A cluster of which nothing is known.
    #[must_use]
    pub fn empty(name: ClusterName) -> Self {
        Self {
            name,
            system_identifier: None,
            postgres_version: None,
            line: None,
            backups: Vec::new(),
            wal: Vec::new(),
            recovery_window: None,
            rpo_seconds: None,
            server_error: None,
            blocked_wal: Vec::new(),
            damaged_histories: Vec::new(),
            foreign_wal: Vec::new(),
            alone: Vec::new(),
            jobs: Vec::new(),
            reach: None,
            unseen: Vec::new(),
            looked_at: Instant::now(),
        }
    }

    /// Takes in what the server says, or why it says nothing.
    pub fn hear(&mut self, server: Result<&Archiving, &Error>, now: Timestamp) {
        match server {
            Ok(archiving) => {
                self.rpo_seconds = self.at_risk_s(archiving, now);
                self.postgres_version = Some(archiving.version.clone());
                let own = archiving.own_archiver;
                self.server_error = (!own).then(|| ANOTHER_ARCHIVER.to_owned());
            }
            Err(why) => self.server_error = Some(why.chain()),
        }
    }

    /// Whether every repository could be looked at.
    #[must_use]
    pub fn is_seen_wholly(&self) -> bool {
        self.unseen.is_empty()
    }

    /// The end of the WAL that is archived, on whichever timeline and in whichever repository.
    #[must_use]
    pub fn archived_to(&self) -> Lsn {
        self.written_wal().map(|wal| wal.last_lsn).max().unwrap_or(Lsn::INVALID)
    }

    /// The end of the WAL that is archived of one timeline, in whichever repository.
    #[must_use]
    pub fn archived_to_on(&self, timeline: TimelineId) -> Option<Lsn> {
        let own = self.written_wal().filter(|wal| wal.timeline == timeline);
        own.map(|wal| wal.last_lsn).max()
    }

    /// The newest timeline of which WAL is archived.
    #[must_use]
    pub fn newest_timeline(&self) -> Option<TimelineId> {
        self.written_wal().map(|wal| wal.timeline).max()
    }

    /// The WAL of the line that is written.
    pub(super) fn written_wal(&self) -> impl Iterator<Item = &ArchivedWal> {
        self.wal.iter().filter(|wal| Some(wal.line) == self.line)
    }

    /// The whole backups of the line that is written: what else there is leads to the past only.
    pub fn written_backups(&self) -> impl DoubleEndedIterator<Item = &KnownBackup> {
        let whole = self.backups.iter().filter(|it| it.is_complete() && !it.is_asked_to_go());
        whole.filter(|backup| Some(backup.line) == self.line)
    }

    /// The backup that is least far in the log: clocks can be wrong, and so can the ids they give.
    #[must_use]
    pub fn oldest_backup(&self) -> Option<&KnownBackup> {
        self.written_backups().min_by_key(|backup| backup.age())
    }

    /// The backup that is farthest in the log.
    #[must_use]
    pub fn newest_backup(&self) -> Option<&KnownBackup> {
        self.written_backups().max_by_key(|backup| backup.age())
    }
}

/// Up to where each repository leads by itself.
fn windows<S: Serializer>(
    alone: &[(String, ClusterSurvey)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Window<'a> {
        repository: &'a str,
        recovery_window: Option<&'a RecoveryWindow>,
    }
    serializer.collect_seq(alone.iter().map(|(repository, survey)| Window {
        repository,
        recovery_window: survey.recovery_window.as_ref(),
    }))
}
