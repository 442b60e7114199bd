//! After the files are there: starting the server, and what to type next.

use std::path::{Path, PathBuf};

use rustix::fs::Access;
use seawall_core::{Error, Result, hint};
use seawall_engine::cluster::PostmasterFile;
use seawall_engine::restore::{
    Ended, Listening, Login, Mode, Recovered, RestoreReport, StartOptions, Stretch, TargetAction,
    find_programs, look_at_databases, start as start_server,
};
use seawall_pgwire::quote_conninfo_value;
use serde_json::{Value, json};

use super::listen::Listen;
use super::plan_as_json;
use crate::args::RestoreArgs;
use crate::context::Context;
use crate::render::{Out, Style, sentence, shell_quote, shell_word};
use crate::trust::is_own_directory;

/// The superuser, where nothing says who it is.
pub const DEFAULT_ROLE: &str = "postgres";

/// What a standby does without being told where its primary is.
const STREAMING: &str = "it follows by the archive, segment by segment; to follow by streaming, set \
     primary_conninfo there and reload";

/// A server that was started.
#[derive(Debug)]
pub struct Started {
    listening: Listening,
    /// Where it listens after any other start, if that is elsewhere.
    configured_port: Option<u16>,
    role: String,
    log_file: PathBuf,
    recovered: Recovered,
    /// What a person should know.
    notes: Vec<String>,
}

/// What is needed to start a server and to ask it, found out before anything is restored.
#[derive(Debug)]
pub struct Starting {
    login: Login,
    configured_port: u16,
}

impl Starting {
    /// Looks for all of it; a restore takes hours.
    ///
    /// # Errors
    /// [`seawall_core::Code::RestoredServerFailed`] if the port is taken.
    pub fn prove(
        args: &RestoreArgs,
        mode: Mode,
        login: Login,
        configured_port: u16,
    ) -> Result<Self> {
        Listen::choose(mode, args.port, configured_port)?;
        Ok(Self { login, configured_port })
    }

    /// Starts PostgreSQL on a restored directory and waits until it is where it should be.
    ///
    /// # Errors
    /// [`seawall_core::Code::RestoredServerFailed`]
    pub async fn start(
        self,
        args: &RestoreArgs,
        report: &RestoreReport,
        sudo: &str,
    ) -> Result<Started> {
        let by_hand = |error: Error| {
            let nothing_lost = || "Nothing was lost: the repository is as it was.".into();
            let why = error.hint().cloned().unwrap_or_else(nothing_lost);
            let line = pg_ctl_start(report, sudo);
            error.with_hint(hint![
                why,
                " The files are all restored; once its reason is mended, ",
                format!("start it yourself: `{line}`.")
            ])
        };
        let options = self.options(args, report).map_err(by_hand)?;
        let port = options.port.unwrap_or(self.configured_port);
        eprintln!("starting PostgreSQL on port {port}; its log is {}", options.log_file.display());
        // There may be the log of an earlier server.
        let log_bytes = std::fs::metadata(&options.log_file).map_or(0, |file| file.len());
        let started = start_server(&options, &report.plan).await;
        // What ran and did something else than planned is not to be started again.
        let recovered =
            started.map_err(|error| if error.hint().is_none() { by_hand(error) } else { error })?;
        let notes = look_at_databases(&Stretch {
            data_directory: &options.data_directory,
            login: &options.login,
            log: (&options.log_file, log_bytes),
            plan: &report.plan,
            kept: &report.kept_databases,
            ended: Ended::from(recovered),
        })
        .await?;
        let running = PostmasterFile::read(&report.data_directory);
        let listening = running.map_or_else(
            || Listening { socket_directory: options.socket_directory.unwrap_or_default(), port },
            |running| running.listening(),
        );
        let role = options.login.role().unwrap_or(DEFAULT_ROLE).to_owned();
        let is_elsewhere = report.plan.mode != Mode::Clone && port != self.configured_port;
        let configured_port = is_elsewhere.then_some(self.configured_port);
        Ok(Started {
            listening,
            configured_port,
            role,
            log_file: options.log_file,
            recovered,
            notes,
        })
    }

    fn options(&self, args: &RestoreArgs, report: &RestoreReport) -> Result<StartOptions> {
        let listen = Listen::choose(report.plan.mode, args.port, self.configured_port)?;
        Ok(StartOptions {
            data_directory: report.data_directory.clone(),
            programs: find_programs(report.major)?,
            port: listen.port,
            socket_directory: listen.socket_directory,
            log_file: log_file(&report.data_directory),
            restore_id: report.restore_id,
            login: self.login.clone(),
            timeout: args.start_timeout,
        })
    }
}

/// Nobody is left with a server that runs and was not told of.
pub fn with_running(error: Error, report: &RestoreReport, sudo: &str) -> Error {
    let Some(running) = PostmasterFile::read(&report.data_directory) else { return error };
    let (directory, port) = (quoted_directory(report), running.port);
    let told = Error::new(
        error.code(),
        format!("{}\nthe restored server still runs, on port {port}", error.chain()),
    );
    let why = error.hint().map(|hint| hint![hint.clone(), " "]).unwrap_or_default();
    let pg_ctl = pg_ctl(report);
    let stop = format!("To stop it: `{sudo}{} stop -D {directory}`.", pg_ctl.display());
    told.with_hint(hint![why, stop])
}

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
    report: &RestoreReport,
    started: Option<&Started>,
    sudo: &str,
) -> Result<()> {
    let warnings = report.plan.warnings.iter().map(sentence);
    let started_notes = started.iter().flat_map(|started| &started.notes).cloned();
    for note in report.notes.iter().cloned().chain(warnings).chain(started_notes) {
        eprintln!("{} {note}", Style::of_stderr().yellow("note:"));
    }
    if args.output.json {
        let mut told = json!({"restore": report, "started": started.map(as_json)});
        told["restore"]["plan"] = plan_as_json(&report.plan)?;
        return Out.json(&told);
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

fn as_json(started: &Started) -> Value {
    let (state, lsn, timeline) = match started.recovered {
        Recovered::Promoted { timeline, replayed_to } => ("promoted", replayed_to, Some(timeline)),
        Recovered::Paused { replayed_to } => ("paused", replayed_to, None),
        Recovered::Following { replayed_to } => ("following", replayed_to, None),
        Recovered::ShutDown { replayed_to } => ("shut down", replayed_to, None),
    };
    json!({
        "port": started.listening.port,
        "socket_directory": started.listening.socket_directory,
        "log_file": started.log_file,
        "state": state,
        "replayed_to": lsn,
        "timeline": timeline,
        "notes": started.notes,
    })
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
    lines.push(format!(
        "  {sudo}{} stop -D {}",
        pg_ctl(report).display(),
        quoted_directory(report)
    ));
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

/// The line to type that starts the server.
fn pg_ctl_start(report: &RestoreReport, sudo: &str) -> String {
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
