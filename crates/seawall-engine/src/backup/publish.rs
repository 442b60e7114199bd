//! What happens after the last file is copied.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, Error, Lsn, Progress, Result, ResultExt, Stage, TimelineId};
use seawall_pgdata::backup_label::BackupLabel;
use seawall_pgdata::control::{ControlFile, invalidate_checkpoint};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{BackupInfo, BackupKind, BackupSource, Commit, Database};
use seawall_repo::wal::{Detail, LogStep, LsnRange, WalArchive};
use seawall_store::ObjectPath;

use super::collector::Collected;
use super::config_files::config_files;
use super::file_copies::{is_file_copy, lost_databases};
use super::start::Look;
use super::{BackupRequest, again};
use crate::cluster::{BackupSession, Server, Stopped, TablespaceLinks, read_control_bytes};
use crate::delivery::WalNeeded;
use crate::liveness::{Life, life_of, oldest_running};

/// What a push of WAL left in the repository and did not touch for so long is nobody's: it has no
/// records that would tell that it lives.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(24);

/// A writer's first record is written before its first file, as far as clocks of seconds can tell.
const WRITER_BEGINS: SignedDuration = SignedDuration::from_secs(60);

/// A copy that is complete and not published.
pub(super) struct Copied {
    pub id: BackupId,
    pub started: Timestamp,
    pub resumed: Option<BackupId>,
    pub dead: Vec<BackupId>,
    pub session: BackupSession,
    pub tablespaces: TablespaceLinks,
    pub collected: Collected,
}

/// Where the published backup begins and ends.
#[derive(Debug)]
pub(super) struct Published {
    pub start_lsn: Lsn,
    pub stop_lsn: Lsn,
    pub timeline: TimelineId,
}

/// Ends the backup in PostgreSQL, proves that its WAL has arrived, and publishes it.
pub(super) async fn publish(
    line: &Line,
    request: &BackupRequest,
    look: &Look,
    copied: Copied,
    progress: &dyn Progress,
) -> Result<Published> {
    let (control, pg_control) = control_file(look)?;
    let Copied { id, started, resumed, dead, session, tablespaces, collected } = copied;
    let Collected { mut journal, parts, totals } = collected;
    let (start_lsn, timeline) = (session.start_lsn, session.start_timeline);
    let (stopped, mut server) = journal.keep_alive(line, session.stop()).await?;
    prove_label(&stopped, start_lsn, timeline)?;
    prove_tablespaces(&stopped, &tablespaces)?;

    progress.stage(Stage::WaitingForWal, None);
    let archive = WalArchive::open(line.clone()).await?;
    let ancestry = archive.ancestry(timeline).await?;
    let needed = WalNeeded { archive: &archive, ancestry: &ancestry, from: start_lsn };
    let delivery = request.delivery();
    let arrival = delivery.wait_for(needed, stopped.stop_lsn, &mut server, progress);
    journal.keep_alive(line, arrival).await?;
    let window = LsnRange { start: start_lsn, end: stopped.stop_lsn };
    let whole = prove_whole_wal(&archive, &ancestry, window);
    let has_file_copies = journal.keep_alive(line, whole).await?;
    prove_own_wal(&archive, &ancestry, start_lsn, stopped.stop_lsn).await?;
    if has_file_copies {
        let proof = prove_file_copies(&archive, &ancestry, window, &look.databases, &mut server);
        journal.keep_alive(line, proof).await?;
    }
    server.close().await;

    let external_files = config_files(&look.facts)?.external;
    let now = Timestamp::now();
    let now_of_store = journal.beat(line).await?;
    let asked = Instant::now();
    fence_dead(line, &dead, now_of_store, now).await?;
    let path = line.paths().path(&LineObject::Backup(id, 0))?;
    let head = line.write_head(&path, now).await?;
    let info = BackupInfo {
        id: id.0,
        generation: 0,
        kind: BackupKind::Full,
        source: BackupSource::Files,
        cluster: line.cluster().to_string(),
        system_id: line.id().system_id,
        branch: line.id().branch,
        major: look.facts.major.number(),
        start_lsn,
        start_timeline: timeline,
        stop_lsn: stopped.stop_lsn,
        stop_timeline: timeline,
        started_us: started.as_microsecond(),
        finished_us: now.as_microsecond(),
        from_standby: false,
        backup_label: stopped.backup_label.into(),
        tablespace_map: stopped.tablespace_map.into(),
        pg_control: pg_control.into(),
        external_files,
        left_out: totals.left_out,
        page_errors: totals.page_errors,
        page_error_count: totals.page_error_count,
        required_features: Vec::new(),
        cluster_bytes: totals.cluster_bytes,
        read_bytes: totals.read_bytes,
        stored_bytes: totals.stored_bytes,
        files: totals.files,
        parent: resumed.map(|id| id.0),
        annotations: request.annotations.clone(),
        head: Some(head),
        program: request.program.clone(),
        data_checksums: look.facts.data_checksums,
        wal_segment_bytes: control.wal_segment_size.into(),
        relation_segment_blocks: control.relseg_size,
        databases: Some(look.databases.clone()),
    };
    commit(line, &path, &Commit { info, parts }).await?;
    if let Err(error) = line.sweep_pins().await {
        // The backup is published; the next one sweeps again.
        tracing::warn!(error = error.chain(), "the pins of the backup were not removed");
    }
    if let Err(error) = sweep_left_behind(line, now_of_store, asked).await {
        tracing::warn!(
            error = error.chain(),
            "what killed writers left in the repository was not removed"
        );
    }
    Ok(Published { start_lsn, stop_lsn: stopped.stop_lsn, timeline })
}

/// Makes the backup. All that the commit names is durable.
async fn commit(line: &Line, path: &ObjectPath, commit: &Commit) -> Result<()> {
    match line.repository().create_record(path, commit).await {
        Err(error) if error.code() == Code::ObjectExists => {
            Err(Error::new(Code::BackupAborted, "another process declared this backup dead")
                .with_source(error)
                .with_hint(again()))
        }
        made => made,
    }
}

/// Declares dead, of the attempts that seemed so when this backup began, those that do still.
async fn fence_dead(
    line: &Line,
    dead: &[BackupId],
    now_of_store: Timestamp,
    now: Timestamp,
) -> Result<()> {
    if dead.is_empty() {
        return Ok(());
    }
    for attempt in line.attempts().await?.iter().filter(|attempt| dead.contains(&attempt.id)) {
        if life_of(line, attempt, now_of_store).await? == Life::Ended {
            fence(line, attempt.id, now).await?;
        }
    }
    Ok(())
}

/// Removes unfinished files that are nobody's. A backup may take days: what is younger than the
/// oldest one that still runs, in any line, may be its own.
async fn sweep_left_behind(line: &Line, now_of_store: Timestamp, asked: Instant) -> Result<()> {
    let mut oldest: Option<Timestamp> = None;
    let repository = line.repository();
    for (cluster, id) in repository.lines().await? {
        let line = repository.line(&cluster, id)?;
        if let Some(began) = oldest_running(&line, now_of_store).await? {
            oldest = Some(oldest.map_or(began, |oldest| oldest.min(began)));
        }
    }
    // The store counts until it deletes, and to publish may have taken long.
    let now_of_store = now_of_store + asked.elapsed();
    let since = oldest.map(|began| now_of_store.duration_since(began) + WRITER_BEGINS);
    let older_than = since.map_or(LEFT_BEHIND, |since| since.max(LEFT_BEHIND));
    line.store().sweep_unfinished(older_than.unsigned_abs()).await?;
    Ok(())
}

/// Declares an attempt dead. If another backup did so meanwhile, or it ended after all, so be it.
async fn fence(line: &Line, attempt: BackupId, now: Timestamp) -> Result<()> {
    match line.fence(attempt, now, "its process ended before the backup was complete").await {
        Err(error) if error.code() == Code::ObjectExists => Ok(()),
        other => other,
    }
}

/// The stored `pg_control` cannot start a server without its `backup_label`.
fn control_file(look: &Look) -> Result<(ControlFile, Vec<u8>)> {
    let (control, mut bytes) = read_control_bytes(&look.data_directory)?;
    if control.system_id != look.control.system_id {
        return Err(Error::new(
            Code::ClusterMismatch,
            format!("another cluster stands in {} now", look.data_directory.display()),
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
fn prove_tablespaces(stopped: &Stopped, copied: &TablespaceLinks) -> Result<()> {
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

/// Names said that the WAL is there. Its footers say so too, and that one range continues the other.
/// Returns whether a database was copied as files meanwhile.
async fn prove_whole_wal(
    archive: &WalArchive,
    ancestry: &Ancestry,
    window: LsnRange,
) -> Result<bool> {
    let mut walker = archive.walk(ancestry, window.start, window.end, Detail::Events);
    let mut has_file_copies = false;
    while let Some(step) = walker.next().await? {
        match step {
            LogStep::Range { index, .. } => {
                has_file_copies |= index.facts.events.iter().any(is_file_copy);
            }
            LogStep::Hole(hole) => return Err(hole.into_error()),
        }
    }
    Ok(has_file_copies)
}

/// Proves that replay can copy what was copied as files while the backup ran. `known` are the
/// databases there were when it began.
async fn prove_file_copies(
    archive: &WalArchive,
    ancestry: &Ancestry,
    window: LsnRange,
    known: &[Database],
    server: &mut Server,
) -> Result<()> {
    let lost = lost_databases(archive, ancestry, window).await?;
    if lost.is_empty() {
        return Ok(());
    }
    // Some were dropped, some are new.
    Err(lost.error(&[known, &server.databases().await?].concat()))
}

/// Proves that the archived WAL is that of this server: what bears the same timeline and positions
/// may come from before the server was set back, or from another one. Its end names the backup.
async fn prove_own_wal(
    archive: &WalArchive,
    ancestry: &Ancestry,
    start_lsn: Lsn,
    stop_lsn: Lsn,
) -> Result<()> {
    let found = archive.backup_that_ended_at(ancestry, stop_lsn).await?;
    if found == Some(start_lsn) {
        return Ok(());
    }
    Err(Error::new(
        Code::WalConflict,
        format!(
            "the WAL archived at {stop_lsn} on timeline {} is not this server's: it does not tell the end of this backup",
            ancestry.tip()
        ),
    )
    .with_hint(
        "Two servers write this timeline, or one was set back. Stop the wrong one; a cluster that was set back on purpose needs a line of its own.",
    ))
}
