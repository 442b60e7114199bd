use std::time::Duration;

use seawall_core::ClusterName;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::{CameOf, CancelledBackup, CancelledDestination, Started};
use crate::backup::{BackupReport, DestinationReport};
use crate::check::Finding;
use crate::cluster::ClusterLink;
use crate::restore::{DeltaReport, RestoreReport};
use crate::restored::RestorePlan;
use crate::verify::VerifyReport;

/// What a job did, by its verb.
#[derive(Debug, Serialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum JobReport {
    /// The backup, and what came of it in each repository.
    Backup(Box<BackupReport>),
    /// The backup that some repository had when the job was told to end.
    #[serde(rename = "backup")]
    CancelledBackup(Box<CancelledBackup>),
    /// What was found in each repository.
    Verify {
        /// In the order of the request.
        repositories: Vec<RepositoryOutcome<VerifyReport>>,
    },
    /// Whether the cluster is protected.
    Check(CheckReport),
    /// What a restore would do.
    Plan(Box<PlannedReport>),
    /// What a restore did.
    Restore(Box<RestoredReport>),
}

/// What came of a job in one of its repositories.
#[derive(Debug, Serialize)]
pub struct RepositoryOutcome<T> {
    /// Its name.
    pub name: String,
    /// What was done; `None` if it failed: why is told as an event, or is what the job ends with.
    pub report: Option<T>,
}

/// What a restore would do.
#[derive(Debug, Serialize)]
pub struct PlannedReport {
    /// The plan.
    pub plan: RestorePlan,
    /// Bytes that would be written.
    pub bytes: u64,
    /// Whether the files' content was read and proven too.
    pub content_is_proven: bool,
    /// What was compared and is needed, if it goes onto what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaReport>,
}

/// What a restore did.
#[derive(Debug, Serialize)]
pub struct RestoredReport {
    /// The restore.
    pub restore: RestoreReport,
    /// The server that was started, if one was to be.
    pub started: Option<Started>,
}

/// What a check came to.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// What is proven, in words.
    pub proven: Vec<String>,
    /// What should be looked at, the worst first.
    pub findings: Vec<Finding>,
}

/// The names are those of `info --json`.
impl Serialize for BackupReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let link = |link: &ClusterLink| link.path.to_string_lossy().into_owned();
        let most = self.kept().map(|(_, kept)| kept).max_by_key(|kept| kept.reused_files);
        let parent = |kept: &crate::backup::Kept| kept.led_on.parent().map(|id| id.to_string());
        let left_out = self.left_out.iter().map(|file| String::from_utf8_lossy(&file.path));
        json!({
            "id": self.id.to_string(),
            "ulid": self.id.0.to_string(),
            "kind": most.map(|kept| kept.led_on.kind().to_string()),
            "source": "files",
            "state": "complete",
            "timeline": self.timeline,
            "start_lsn": self.start_lsn,
            "stop_lsn": self.stop_lsn,
            "started_at": self.started,
            "finished_at": self.finished,
            "duration_s": self.took().as_secs_f64(),
            "cluster_bytes": self.cluster_bytes,
            "read_bytes": self.read_bytes,
            "stored_bytes": self.stored_bytes(),
            "files": self.files,
            "reused_files": most.map_or(0, |kept| kept.reused_files),
            "resumed": most.and_then(|kept| kept.resumed).map(|id| id.to_string()),
            "parent": most.and_then(parent),
            "unchanged_files": most.map_or(0, |kept| kept.unchanged_files),
            "page_errors": self.page_error_count,
            "unmarked_blocks": self.incidents.unmarked,
            "damaged_beside": self.incidents.damaged,
            "left_out": left_out.collect::<Vec<_>>(),
            "links_followed": self.links.followed.iter().map(link).collect::<Vec<_>>(),
            "links_out": self.links.kept.iter().map(link).collect::<Vec<_>>(),
            "repositories": self.kept().map(|(name, _)| name).collect::<Vec<_>>(),
            "destinations": self.destinations,
        })
        .serialize(serializer)
    }
}

/// One of the repositories that were asked for.
impl Serialize for DestinationReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = &self.name;
        let told = match &self.outcome {
            Ok(kept) => json!({
                "name": name,
                "state": "complete",
                "finished_at": kept.finished,
                "stored_bytes": kept.stored_bytes,
                "reused_files": kept.reused_files,
                "resumed": kept.resumed.map(|id| id.to_string()),
                "kind": kept.led_on.kind().to_string(),
                "parent": kept.led_on.parent().map(|id| id.to_string()),
                "unchanged_files": kept.unchanged_files,
                "why": kept.led_on.why(),
                "audit": kept.led_on.audited().map(|it| json!({ "share": it.turn, "of": it.shares, "blocks": it.blocks })),
            }),
            Err(error) => json!({ "name": name, "state": "failed", "error": error }),
        };
        told.serialize(serializer)
    }
}

impl Serialize for CancelledBackup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "id": self.id.to_string(),
            "ulid": self.id.0.to_string(),
            "state": "cancelled",
            "repositories": self.kept().collect::<Vec<_>>(),
            "destinations": self.destinations,
        })
        .serialize(serializer)
    }
}

impl Serialize for CancelledDestination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = &self.name;
        let told = match &self.came {
            CameOf::Complete => json!({ "name": name, "state": "complete" }),
            CameOf::Cancelled => json!({ "name": name, "state": "cancelled" }),
            CameOf::Failed(error) => json!({ "name": name, "state": "failed", "error": error }),
            CameOf::Unknown(error) => json!({ "name": name, "state": "unknown", "error": error }),
        };
        told.serialize(serializer)
    }
}

impl BackupReport {
    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        // A clock that was set back: it took no time that is known.
        self.finished.duration_since(self.started).try_into().unwrap_or_default()
    }
}
