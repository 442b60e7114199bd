//! `seawall wal list`: ranges, timelines, gaps.

use std::path::Path;

use seawall_core::{ByteSize, Result};
use seawall_engine::survey::{ArchivedWal, ClusterSurvey, Depth};
use serde_json::{Value, json};

use crate::args::ViewArgs;
use crate::commands::list::{several, shown};
use crate::exit::Outcome;
use crate::overview::Overview;
use crate::render::{Align, Out};

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

fn text(cluster: &ClusterSurvey) -> String {
    if cluster.wal.is_empty() {
        return format!("no WAL of cluster {} is archived yet\n", cluster.name);
    }
    let lines = several(cluster.wal.iter().map(|wal| wal.line));
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
    let row = |wal: &ArchivedWal| {
        vec![
            cluster.name.to_string(),
            wal.repository.clone(),
            wal.line.to_string(),
            wal.timeline.to_string(),
            wal.first_lsn.to_string(),
            wal.last_lsn.to_string(),
            ByteSize(wal.stored_bytes).to_string(),
            gaps(wal),
        ]
    };
    shown(&columns, cluster.wal.iter().map(row).collect())
}

/// The gaps in words.
pub fn gaps(wal: &ArchivedWal) -> String {
    let gaps: Vec<String> =
        wal.gaps.iter().map(|gap| format!("{} to {}", gap.start_lsn, gap.end_lsn)).collect();
    match gaps.as_slice() {
        [] => "no gaps".to_owned(),
        [gap] => format!("gap {gap}"),
        gaps => format!("gaps {}", gaps.join(", ")),
    }
}
