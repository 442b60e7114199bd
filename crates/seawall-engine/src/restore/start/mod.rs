//! Starting a restored cluster, and proving that it recovered as planned.

mod archive_end;
mod databases;
mod listen;
mod log;
mod login;
mod outcome;
mod programs;
mod promote;
mod reasons;
mod stop;
mod watch;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seawall_core::{Code, Error, Lsn, Result, TimelineId, Ulid};
use seawall_pgdata::control::{ControlFile, DbState, NO_CHECKPOINT};
use seawall_pgwire::Connection;
use tokio::time::sleep;

use crate::cluster::{PostmasterFile, read_control};
use crate::durable::local;
use crate::restored::{Mode, RestorePlan, TargetAction};

pub use archive_end::{Archives, LeftOut};
pub use databases::{Ended, Stretch, look_at_databases};
pub use listen::Listen;
pub use login::{DEFAULT_ROLE, Login};
pub use programs::find_programs;
pub(in crate::restore) use promote::replay_waits_at;
pub use promote::{PromoteOptions, Promoted, promote};
pub(in crate::restore) use stop::{RunningServer, StopMode, server_of, stop};

use log::ServerLog;
use watch::{Since, StartupProcess};

/// How often the server is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// `pg_ctl` has gone before `postmaster.pid` is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a server that recovers is asked whether it has paused.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A server that has replayed what is archived can be read at once, or not for long.
const READABLE_WITHIN: Duration = Duration::from_secs(5);

/// How long replay may wait for one segment: a large one over a slow network takes minutes. One that
/// cannot be had ends recovery at once.
const WAL_WITHIN: Duration = Duration::from_secs(600);

/// The setting by which a server is known that was started here (a custom one, guc.c); its value is
/// the restore's id.
const STARTED_FOR: &str = "seawall.restore_id";

/// How far replay has come, and whether it waits there, as long as there is any.
const REPLAY: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_last_wal_replay_lsn() END AS lsn, \
     CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_is_wal_replay_paused() END AS is_paused";

/// How to start a restored cluster.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The data directory.
    pub data_directory: PathBuf,
    /// The directory of PostgreSQL's programs; see [`find_programs`].
    pub programs: PathBuf,
    /// The port to listen on, if not the configured one.
    pub port: Option<u16>,
    /// The directory of the Unix socket, if not the configured ones.
    pub socket_directory: Option<PathBuf>,
    /// Where the server's output goes.
    pub log_file: PathBuf,
    /// The restore whose server it is.
    pub restore_id: Ulid,
    /// Who asks the server whether replay has paused: a superuser.
    pub login: Login,
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
    let mut server = RestoredServer {
        options,
        plan,
        log: ServerLog::from_now(&options.data_directory, &options.log_file),
        asked: None,
        waits_for: Since::default(),
    };
    let waited = match server.launch() {
        Ok(()) => server.wait().await,
        Err(error) => Err(error),
    };
    waited.map_err(|error| server.log.shown_with(error))
}

struct RestoredServer<'s> {
    options: &'s StartOptions,
    plan: &'s RestorePlan,
    log: ServerLog,
    /// When it was last asked whether it has paused.
    asked: Option<Instant>,
    /// The segment that replay waits for.
    waits_for: Since<Lsn>,
}

impl RestoredServer<'_> {
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
        let mut settings = vec![(STARTED_FOR, self.options.restore_id.to_string())];
        settings.extend(port.map(|port| ("port", port.to_string())));
        let directory = socket_directory.as_ref().map(|it| it.display().to_string());
        settings.extend(directory.map(|directory| ("unix_socket_directories", directory)));
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

    async fn wait(&mut self) -> Result<Recovered> {
        let began = Instant::now();
        let mut seen = false;
        let mut unclear: Option<Instant> = None;
        while began.elapsed() < self.options.timeout {
            // In this order: what a server wrote before it went is there to be read.
            let running = PostmasterFile::read(&self.options.data_directory);
            seen |= running.is_some();
            match self.look(running.as_ref()).await? {
                Look::Decided(recovered) => return Ok(recovered),
                Look::Undecided => unclear = None,
                Look::Unclear(error) => {
                    if unclear.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
            }
            if running.is_none() && (seen || began.elapsed() > PATIENCE) {
                return Err(reasons::ended(&self.log));
            }
            sleep(PAUSE).await;
        }
        let seconds = self.options.timeout.as_secs();
        Err(failed(format!("the restored server did not recover within {seconds} s"))
            .with_hint("It goes on recovering; wait longer, or look at its log."))
    }

    /// What has become of it, if that is decided.
    async fn look(&mut self, running: Option<&PostmasterFile>) -> Result<Look> {
        let control = read_control(&self.options.data_directory)?;
        if control.checkpoint == NO_CHECKPOINT {
            // Still as it was restored; its state is that of the server that was backed up.
            return Ok(Look::Undecided);
        }
        let prove = |lsn| self.prove_end(&control, lsn);
        if control.state == DbState::InArchiveRecovery {
            return match running {
                Some(running) => self.look_at_recovery(&control, running).await,
                None => Ok(Look::Undecided),
            };
        }
        let recovered = match (self.plan.then, control.state) {
            (TargetAction::Promote | TargetAction::Pause, DbState::InProduction)
                if self.plan.mode != Mode::Standby =>
            {
                let (directory, timeline) = (&self.options.data_directory, self.plan.timeline);
                match outcome::end_of_recovery(directory, &control, timeline)? {
                    Some((timeline, end)) if self.plan.then == TargetAction::Promote => {
                        Recovered::Promoted { timeline, replayed_to: prove(end)? }
                    }
                    Some((timeline, end)) => {
                        return Err(reasons::pause_skipped(timeline, prove(end)?));
                    }
                    None => return Ok(Look::Unclear(no_new_timeline(timeline))),
                }
            }
            (_, DbState::InProduction) => {
                return Err(failed(
                    "the restored server takes writes, which was not planned".to_owned(),
                ));
            }
            (TargetAction::Shutdown, DbState::ShutDownInRecovery) if running.is_none() => {
                Recovered::ShutDown { replayed_to: prove(shutdown_position(&control))? }
            }
            _ => return Ok(Look::Undecided),
        };
        Ok(Look::Decided(recovered))
    }

    fn prove_end(&self, control: &ControlFile, lsn: Lsn) -> Result<Lsn> {
        outcome::prove_end(self.plan, control.major, lsn, control.wal_segment_size).map(|()| lsn)
    }

    /// What a server that replays does: it waits where it should, goes on, or is stuck.
    async fn look_at_recovery(
        &mut self,
        control: &ControlFile,
        running: &PostmasterFile,
    ) -> Result<Look> {
        // Before it is consistent it takes no connections.
        let readable = matches!(running.status.as_str(), "ready" | "standby");
        let asked = if readable { self.ask_now_and_then(running).await } else { Ok(None) };
        let replay = match asked {
            Err(error) if error.code() != Code::RestoredServerFailed => {
                return Ok(Look::Unclear(reasons::cannot_ask(&self.options.login, &error)));
            }
            answer => answer?,
        };
        if let Some(replay) = replay {
            if self.plan.then == TargetAction::Pause && replay.is_paused {
                let replayed_to = self.prove_end(control, replay.lsn)?;
                return Ok(Look::Decided(Recovered::Paused { replayed_to }));
            }
            if replay.is_paused {
                return Err(reasons::paused(replay.lsn));
            }
            if self.plan.mode == Mode::Standby && replay.lsn >= self.plan.stop.kept_until() {
                return self.look_at_standby(control, replay.lsn);
            }
        }
        self.look_at_waiting(control, running, readable)?;
        Ok(Look::Undecided)
    }

    /// A standby has to go along the planned timeline, and to have replayed what was there.
    fn look_at_standby(&self, control: &ControlFile, replayed_to: Lsn) -> Result<Look> {
        Ok(match outcome::other_way(self.plan, &self.options.data_directory, control)? {
            None => Look::Decided(Recovered::Following { replayed_to }),
            Some(other) => Look::Unclear(went_another_way(other, self.plan.timeline)),
        })
    }

    /// Asks how far replay is, if it is time to. Where that does not decide, a server that cannot
    /// be asked goes on.
    async fn ask_now_and_then(&mut self, running: &PostmasterFile) -> Result<Option<Replay>> {
        let decides = self.plan.then == TargetAction::Pause || self.plan.mode == Mode::Standby;
        let every = if decides { PAUSE } else { ASK_EVERY };
        if self.asked.is_some_and(|asked| asked.elapsed() < every) {
            return Ok(None);
        }
        self.asked = Some(Instant::now());
        let asked = async {
            let mut connection =
                self.options.login.connect(&running.listening(), "postgres").await?;
            let replay = Replay::ask(&mut connection).await?;
            if replay.is_paused {
                // What it demands by now: it may have replayed on since it was looked at.
                let control = read_control(&self.options.data_directory)?;
                reasons::refuse_insufficient(&mut connection, &control).await?;
            }
            connection.close().await;
            Ok::<_, Error>(Some(replay))
        };
        match asked.await {
            Err(error) if !decides && error.code() != Code::RestoredServerFailed => {
                tracing::debug!("{}", error.chain());
                Ok(None)
            }
            answer => answer,
        }
    }

    /// Whether replay waits for WAL, or nobody can read what has been replayed.
    fn look_at_waiting(
        &mut self,
        control: &ControlFile,
        running: &PostmasterFile,
        readable: bool,
    ) -> Result<()> {
        let startup = StartupProcess::of(running.pid);
        let waits_for = startup.and_then(|startup| startup.waits_for(control.wal_segment_size));
        let waits = self.waits_for.is(waits_for);
        let Some(segment) = waits_for else { return Ok(()) };
        let has_replayed_all =
            self.plan.mode == Mode::Standby && segment >= self.plan.stop.kept_until();
        if has_replayed_all && !readable && waits > READABLE_WITHIN {
            return Err(reasons::not_readable(segment));
        }
        if !has_replayed_all && waits > WAL_WITHIN {
            return Err(reasons::no_wal(segment, waits));
        }
        Ok(())
    }
}

/// How far replay is.
struct Replay {
    lsn: Lsn,
    is_paused: bool,
}

impl Replay {
    /// Asks a server that has not recovered; of one that has, nothing has been replayed.
    async fn ask(connection: &mut Connection) -> Result<Self> {
        let row = connection.query_one(REPLAY).await?;
        let lsn: Option<Lsn> = row.get("lsn")?;
        let is_paused: Option<bool> = row.get("is_paused")?;
        Ok(Self { lsn: lsn.unwrap_or(Lsn::INVALID), is_paused: is_paused.unwrap_or(false) })
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
