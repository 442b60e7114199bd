//! How a destination comes to take part in a backup.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{
    Action, BackupId, Code, Error, ExitClass, LineId, Lsn, Result, TimelineId, hint,
};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::ChangedBlocks;
use seawall_repo::map::MapInfo;
use seawall_repo::pack::PackInfo;
use seawall_repo::wal::WalArchive;
use seawall_repo::{Attempt, Line};

use super::history::store_history;
use super::journal::Journal;
use super::parent::Parent;
use super::predecessor::{Inheritance, Predecessor};
use crate::backup::going::{Failed, Journaled};
use crate::backup::look::Seen;
use crate::backup::request::{Destination, ParentChoice};
use crate::host::Host;
use crate::line_note;
use crate::lines::adopt_it;
use crate::liveness::{Life, SILENCE, life_of};

/// A destination that knows of the backup.
pub(in crate::backup) struct Entered {
    pub journal: Journal,
    /// Attempts whose processes are gone. They are fenced when this backup is published: until
    /// then, if it dies too, what they finished is still of use.
    dead: Vec<BackupId>,
    inheritance: Option<Inheritance>,
}

/// A destination that can be packed for.
pub(in crate::backup) struct Ready {
    pub journal: Journal,
    /// As of [`Entered`].
    pub dead: Vec<BackupId>,
    /// What need not be read for it, and the attempt that it comes from.
    pub predecessor: Option<(BackupId, Predecessor)>,
    /// The backup that this one leads on from; why there is none, unless none is asked for.
    pub parent: Option<Parent>,
    pub why_full: Option<String>,
    /// Packs and maps that it has already.
    pub packs: Vec<PackInfo>,
    pub maps: Vec<MapInfo>,
}

/// Where the backup began.
#[derive(Debug, Clone, Copy)]
pub(in crate::backup) struct Start {
    pub lsn: Lsn,
    pub timeline: TimelineId,
}

/// Makes the backup known in a repository, if no other runs there.
///
/// # Errors
/// [`Code::BackupRunning`], and those of the store.
pub(in crate::backup) async fn enter(
    destination: &Destination,
    id: BackupId,
) -> Result<Entered, Failed> {
    let line = &destination.line;
    line.sweep_pins().await?;
    // Seen first, then looking for others: two that begin at once see each other.
    let journal = Journal::begin(line, id, Host::this()).await?;
    let others = async {
        let now = journal.last_beat(line).await?;
        take_over(line, id, now).await
    };
    let (dead, inheritance) = others.await.map_err(Failed::fruitless)?;
    Ok(Entered { journal, dead, inheritance })
}

/// A job that is asked for twice does not make a second backup, and one that was given up by others
/// none at all.
///
/// # Errors
/// [`Code::ObjectExists`], and those of the store.
pub(in crate::backup) async fn refuse_used_id(line: &Line, id: BackupId) -> Result<()> {
    if !line.has_ended(id).await? {
        return Ok(());
    }
    let what =
        format!("a backup of {} with the id {} is there, or was given up", line.cluster(), id.0);
    Err(Error::new(Code::ObjectExists, what).with_hint("Ask for it under a new id."))
}

/// Refuses a repository's line that the server does not write.
///
/// # Errors
/// [`Code::ClusterMismatch`].
pub(in crate::backup) fn refuse_other_cluster(line: &Line, seen: &Seen) -> Result<()> {
    let here = line.id().system_id;
    if seen.facts.system_id == here {
        return prove_line(line, &seen.data_directory);
    }
    Err(Error::new(
        Code::ClusterMismatch,
        format!(
            "the server is cluster {}, and {} in the repository is cluster {here}",
            seen.facts.system_id,
            line.cluster()
        ),
    )
    .with_hint(adopt_it(line.cluster())))
}

/// Makes a repository ready to be packed for, once its WAL has come: what an attempt that died
/// finished is taken over, as far as that can be proven. `note` is told why not.
///
/// # Errors
/// Those of the store, and those of the timeline's history.
pub(in crate::backup) async fn prepare(
    destination: &Destination,
    seen: &Seen,
    start: Start,
    entered: Entered,
    parent: ParentChoice,
    note: &(dyn Fn(&str) + Sync),
) -> Result<Ready> {
    let line = &destination.line;
    store_history(line, &seen.data_directory, start.timeline).await?;
    let Entered { journal, dead, inheritance } = entered;
    let (packs, maps) = (Vec::new(), Vec::new());
    let why_full = None;
    let mut ready = Ready { journal, dead, predecessor: None, parent: None, why_full, packs, maps };
    if let Some(inheritance) = inheritance {
        inherit(line, seen, start, inheritance, &mut ready, note).await?;
    }
    if parent != ParentChoice::Nothing {
        lead_on(line, seen, start, parent, &mut ready).await?;
    }
    Ok(ready)
}

/// Looks for the backup that this one leads on from, and keeps it from being removed meanwhile.
async fn lead_on(
    line: &Line,
    seen: &Seen,
    start: Start,
    choice: ParentChoice,
    ready: &mut Ready,
) -> Result<()> {
    let found = async {
        let archive = WalArchive::open(line.clone()).await?;
        let ancestry = archive.ancestry(start.timeline).await?;
        Parent::find(line, choice, (&archive, &ancestry), seen, start).await
    };
    match ready.journal.keep_alive(line, found).await? {
        Ok(parent) => {
            ready.journal.lead_on(line, Some(parent.id)).await?;
            match parent.prove_there().await {
                Ok(()) => ready.parent = Some(parent),
                Err(error) if choice == ParentChoice::Newest && is_of_no_use(&error) => {
                    ready.journal.lead_on(line, None).await?;
                    let why = format!("backup {} is of no use: {}", parent.id, error.chain());
                    ready.why_full = Some(why);
                }
                Err(error) => return Err(error),
            }
        }
        Err(why) => ready.why_full = why,
    }
    Ok(())
}

/// Whether an error says that a backup is of no use, and not only that a store fails.
pub(super) fn is_of_no_use(error: &Error) -> bool {
    let is_other =
        matches!(error.code(), Code::Condemned | Code::UnknownFormat | Code::NoSuchBackup);
    is_other || error.exit_class() == ExitClass::Integrity
}

/// The server's WAL goes to the line that its note names, and a backup is nothing without it.
fn prove_line(line: &Line, data_directory: &Path) -> Result<()> {
    let (id, cluster) = (line.id(), line.cluster());
    let branch = line_note::branch_of(data_directory, id.system_id)?;
    if branch == id.branch {
        return Ok(());
    }
    let own = LineId { branch, ..id };
    let what = format!(
        "the server in {} writes line {own} of {cluster}, and line {id} has taken its place",
        data_directory.display()
    );
    Err(Error::new(Code::ClusterMismatch, what).with_hint(hint![
        "Point `connection` and `data_directory` at the server that was adopted last; or, ",
        format!("if this one is {cluster} from now on: "),
        Action::Adopt { cluster: Some(cluster.clone()) },
        "."
    ]))
}

/// Looks at backups that began and have not ended. One that lives is left alone; of the dead, the
/// one that finished most is inherited.
async fn take_over(
    line: &Line,
    own: BackupId,
    now: Timestamp,
) -> Result<(Vec<BackupId>, Option<Inheritance>)> {
    let mut attempts = line.attempts().await?;
    attempts.retain(|attempt| attempt.id != own);
    for attempt in &attempts {
        refuse_living(line, attempt, now).await?;
    }
    let mut most: Option<Inheritance> = None;
    for attempt in &attempts {
        let inheritance = Inheritance::of(attempt.id, line.records(attempt).await?);
        let is_more =
            |other: &Inheritance| most.as_ref().is_none_or(|most| other.bytes() >= most.bytes());
        if inheritance.as_ref().is_some_and(is_more) {
            most = inheritance;
        }
    }
    Ok((attempts.into_iter().map(|attempt| attempt.id).collect(), most))
}

async fn refuse_living(line: &Line, attempt: &Attempt, now: Timestamp) -> Result<()> {
    if life_of(line, attempt, now).await? == Life::Ended {
        return Ok(());
    }
    let newest = line.record(attempt, attempt.newest_record).await?;
    let who = newest.map_or_else(
        || "an unknown host".to_owned(),
        |last| format!("{} (process {})", last.host, last.process_id),
    );
    Err(Error::new(
        Code::BackupRunning,
        format!("backup {} of {} is running on {who}", attempt.id, line.cluster()),
    )
    .with_hint(format!(
        "Wait for it to end. If it died, it counts as dead {} minutes after its last sign.",
        SILENCE.as_mins()
    )))
}

/// Takes over what the attempt finished, as far as WAL proves that it is unchanged. Whatever keeps
/// that from being proven must not keep a backup from being made: then everything is read again.
async fn inherit(
    line: &Line,
    seen: &Seen,
    start: Start,
    inheritance: Inheritance,
    ready: &mut Ready,
    note: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let journal = &mut ready.journal;
    let Start { timeline, lsn: to } = start;
    if !inheritance.is_on_the_way(timeline, to) {
        note("an earlier attempt is of another timeline; all files are read");
        return Ok(());
    }
    let archive = WalArchive::open(line.clone()).await?;
    let ancestry = archive.ancestry(timeline).await?;
    // Pinned first, then looked for: who deletes does it the other way round.
    inheritance.packs.iter().for_each(|pack| journal.pack(*pack));
    inheritance.maps.iter().for_each(|map| journal.map(*map));
    journal.write(line).await?;
    let proof = prove(line, &archive, &ancestry, &inheritance, to);
    let changes = match journal.keep_alive(line, proof).await {
        Ok(changes) => changes,
        Err(why) => {
            let why = why.chain();
            note(&format!("an earlier attempt is of no use ({why}); all files are read"));
            return Ok(());
        }
    };
    let id = inheritance.id;
    ready.packs.clone_from(&inheritance.packs);
    ready.maps.clone_from(&inheritance.maps);
    let predecessor = inheritance.adopt(changes, seen.control.relseg_size);
    ready.predecessor = Some((id, predecessor));
    Ok(())
}

/// What changed since the attempt began, if that and all that it finished can be proven.
async fn prove(
    line: &Line,
    archive: &WalArchive,
    ancestry: &Ancestry,
    inheritance: &Inheritance,
    to: Lsn,
) -> Result<ChangedBlocks> {
    let changes = archive.changes(ancestry, inheritance.start_lsn, to).await?;
    if let Some(why) = changes.unusable() {
        return Err(Error::new(Code::WalGap, format!("WAL does not tell what changed: {why}")));
    }
    inheritance.prove(line).await?;
    Ok(changes.blocks)
}

impl Journaled for Entered {
    fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

impl Journaled for Ready {
    fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }
}
