//! Making a restored server take writes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use seawall_core::{Action, Code, Error, Lsn, Result, TimelineId, hint};
use seawall_pgdata::PgMajor;
use seawall_pgdata::control::DbState;
use seawall_pgwire::{Connection, PgError};
use tokio::time::sleep;

use super::archive_end::{Archives, LeftOut};
use super::databases::{Ended, Stretch, insist_on_all_pages, look_at_databases};
use super::{Login, PAUSE, RunningServer, outcome};
use crate::cluster::{PostmasterFile, read_control};
use crate::restore::lock::DirectoryLock;
use crate::restore::plan::warning_of_invalid_pages;
use crate::restored::{PromotionNote, RestorePlan, RestoreState};

/// A server is a standby as long as this file is in its data directory.
const STANDBY_SIGNAL: &str = "standby.signal";

/// For how long a standby may replay nothing before it is given up that it reaches the archive's
/// end.
const STALLED: Duration = Duration::from_secs(60);

/// How far replay has come.
const REPLAYED: &str = "SELECT pg_catalog.pg_last_wal_replay_lsn()";

/// Where replay waits, if it does.
const PAUSED: &str = "SELECT CASE WHEN pg_catalog.pg_is_wal_replay_paused() \
     THEN pg_catalog.pg_last_wal_replay_lsn() END";

/// What is to be promoted.
pub struct PromoteOptions<'o> {
    /// The data directory.
    pub data_directory: &'o Path,
    /// How it is logged in to: a superuser.
    pub login: &'o Login,
    /// How long it may take.
    pub timeout: Duration,
    /// Where the server logs, if a restore started it.
    pub log_file: &'o Path,
    /// Where its WAL is archived.
    pub archives: Archives,
    /// Promote it even if the archive has more, or cannot be asked.
    pub without_archive: bool,
}

/// What a promotion found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promoted {
    /// The server waited at its target, and takes writes now.
    Now {
        /// What a person should know.
        notes: Vec<String>,
    },
    /// The server was a standby, and takes writes now in place of its primary.
    Standby {
        /// What it left out.
        left_out: LeftOut,
        /// Whether the number of its timeline may be taken in the archive.
        number_in_doubt: bool,
    },
    /// It took writes already.
    Before,
}

/// Makes a restored cluster take writes: ends its pause, or promotes it if it is a standby. One that
/// takes writes already is left alone.
///
/// A standby is proven first to have replayed all that is archived on its way, and a restore to have
/// come to its planned end.
///
/// # Errors
/// [`Code::Usage`] if there is no data directory; [`Code::RestoredServerFailed`] if no server runs
/// in it, it goes down, or it does not come up in time; [`Code::BehindArchive`] if the archive has
/// more than was replayed, cannot be asked, or has the number that the new timeline would get;
/// [`Code::OtherRestoreInterrupted`] while another
/// command moves or removes it; those of the connection.
pub async fn promote(options: &PromoteOptions<'_>) -> Result<Promoted> {
    let directory = options.data_directory;
    prove_data_directory(directory)?;
    // Asked first: PostgreSQL removes the file as it is promoted. What stops at a target may be moved
    // to another one by somebody else.
    let is_standby = directory.join(STANDBY_SIGNAL).exists();
    let _lock = if is_standby { None } else { Some(DirectoryLock::take(directory)?) };
    let server = running(directory)?;
    // One that was left behind says nothing of what is wanted now.
    PromotionNote::remove(directory)?;
    let mut connection = options.login.connect(&server.listening(), "postgres").await?;
    let state = RestoreState::read(directory)?;
    if !connection.query_value::<bool>("SELECT pg_catalog.pg_is_in_recovery()").await? {
        if let Some(state) = &state {
            insist_on_all_pages(&mut connection, &state.plan).await?;
        }
        connection.close().await;
        return Ok(Promoted::Before);
    }
    let deadline = Instant::now() + options.timeout;
    let mut promotion = Promotion { options, connection, state, deadline };
    let promoted = if is_standby {
        promotion.of_standby(&server).await
    } else {
        promotion.of_paused(&server).await
    };
    promotion.connection.close().await;
    let removed = PromotionNote::remove(directory);
    promoted.and_then(|promoted| removed.map(|()| promoted))
}

struct Promotion<'o> {
    options: &'o PromoteOptions<'o>,
    connection: Connection,
    state: Option<RestoreState>,
    deadline: Instant,
}

impl Promotion<'_> {
    async fn of_standby(&mut self, server: &PostmasterFile) -> Result<Promoted> {
        self.prove_number_free().await?;
        let left_out = self.reach_end_of_archive().await?;
        // Another server may have begun a timeline meanwhile.
        let is_number_free = self.prove_number_free().await?;
        if self.options.without_archive {
            PromotionNote::write(self.options.data_directory, server)?;
        }
        end_pause(&mut self.connection).await?;
        let promoted = self.connection.simple_query("SELECT pg_catalog.pg_promote(false)").await;
        promoted.map_err(only_a_superuser)?;
        self.wait_for_writes(false).await?;
        let all_replayed = matches!(left_out, LeftOut::Nothing { .. });
        Ok(Promoted::Standby { left_out, number_in_doubt: !(is_number_free && all_replayed) })
    }

    /// Proves that the server's timeline will get a number that the archive does not have. PostgreSQL
    /// sees to that itself, by asking for histories, if it has a `restore_command`; `false` if it has
    /// none and is to be promoted all the same.
    async fn prove_number_free(&mut self) -> Result<bool> {
        let asks = "SELECT pg_catalog.current_setting('restore_command') <> ''";
        if self.connection.query_value(asks).await? {
            return Ok(true);
        }
        let options = self.options;
        match options.archives.unknown_timeline(options.data_directory).await {
            Ok(None) => Ok(true),
            Ok(Some(_)) | Err(_) if options.without_archive => Ok(false),
            Ok(Some(taken)) => Err(number_taken(options.data_directory, taken)?),
            Err(error) => {
                let replayed = replayed(&mut self.connection).await?;
                Err(cannot_ask(options.data_directory, replayed, &error))
            }
        }
    }

    /// Waits until all is replayed that is archived on the standby's way; says what is left out if
    /// it shall not be waited for.
    async fn reach_end_of_archive(&mut self) -> Result<LeftOut> {
        let options = self.options;
        let (archives, directory) = (&options.archives, options.data_directory);
        loop {
            let replayed = replayed(&mut self.connection).await?;
            // Read again after every wait: it may have grown.
            let state = self.state.as_ref();
            let left_out = match archives.end_ahead_of(directory, state, replayed).await {
                Ok(end) => end,
                Err(_) if options.without_archive => {
                    return Ok(LeftOut::Unknown { after: replayed });
                }
                Err(error) => return Err(cannot_ask(directory, replayed, &error)),
            };
            match left_out {
                LeftOut::Archived { .. } if options.without_archive => return Ok(left_out),
                LeftOut::Archived { to, .. } => {
                    if !self.replay_up_to(to).await? {
                        return Err(behind(directory, left_out));
                    }
                }
                LeftOut::BehindHole { .. } if !options.without_archive => {
                    return Err(behind(directory, left_out));
                }
                LeftOut::Nothing { .. } | LeftOut::BehindHole { .. } | LeftOut::Unknown { .. } => {
                    return Ok(left_out);
                }
            }
        }
    }

    /// Waits until replay is there; `false` if it does not come further.
    async fn replay_up_to(&mut self, end: Lsn) -> Result<bool> {
        let (mut last, mut moved) = (None, Instant::now());
        loop {
            running(self.options.data_directory)?;
            end_pause(&mut self.connection).await?;
            let replayed = replayed(&mut self.connection).await?;
            if replayed >= end {
                return Ok(true);
            }
            if last.replace(replayed) != Some(replayed) {
                moved = Instant::now();
            }
            if moved.elapsed() > STALLED || Instant::now() > self.deadline {
                return Ok(false);
            }
            sleep(PAUSE).await;
        }
    }

    async fn of_paused(&mut self, server: &PostmasterFile) -> Result<Promoted> {
        let directory = self.options.data_directory;
        let paused: Option<Lsn> = self.connection.query_value(PAUSED).await?;
        if let Some(error) = self.options.archives.away() {
            // PostgreSQL asks for the newest timeline before it begins another.
            let at = paused.filter(|_| self.options.without_archive);
            let Some(at) = at else {
                return Err(cannot_ask(directory, paused.unwrap_or_default(), error));
            };
            self.prove_end(at)?;
            PromotionNote::write(directory, server)?;
        }
        let log_bytes = fs::metadata(self.options.log_file).map_or(0, |file| file.len());
        end_pause(&mut self.connection).await?;
        self.wait_for_writes(true).await?;
        if let Some(plan) = self.plan()
            && let control = read_control(directory)?
            && let Some((_, end)) = outcome::end_of_recovery(directory, &control, plan.timeline)?
        {
            self.prove_end(end)?;
        }
        let notes = self.look_at_databases(log_bytes).await?;
        Ok(Promoted::Now { notes })
    }

    /// What was replayed until it waited was looked at by whoever started it. One that was started by
    /// hand logs where nobody knows.
    async fn look_at_databases(&mut self, log_bytes: u64) -> Result<Vec<String>> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        let directory = self.options.data_directory;
        if RunningServer::of(directory, state.restore_id) != RunningServer::Started {
            insist_on_all_pages(&mut self.connection, &state.plan).await?;
            let left_out = &state.plan.left_out_databases;
            let is_unknown = state.plan.ignores_invalid_pages && !left_out.is_empty();
            return Ok(is_unknown
                .then(|| warning_of_invalid_pages(left_out))
                .into_iter()
                .collect());
        }
        look_at_databases(&Stretch {
            data_directory: directory,
            login: self.options.login,
            log: (self.options.log_file, log_bytes),
            plan: &state.plan,
            kept: &[],
            ended: Ended::TakesWrites,
        })
        .await
    }

    fn plan(&self) -> Option<&RestorePlan> {
        self.state.as_ref().map(|state| &state.plan)
    }

    fn prove_end(&self, replayed: Lsn) -> Result<()> {
        let Some(plan) = self.plan() else { return Ok(()) };
        let control = read_control(self.options.data_directory)?;
        outcome::prove_end(plan, control.major, replayed, control.wal_segment_size)
    }

    /// Waits until the server has ended recovery. One of which the replay waits at a target may come
    /// there only now; where recovery has just ended it refuses to be resumed.
    async fn wait_for_writes(&mut self, ends_pauses: bool) -> Result<()> {
        let directory = self.options.data_directory;
        while Instant::now() < self.deadline {
            // In this order: what a server wrote before it went is there to be read.
            let alive = running(directory);
            if read_control(directory)?.state == DbState::InProduction {
                return Ok(());
            }
            alive?;
            if ends_pauses && let Err(error) = end_pause(&mut self.connection).await {
                tracing::debug!("{}", error.chain());
            }
            sleep(PAUSE).await;
        }
        let seconds = self.options.timeout.as_secs();
        Err(Error::new(
            Code::RestoredServerFailed,
            format!("the server was not promoted within {seconds} s"),
        )
        .with_hint("It goes on; its log tells what it waits for. `pg_ctl stop` takes the promotion back: the next start is a recovery again."))
    }
}

/// The server of a data directory.
fn running(data_directory: &Path) -> Result<PostmasterFile> {
    PostmasterFile::read(data_directory).ok_or_else(|| {
        let shown = data_directory.display();
        Error::new(Code::RestoredServerFailed, format!("no server runs in {shown}")).with_hint(
            format!("Its log tells why. Start it: `pg_ctl start -D {shown}`; it goes on recovering, and is then promoted by this command."),
        )
    })
}

/// Where replay waits, if it does.
///
/// # Errors
/// Those of the connection.
pub(in crate::restore) async fn replay_waits_at(
    server: &PostmasterFile,
    login: &Login,
) -> Result<Option<Lsn>> {
    let mut connection = login.connect(&server.listening(), "postgres").await?;
    let recovers = "SELECT pg_catalog.pg_is_in_recovery()";
    let waits = connection.query_value::<bool>(recovers).await?;
    let lsn = if waits { connection.query_value(PAUSED).await? } else { None };
    connection.close().await;
    Ok(lsn)
}

async fn replayed(connection: &mut Connection) -> Result<Lsn> {
    Ok(connection.query_value::<Option<Lsn>>(REPLAYED).await?.unwrap_or_default())
}

/// Not asked of a server that does not wait: from 13 on it is an error while it is promoted.
async fn end_pause(connection: &mut Connection) -> Result<()> {
    let waits = "SELECT pg_catalog.pg_is_wal_replay_paused()";
    if connection.query_value::<bool>(waits).await? {
        let resumed = connection.simple_query("SELECT pg_catalog.pg_wal_replay_resume()").await;
        resumed.map_err(only_a_superuser)?;
    }
    Ok(())
}

/// A server in recovery takes no GRANT, so that its superuser is who is left to ask.
fn only_a_superuser(error: PgError) -> Error {
    // insufficient_privilege (errcodes.txt)
    let refused = error.sqlstate() == Some("42501");
    let error = Error::from(error);
    if refused {
        error.with_hint("A server in recovery takes no GRANT: run this again as its superuser, such as with `--user postgres`.")
    } else {
        error
    }
}

fn cannot_ask(directory: &Path, replayed: Lsn, error: &Error) -> Error {
    let what = format!(
        "the server has replayed up to LSN {replayed}, and whether that is all cannot be told: {}",
        error.chain()
    );
    Error::new(Code::BehindArchive, what).with_hint(hint![
        "Nothing was changed. Make the repository reachable, or name another: `--repo URL --key FILE`, `--kit FILE`. If it is lost: ",
        without_archive(directory),
        "; whatever was archived and not replayed is then left out."
    ])
}

fn behind(directory: &Path, left_out: LeftOut) -> Error {
    Error::new(Code::BehindArchive, format!("the standby would leave out {left_out}")).with_hint(hint![
        "It is still a standby. Its log tells why it does not replay on: `recovery_min_apply_delay`, a query it waits for, or `restore_command`. To do without: ",
        without_archive(directory),
        "."
    ])
}

/// The standby would begin a timeline of a number that is taken.
fn number_taken(directory: &Path, taken: TimelineId) -> Result<Error> {
    let what = format!(
        "the standby has no restore_command to ask the archive with, and knows nothing of timeline {taken}, which the archive has: it would begin another one of that number"
    );
    // It takes effect without a restart since 14.
    let takes_effect = if read_control(directory)?.major < PgMajor::V14 {
        format!("then restart it: `pg_ctl restart -D {}`", directory.display())
    } else {
        "then `SELECT pg_catalog.pg_reload_conf();`".to_owned()
    };
    Ok(Error::new(Code::BehindArchive, what).with_hint(hint![
        "Nothing was changed. Set restore_command there, `ALTER SYSTEM SET restore_command = '…';`, to ",
        Action::RestoreCommand { names_repository: false, standby: true },
        format!(", {takes_effect}, and run this again. To do without: "),
        without_archive(directory),
        "; `wal push` may then refuse what the server archives, until ",
        Action::Adopt { cluster: None },
        " gives it a line of its own."
    ]))
}

fn without_archive(directory: &Path) -> Action {
    Action::Promote { directory: Some(directory.into()), without_archive: true }
}

fn prove_data_directory(path: &Path) -> Result<()> {
    let Err(error) = fs::metadata(path.join("PG_VERSION")) else { return Ok(()) };
    let shown = path.display();
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Err(Error::new(Code::WrongUser, format!("cannot look into {shown}"))
            .with_source(error)
            .with_hint(hint![
                "Run this as the user PostgreSQL runs as: with `sudo -u postgres` before ",
                Action::Promote { directory: Some(path.into()), without_archive: false },
                "."
            ]));
    }
    let what = if path.is_dir() { "is not a data directory" } else { "is not a directory" };
    Err(Error::new(Code::Usage, format!("{shown} {what}")).with_hint(hint![
        "Name the directory that was restored: the DIR of ",
        Action::Restore { waits: false },
        "."
    ]))
}
