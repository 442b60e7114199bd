//! `seawall show ID`: one backup.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{ByteSize, ClusterName, Result};
use seawall_engine::survey::{BackupCopy, Candidate, Depth, KnownBackup, find_backup};

use super::list::{copies, state, when};
use super::tell_passed_over;
use crate::args::ShowArgs;
use crate::exit::Outcome;
use crate::overview::Overview;
use crate::render::{Out, duration, zones};

/// Runs the command.
///
/// # Errors
/// [`seawall_core::Code::NoSuchBackup`], and those of configuration and repositories.
pub fn main(config: Option<&Path>, args: &ShowArgs) -> Result<Outcome> {
    let cluster = args.cluster.as_ref();
    let overview = Overview::collect(config, cluster, &args.repository, Depth::Backups)?;
    let mut candidates = Vec::new();
    for cluster in &overview.clusters {
        candidates.extend(cluster.backups.iter().map(|backup| Candidate {
            cluster: cluster.name.clone(),
            id: backup.id,
            state: backup.state,
            is_written: Some(backup.line) == cluster.line,
            is_asked_to_go: backup.is_asked_to_go(),
            stop: backup.timeline.zip(backup.stop_lsn),
            what: backup,
        }));
    }
    let found = find_backup(&args.backup, candidates)?;
    tell_passed_over(&found, None);
    let Candidate { cluster, what: backup, .. } = found.backup;
    if args.output.json {
        Out.json(backup)?;
    } else {
        Out.text(&text(&cluster, backup, Timestamp::now()))?;
    }
    overview.finish()
}

fn text(cluster: &ClusterName, backup: &KnownBackup, now: Timestamp) -> String {
    let mut lines = vec![
        ("backup", backup.id.to_string()),
        ("cluster", cluster.to_string()),
        ("state", state(backup)),
        ("repositories", copies(backup, ", ")),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    let size = |bytes: u64| format!("{} ({bytes} bytes)", ByteSize(bytes));
    let details = backup.details.as_ref();
    let kind = backup.kind.zip(backup.source);
    add("kind", kind.map(|(kind, source)| format!("{kind}, read from {source}")));
    add("PostgreSQL", details.map(|details| details.postgres_major.to_string()));
    add("started", backup.started_at.map(|time| when(time, now)));
    add("finished", backup.finished_at.map(|time| when(time, now)));
    add("took", backup.duration().map(duration));
    add("timeline", backup.timeline.map(|timeline| timeline.to_string()));
    add("start LSN", backup.start_lsn.map(|lsn| lsn.to_string()));
    add("stop LSN", backup.stop_lsn.map(|lsn| lsn.to_string()));
    add("cluster size", backup.cluster_bytes.map(size));
    add("read", backup.read_bytes.map(size));
    add("stored", backup.stored_bytes.map(size));
    add("files", details.map(|details| details.files.to_string()));
    let checksums = details.map(|details| if details.data_checksums { "on" } else { "off" });
    add("checksums", checksums.map(str::to_owned));
    add("page errors", backup.page_errors.map(|errors| errors.to_string()));
    add("verified", backup.verified_at.map(|time| when(time, now)));
    let held = backup.hold.as_ref().map(|hold| {
        let until = hold.until.map(|until| format!(", until {}", zones(until, None)));
        let why = hold.reason.as_ref().map(|why| format!(": {why}"));
        let (until, why) = (until.unwrap_or_default(), why.unwrap_or_default());
        format!("since {}{until}{why}", when(hold.since, now))
    });
    add("held", held);
    add("to be deleted", backup.delete_asked_at.map(|time| format!("asked {}", when(time, now))));
    let notes = backup.annotations.iter().map(|(key, value)| format!("{key}={value}"));
    let notes: Vec<String> = notes.collect();
    add("annotations", (!notes.is_empty()).then(|| notes.join(", ")));
    add("made by", details.map(|details| details.program.clone()));
    let mut text: String =
        lines.iter().map(|(name, value)| format!("{name:<15}{value}\n")).collect();
    for BackupCopy { repository, state, problem, goes_at } in &backup.copies {
        if let Some(goes_at) = goes_at {
            let goes_at = crate::render::utc(*goes_at);
            text.push_str(&format!("  to be deleted from {repository}, not before {goes_at}\n"));
        }
        let problem = problem.iter().map(|why| format!("  {state} in {repository}: {why}\n"));
        text.extend(problem);
    }
    for (path, block, reason) in details.iter().flat_map(|details| &details.bad_pages) {
        text.push_str(&format!("  {path}, block {block}: {reason}\n"));
    }
    for (path, block, kind) in details.iter().flat_map(|details| &details.incidents) {
        text.push_str(&format!("  {path}, block {block}: {kind}\n"));
    }
    for (path, reason) in details.iter().flat_map(|details| &details.left_out) {
        text.push_str(&format!("  {path} was left out: {reason}\n"));
    }
    text
}
