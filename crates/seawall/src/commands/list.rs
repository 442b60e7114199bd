//! `seawall list`: the backups there are.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{ByteSize, Result};

use crate::args::ViewArgs;
use crate::exit::Outcome;
use crate::render::{Align, Out, table};
use crate::report::{BackupReport, ClusterReport, Depth, Overview};

/// Runs the command.
///
/// # Errors
/// Those of configuration and repositories.
pub fn main(config: Option<&Path>, args: &ViewArgs) -> Result<Outcome> {
    let overview =
        Overview::collect(config, args.cluster.cluster.as_ref(), &args.repository, Depth::Backups)?;
    if args.output.json {
        Out.json(&overview.backups_only())?;
    } else {
        for (index, cluster) in overview.clusters.iter().enumerate() {
            if index > 0 {
                Out.line("")?;
            }
            Out.text(&text(cluster, overview.clusters.len() > 1))?;
        }
    }
    overview.finish()
}

fn text(cluster: &ClusterReport, with_name: bool) -> String {
    let mut text = String::new();
    if with_name {
        text.push_str(&format!("cluster {}\n", cluster.name));
    }
    if cluster.backups.is_empty() {
        text.push_str("no backups yet\n");
        return text;
    }
    text.push_str(&backups_table(&cluster.backups));
    text
}

/// The table of `list` and `info`.
pub fn backups_table(backups: &[BackupReport]) -> String {
    let columns = [
        ("ID", Align::Left),
        ("KIND", Align::Left),
        ("FINISHED", Align::Left),
        ("TOOK", Align::Right),
        ("CLUSTER", Align::Right),
        ("STORED", Align::Right),
        ("STATE", Align::Left),
        ("REPOSITORIES", Align::Left),
    ];
    table(&columns, backups.iter().map(row).collect())
}

fn row(backup: &BackupReport) -> Vec<String> {
    let size = |bytes: Option<u64>| bytes.map_or_else(dash, |bytes| ByteSize(bytes).to_string());
    vec![
        backup.id.clone(),
        backup.kind.unwrap_or("-").to_owned(),
        backup.finished_at.map_or_else(dash, crate::render::utc),
        backup.duration().map_or_else(dash, crate::render::duration),
        size(backup.cluster_bytes),
        size(backup.stored_bytes),
        backup.state_shown(),
        backup.repositories.join(","),
    ]
}

fn dash() -> String {
    "-".to_owned()
}

/// When something was, and how long ago that is.
pub fn when(time: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", crate::render::utc(time), crate::render::age(time, now))
}
