//! After the files are there: starting the server, and what to type next.

use std::path::{Path, PathBuf};

use rustix::fs::Access;
use seawall_core::{ByteSize, Result};
use seawall_engine::cluster::Listening;
use seawall_engine::job::{RestoredReport, Started};
use seawall_engine::restore::{DEFAULT_ROLE, DeltaReport, Recovered, RestoreReport, find_programs};
use seawall_engine::restored::{Mode, TargetAction};
use seawall_pgwire::quote_conninfo_value;
use serde_json::json;

use super::plan_as_json;
use crate::args::RestoreArgs;
use crate::context::Context;
use crate::render::{Out, Style, sentence, shell_quote, shell_word};
use crate::trust::is_own_directory;

/// What a standby does without being told where its primary is.
const STREAMING: &str = "it follows by the archive, segment by segment; to follow by streaming, set \
     primary_conninfo there and reload";

/// Beside the data directory; in it, where its owner may not write beside it.
pub fn log_file(data_directory: &Path) -> PathBuf {
    let mut name = data_directory.file_name().unwrap_or_default().to_owned();
    name.push(".log");
    let beside = data_directory.with_file_name(name);
    let parent = data_directory.parent().unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(parent, Access::WRITE_OK).is_ok();
    // `pg_ctl` writes through a link, and where others may put one it would be theirs.
    if writable && is_own_directory(parent) && !beside.is_symlink() {
        beside
    } else {
        data_directory.join("restored.log")
    }
}

/// Says what was done, and what to type next; `sudo` stands before what the cluster's owner has to
/// run.
///
/// # Errors
/// Those of standard output.
pub fn tell(
    args: &RestoreArgs,
    context: &Context,
    restored: &RestoredReport,
    sudo: &str,
) -> Result<()> {
    let RestoredReport { restore: report, started } = restored;
    let started = started.as_ref();
    let warnings = report.plan.warnings.iter().map(sentence);
    let started_notes = started.iter().flat_map(|started| &started.notes).cloned();
    for note in report.notes.iter().cloned().chain(warnings).chain(started_notes) {
        eprintln!("{} {note}", Style::of_stderr().yellow("note:"));
    }
    if args.output.json {
        let mut told = json!({"restore": report, "started": started});
        told["restore"]["plan"] = plan_as_json(&report.plan)?;
        return Out.json(&told);
    }
    let directory = report.data_directory.display();
    let mut lines = vec![format!("restored into {directory}")];
    lines.extend(report.delta.as_ref().map(compared));
    match started {
        Some(started) => lines.extend(running(started, report, sudo)),
        None => lines.extend(start_it(report, sudo)),
    }
    match report.plan.mode {
        Mode::Clone => {}
        Mode::Primary => lines.extend(protect_again(context, report, started)),
        Mode::Standby => lines.push(STREAMING.to_owned()),
    }
    lines.iter().try_for_each(|line| Out.line(line))
}

fn compared(delta: &DeltaReport) -> String {
    format!(
        "compared {}, fetched {}, wrote {} into {} files, removed {}",
        ByteSize(delta.compared_bytes),
        ByteSize(delta.fetched_bytes),
        ByteSize(delta.written_bytes),
        delta.written_files,
        delta.removed
    )
}

/// Where there is no configuration, `archive_command` has none to read either, and no WAL is archived
/// until `seawall init` has written one.
fn protect_again(
    context: &Context,
    report: &RestoreReport,
    started: Option<&Started>,
) -> Vec<String> {
    let cluster = &report.plan.cluster;
    let quoted: Vec<String> = context.again.iter().map(|word| shell_word(word)).collect();
    let server = started.map(|started| {
        let Listening { socket_directory, port } = &started.listening;
        let port = started.configured_port.unwrap_or(*port);
        let host = quote_conninfo_value(&host(socket_directory));
        format!("host={host} port={port} user={}", quote_conninfo_value(&started.role))
    });
    if context.config.path.is_some() {
        let mut lines = moved(context, report, server.as_deref());
        lines.push("then take a backup on the new timeline:".to_owned());
        lines.push(format!("  seawall backup {cluster} {}", quoted.join(" ")));
        return lines;
    }
    let connection =
        server.map_or_else(String::new, |server| format!(" --connection {}", shell_quote(&server)));
    // A kit is a key file too.
    let key = quoted.last().map(String::as_str).unwrap_or_default();
    let mut lines = vec!["then configure this machine, or no WAL is archived:".to_owned()];
    lines.extend(context.places().iter().map(|place| {
        let url = shell_quote(&place.url.to_string());
        format!("  seawall init {cluster} --repo {url} --key {key}{connection} --no-kit")
    }));
    lines.push(format!("  seawall backup {cluster}"));
    lines
}

/// What the configuration must say of a server that is elsewhere now.
fn moved(context: &Context, report: &RestoreReport, server: Option<&str>) -> Vec<String> {
    let cluster = &report.plan.cluster;
    let configured = context.config.clusters.get(cluster);
    let stayed = configured
        .is_some_and(|one| one.data_directory.as_deref() == Some(report.data_directory.as_path()));
    if stayed {
        return Vec::new();
    }
    let server = server.unwrap_or("host=… port=… user=postgres");
    vec![
        format!("then set in [cluster.{cluster}] of {}:", context.config.shown_path()),
        format!("  data_directory = \"{}\"", report.data_directory.display()),
        format!("  connection = \"{server}\""),
    ]
}

fn running(started: &Started, report: &RestoreReport, sudo: &str) -> Vec<String> {
    let Listening { socket_directory, port } = &started.listening;
    let (host, role) = (shell_quote(&host(socket_directory)), shell_quote(&started.role));
    let psql = format!("  {sudo}psql -h {host} -p {port} -U {role}");
    let mut directory = quoted_directory(report);
    if started.role != DEFAULT_ROLE {
        directory.push_str(&format!(" --user {role}"));
    }
    let mut lines = match started.recovered {
        Recovered::Promoted { timeline, replayed_to } => vec![
            format!(
                "PostgreSQL takes writes on timeline {timeline}; replay ended at {replayed_to}"
            ),
            psql,
        ],
        Recovered::Paused { replayed_to } => vec![
            format!("PostgreSQL waits at {replayed_to} and can be read:"),
            psql,
            "if it is what you wanted:".to_owned(),
            format!("  seawall promote {directory}"),
        ],
        Recovered::Following { replayed_to } => vec![
            format!("the standby can be read, has replayed up to {replayed_to}, and goes on:"),
            psql,
            "if it has to take over from the primary:".to_owned(),
            format!("  seawall promote {directory}"),
        ],
        Recovered::ShutDown { replayed_to } => {
            vec![format!("PostgreSQL recovered up to {replayed_to} and shut down")]
        }
    };
    lines.extend(serving(started, report, sudo));
    lines
}

/// What a server that takes production's place needs to be one like any other.
fn serving(started: &Started, report: &RestoreReport, sudo: &str) -> Vec<String> {
    let is_down = matches!(started.recovered, Recovered::ShutDown { .. });
    if report.plan.mode == Mode::Clone || is_down {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if let Some(port) = started.configured_port {
        let now = started.listening.port;
        lines.push(format!(
            "it listens on port {now} until it is stopped; as configured, it listens on {port}"
        ));
    }
    lines
        .push("to have it run as a service from now on, stop it and start the service:".to_owned());
    lines.push(format!("  {}", pg_ctl_stop(report, sudo)));
    lines
}

/// What a client calls the place of a socket.
fn host(socket_directory: &Path) -> String {
    if socket_directory.as_os_str().is_empty() {
        return "localhost".to_owned();
    }
    socket_directory.display().to_string()
}

fn quoted_directory(report: &RestoreReport) -> String {
    shell_word(report.data_directory.as_os_str())
}

fn pg_ctl(report: &RestoreReport) -> PathBuf {
    find_programs(report.major)
        .map_or_else(|_| PathBuf::from("pg_ctl"), |programs| programs.join("pg_ctl"))
}

/// The line to type that stops the server.
pub fn pg_ctl_stop(report: &RestoreReport, sudo: &str) -> String {
    format!("{sudo}{} stop -D {}", pg_ctl(report).display(), quoted_directory(report))
}

/// The line to type that starts the server.
pub fn pg_ctl_start(report: &RestoreReport, sudo: &str) -> String {
    let (pg_ctl, directory) = (pg_ctl(report), quoted_directory(report));
    let log = shell_word(log_file(&report.data_directory).as_os_str());
    // A clone beside production must not take its port.
    let port = if report.plan.mode == Mode::Clone { " -o '-p 5433'" } else { "" };
    format!("{sudo}{} start -D {directory} -l {log}{port}", pg_ctl.display())
}

fn start_it(report: &RestoreReport, sudo: &str) -> Vec<String> {
    let directory = quoted_directory(report);
    let mut lines = vec![
        format!("start PostgreSQL {}; it replays WAL and then is ready:", report.major),
        format!("  {}", pg_ctl_start(report, sudo)),
    ];
    if report.plan.then == TargetAction::Pause {
        lines.push("it waits at the target; if it is what you wanted:".to_owned());
        lines.push(format!("  seawall promote {directory}"));
    }
    lines
}
