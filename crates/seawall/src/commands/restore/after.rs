//! After the files are there: starting the server, and what to type next.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use seawall_core::{Code, Error, Result};
use seawall_engine::restore::{
    Mode, Recovered, RestoreReport, StartOptions, TargetAction, find_programs, look_at_databases,
    start as start_server,
};
use serde_json::{Value, json};

use crate::args::RestoreArgs;
use crate::context::Context;
use crate::render::{Out, Style, shell_quote, shell_word};

/// The ports tried when none is given: those after PostgreSQL's own.
const PORTS: std::ops::Range<u16> = 5433..5533;

/// Where sockets are put: where clients look, else anywhere.
const SOCKET_DIRECTORIES: [&str; 2] = ["/run/postgresql", "/tmp"];

/// What a standby does without being told where its primary is.
const STREAMING: &str = "it follows by the archive, segment by segment; to follow by streaming, set \
     primary_conninfo there and reload";

/// A server that was started.
#[derive(Debug)]
pub struct Started {
    port: u16,
    socket_directory: PathBuf,
    log_file: PathBuf,
    recovered: Recovered,
    /// What a person should know.
    notes: Vec<String>,
}

/// Starts PostgreSQL on a restored directory and waits until it is where it should be.
///
/// # Errors
/// [`Code::RestoredServerFailed`]
pub async fn start(args: &RestoreArgs, report: &RestoreReport, sudo: &str) -> Result<Started> {
    let by_hand = |error: Error| {
        let why = error.hint().unwrap_or("Nothing was lost: the repository is as it was.");
        let line = pg_ctl_start(report, sudo);
        let hint = format!("{why} The files are all restored; start it yourself: `{line}`.");
        error.with_hint(hint)
    };
    let options = options(args, report).map_err(by_hand)?;
    eprintln!(
        "starting PostgreSQL on port {}; its log is {}",
        options.port,
        options.log_file.display()
    );
    // There may be the log of an earlier server.
    let log_bytes = std::fs::metadata(&options.log_file).map_or(0, |file| file.len());
    let started = start_server(&options, &report.plan).await;
    // What ran and did something else than planned is not to be started again.
    let recovered =
        started.map_err(|error| if error.hint().is_none() { by_hand(error) } else { error })?;
    let notes = look_at_databases(&options, report, recovered, log_bytes).await?;
    let StartOptions { port, socket_directory, log_file, .. } = options;
    Ok(Started { port, socket_directory, log_file, recovered, notes })
}

fn options(args: &RestoreArgs, report: &RestoreReport) -> Result<StartOptions> {
    let port = args.port.map_or_else(free_port, Ok)?;
    Ok(StartOptions {
        data_directory: report.data_directory.clone(),
        programs: find_programs(report.major)?,
        port,
        socket_directory: socket_directory(port)?,
        log_file: log_file(&report.data_directory),
        user: "postgres".to_owned(),
        timeout: args.start_timeout,
    })
}

fn free_port() -> Result<u16> {
    let free = |port: &u16| {
        let socket = format!(".s.PGSQL.{port}");
        let taken = |directory: &str| Path::new(directory).join(&socket).exists();
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
            && !SOCKET_DIRECTORIES.iter().any(|directory| taken(directory))
    };
    PORTS.clone().find(free).ok_or_else(|| {
        Error::new(Code::RestoredServerFailed, "no port from 5433 to 5532 is free")
            .with_hint("Give one: `--start --port N`.")
    })
}

fn socket_directory(port: u16) -> Result<PathBuf> {
    for directory in SOCKET_DIRECTORIES {
        let probe = Path::new(directory).join(format!(".seawall-{port}-{}", std::process::id()));
        if std::fs::write(&probe, b"").is_ok() {
            std::fs::remove_file(&probe).ok();
            return Ok(PathBuf::from(directory));
        }
    }
    Err(Error::new(Code::RestoredServerFailed, "there is no directory for the server's socket"))
}

/// Beside the data directory; in it, where its owner may not write beside it.
fn log_file(data_directory: &Path) -> PathBuf {
    let mut name = data_directory.file_name().unwrap_or_default().to_owned();
    name.push(".log");
    let beside = data_directory.with_file_name(name);
    let parent = data_directory.parent().unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(parent, Access::WRITE_OK).is_ok();
    if writable { beside } else { data_directory.join("restored.log") }
}

/// Says what was done, and what to type next; `sudo` stands before what the cluster's owner has to
/// run.
///
/// # Errors
/// Those of standard output.
pub fn tell(
    args: &RestoreArgs,
    context: &Context,
    report: &RestoreReport,
    started: Option<&Started>,
    sudo: &str,
) -> Result<()> {
    let started_notes = started.iter().flat_map(|started| &started.notes);
    for note in report.notes.iter().chain(&report.plan.warnings).chain(started_notes) {
        eprintln!("{} {note}", Style::of_stderr().yellow("note:"));
    }
    if args.output.json {
        return Out.json(&json!({"restore": report, "started": started.map(as_json)}));
    }
    let directory = report.data_directory.display();
    let mut lines = vec![format!("restored into {directory}")];
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
        let socket_directory = started.socket_directory.display();
        format!("host={socket_directory} port={} user=postgres", started.port)
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

fn as_json(started: &Started) -> Value {
    let (state, lsn, timeline) = match started.recovered {
        Recovered::Promoted { timeline, replayed_to } => ("promoted", replayed_to, Some(timeline)),
        Recovered::Paused { replayed_to } => ("paused", replayed_to, None),
        Recovered::Following { replayed_to } => ("following", replayed_to, None),
        Recovered::ShutDown { replayed_to } => ("shut down", replayed_to, None),
    };
    json!({
        "port": started.port,
        "socket_directory": started.socket_directory,
        "log_file": started.log_file,
        "state": state,
        "replayed_to": lsn,
        "timeline": timeline,
        "notes": started.notes,
    })
}

fn running(started: &Started, report: &RestoreReport, sudo: &str) -> Vec<String> {
    let socket_directory = started.socket_directory.display();
    let psql = format!("  {sudo}psql -h {socket_directory} -p {} -U postgres", started.port);
    let directory = shell_word(report.data_directory.as_os_str());
    match started.recovered {
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
    }
}

/// The line to type that starts the server.
fn pg_ctl_start(report: &RestoreReport, sudo: &str) -> String {
    let pg_ctl = find_programs(report.major)
        .map_or_else(|_| PathBuf::from("pg_ctl"), |programs| programs.join("pg_ctl"));
    let directory = shell_word(report.data_directory.as_os_str());
    let log = shell_word(log_file(&report.data_directory).as_os_str());
    // A clone beside production must not take its port.
    let port = if report.plan.mode == Mode::Clone { " -o '-p 5433'" } else { "" };
    format!("{sudo}{} start -D {directory} -l {log}{port}", pg_ctl.display())
}

fn start_it(report: &RestoreReport, sudo: &str) -> Vec<String> {
    let directory = shell_word(report.data_directory.as_os_str());
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
