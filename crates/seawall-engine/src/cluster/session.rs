use std::time::Duration;

use seawall_core::{Action, Code, Error, Lsn, Result, TimelineId, hint};
use seawall_pgdata::PgMajor;
use seawall_pgwire::{PgError, quote_literal};

use super::Server;
use super::bytes::{bytes_of, hex_of};

/// What writing all of a large `shared_buffers` to slow disks may take.
const CHECKPOINT: Duration = Duration::from_secs(2 * 3600);

/// The most that `checkpoint_timeout` can be (guc_parameters.dat, 18).
const CHECKPOINT_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A backup of hours is not given up because the server's disks are busy for minutes.
const ANSWER_OF_A_BUSY_SERVER: Duration = Duration::from_secs(600);

/// A backup that PostgreSQL knows of: it lasts exactly as long as its session.
#[derive(Debug)]
pub struct BackupSession {
    server: Server,
    /// Where replay of the backup must begin.
    pub start_lsn: Lsn,
    /// The timeline of the start.
    pub start_timeline: TimelineId,
}

/// What PostgreSQL says at the end of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Where the cluster is consistent.
    pub stop_lsn: Lsn,
    /// The `backup_label`, byte for byte.
    pub backup_label: Vec<u8>,
    /// The `tablespace_map`, byte for byte; empty without tablespaces.
    pub tablespace_map: Vec<u8>,
}

impl BackupSession {
    /// Begins a backup. PostgreSQL makes a checkpoint first, at once if `fast`.
    ///
    /// # Errors
    /// Those of the server; [`Code::PrivilegeMissing`] without EXECUTE on the function.
    pub async fn start(mut server: Server, label: &str, fast: bool) -> Result<Self> {
        let label = quote_literal(label);
        // Before 15 the function's default is the exclusive mode, which a crash turns into a
        // cluster that does not start.
        let call = if server.major() >= PgMajor::V15 {
            format!("pg_catalog.pg_backup_start({label}::pg_catalog.text, {fast})")
        } else {
            format!("pg_catalog.pg_start_backup({label}::pg_catalog.text, {fast}, false)")
        };
        let sql = format!("select {call}");
        let time = checkpoint_time(&mut server, fast).await?;
        let start_lsn: Lsn = server.connection().within(time).query_value(&sql).await?;
        let timeline: String = server
            .connection()
            .query_value(&format!(
                "select pg_catalog.substr(pg_catalog.pg_walfile_name(\
                   '{start_lsn}'::pg_catalog.pg_lsn), 1, 8)"
            ))
            .await?;
        let start_timeline =
            u32::from_str_radix(&timeline, 16).map(TimelineId).map_err(|error| {
                Error::new(Code::QueryFailed, "pg_walfile_name gave no timeline").with_source(error)
            })?;
        Ok(Self { server, start_lsn, start_timeline })
    }

    /// Proves that the session, and with it the backup, still lives.
    ///
    /// # Errors
    /// [`Code::BackupAborted`] if it does not.
    pub async fn prove_alive(&mut self) -> Result<()> {
        let connection = self.server.connection();
        let alive: Result<i32, PgError> =
            connection.within(ANSWER_OF_A_BUSY_SERVER).query_value("select 1").await;
        alive.map(|_| ()).map_err(aborted)
    }

    /// The server, for questions while the backup runs.
    pub const fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Ends the backup. It does not wait for the archiver: the caller proves itself what arrived.
    ///
    /// # Errors
    /// [`Code::BackupAborted`] if the session was lost, and those of the server.
    pub async fn stop(mut self) -> Result<(Stopped, Server)> {
        let call = if self.server.major() >= PgMajor::V15 {
            "pg_catalog.pg_backup_stop(false)"
        } else {
            "pg_catalog.pg_stop_backup(false, false)"
        };
        let (label, map) = (hex_of("s.labelfile"), hex_of("s.spcmapfile"));
        let sql = format!("select s.lsn, {label} as labelfile, {map} as spcmapfile from {call} s");
        let connection = self.server.connection();
        let row = connection.within(ANSWER_OF_A_BUSY_SERVER).query_one(&sql).await;
        let row = row.map_err(aborted)?;
        let label = bytes_of(&row, "labelfile")?.ok_or_else(|| {
            Error::new(Code::BackupAborted, "PostgreSQL ended the backup without a backup_label")
                .with_hint(hint!["Run ", Action::Backup { cluster: None }, " again."])
        })?;
        let stopped = Stopped {
            stop_lsn: row.get("lsn").map_err(aborted)?,
            backup_label: label,
            // NULL where there are no tablespaces.
            tablespace_map: bytes_of(&row, "spcmapfile")?.unwrap_or_default(),
        };
        Ok((stopped, self.server))
    }
}

/// How long the start of a backup may take: as long as its checkpoint. A spread one takes most of
/// `checkpoint_timeout`, and one that is under way already comes first (`RequestCheckpoint`,
/// checkpointer.c).
///
/// # Errors
/// Those of the question.
async fn checkpoint_time(server: &mut Server, fast: bool) -> Result<Duration, PgError> {
    if fast {
        return Ok(CHECKPOINT);
    }
    let sql = "select pg_catalog.date_part('epoch', \
         pg_catalog.current_setting('checkpoint_timeout')::pg_catalog.interval)::pg_catalog.int8";
    let seconds: u64 = server.connection().query_value(sql).await?;
    Ok(CHECKPOINT + 2 * Duration::from_secs(seconds).min(CHECKPOINT_TIMEOUT_MAX))
}

fn aborted(error: PgError) -> Error {
    Error::new(Code::BackupAborted, "PostgreSQL ended the backup before it was complete")
        .with_source(error)
        .with_hint(hint![
            "The server was restarted, or ended the session: look at its log and run ",
            Action::Backup { cluster: None },
            " again; files already copied are not read again."
        ])
}
