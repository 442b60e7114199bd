use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{BackupId, LineId, Lsn, TimelineId};
use seawall_engine::wal::BackupPlace;
use seawall_repo::BackupSummary;
use seawall_repo::manifest::{BackupInfo, BackupKind, BackupSource};
use serde::Serialize;

/// The state of a backup whose manifest cannot be read, or of which a verification found something
/// gone or spoilt.
pub const DAMAGED: &str = "damaged";

/// A backup, over all repositories that have it. What a damaged manifest does not tell is `None`.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    #[serde(skip)]
    pub key: BackupId,
    pub id: String,
    /// System identifier and branch.
    pub line: String,
    pub kind: Option<&'static str>,
    pub source: Option<&'static str>,
    /// `complete` or `damaged`.
    pub state: &'static str,
    pub timeline: Option<TimelineId>,
    pub start_lsn: Option<Lsn>,
    pub stop_lsn: Option<Lsn>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub duration_s: Option<f64>,
    pub cluster_bytes: Option<u64>,
    pub read_bytes: Option<u64>,
    pub stored_bytes: Option<u64>,
    /// Holds are made by a later version; no backup of this one has any.
    pub held: bool,
    pub annotations: BTreeMap<String, String>,
    pub page_errors: Option<u64>,
    /// When it was last found whole in every repository that has it.
    pub verified_at: Option<Timestamp>,
    pub drilled_at: Option<Timestamp>,
    pub repositories: Vec<String>,
    #[serde(skip)]
    pub postgres_major: Option<u32>,
    #[serde(skip)]
    pub files: Option<u64>,
    #[serde(skip)]
    pub data_checksums: Option<bool>,
    #[serde(skip)]
    pub program: Option<String>,
    /// Path and reason, of the files that were left out.
    #[serde(skip)]
    pub left_out: Vec<(String, String)>,
    /// Path, block and what is wrong, of the pages that are listed.
    #[serde(skip)]
    pub bad_pages: Vec<(String, u32, String)>,
}

impl BackupReport {
    /// What one repository says of a backup.
    pub fn new(summary: &BackupSummary, line: LineId, repository: &str) -> Self {
        let info = summary.info.as_ref().ok();
        let time = |us: i64| Timestamp::from_microsecond(us).ok();
        let pages = info.map_or(&[][..], |info| info.page_errors.as_slice());
        Self {
            key: summary.id,
            id: summary.id.to_string(),
            line: line.to_string(),
            kind: info.map(|info| kind(info.kind)),
            source: info.map(|info| source(info.source)),
            state: if info.is_some() { "complete" } else { DAMAGED },
            timeline: info.map(|info| info.stop_timeline),
            start_lsn: info.map(|info| info.start_lsn),
            stop_lsn: info.map(|info| info.stop_lsn),
            started_at: info.and_then(|info| time(info.started_us)),
            finished_at: info.and_then(|info| time(info.finished_us)),
            duration_s: info.map(duration_s),
            cluster_bytes: info.map(|info| info.cluster_bytes),
            read_bytes: info.map(|info| info.read_bytes),
            stored_bytes: info.map(|info| info.stored_bytes),
            held: false,
            annotations: info.map(|info| info.annotations.clone()).unwrap_or_default(),
            page_errors: info.map(|info| info.page_error_count),
            verified_at: None,
            drilled_at: None,
            repositories: vec![repository.to_owned()],
            postgres_major: info.map(|info| info.major),
            files: info.map(|info| info.files),
            data_checksums: info.map(|info| info.data_checksums),
            program: info.map(|info| info.program.clone()),
            left_out: info
                .map_or(&[][..], |info| info.left_out.as_slice())
                .iter()
                .map(|file| (String::from_utf8_lossy(&file.path).into_owned(), file.reason.clone()))
                .collect(),
            bad_pages: pages
                .iter()
                .map(|page| {
                    let path = String::from_utf8_lossy(&page.path).into_owned();
                    (path, page.block, page.reason.clone())
                })
                .collect(),
        }
    }

    /// Takes in what another repository says of the same backup: a whole copy speaks for it.
    pub fn merge(&mut self, other: Self) {
        let mut repositories = std::mem::take(&mut self.repositories);
        repositories.extend(other.repositories.iter().cloned());
        // One that was never read is not verified by another one's being so.
        let verified_at = self.verified_at.min(other.verified_at);
        if self.state != "complete" {
            *self = other;
        }
        self.verified_at = verified_at;
        self.repositories = repositories;
    }

    /// Where it is in the log, if its manifest tells.
    pub fn place(&self) -> Option<BackupPlace> {
        Some(BackupPlace {
            id: self.key,
            start_lsn: self.start_lsn?,
            stop_lsn: self.stop_lsn?,
            stop_timeline: self.timeline?,
            finished_at: self.finished_at?,
        })
    }

    /// How long it took.
    pub fn duration(&self) -> Option<Duration> {
        self.duration_s.map(Duration::from_secs_f64)
    }

    /// Its state, and what is the matter with it.
    pub fn state_shown(&self) -> String {
        match self.page_errors {
            Some(errors @ 1..) => format!("{}, {errors} page errors", self.state),
            _ => self.state.to_owned(),
        }
    }
}

fn duration_s(info: &BackupInfo) -> f64 {
    let us = u64::try_from(info.finished_us.saturating_sub(info.started_us)).unwrap_or_default();
    Duration::from_micros(us).as_secs_f64()
}

const fn kind(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::Full => "full",
        BackupKind::Incremental => "incremental",
    }
}

const fn source(source: BackupSource) -> &'static str {
    match source {
        BackupSource::Files => "files",
        BackupSource::Sql => "sql",
        BackupSource::Stream => "stream",
    }
}

#[cfg(test)]
mod tests {
    use seawall_core::{Code, Error, Ulid};

    use super::*;

    #[test]
    fn a_whole_copy_speaks_for_a_damaged_one() {
        let info = Err(Error::new(Code::ObjectDamaged, "x"));
        let summary = BackupSummary { id: BackupId(Ulid(7)), info };
        let line = "7-0".parse().unwrap();
        let mut damaged = BackupReport::new(&summary, line, "primary");
        let whole = BackupReport {
            state: "complete",
            page_errors: Some(2),
            repositories: vec!["offsite".to_owned()],
            ..damaged.clone()
        };
        let read = Some(Timestamp::UNIX_EPOCH);
        damaged.merge(BackupReport { verified_at: read, ..whole.clone() });
        assert_eq!(damaged.verified_at, None, "the other copy was not read");
        damaged =
            BackupReport { verified_at: read, repositories: vec!["primary".to_owned()], ..damaged };
        damaged.merge(BackupReport { verified_at: read, ..whole });
        assert_eq!(damaged.verified_at, read);
        assert_eq!(damaged.state_shown(), "complete, 2 page errors");
        assert_eq!(damaged.repositories, ["primary", "offsite"]);
    }
}
