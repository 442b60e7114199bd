//! `seawall info`: what is protected, since when, and what is going on.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{ByteSize, Code, Result};
use seawall_engine::survey::{
    ArchivedWal, ClusterSurvey, Depth, RecoveryWindow, UnusableWal, ask_all,
};

use super::list::{backups_table, when};
use super::wal::gaps;
use crate::args::{ServerArgs, ViewArgs};
use crate::context::Context;
use crate::exit::Outcome;
use crate::overview::{Overview, RepositoryReport};
use crate::render::{Out, Style};
use crate::run;

/// Runs the command.
///
/// # Errors
/// Those of configuration and repositories.
pub fn main(config: Option<&Path>, args: &ViewArgs) -> Result<Outcome> {
    // Read before the process becomes another user.
    let context = Context::new(config, &args.repository)?;
    let mut overview =
        Overview::collect(config, args.cluster.cluster.as_ref(), &args.repository, Depth::Wal)?;
    overview.measure();
    ask_servers(&context, &mut overview)?;
    if args.output.json {
        Out.json(&overview)?;
    } else {
        let (style, now) = (Style::of_stdout(), Timestamp::now());
        for cluster in &overview.clusters {
            Out.text(&cluster_text(cluster, style, now))?;
            Out.line("")?;
        }
        for repository in &overview.repositories {
            Out.text(&repository_text(repository, style))?;
        }
    }
    overview.finish()
}

/// What only a running server knows. One that does not answer leaves it unknown. A connection that
/// cannot be understood, or leads to another cluster, is an error of its own.
fn ask_servers(context: &Context, overview: &mut Overview) -> Result<()> {
    let (mut asked, mut connections) = (Vec::new(), Vec::new());
    for cluster in &mut overview.clusters {
        let target = context.target(&cluster.name)?;
        if target.config.as_ref().is_some_and(|config| config.connection.is_some()) {
            let server = target.server(&ServerArgs::default());
            connections.push(server.map(|server| server.connection));
            asked.push(cluster);
        }
    }
    let (answers, now) = (run::runtime()?.block_on(ask_all(connections)), Timestamp::now());
    let mut wrong = Vec::new();
    for (cluster, answer) in asked.into_iter().zip(answers) {
        let stored = cluster.system_identifier;
        let answer = answer.and_then(|said| said.of_cluster(&cluster.name, stored));
        cluster.hear(answer.as_ref(), now);
        if let Err(error) = answer
            && matches!(error.code(), Code::ConninfoInvalid | Code::ClusterMismatch)
        {
            wrong.push((cluster.name.clone(), error));
        }
    }
    for (cluster, error) in wrong {
        overview.add_problem(cluster, error);
    }
    Ok(())
}

fn cluster_text(cluster: &ClusterSurvey, style: Style, now: Timestamp) -> String {
    let mut title = format!("cluster {}", cluster.name);
    if let Some(version) = &cluster.postgres_version {
        title.push_str(&format!(": PostgreSQL {version}"));
    }
    if let Some(id) = &cluster.system_identifier {
        title.push_str(&format!(", system {id}"));
    }
    let mut text = format!("{}\n", style.bold(&title));
    if let Some(window) = &cluster.recovery_window {
        text.push_str(&format!("  can be restored from {}\n", window_text(window, now)));
    }
    for (repository, alone) in &cluster.alone {
        text.extend(alone_text(cluster, repository, alone, now));
    }
    if let Some(seconds) = cluster.rpo_seconds {
        let at_risk = crate::render::seconds_of(seconds);
        text.push_str(&format!("  at risk now: {}\n", crate::render::duration(at_risk)));
    }
    if let Some(why) = &cluster.server_error {
        text.push_str(&format!("  at risk now: unknown: {why}\n"));
    }
    for job in &cluster.jobs {
        text.push_str(&format!(
            "  {} {} {} on {}, began {}\n",
            job.kind,
            job.id,
            job.state,
            job.host,
            when(job.started_at, now)
        ));
    }
    for wal in &cluster.wal {
        text.push_str(&format!("  WAL {}\n", wal_text(wal)));
    }
    for blocked in &cluster.blocked_wal {
        let UnusableWal { repository, message, .. } = blocked;
        text.push_str(&format!("  nothing newer can be restored from {repository}: {message}\n"));
    }
    for foreign in &cluster.foreign_wal {
        text.push_str(&format!("  {}\n", foreign.what()));
    }
    if cluster.backups.is_empty() {
        text.push_str("  no backups yet\n");
    } else {
        for line in backups_table(&cluster.backups).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

fn window_text(window: &RecoveryWindow, now: Timestamp) -> String {
    let (from, to) = (crate::render::utc(window.earliest), when(window.latest, now));
    let hole = window.hole.as_ref().map(|hole| format!(", with a hole: {hole}"));
    format!("{from} to {to}{}", hole.unwrap_or_default())
}

/// Up to where one repository leads without the others, if that is not where all of them lead.
fn alone_text(
    all: &ClusterSurvey,
    repository: &str,
    alone: &ClusterSurvey,
    now: Timestamp,
) -> Option<String> {
    let leads = match &alone.recovery_window {
        window if *window == all.recovery_window || !alone.is_seen_wholly() => return None,
        Some(window) => window_text(window, now),
        None => "nothing can be restored".to_owned(),
    };
    Some(format!("  from {repository} alone: {leads}\n"))
}

fn wal_text(wal: &ArchivedWal) -> String {
    let ArchivedWal { repository, timeline, first_lsn, last_lsn, .. } = wal;
    format!("timeline {timeline}, {first_lsn} to {last_lsn} in {repository}, {}", gaps(wal))
}

fn repository_text(repository: &RepositoryReport, style: Style) -> String {
    let title = format!("repository {}", repository.name);
    let size = repository
        .stored_bytes
        .map_or_else(|| "unreachable".to_owned(), |bytes| ByteSize(bytes).to_string());
    format!("{}: {}, {size}\n", style.bold(&title), repository.url)
}
