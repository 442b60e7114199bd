//! `seawall wal list`: ranges, timelines, gaps.

use std::path::Path;

use seawall_core::{ByteSize, Result};
use serde_json::{Value, json};

use crate::args::ViewArgs;
use crate::commands::list::{several, shown};
use crate::exit::Outcome;
use crate::render::{Align, Out};
use crate::report::{ClusterReport, Depth, Overview, WalReport};

/// Runs the command.
///
/// # Errors
/// Those of configuration and repositories.
pub fn main(config: Option<&Path>, args: &ViewArgs) -> Result<Outcome> {
    let named = args.cluster.cluster.as_ref();
    let overview = Overview::collect(config, named, &args.repository, Depth::Wal)?;
    if args.output.json {
        let clusters = overview.clusters.iter();
        let clusters: Vec<Value> =
            clusters.map(|cluster| json!({"name": cluster.name, "wal": cluster.wal})).collect();
        Out.json(&json!({ "clusters": clusters }))?;
    } else {
        for cluster in &overview.clusters {
            Out.text(&text(cluster))?;
        }
    }
    overview.finish()
}

fn text(cluster: &ClusterReport) -> String {
    if cluster.wal.is_empty() {
        return format!("no WAL of cluster {} is archived yet\n", cluster.name);
    }
    let lines = several(cluster.wal.iter().map(|wal| &wal.line));
    let columns = [
        ("CLUSTER", Align::Left, true),
        ("REPOSITORY", Align::Left, true),
        ("LINE", Align::Left, lines),
        ("TIMELINE", Align::Right, true),
        ("FROM", Align::Left, true),
        ("TO", Align::Left, true),
        ("STORED", Align::Right, true),
        ("GAPS", Align::Left, true),
    ];
    let row = |wal: &WalReport| {
        vec![
            cluster.name.to_string(),
            wal.repository.clone(),
            wal.line.clone(),
            wal.timeline.to_string(),
            wal.first_lsn.to_string(),
            wal.last_lsn.to_string(),
            ByteSize(wal.stored_bytes).to_string(),
            wal.gaps_shown(),
        ]
    };
    shown(&columns, cluster.wal.iter().map(row).collect())
}
