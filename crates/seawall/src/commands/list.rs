//! `seawall list`: the backups there are.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{ByteSize, Result};
use seawall_engine::survey::{ClusterSurvey, Depth, KnownBackup};

use crate::args::ViewArgs;
use crate::exit::Outcome;
use crate::overview::Overview;
use crate::render::{Align, Out, table};

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

fn text(cluster: &ClusterSurvey, with_name: bool) -> String {
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

/// The table of `list` and `info`. Timelines and lines are told where there are several.
pub fn backups_table(backups: &[KnownBackup]) -> String {
    let timelines = several(backups.iter().map(|backup| backup.timeline));
    let lines = several(backups.iter().map(|backup| backup.line));
    let columns = [
        ("ID", Align::Left, true),
        ("KIND", Align::Left, true),
        ("FINISHED", Align::Left, true),
        ("TOOK", Align::Right, true),
        ("CLUSTER", Align::Right, true),
        ("STORED", Align::Right, true),
        ("TIMELINE", Align::Right, timelines),
        ("LINE", Align::Left, lines),
        ("STATE", Align::Left, true),
        ("REPOSITORIES", Align::Left, true),
    ];
    shown(&columns, backups.iter().map(row).collect())
}

/// Whether there is more than one.
pub fn several<T: PartialEq>(all: impl IntoIterator<Item = T>) -> bool {
    let mut all = all.into_iter();
    all.next().is_some_and(|first| all.any(|other| other != first))
}

/// A table of those columns that are to be shown.
pub fn shown(columns: &[(&str, Align, bool)], rows: Vec<Vec<String>>) -> String {
    let chosen = |cells: Vec<String>| {
        let cells = cells.into_iter().zip(columns);
        cells.filter(|(_, (.., shown))| *shown).map(|(cell, _)| cell).collect()
    };
    let heads: Vec<(&str, Align)> = columns
        .iter()
        .filter(|(.., shown)| *shown)
        .map(|(name, align, _)| (*name, *align))
        .collect();
    table(&heads, rows.into_iter().map(chosen).collect())
}

fn row(backup: &KnownBackup) -> Vec<String> {
    let size = |bytes: Option<u64>| bytes.map_or_else(dash, |bytes| ByteSize(bytes).to_string());
    vec![
        backup.id.to_string(),
        backup.kind.map_or_else(dash, |kind| kind.to_string()),
        backup.finished_at.map_or_else(dash, crate::render::utc),
        backup.duration().map_or_else(dash, crate::render::duration),
        size(backup.cluster_bytes),
        size(backup.stored_bytes),
        backup.timeline.map_or_else(dash, |timeline| timeline.to_string()),
        backup.line.to_string(),
        state(backup),
        copies(backup, ","),
    ]
}

/// A backup's state, and what is the matter with it.
pub fn state(backup: &KnownBackup) -> String {
    if let Some(goes_at) = backup.goes_at() {
        return format!("{}, not before {}", backup.state, crate::render::utc(goes_at));
    }
    let mut state = backup.state.to_string();
    if let Some(errors @ 1..) = backup.page_errors {
        state.push_str(&format!(", {errors} page errors"));
    }
    if backup.held {
        state.push_str(", held");
    } else if backup.is_asked_to_go() {
        state.push_str(", to be deleted");
    }
    state
}

/// The repositories that have it, each with the state of its copy where that is not the backup's.
pub fn copies(backup: &KnownBackup, between: &str) -> String {
    let named = backup.copies.iter().map(|copy| {
        if copy.state == backup.state {
            copy.repository.clone()
        } else {
            format!("{} ({})", copy.repository, copy.state)
        }
    });
    named.collect::<Vec<_>>().join(between)
}

fn dash() -> String {
    "-".to_owned()
}

/// When something was, and how long ago that is.
pub fn when(time: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", crate::render::utc(time), crate::render::age(time, now))
}
