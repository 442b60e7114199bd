//! Starting a restored cluster, and proving that it recovered as planned.

mod databases;
mod outcome;
mod programs;
mod promote;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seawall_core::{Code, Error, Lsn, Result, ResultExt, TimelineId, printable};
use seawall_pgdata::control::{ControlFile, DbState, NO_CHECKPOINT};
use seawall_pgwire::{Config, Connection, Environment, quote_conninfo_value};
use tokio::time::sleep;

use super::durable::local;
use super::{Mode, RestorePlan, TargetAction};
use crate::cluster::{PostmasterFile, read_control};

pub use databases::look_at_databases;
pub use programs::find_programs;
pub use promote::{Promoted, promote};

/// How often the server is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// `pg_ctl` has gone before `postmaster.pid` is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of the server's log an error shows.
const LOG_LINES: usize = 20;

/// How far replay has come, as long as it goes on.
const REPLAYED: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_last_wal_replay_lsn() END";

/// Where replay waits, if it does.
const PAUSED: &str = "SELECT CASE WHEN pg_catalog.pg_is_wal_replay_paused() \
     THEN pg_catalog.pg_last_wal_replay_lsn() END";

/// How to start a restored cluster.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The data directory.
    pub data_directory: PathBuf,
    /// The directory of PostgreSQL's programs; see [`find_programs`].
    pub programs: PathBuf,
    /// The port to listen on, on this host only.
    pub port: u16,
    /// The directory of the Unix socket.
    pub socket_directory: PathBuf,
    /// Where the server's output goes.
    pub log_file: PathBuf,
    /// The superuser, who is asked whether replay has paused.
    pub user: String,
    /// How long recovery may take.
    pub timeout: Duration,
}

/// What became of a restored cluster that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// It takes writes.
    Promoted {
        /// The timeline it began.
        timeline: TimelineId,
        /// Where recovery ended.
        replayed_to: Lsn,
    },
    /// It waits at the target and can be read.
    Paused {
        /// Where it waits.
        replayed_to: Lsn,
    },
    /// It has replayed all that was archived when the restore was planned, can be read, and goes
    /// on.
    Following {
        /// How far it has come.
        replayed_to: Lsn,
    },
    /// It shut down at the target.
    ShutDown {
        /// Where it ended.
        replayed_to: Lsn,
    },
}

/// Starts a restored cluster, waits until it has recovered, and proves that it ended where the plan
/// says.
///
/// # Errors
/// [`Code::RestoredServerFailed`], with the end of the server's log; without a hint if the server
/// could not be started or went down.
pub async fn start(options: &StartOptions, plan: &RestorePlan) -> Result<Recovered> {
    let server = Server { options, plan };
    let waited = match server.launch() {
        Ok(()) => server.wait().await,
        Err(error) => Err(error),
    };
    waited.map_err(|error| server.with_log(error))
}

struct Server<'s> {
    options: &'s StartOptions,
    plan: &'s RestorePlan,
}

impl Server<'_> {
    fn launch(&self) -> Result<()> {
        let StartOptions { data_directory, programs, log_file, .. } = self.options;
        let pg_ctl = programs.join("pg_ctl");
        let status = Command::new(&pg_ctl)
            .args(["start", "--no-wait", "--silent", "--pgdata"])
            .arg(data_directory)
            .arg("--log")
            .arg(log_file)
            .arg("--options")
            .arg(self.server_options())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .map_err(|error| local(error, "running", &pg_ctl))?;
        if status.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&status.stderr).trim().to_owned();
        Err(failed(format!("pg_ctl could not start the restored server: {said}")))
    }

    /// What the server's command line says; `pg_ctl` hands it to a shell.
    fn server_options(&self) -> String {
        let StartOptions { port, socket_directory, .. } = self.options;
        let mut settings = vec![
            ("port", port.to_string()),
            ("unix_socket_directories", socket_directory.display().to_string()),
        ];
        if self.plan.mode == Mode::Clone {
            settings.push(("listen_addresses", "localhost".to_owned()));
            settings.push(("logging_collector", "off".to_owned()));
            settings.push(("log_destination", "stderr".to_owned()));
        }
        if self.plan.ignores_invalid_pages {
            // Its log is read afterwards; see `look_at_databases`.
            settings.push(("log_min_messages", "warning".to_owned()));
            settings.push(("lc_messages", "C".to_owned()));
        }
        let option =
            |(name, value): (&str, String)| format!("-c '{name}={}'", value.replace('\'', r"'\''"));
        settings.into_iter().map(option).collect::<Vec<_>>().join(" ")
    }

    async fn wait(&self) -> Result<Recovered> {
        let began = Instant::now();
        let mut seen = false;
        let mut unclear: Option<Instant> = None;
        while began.elapsed() < self.options.timeout {
            // In this order: what a server wrote before it went is there to be read.
            let running = PostmasterFile::read(&self.options.data_directory).is_some();
            seen |= running;
            match self.look(running).await? {
                Look::Decided(recovered) => return Ok(recovered),
                Look::Undecided => unclear = None,
                Look::Unclear(error) => {
                    if unclear.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
            }
            if !running && (seen || began.elapsed() > PATIENCE) {
                return Err(failed("the restored server ended by itself".to_owned()));
            }
            sleep(PAUSE).await;
        }
        let seconds = self.options.timeout.as_secs();
        Err(failed(format!("the restored server did not recover within {seconds} s"))
            .with_hint("It goes on recovering; wait longer, or look at its log."))
    }

    /// What has become of it, if that is decided.
    async fn look(&self, running: bool) -> Result<Look> {
        let control = read_control(&self.options.data_directory)?;
        if control.checkpoint == NO_CHECKPOINT {
            // Still as it was restored; its state is that of the server that was backed up.
            return Ok(Look::Undecided);
        }
        let segment_size = control.wal_segment_size;
        let prove =
            |lsn| outcome::prove_end(self.plan, control.major, lsn, segment_size).map(|()| lsn);
        if self.plan.mode == Mode::Standby && control.state == DbState::InArchiveRecovery {
            return self.look_at_standby(&control, running).await;
        }
        let recovered = match (self.plan.then, control.state) {
            (TargetAction::Promote, DbState::InProduction) if self.plan.mode != Mode::Standby => {
                let (directory, timeline) = (&self.options.data_directory, self.plan.timeline);
                match outcome::end_of_recovery(directory, &control, timeline)? {
                    Some((timeline, end)) => {
                        Recovered::Promoted { timeline, replayed_to: prove(end)? }
                    }
                    None => return Ok(Look::Unclear(no_new_timeline(timeline))),
                }
            }
            (_, DbState::InProduction) => {
                return Err(failed(
                    "the restored server takes writes, which was not planned".to_owned(),
                ));
            }
            (TargetAction::Pause, DbState::InArchiveRecovery) if running => {
                match self.ask_lsn(PAUSED).await? {
                    Some(lsn) => Recovered::Paused { replayed_to: prove(lsn)? },
                    None => return Ok(Look::Undecided),
                }
            }
            (TargetAction::Shutdown, DbState::ShutDownInRecovery) if !running => {
                Recovered::ShutDown { replayed_to: prove(shutdown_position(&control))? }
            }
            _ => return Ok(Look::Undecided),
        };
        Ok(Look::Decided(recovered))
    }

    /// A standby has to go along the planned timeline, and to have replayed what was there.
    async fn look_at_standby(&self, control: &ControlFile, running: bool) -> Result<Look> {
        let wanted = self.plan.stop.kept_until();
        let replayed = if running { self.ask_lsn(REPLAYED).await? } else { None };
        let Some(replayed_to) = replayed.filter(|lsn| *lsn >= wanted) else {
            return Ok(Look::Undecided);
        };
        Ok(match outcome::other_way(self.plan, &self.options.data_directory, control)? {
            None => Look::Decided(Recovered::Following { replayed_to }),
            Some(other) => Look::Unclear(went_another_way(other, self.plan.timeline)),
        })
    }

    /// Asks the server for a position. Before it is consistent it takes no connections.
    async fn ask_lsn(&self, sql: &str) -> Result<Option<Lsn>> {
        let StartOptions { socket_directory, port, user, data_directory, .. } = self.options;
        let readable = PostmasterFile::read(data_directory)
            .is_some_and(|file| matches!(file.status.as_str(), "ready" | "standby"));
        if !readable {
            return Ok(None);
        }
        let mut connection = connect(socket_directory, *port, user).await?;
        let lsn: Option<Lsn> = connection.query_value(sql).await?;
        connection.close().await;
        Ok(lsn)
    }

    fn with_log(&self, error: Error) -> Error {
        let log = fs::read(&self.options.log_file).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<String> = log.lines().map(printable).collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        if tail.is_empty() || error.code() != Code::RestoredServerFailed {
            return error;
        }
        let log = self.options.log_file.display();
        let shown = format!("{}\nthe end of {log}:\n{}", error.message(), tail.join("\n"));
        let shown = Error::new(Code::RestoredServerFailed, shown);
        match error.hint() {
            Some(hint) => shown.with_hint(hint),
            None => shown,
        }
    }
}

/// What a look at a server that was started shows.
enum Look {
    /// It is where it should be.
    Decided(Recovered),
    /// It goes on.
    Undecided,
    /// How it came to be where it is cannot be told; an error unless it soon can.
    Unclear(Error),
}

fn no_new_timeline(timeline: TimelineId) -> Error {
    failed(format!("the restored server takes writes, and began no timeline after {timeline}"))
        .with_hint("It may have recovered nothing; look at its log before using it.")
}

fn went_another_way(other: TimelineId, planned: TimelineId) -> Error {
    failed(format!("the standby goes along timeline {other} where {planned} was planned"))
        .with_hint("Do not use it; look at its log, and restore again into another directory.")
}

/// A server that shuts down while it recovers notes how far it came (`CreateRestartPoint`, xlog.c).
const fn shutdown_position(control: &ControlFile) -> Lsn {
    control.min_recovery_point
}

fn failed(what: String) -> Error {
    Error::new(Code::RestoredServerFailed, what)
}

async fn connect(socket_directory: &Path, port: u16, user: &str) -> Result<Connection> {
    let host = quote_conninfo_value(&socket_directory.display().to_string());
    let user = quote_conninfo_value(user);
    let conninfo =
        format!("host={host} port={port} user={user} dbname=postgres connect_timeout=10");
    let config = Config::parse(&conninfo, &Environment::of_process())
        .code(Code::ConninfoInvalid, || "the restored server cannot be reached".to_owned())?;
    Ok(Connection::connect(&config).await?)
}
