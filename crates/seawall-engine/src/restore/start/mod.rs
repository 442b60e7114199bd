//! Starting a restored cluster, and proving that it recovered as planned.

mod outcome;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use seawall_core::{Code, Error, Lsn, Result, ResultExt, TimelineId};
use seawall_pgdata::control::{ControlFile, DbState, NO_CHECKPOINT};
use seawall_pgwire::{Config, Connection, Environment};
use tokio::time::sleep;

use super::durable::local;
use super::{Mode, RestorePlan, TargetAction};
use crate::cluster::read_control;

pub use programs::find_programs;

/// How often the server is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// `pg_ctl` has gone before `postmaster.pid` is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of the server's log an error shows.
const LOG_LINES: usize = 20;

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
/// [`Code::RestoredServerFailed`], with the end of the server's log.
pub async fn start(options: &StartOptions, plan: &RestorePlan) -> Result<Recovered> {
    let server = Server { options, plan };
    let waited = match server.launch() {
        Ok(()) => server.wait().await,
        Err(error) => Err(error),
    };
    waited.map_err(|error| server.with_log(error))
}

/// Ends the pause of a restored cluster: it takes writes then.
///
/// # Errors
/// [`Code::RestoredServerFailed`] if it does not come up within `timeout`; those of the connection.
pub async fn promote(data_directory: &Path, user: &str, timeout: Duration) -> Result<()> {
    let file = PostmasterFile::read(data_directory).ok_or_else(|| {
        Error::new(
            Code::RestoredServerFailed,
            format!("no server runs in {}", data_directory.display()),
        )
        .with_hint("Start it first; it pauses again at its target.")
    })?;
    let mut connection = connect(&file.socket_directory, file.port, user).await?;
    connection.simple_query("SELECT pg_catalog.pg_wal_replay_resume()").await?;
    connection.close().await;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if read_control(data_directory)?.state == DbState::InProduction {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(Error::new(
        Code::RestoredServerFailed,
        format!("the server was not promoted within {} s", timeout.as_secs()),
    )
    .with_hint("Look at the server's log."))
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
        let option =
            |(name, value): (&str, String)| format!("-c '{name}={}'", value.replace('\'', r"'\''"));
        settings.into_iter().map(option).collect::<Vec<_>>().join(" ")
    }

    async fn wait(&self) -> Result<Recovered> {
        let began = Instant::now();
        let mut seen = false;
        while began.elapsed() < self.options.timeout {
            // In this order: what a server wrote before it went is there to be read.
            let running = PostmasterFile::read(&self.options.data_directory).is_some();
            seen |= running;
            if let Some(recovered) = self.look(running).await? {
                return Ok(recovered);
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
    async fn look(&self, running: bool) -> Result<Option<Recovered>> {
        let control = read_control(&self.options.data_directory)?;
        if control.checkpoint == NO_CHECKPOINT {
            // Still as it was restored; its state is that of the server that was backed up.
            return Ok(None);
        }
        let segment_size = control.wal_segment_size;
        let prove =
            |lsn| outcome::prove_end(self.plan, control.major, lsn, segment_size).map(|()| lsn);
        match (self.plan.then, control.state) {
            (TargetAction::Promote, DbState::InProduction) => {
                let (timeline, end) = outcome::end_of_recovery(
                    &self.options.data_directory,
                    self.plan.timeline,
                    segment_size,
                )?;
                Ok(Some(Recovered::Promoted { timeline, replayed_to: prove(end)? }))
            }
            (_, DbState::InProduction) => {
                Err(failed("the restored server takes writes, which was not planned".to_owned()))
            }
            (TargetAction::Pause, DbState::InArchiveRecovery) if running => {
                match self.paused_at().await? {
                    Some(lsn) => Ok(Some(Recovered::Paused { replayed_to: prove(lsn)? })),
                    None => Ok(None),
                }
            }
            (TargetAction::Shutdown, DbState::ShutDownInRecovery) if !running => {
                let end = shutdown_position(&control);
                Ok(Some(Recovered::ShutDown { replayed_to: prove(end)? }))
            }
            _ => Ok(None),
        }
    }

    /// Where replay waits, if it does. Before it is consistent the server takes no connections.
    async fn paused_at(&self) -> Result<Option<Lsn>> {
        let StartOptions { socket_directory, port, user, data_directory, .. } = self.options;
        let readable = PostmasterFile::read(data_directory)
            .is_some_and(|file| matches!(file.status.as_str(), "ready" | "standby"));
        if !readable {
            return Ok(None);
        }
        let mut connection = connect(socket_directory, *port, user).await?;
        let sql = "SELECT CASE WHEN pg_catalog.pg_is_wal_replay_paused() \
                   THEN pg_catalog.pg_last_wal_replay_lsn() END";
        let lsn: Option<Lsn> = connection.query_value(sql).await?;
        connection.close().await;
        Ok(lsn)
    }

    fn with_log(&self, error: Error) -> Error {
        let log = fs::read(&self.options.log_file).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        if tail.is_empty() || error.code() != Code::RestoredServerFailed {
            return error;
        }
        let log = self.options.log_file.display();
        let hint = error.hint().unwrap_or("Nothing was lost: the repository is as it was.");
        let shown = format!("{}\nthe end of {log}:\n{}", error.message(), tail.join("\n"));
        Error::new(Code::RestoredServerFailed, shown).with_hint(hint)
    }
}

/// A server that shuts down while it recovers notes how far it came (`CreateRestartPoint`, xlog.c).
const fn shutdown_position(control: &ControlFile) -> Lsn {
    control.min_recovery_point
}

fn failed(what: String) -> Error {
    Error::new(Code::RestoredServerFailed, what)
}

async fn connect(socket_directory: &Path, port: u16, user: &str) -> Result<Connection> {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let host = quoted(&socket_directory.display().to_string());
    let user = quoted(user);
    let conninfo =
        format!("host={host} port={port} user={user} dbname=postgres connect_timeout=10");
    let config = Config::parse(&conninfo, &Environment::of_process())
        .code(Code::ConninfoInvalid, || "the restored server cannot be reached".to_owned())?;
    Ok(Connection::connect(&config).await?)
}

/// What `postmaster.pid` of a live server says (pidfile.h, 12–18).
struct PostmasterFile {
    port: u16,
    socket_directory: PathBuf,
    status: String,
}

impl PostmasterFile {
    /// `None` if no server runs in the directory.
    fn read(data_directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
        let mut lines = text.lines().map(str::trim);
        let pid: i32 = lines.next()?.parse().ok()?;
        if matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH)) {
            return None;
        }
        // data directory and start time are between
        let port = lines.nth(2).and_then(|line| line.parse().ok()).unwrap_or_default();
        let socket_directory = PathBuf::from(lines.next().unwrap_or_default());
        let status = lines.nth(2).unwrap_or_default().to_owned();
        Some(Self { port, socket_directory, status })
    }
}
