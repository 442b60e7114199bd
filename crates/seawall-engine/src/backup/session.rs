//! The backup as PostgreSQL knows it: one session, whatever the number of destinations.

use std::path::Path;

use seawall_core::{BackupId, Code, Error, Lsn, Result, ResultExt, TimelineId};
use seawall_pgdata::backup_label::BackupLabel;
use seawall_pgdata::control::{ControlFile, invalidate_checkpoint};
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::manifest::ExternalFile;

use super::again;
use super::config_files::config_files;
use super::destination::Start;
use super::look::Seen;
use super::request::BackupRequest;
use crate::cluster::{
    BackupSession, Server, Stopped, TablespaceLinks, prove_tablespaces, read_control,
    read_control_bytes,
};

/// A backup that PostgreSQL has begun.
pub(super) struct Begun {
    pub session: BackupSession,
    /// The tablespaces behind links, as soon as PostgreSQL had made its own list.
    pub tablespaces: TablespaceLinks,
}

/// A backup that PostgreSQL has ended: what each commit says of it.
#[derive(Debug)]
pub(super) struct Ended {
    pub start_lsn: Lsn,
    pub timeline: TimelineId,
    pub stopped: Stopped,
    pub control: ControlFile,
    /// `pg_control` as it is stored: no server starts with it without its `backup_label`.
    pub pg_control: Vec<u8>,
    /// Configuration outside the data directory.
    pub external_files: Vec<ExternalFile>,
}

/// Begins the backup in PostgreSQL.
///
/// # Errors
/// Those of the server; [`Code::ClusterMismatch`] when the files are not its own.
pub(super) async fn begin(request: &BackupRequest, seen: &Seen, id: BackupId) -> Result<Begun> {
    let server = Server::connect(&request.connection).await?;
    let label = format!("seawall {id}");
    // A checkpoint that is spread takes its time.
    let mut session = BackupSession::start(server, &label, request.fast_checkpoint).await?;
    let tablespaces = TablespaceLinks::of(&seen.data_directory)?;
    // Once more: they may have come since the look.
    prove_tablespaces(session.server(), &seen.data_directory, &tablespaces).await?;
    let control = read_control(&seen.data_directory)?;
    prove_directory(&control, session.start_lsn, session.start_timeline, &seen.data_directory)?;
    Ok(Begun { session, tablespaces })
}

impl Begun {
    /// Where it began.
    pub const fn start(&self) -> Start {
        Start { lsn: self.session.start_lsn, timeline: self.session.start_timeline }
    }

    /// Ends the backup in PostgreSQL, after the last file was copied.
    ///
    /// # Errors
    /// [`Code::BackupAborted`] when PostgreSQL ended another backup or none, and those of server and
    /// files.
    pub async fn end(self, seen: &Seen) -> Result<(Ended, Server)> {
        let (control, pg_control) = control_file(seen)?;
        let Self { session, tablespaces } = self;
        let (start_lsn, timeline) = (session.start_lsn, session.start_timeline);
        let (stopped, server) = session.stop().await?;
        prove_label(&stopped, start_lsn, timeline)?;
        prove_map(&stopped, &tablespaces)?;
        let external_files = config_files(&seen.facts)?.external;
        let ended = Ended { start_lsn, timeline, stopped, control, pg_control, external_files };
        Ok((ended, server))
    }
}

/// Proves that the files are the server's own, and not those of a copy with the same identifier:
/// the checkpoint that began the backup stands in `pg_control`.
fn prove_directory(
    control: &ControlFile,
    start_lsn: Lsn,
    timeline: TimelineId,
    data_directory: &Path,
) -> Result<()> {
    if control.redo >= start_lsn && control.checkpoint_timeline == timeline {
        return Ok(());
    }
    Err(Error::new(
        Code::ClusterMismatch,
        format!(
            "the server began the backup at {start_lsn} on timeline {timeline}, and {} stands at {} on timeline {}: it belongs to another copy of the cluster",
            data_directory.display(),
            control.redo,
            control.checkpoint_timeline
        ),
    )
    .with_hint(
        "Set `data_directory` to where this server's files are: `SHOW data_directory;`.",
    ))
}

/// The stored `pg_control` cannot start a server without its `backup_label`.
fn control_file(seen: &Seen) -> Result<(ControlFile, Vec<u8>)> {
    let (control, mut bytes) = read_control_bytes(&seen.data_directory)?;
    if control.system_id != seen.control.system_id {
        return Err(Error::new(
            Code::ClusterMismatch,
            format!("another cluster stands in {} now", seen.data_directory.display()),
        ));
    }
    invalidate_checkpoint(&mut bytes)
        .code(Code::ControlFileInvalid, || "cannot prepare pg_control".to_owned())?;
    Ok((control, bytes))
}

fn prove_label(stopped: &Stopped, start_lsn: Lsn, timeline: TimelineId) -> Result<()> {
    let label = BackupLabel::parse(&stopped.backup_label).code(Code::BackupAborted, || {
        "PostgreSQL gave a backup_label that cannot be read".to_owned()
    })?;
    if label.start_lsn == start_lsn && label.start_timeline == timeline {
        return Ok(());
    }
    Err(Error::new(
        Code::BackupAborted,
        format!(
            "PostgreSQL's backup_label is of a backup from {} on timeline {}, not from {start_lsn} on {timeline}",
            label.start_lsn, label.start_timeline
        ),
    ))
}

/// Proves that PostgreSQL's `tablespace_map` has every tablespace that was copied. One that came
/// between its list and ours was copied, and replay would stumble over it.
fn prove_map(stopped: &Stopped, copied: &TablespaceLinks) -> Result<()> {
    let map = TablespaceMap::parse(&stopped.tablespace_map).code(Code::BackupAborted, || {
        "PostgreSQL gave a tablespace_map that cannot be read".to_owned()
    })?;
    match copied.oids().find(|oid| map.get(*oid).is_none()) {
        None => Ok(()),
        Some(oid) => Err(Error::new(
            Code::BackupAborted,
            format!("tablespace {oid} was created at the moment the backup began"),
        )
        .with_hint(again())),
    }
}
