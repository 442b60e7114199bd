//! Moving a restored cluster that waits at its target on to a later one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{Action, BackupId, Code, Error, Hint, Lsn, Result, TimelineId, hint};
use seawall_pgdata::control::{ControlFile, DbState, NO_CHECKPOINT};
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;
use seawall_repo::Line;

use super::branches::ancestry_of;
use super::execute::retarget;
use super::lock::DirectoryLock;
use super::plan::record_position;
use crate::restored::{Mode, NamedDatabase, OwnPlaces, RestorePlan, RestoreState, TargetAction};

use super::run::plan_request;
use super::start::{
    Ended, Login, Recovered, StartOptions, StopMode, Stretch, find_programs, look_at_databases,
    replay_waits_at, server_of, start, stop,
};
use super::{Point, RestoreRequest, Target, TimelineChoice, WalSource};

use crate::cluster::{PostmasterFile, read_control};
use crate::durable::{local, publish};

/// How long a server may take to stop.
const STOPPING: Duration = Duration::from_secs(300);

/// What to do about a target that is behind.
const BACK: &str = "A server does not go back: restore again, up to there, into another directory.";

/// Where to move a cluster that waits.
#[derive(Debug, Clone)]
pub struct ForwardOptions {
    /// Its data directory.
    pub data_directory: PathBuf,
    /// How it is logged in to: a superuser.
    pub login: Login,
    /// How long it may take to come there.
    pub timeout: Duration,
    /// Where the server's output goes when it is started again.
    pub log_file: PathBuf,
    /// How far.
    pub target: Target,
    /// The target as it was typed.
    pub target_text: String,
    /// When it was asked for.
    pub asked_at: Timestamp,
}

/// A cluster that waits, and how it goes on.
pub struct PlannedForward {
    /// Nobody else moves, promotes or removes it meanwhile.
    _lock: DirectoryLock,
    options: ForwardOptions,
    server: PostmasterFile,
    state: RestoreState,
    plan: RestorePlan,
    control: ControlFile,
    /// The databases that have their content, as they were when the backup began.
    kept: Vec<NamedDatabase>,
}

/// Where a cluster that was moved waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// What became of its server.
    pub recovered: Recovered,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// The state of a restored directory that may be moved forward.
///
/// # Errors
/// [`Code::Usage`] if it was not restored, or stops at no target.
pub fn state_to_move(data_directory: &Path) -> Result<RestoreState> {
    let shown = data_directory.display();
    let state =
        RestoreState::read(data_directory)?.ok_or_else(|| {
            Error::new(Code::Usage, format!("{shown} was not restored by Seawall"))
                .with_hint(hint!["Name the DIR of ", Action::Restore { waits: true }, "."])
        })?;
    if state.mode() == Mode::Standby {
        return Err(Error::new(Code::Usage, "a standby stops at no target").with_hint(hint![
            "Restore a clone: ",
            Action::Restore { waits: true },
            ". A standby takes over with ",
            Action::Promote { directory: Some(data_directory.into()), without_archive: false },
            "."
        ]));
    }
    Ok(state)
}

/// Decides how the cluster goes on: the target is proven to lie ahead, on the way it has come, and
/// all WAL up to there to be whole. Nothing is changed.
///
/// # Errors
/// [`Code::TargetUnreachable`] if the target lies behind or aside; those of planning and of the
/// connection.
pub async fn plan_forward(
    line: &Line,
    wal: &dyn WalSource,
    options: ForwardOptions,
) -> Result<PlannedForward> {
    let directory = &options.data_directory;
    state_to_move(directory)?;
    let lock = DirectoryLock::take(directory)?;
    let state = state_to_move(directory)?;
    let server = server_of(directory).ok_or_else(|| {
        let shown = directory.display();
        Error::new(Code::RestoredServerFailed, format!("no server runs in {shown}"))
            .with_hint(format!("Start it first: `pg_ctl start -D {shown}`."))
    })?;
    let replayed = replay_waits_at(&server, &options.login).await?.ok_or_else(|| {
        Error::new(Code::RestoredServerFailed, "the server does not wait at a target")
            .with_hint("Only what was restored with `--then pause`, and waits, can be moved forward. Restore again, up to where you want it.")
    })?;
    prove_not_behind(&options.target, &state.plan, replayed)?;
    let plan = plan_request(line, wal, &request(&state, &options)?).await.map_err(|error| {
        let is_elsewhere = error.code() == Code::TargetUnreachable;
        if is_elsewhere { error.with_hint(not_ahead()) } else { error }
    })?;
    let mut plan = RestorePlan {
        required: state.plan.required,
        settings: state.plan.settings.clone(),
        left_out_databases: state.plan.left_out_databases.clone(),
        ignores_invalid_pages: state.plan.ignores_invalid_pages,
        ..plan
    };
    let control = read_control(directory)?;
    prove_ahead(&plan, &state.plan, replayed, &control)?;
    let ancestry = ancestry_of(wal, plan.timeline).await?;
    // The server begins again where it last could have.
    let never_began = control.checkpoint == NO_CHECKPOINT;
    let from = if never_began { plan.backup.start_lsn } else { control.redo };
    wal.prove(&ancestry, from, plan.wal_end).await?;
    let changes = wal.tablespace_changes(&ancestry, from, plan.stop.kept_until()).await?;
    OwnPlaces::of_directory(directory)?.prove_free(&changes)?;
    for change in wal.parameter_changes(&ancestry, from, plan.wal_end).await? {
        plan.required.raise(&change);
    }
    let kept = kept_databases(line, &plan).await?;
    Ok(PlannedForward { _lock: lock, options, server, state, plan, control, kept })
}

/// The databases of the backup that were not left out, if some were.
async fn kept_databases(line: &Line, plan: &RestorePlan) -> Result<Vec<NamedDatabase>> {
    if plan.left_out_databases.is_empty() {
        return Ok(Vec::new());
    }
    let manifest = line.manifest(BackupId(plan.backup.ulid)).await?;
    let known = manifest.as_ref().and_then(|it| it.commit.info.databases.as_deref());
    let known = known.unwrap_or_default().iter().map(NamedDatabase::from);
    Ok(known.filter(|it| !plan.left_out_databases.contains(it)).collect())
}

fn request(state: &RestoreState, options: &ForwardOptions) -> Result<RestoreRequest> {
    let timeline = match state.asked.timeline.as_deref() {
        None => TimelineChoice::Current,
        Some("latest") => TimelineChoice::Latest,
        Some(text) => match text.parse() {
            Ok(number) => TimelineChoice::Id(TimelineId(number)),
            Err(_) => TimelineChoice::OfBackup(BackupId(text.parse().map_err(|error| {
                Error::new(Code::LocalIo, format!("the restore state names a timeline {text}"))
                    .with_source(error)
            })?)),
        },
    };
    Ok(RestoreRequest {
        target: options.target.clone(),
        target_text: options.target_text.clone(),
        asked_at: options.asked_at,
        backup: Some(BackupId(state.plan.backup.ulid)),
        timeline,
        mode: state.mode(),
        then: TargetAction::Pause,
        into: options.data_directory.clone(),
        tablespaces: state.asked.tablespaces.clone(),
        databases: state.asked.databases.clone(),
        delta: None,
        starts: true,
    })
}

/// What is known to be behind without a look at the archive: that may not even hold it any more.
fn prove_not_behind(target: &Target, before: &RestorePlan, replayed: Lsn) -> Result<()> {
    let kept = before.last_commit_kept;
    let is_behind = match target {
        Target::To(Point::Time(time)) => kept.is_some_and(|kept| *time < kept.time),
        Target::Before(Point::Time(time)) => kept.is_some_and(|kept| *time <= kept.time),
        Target::To(Point::Lsn(lsn)) | Target::Before(Point::Lsn(lsn)) => *lsn < replayed,
        Target::To(Point::Xid(_) | Point::Name(_))
        | Target::Before(Point::Xid(_) | Point::Name(_))
        | Target::Latest
        | Target::BackupOnly => false,
    };
    if !is_behind {
        return Ok(());
    }
    let what = format!("the server has replayed up to LSN {replayed}, which is beyond {target}");
    Err(Error::new(Code::TargetUnreachable, what).with_hint(BACK))
}

/// What to do about a target that a server that waits does not come to.
fn not_ahead() -> Hint {
    hint![
        "It waits on where it was. What was written just now is not archived yet: `SELECT \
         pg_catalog.pg_switch_wal();` on the server it comes from, then try again a little later; ",
        Action::ListWal,
        " shows up to where it is. Anything else takes another restore, into another directory."
    ]
}

/// A server replays forward alone, and only what goes on from where it is.
fn prove_ahead(
    plan: &RestorePlan,
    before: &RestorePlan,
    replayed: Lsn,
    control: &ControlFile,
) -> Result<()> {
    let refused = |what: String| Error::new(Code::TargetUnreachable, what).with_hint(BACK);
    let size = control.wal_segment_size;
    let end = plan.stop.kept_until();
    if record_position(end, size) <= record_position(replayed, size) {
        return Err(refused(format!(
            "the server has replayed up to LSN {replayed}, and the target lies at {end}"
        )));
    }
    let own = plan.path.iter().find(|span| span.timeline == before.timeline);
    let is_on_it =
        own.is_some_and(|span| span.begin <= replayed && span.end.is_none_or(|it| replayed <= it));
    if is_on_it {
        return Ok(());
    }
    Err(refused(format!(
        "the server is on timeline {} at LSN {replayed}, and the way to the target goes elsewhere",
        before.timeline
    )))
}

impl PlannedForward {
    /// What will be done.
    #[must_use]
    pub const fn plan(&self) -> &RestorePlan {
        &self.plan
    }

    /// Stops the server, gives it the new target, and starts it again; waits until it waits there.
    /// Whatever ends this on the way leaves a directory that recovers to one of the two targets.
    ///
    /// # Errors
    /// [`Code::RestoredServerFailed`], [`Code::LocalIo`].
    pub async fn run(self) -> Result<Moved> {
        let ForwardOptions { data_directory, login, timeout, log_file, .. } = &self.options;
        let programs = find_programs(self.control.major)?;
        stop(data_directory, StopMode::Fast, STOPPING).await?;
        prove_still_recovers(data_directory)?;
        self.write_target()?;
        let options = StartOptions {
            data_directory: data_directory.clone(),
            programs,
            port: Some(self.server.port),
            socket_directory: Some(self.server.socket_directory.clone()),
            log_file: log_file.clone(),
            restore_id: self.state.restore_id,
            login: login.clone(),
            timeout: *timeout,
        };
        let log_bytes = fs::metadata(log_file).map_or(0, |file| file.len());
        let recovered = start(&options, &self.plan).await?;
        let stretch = Stretch {
            data_directory,
            login,
            log: (log_file, log_bytes),
            plan: &self.plan,
            kept: &self.kept,
            ended: Ended::from(recovered),
        };
        Ok(Moved { recovered, notes: look_at_databases(&stretch).await? })
    }

    /// First what `wal fetch` has to know: it serves nothing behind the planned end.
    fn write_target(&self) -> Result<()> {
        let directory = &self.options.data_directory;
        let mut state = RestoreState { plan: self.plan.clone(), ..self.state.clone() };
        state.asked.target.clone_from(&self.options.target_text);
        state.asked.then = TargetAction::Pause;
        state.write(directory, mode_of(&directory.join(RESTORE_STATE_FILE))?)?;
        let path = directory.join("postgresql.auto.conf");
        let old = fs::read(&path).map_err(|error| local(error, "reading", &path))?;
        publish(&path, &retarget(&old, &self.state.plan.required, &self.plan), mode_of(&path)?)
    }
}

/// Somebody may have promoted it by other means, just before it was stopped.
fn prove_still_recovers(data_directory: &Path) -> Result<()> {
    let state = read_control(data_directory)?.state;
    if matches!(state, DbState::InArchiveRecovery | DbState::ShutDownInRecovery) {
        return Ok(());
    }
    let shown = data_directory.display();
    Err(Error::new(
        Code::RestoredServerFailed,
        "the server did not wait any more when it was stopped: somebody promoted it",
    )
    .with_hint(format!("Nothing else was changed. Start it again: `pg_ctl start -D {shown}`.")))
}

fn mode_of(path: &Path) -> Result<u32> {
    let metadata = fs::metadata(path).map_err(|error| local(error, "looking at", path))?;
    Ok(metadata.mode() & 0o777)
}
