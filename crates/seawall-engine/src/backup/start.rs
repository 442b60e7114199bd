//! What happens before the first file is copied.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use seawall_core::{
    Action, BackupId, Code, Error, LineId, Lsn, Progress, Result, Stage, TimelineId, hint,
};
use seawall_pgdata::control::ControlFile;
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::ChangedBlocks;
use seawall_repo::manifest::Database;
use seawall_repo::map::MapInfo;
use seawall_repo::pack::PackInfo;
use seawall_repo::wal::WalArchive;
use seawall_repo::{Attempt, Line};

use super::BackupRequest;
use super::config_files::config_files;
use super::history::store_history;
use super::journal::Journal;
use super::parent::{Inheritance, Parent};
use crate::adopt::adopt_it;
use crate::cluster::{
    BackupSession, LinkRules, MissingRights, ScanOptions, Server, ServerFacts, Survey,
    TablespaceLinks, prove_essentials, prove_own_files, prove_tablespaces, read_control, survey,
};
use crate::delivery::WalNeeded;
use crate::host::Host;
use crate::line_note;
use crate::liveness::{Life, life_of};

/// What a look at the cluster showed: enough to say whether it can be backed up.
#[derive(Debug, Clone)]
pub struct Look {
    /// What the server says.
    pub facts: ServerFacts,
    /// What `pg_control` says.
    pub control: ControlFile,
    /// Where the files are.
    pub data_directory: PathBuf,
    /// Its databases.
    pub databases: Vec<Database>,
    /// Where links in it lead.
    pub survey: Survey,
}

/// A backup that PostgreSQL and the repository know of.
pub(super) struct Started {
    pub session: BackupSession,
    pub journal: Journal,
    /// The tablespaces behind links, as soon as PostgreSQL had made its own list.
    pub tablespaces: TablespaceLinks,
    pub parent: Option<(BackupId, Parent)>,
    /// Packs and maps that it finds in the repository.
    pub packs: Vec<PackInfo>,
    pub maps: Vec<MapInfo>,
    /// Attempts whose processes are gone. They are fenced when this backup is published: until
    /// then, if it dies too, what they finished is still of use.
    pub dead: Vec<BackupId>,
}

/// Looks at the cluster and refuses what cannot be backed up.
///
/// # Errors
/// [`Code::PrivilegeMissing`], [`Code::ClusterMismatch`], [`Code::SettingUnsuitable`],
/// [`Code::UnsupportedCluster`], and those of server and files.
pub(super) async fn look(line: &Line, request: &BackupRequest) -> Result<Look> {
    refuse_used_id(line, request.id).await?;
    let mut server = Server::connect(&request.connection).await?;
    let facts = server.facts().await?;
    // All at once, and before PostgreSQL is asked for a checkpoint.
    let missing = MissingRights::ask(&mut server).await?.of_backups();
    if !missing.is_empty() {
        return Err(missing.error());
    }
    let data_directory =
        request.data_directory.clone().unwrap_or_else(|| facts.data_directory.clone());
    let control = prove_own_files(&mut server, &facts, &data_directory).await?;
    prove_essentials(&mut server, &data_directory).await?;
    let databases = server.databases().await?;
    server.close().await;
    let here = line.id().system_id;
    if facts.system_id != here {
        return Err(Error::new(
            Code::ClusterMismatch,
            format!(
                "the server is cluster {}, and {} in the repository is cluster {here}",
                facts.system_id,
                line.cluster()
            ),
        )
        .with_hint(adopt_it(line.cluster())));
    }
    prove_line(line, &data_directory)?;
    refuse_unsuitable(&facts)?;
    request.delivery().prove_set_up(&facts)?;
    let survey = survey_cluster(&facts, &data_directory).await?;
    survey.unreadable.refuse()?;
    Ok(Look { facts, control, data_directory, databases, survey })
}

/// A job that is asked for twice does not make a second backup, and one that was given up by others
/// none at all.
async fn refuse_used_id(line: &Line, id: BackupId) -> Result<()> {
    if !line.has_ended(id).await? {
        return Ok(());
    }
    let what =
        format!("a backup of {} with the id {} is there, or was given up", line.cluster(), id.0);
    Err(Error::new(Code::ObjectExists, what).with_hint("Ask for it under a new id."))
}

/// Looks at every path that a backup will read, configuration included. What keeps one from being
/// read is to be known before the rest is copied.
///
/// # Errors
/// [`Code::ClusterUnreadable`] for configuration that cannot be read.
pub(crate) async fn survey_cluster(facts: &ServerFacts, data_directory: &Path) -> Result<Survey> {
    let configuration = config_files(facts)?.inside;
    let (root, major) = (data_directory.to_owned(), facts.major);
    let look = move || {
        let tablespaces = TablespaceLinks::of(&root)?;
        let links = LinkRules::for_configuration(&root, &configuration);
        survey(&ScanOptions { root, major, tablespaces, links })
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or_else(|_| Err(Error::new(Code::Internal, "a looking thread died")))
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

fn refuse_unsuitable(facts: &ServerFacts) -> Result<()> {
    if facts.in_recovery {
        return Err(Error::new(
            Code::UnsupportedCluster,
            "the server is a standby or still recovering; this version backs up primaries",
        )
        .with_hint("Point `connection` and `data_directory` at the primary."));
    }
    if facts.wal_level == "minimal" {
        return Err(facts.unsuitable(
            "wal_level",
            "wal_level is minimal: WAL cannot restore a backup",
            "ALTER SYSTEM SET wal_level = 'replica'; then restart PostgreSQL.".into(),
        ));
    }
    Ok(())
}

/// Begins the backup: in the repository, then in PostgreSQL.
pub(super) async fn start(
    line: &Line,
    request: &BackupRequest,
    look: &Look,
    id: BackupId,
    progress: &dyn Progress,
) -> Result<Started> {
    line.sweep_pins().await?;
    // Seen first, then looking for others: two that begin at once see each other.
    let mut journal = Journal::begin(line, id, Host::this()).await?;
    let now = journal.last_beat(line).await?;
    let (dead, inheritance) = take_over(line, id, now).await?;
    progress.stage(Stage::WaitingForPostgres, None);
    let server = Server::connect(&request.connection).await?;
    let label = format!("seawall {id}");
    // A checkpoint that is spread takes its time.
    let session = BackupSession::start(server, &label, request.fast_checkpoint);
    let mut session = journal.keep_alive(line, session).await?;
    let tablespaces = TablespaceLinks::of(&look.data_directory)?;
    // Once more: they may have come since the look.
    prove_tablespaces(session.server(), &look.data_directory, &tablespaces).await?;
    let control = read_control(&look.data_directory)?;
    prove_directory(&control, session.start_lsn, session.start_timeline, &look.data_directory)?;

    journal.started(session.start_lsn, session.start_timeline);
    progress.stage(Stage::WaitingForWal, None);
    journal.keep_alive(line, prove_delivery(line, request, &mut session, progress)).await?;
    store_history(line, &look.data_directory, session.start_timeline).await?;
    let (packs, maps) = (Vec::new(), Vec::new());
    let mut started = Started { session, journal, tablespaces, parent: None, packs, maps, dead };
    if let Some(inheritance) = inheritance {
        inherit(line, look, inheritance, &mut started, progress).await?;
    }
    Ok(started)
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
    .with_hint(
        "Wait for it to end. If it died, it counts as dead five minutes after its last sign.",
    ))
}

/// Waits for the WAL up to the start: if it does not come, now is the time to find out, not after
/// hours of copying.
async fn prove_delivery(
    line: &Line,
    request: &BackupRequest,
    session: &mut BackupSession,
    progress: &dyn Progress,
) -> Result<()> {
    let archive = WalArchive::open(line.clone()).await?;
    let ancestry = archive.ancestry(session.start_timeline).await?;
    let needed = WalNeeded { archive: &archive, ancestry: &ancestry, from: session.start_lsn };
    request.delivery().prove(needed, session.server(), progress).await
}

/// Takes over what the attempt finished, as far as WAL proves that it is unchanged. Whatever keeps
/// that from being proven must not keep a backup from being made: then everything is read again.
async fn inherit(
    line: &Line,
    look: &Look,
    inheritance: Inheritance,
    started: &mut Started,
    progress: &dyn Progress,
) -> Result<()> {
    let Started { session, journal, .. } = started;
    let (timeline, to) = (session.start_timeline, session.start_lsn);
    if !inheritance.is_on_the_way(timeline, to) {
        progress.note(&"an earlier attempt is of another timeline; all files are read".into());
        return Ok(());
    }
    let archive = WalArchive::open(line.clone()).await?;
    let ancestry = archive.ancestry(timeline).await?;
    let proof = prove(line, &archive, &ancestry, &inheritance, to);
    let changes = match journal.keep_alive(line, proof).await {
        Ok(changes) => changes,
        Err(why) => {
            let why = why.chain();
            let note = format!("an earlier attempt is of no use ({why}); all files are read");
            progress.note(&note.into());
            return Ok(());
        }
    };
    let id = inheritance.id;
    inheritance.packs.iter().for_each(|pack| journal.pack(*pack));
    inheritance.maps.iter().for_each(|map| journal.map(*map));
    started.packs.clone_from(&inheritance.packs);
    started.maps.clone_from(&inheritance.maps);
    let parent = inheritance.adopt(changes, look.control.relseg_size);
    started.parent = Some((id, parent));
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
