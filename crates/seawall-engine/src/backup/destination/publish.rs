//! The end of a backup in one repository.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, Error, Lsn, Progress, Result, ResultExt};
use seawall_pgdata::history::Ancestry;
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{BackupInfo, BackupKind, BackupSource, Commit, Database};
use seawall_repo::wal::{Detail, LogStep, LsnRange, WalArchive};
use seawall_store::ObjectPath;

use super::collector::{Collected, LedOn, Totals};
use super::file_copies::{is_file_copy, lost_databases};
use super::journal::Journal;
use crate::backup::again;
use crate::backup::look::Seen;
use crate::backup::request::{BackupRequest, Destination};
use crate::backup::session::Ended;
use crate::delivery::{SharedServer, WalDelivery, WalNeeded};
use crate::liveness::{Life, life_of, oldest_running};
use crate::pace::Member;

/// What a push of WAL left in the repository and did not touch for so long is nobody's: it has no
/// records that would tell that it lives.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(24);

/// A writer's first record is written before its first file, as far as clocks of seconds can tell.
const WRITER_BEGINS: SignedDuration = SignedDuration::from_secs(60);

/// What every destination's commit says, beside what is its own.
#[derive(Clone, Copy)]
pub(in crate::backup) struct Whole<'b> {
    pub id: BackupId,
    pub started: Timestamp,
    pub request: &'b BackupRequest,
    pub delivery: &'b dyn WalDelivery,
    pub seen: &'b Seen,
    pub ended: &'b Ended,
}

/// A backup that is in a repository.
#[derive(Debug)]
pub(in crate::backup) struct Published {
    pub finished: Timestamp,
    pub resumed: Option<BackupId>,
    pub led_on: LedOn,
    pub totals: Totals,
}

/// Proves that a repository has the backup's WAL, and publishes the backup there. `server` answers
/// questions of several destinations.
pub(in crate::backup) async fn publish(
    destination: &Destination,
    whole: Whole<'_>,
    mut collected: Collected,
    server: &SharedServer<'_>,
    progress: &dyn Progress,
) -> Result<Published> {
    let line = &destination.line;
    let journal = &mut collected.journal;
    prove_wal(line, whole, journal, server, progress).await?;

    let now = Timestamp::now();
    let now_of_store = journal.beat(line).await?;
    let asked = Instant::now();
    fence_dead(line, &collected.dead, now_of_store, now).await?;
    let path = line.paths().path(&LineObject::Backup(whole.id, 0))?;
    let head = line.write_head(&path, now).await?;
    let Collected { parts, totals, resumed, led_on, .. } = collected;
    let mut info = whole.info(line, &totals, now);
    if let LedOn::From { parent, audited, .. } = &led_on {
        (info.kind, info.parent) = (BackupKind::Incremental, Some(parent.0));
        info.audit = Some(*audited);
    }
    info.head = Some(head);
    commit(line, path, Commit { info, parts }, whole.request.crew.member()).await?;
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
    Ok(Published { finished: now, resumed, led_on, totals })
}

impl Whole<'_> {
    /// What a commit in this line says. Who is the parent and which head names it is still to come.
    fn info(&self, line: &Line, totals: &Totals, finished: Timestamp) -> BackupInfo {
        let Self { id, started, request, seen, ended, .. } = self;
        let totals = totals.clone();
        BackupInfo {
            id: id.0,
            generation: 0,
            kind: BackupKind::Full,
            source: BackupSource::Files,
            cluster: line.cluster().to_string(),
            system_id: line.id().system_id,
            branch: line.id().branch,
            major: seen.facts.major.number(),
            start_lsn: ended.start_lsn,
            start_timeline: ended.timeline,
            stop_lsn: ended.stopped.stop_lsn,
            stop_timeline: ended.timeline,
            started_us: started.as_microsecond(),
            finished_us: finished.as_microsecond(),
            from_standby: false,
            backup_label: ended.stopped.backup_label.clone().into(),
            tablespace_map: ended.stopped.tablespace_map.clone().into(),
            pg_control: ended.pg_control.clone().into(),
            external_files: ended.external_files.clone(),
            left_out: totals.left_out,
            page_errors: totals.page_errors,
            page_error_count: totals.page_error_count,
            required_features: Vec::new(),
            cluster_bytes: totals.cluster_bytes,
            read_bytes: totals.read_bytes,
            stored_bytes: totals.stored_bytes,
            files: totals.files,
            parent: None,
            annotations: request.annotations.clone(),
            head: None,
            program: request.program.clone(),
            data_checksums: seen.facts.data_checksums,
            wal_segment_bytes: ended.control.wal_segment_size.into(),
            relation_segment_blocks: ended.control.relseg_size,
            databases: Some(seen.databases.clone()),
            audit: None,
            incidents: Some(totals.incidents).filter(|incidents| incidents.count() > 0),
        }
    }
}

/// Waits for the backup's WAL, and proves that it is whole, the server's own, and replays to what
/// the cluster was.
async fn prove_wal(
    line: &Line,
    whole: Whole<'_>,
    journal: &mut Journal,
    server: &SharedServer<'_>,
    progress: &dyn Progress,
) -> Result<()> {
    let Whole { delivery, seen, ended, .. } = whole;
    let window = LsnRange { start: ended.start_lsn, end: ended.stopped.stop_lsn };
    let archive = WalArchive::open(line.clone()).await?;
    let ancestry = archive.ancestry(ended.timeline).await?;
    let needed = WalNeeded { archive: &archive, ancestry: &ancestry, range: window };
    let arrival = delivery.wait_for(needed, server, progress);
    journal.keep_alive(line, arrival).await?;
    let whole_wal = prove_whole_wal(&archive, &ancestry, window);
    let has_file_copies = journal.keep_alive(line, whole_wal).await?;
    prove_own_wal(&archive, &ancestry, window.start, window.end).await?;
    if has_file_copies {
        let proof = prove_file_copies(&archive, &ancestry, window, &seen.databases, server);
        journal.keep_alive(line, proof).await?;
    }
    Ok(())
}

/// Makes the backup. All that the commit names is durable. A job that is told to end meanwhile waits
/// until it is made or not: it says afterwards where the backup is.
async fn commit(line: &Line, path: ObjectPath, commit: Commit, member: Member) -> Result<()> {
    let repository = line.repository().clone();
    let making = tokio::spawn(async move {
        let made = repository.create_record(&path, &commit).await;
        drop(member);
        made
    });
    let made = making.await.code(Code::Internal, || "the commit's task died".to_owned())?;
    match made {
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
    server: &SharedServer<'_>,
) -> Result<()> {
    let lost = lost_databases(archive, ancestry, window).await?;
    if lost.is_empty() {
        return Ok(());
    }
    // Some were dropped, some are new.
    Err(lost.error(&[known, &server.lock().await.databases().await?].concat()))
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
