use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seawall_core::{
    Action, BackupId, Code, Error, Hint, Lsn, Oid, Progress, Result, TimelineId, Ulid,
    WalSegmentSize, hint,
};
use seawall_pgdata::PgMajor;
use seawall_pgdata::control::ControlFile;
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::Line;
use seawall_repo::manifest::{BackupInfo, ManifestReader};
use serde::Serialize;

use super::branches::{ancestry_of, archived_from, branches};
use super::configuration::{
    Configuration, Purpose, ServerHost, changed, read_configuration, warnings,
};
use super::delta::{self, DeltaReport, Existing, Survey};
use super::execute::Execution;
use super::known::Known;
use super::look_ahead::look_ahead;
use super::other_lines::{hint_at_earlier_line, warning_of_later_line};
use super::plan::{
    BackupFacts, Branch, Chosen, Decision, PlanInput, Planner, choose_timeline, databases_left_out,
    path_to, record_position, warning_of_invalid_pages, warning_of_lost, warnings_of,
};
use super::preflight::{
    go_on_or_discard, look_at_directory, look_at_tablespaces, prove_outside, remap,
};
use super::start::find_programs;
use super::way_out::{tell_unread, tell_unstartable, tell_way_out};
use super::{Point, RestoreRequest, Target, WalSource, future};
use crate::pace::{Crew, Pace};
use crate::pinned::{Pinned, pin_restored};
use crate::restored::{
    LeftBehind, LivingServer, Mode, NamedDatabase, OwnPlaces, PlannedBackup, Removals,
    RequiredParameters, RestorePlan, RestoreProgress, RestoreState, TargetAction,
};
use crate::stored::{Layout, Proven, Sources, inconsistent, prove_backup};

/// What a person should know who lets a restored cluster go on archiving.
const TWO_PRIMARIES: &str = "The old server must not run any more with its archive_command: two \
     primaries in one archive are two pasts, and every restore then has to choose between them.";

/// What a person should know whose old server has not been stopped yet.
const STILL_RUNS: &str = "The server that the configuration names runs now and takes writes: stop it \
     before the restored one starts.";

/// What is kept of packs' tables while a plan is made.
const TABLES_BYTES_MAX: usize = 8 << 20;

/// How a restore is carried out.
#[derive(Clone)]
pub struct RestoreOptions {
    /// Threads that read and write files.
    pub jobs: usize,
    /// About how much memory to use.
    pub memory_bytes: usize,
    /// Whose threads they are, and how fast they may prove the backup and write the cluster's files.
    pub crew: Crew,
    /// Whether the content of the files is read and proven before a byte is written, and not only as
    /// it is written.
    pub proves_first: bool,
    /// What PostgreSQL calls for WAL, with `%f` and `%p`, with absolute paths.
    pub restore_command: OsString,
    /// Who is told how far it has come.
    pub progress: Arc<dyn Progress>,
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The restore's id, as its state file has it.
    #[serde(with = "crate::as_text")]
    pub restore_id: Ulid,
    /// What was planned.
    pub plan: RestorePlan,
    /// Where the cluster is.
    #[serde(serialize_with = "crate::as_bytes::path::shown")]
    pub data_directory: PathBuf,
    /// Its major version.
    #[serde(serialize_with = "crate::as_text::serialize")]
    pub major: PgMajor,
    /// Bytes of its files, holes left out.
    pub bytes: u64,
    /// Whether an interrupted restore was gone on with.
    pub resumed: bool,
    /// What was done with what was there, if it went onto that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaReport>,
    /// The databases that have their content, as they were when the backup began, if some have
    /// not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_databases: Vec<NamedDatabase>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A restore that was decided on.
pub struct PlannedRestore {
    line: Line,
    pub(super) request: RestoreRequest,
    pub(super) plan: RestorePlan,
    pub(super) manifest: ManifestReader,
    pub(super) sources: Sources,
    configuration: Configuration,
    resumed: Option<Resumed>,
    /// What is there already, if it goes onto that.
    pub(super) survey: Option<Survey>,
}

/// An interrupted restore that is gone on with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resumed {
    restore_id: Ulid,
    /// All its files are there.
    pub(super) is_complete: bool,
}

/// A restore of which everything that can be known beforehand is proven.
pub struct ProvenRestore {
    execution: Execution,
    content_is_proven: bool,
    /// Keeps the backup until it is written.
    pinned: Option<Pinned>,
}

/// Decides how `request` is restored from a line. Where the same request was interrupted, its plan
/// is kept.
///
/// # Errors
/// The target is not reachable, or the directory cannot be taken; each with what to do.
pub async fn plan_restore(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
) -> Result<PlannedRestore> {
    refuse_stopping_standby(request)?;
    let existing = look_onto(line, request).await?;
    let interrupted = match &existing {
        Existing::Begun(state) => Some(state.as_ref().clone()),
        Existing::Cluster => None,
        Existing::Empty => look_at_directory(&request.into, request)?,
    };
    let goes_onto = !matches!(existing, Existing::Empty);
    let resumed = interrupted.as_ref().map(|state| Resumed {
        restore_id: state.restore_id,
        is_complete: state.progress == RestoreProgress::Complete,
    });
    let plan = match interrupted {
        Some(state) => prove_same_line(state, line, &request.into)?,
        None => match make_plan(line, wal, request).await {
            Ok(plan) => plan,
            Err(error) => {
                let error = tell_unread(line, wal, request, future::tell(request, error)).await;
                return Err(hint_at_earlier_line(line, request, error).await);
            }
        },
    };
    let planned = open_planned(line, wal, request, plan.clone(), resumed).await;
    let planned = match planned {
        Ok(planned) if goes_onto => planned.onto(wal).await,
        planned => planned,
    };
    match planned {
        Ok(planned) => Ok(planned),
        Err(error) => Err(tell_way_out(line, wal, request, (&plan, resumed), error).await),
    }
}

/// What there is to go onto, if that was asked for.
async fn look_onto(line: &Line, request: &RestoreRequest) -> Result<Existing> {
    let Some(delta) = request.delta else { return Ok(Existing::Empty) };
    if !request.databases.is_empty() {
        return Err(Error::new(Code::Usage, "some databases alone cannot be restored onto others")
            .with_hint("Leave out `--delta`, and restore into a directory that is empty."));
    }
    let existing = delta::look(request, delta, line.id().system_id)?;
    let Existing::Begun(state) = existing else { return Ok(existing) };
    // What was begun is gone on with, if that can be; else it is begun anew, which takes no more.
    let backup = &state.plan.backup;
    let manifest = line.manifest(BackupId(backup.ulid)).await?;
    let is_there = manifest.is_some_and(|it| it.commit.info.generation == backup.generation);
    let is_of_line = state.line() == line.id() && state.cluster() == line.cluster();
    Ok(if is_there && is_of_line { Existing::Begun(state) } else { Existing::Cluster })
}

/// Opens what a plan starts from, and completes the plan with what is in it.
async fn open_planned(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    mut plan: RestorePlan,
    resumed: Option<Resumed>,
) -> Result<PlannedRestore> {
    let id = BackupId(plan.backup.ulid);
    let manifest = line
        .manifest(id)
        .await?
        .filter(|manifest| manifest.commit.info.generation == plan.backup.generation);
    let manifest = manifest.ok_or_else(|| {
        Error::new(
            Code::NoSuchBackup,
            format!("backup {id} is not what it was when the restore was planned"),
        )
        .with_hint(hint![
            Action::Discard { directory: request.into.as_path().into() },
            " makes room to start anew."
        ])
    })?;
    if resumed.is_none() {
        if let Some(databases) = &manifest.commit.info.databases {
            plan.removals.name_databases(databases);
        }
        let half_done = plan.removals.warnings(plan.stop.kept_until());
        plan.warnings.extend(half_done.into_iter().map(Hint::from));
        plan.warnings.extend(future::warning(request).map(Hint::from));
        leave_out_databases(&mut plan, request, &manifest.commit.info)?;
        let left_out = warning_of_left_out(&plan.backup.id, &manifest.commit.info);
        plan.warnings.extend(left_out);
        if request.mode != Mode::Clone {
            plan.warnings.extend(warning_of_later_line(line).await);
        }
    }
    let sources = Sources::open(line, &manifest, TABLES_BYTES_MAX).await?;
    let configuration = read_configuration(&sources, &manifest, &request.into).await?;
    let (line, request, survey) = (line.clone(), request.clone(), None);
    let mut planned =
        PlannedRestore { line, request, plan, manifest, sources, configuration, resumed, survey };
    planned.plan_settings(wal).await?;
    Ok(planned)
}

/// Files that a backup could not read as they were at one moment.
fn warning_of_left_out(backup: &str, info: &BackupInfo) -> Option<Hint> {
    let first = info.left_out.first()?;
    let first = String::from_utf8_lossy(&first.path);
    let more = match info.left_out.len() - 1 {
        0 => Hint::default(),
        more => hint![
            format!(" and {more} more ("),
            Action::Show { backup: backup.to_owned() },
            " lists them)"
        ],
    };
    let first = format!("The backup does not have {first}");
    Some(hint![first, more, ": it changed each time it was read."])
}

/// Replay finds a new page wherever a database is left out, and takes that for damage, unless the
/// page is logged whole before anything else is done to it. That is not always so: not without
/// `full_page_writes`, not for the primary page of a hash index's bucket (`REGBUF_NO_IMAGE`), and not
/// for a heap page that only a hint bit changed (`log_heap_visible`, heapam.c).
fn leave_out_databases(
    plan: &mut RestorePlan,
    request: &RestoreRequest,
    info: &BackupInfo,
) -> Result<()> {
    let left_out = databases_left_out(info.databases.as_deref(), &request.databases)?;
    if left_out.is_empty() {
        return Ok(());
    }
    if request.mode != Mode::Clone {
        return Err(Error::new(Code::Usage, "a cluster without some of its databases is a clone")
            .with_hint(
                "Restore it `--as clone`, and take what you need from there with pg_dump.",
            ));
    }
    let control = control_of(info)?;
    plan.warnings.extend(warnings_of(&left_out).into_iter().map(Hint::from));
    if control.major >= PgMajor::V13 {
        plan.ignores_invalid_pages = true;
        plan.warnings.push(warning_of_invalid_pages(&left_out).into());
    } else if control.wal_log_hints || control.data_checksums_enabled() {
        plan.warnings.push(
            "PostgreSQL 12 has no ignore_invalid_pages: where a database that is left out has hash indexes, or full_page_writes was off, recovery may stop with `PANIC: WAL contains references to invalid pages`. Then restore without --database, into another directory."
                .into(),
        );
    } else {
        return Err(Error::new(
            Code::Usage,
            "PostgreSQL 12 without data checksums and wal_log_hints cannot recover without all databases",
        )
        .with_hint("Leave out --database: restore all of them."));
    }
    plan.left_out_databases = left_out;
    Ok(())
}

fn control_of(info: &BackupInfo) -> Result<ControlFile> {
    ControlFile::parse(&info.pg_control).map_err(|error| {
        inconsistent("the backup's pg_control cannot be used".to_owned()).with_source(error)
    })
}

/// A standby goes on for ever.
fn refuse_stopping_standby(request: &RestoreRequest) -> Result<()> {
    let follows = request.target == Target::Latest && request.then == TargetAction::Promote;
    if request.mode != Mode::Standby || follows {
        return Ok(());
    }
    Err(Error::new(Code::Usage, "a standby follows its primary and stops at no target").with_hint(
        "Leave out the target and --then; or restore `--as clone`, which stops where you say.",
    ))
}

fn prove_same_line(state: RestoreState, line: &Line, into: &Path) -> Result<RestorePlan> {
    if state.line() == line.id() && state.cluster() == line.cluster() {
        return Ok(state.plan);
    }
    Err(Error::new(
        Code::OtherRestoreInterrupted,
        format!("the directory holds an interrupted restore of cluster {}", state.cluster()),
    )
    .with_hint(go_on_or_discard(into)))
}

/// Decides what a request means, for a directory that is restored already.
pub(super) async fn plan_request(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
) -> Result<RestorePlan> {
    let plan = make_plan(line, wal, request).await;
    let mut plan = plan.map_err(|error| future::tell(request, error))?;
    let half_done = plan.removals.warnings(plan.stop.kept_until());
    plan.warnings.extend(half_done.into_iter().map(Hint::from));
    plan.warnings.extend(future::warning(request).map(Hint::from));
    Ok(plan)
}

pub(super) async fn make_plan(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
) -> Result<RestorePlan> {
    let known = Known::of(line, request.backup).await?;
    let all = wal.ancestries().await?;
    let chosen = choose_timeline(request.timeline, request.backup, &all, &known.backups)?;
    let branches = branches(wal, &chosen, &all.known).await?;
    let decision = decide(&known, wal, request, &chosen.ancestry).await;
    let doubts = chosen.doubts(&branches, &known.backups);
    let decision = if doubts.is_empty() || is_common(&chosen, request, &doubts, &decision) {
        decision?
    } else {
        return Err(ambiguous(wal, &chosen, &doubts).await?);
    };
    let log = decision.removals.clone();
    let mut plan = plan_of(line, request, &chosen.ancestry, branches, decision);
    plan.warnings.extend(all.lost().map(warning_of_lost));
    if let Some(error) = &known.unknown_verdicts {
        let told = format!(
            "Whether a verification found a backup damaged is not known: {}.",
            error.chain()
        );
        plan.warnings.push(told.into());
    }
    // A restore does not fail for what it leaves out.
    if let Err(error) = look_ahead(wal, &chosen.ancestry, &request.target, &log, &mut plan).await {
        let told =
            format!("What is left out after the target could not be looked at: {}.", error.chain());
        plan.warnings.push(told.into());
    }
    Ok(plan)
}

/// What is to be done along one timeline.
async fn decide(
    known: &Known,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    ancestry: &Ancestry,
) -> Result<Decision> {
    let may_start = |backup: &&BackupFacts| request.backup.is_none_or(|id| id == backup.id);
    let first = known.backups.iter().filter(may_start).map(|backup| backup.start_lsn).min();
    let coverage = wal.coverage(ancestry, first.unwrap_or(Lsn::INVALID)).await?;
    let record_at_target = match &request.target {
        // Before the first backup there is nothing to look for, and perhaps not even WAL.
        Target::To(Point::Lsn(lsn)) | Target::Before(Point::Lsn(lsn))
            if first.is_some_and(|first| *lsn >= first) =>
        {
            wal.record_at_or_after(ancestry, *lsn).await?
        }
        _ => None,
    };
    let mut planner = Planner::new(PlanInput {
        target: request.target.clone(),
        backup: request.backup,
        backups: known.backups.clone(),
        unusable: known.unusable.clone(),
        ancestry: ancestry.clone(),
        wal: coverage,
        record_at_target,
        segment_size: known.segment_size,
    })?;
    if let Some(lsn) = planner.end_of_backup() {
        planner.set_record_at_target(wal.record_at_or_after(ancestry, lsn).await?);
    }
    let mut resolver = planner.resolver();
    let mut sink = |fact: &super::Fact| {
        resolver.feed(fact);
        if resolver.is_settled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    wal.facts(ancestry, planner.scan_from(), &mut sink).await?;
    let mut decision = planner.decide(resolver)?;
    if let Some(lsn) = decision.stop_record_at
        && let Some(record) = wal.record_at_or_after(ancestry, lsn).await?
    {
        decision.set_stop_record(record);
    }
    Ok(decision)
}

/// Whether what was decided is the same along the timelines in doubt: it stops before they go
/// different ways, or fails for a reason that has nothing to do with them. The end of the archive is
/// another one on each.
fn is_common(
    chosen: &Chosen,
    request: &RestoreRequest,
    doubts: &[&Branch],
    decision: &Result<Decision>,
) -> bool {
    let is_doubtful =
        |rival: &&Ancestry| doubts.iter().any(|doubt| doubt.left.timeline == rival.tip());
    let forks = chosen.rivals.iter().filter(is_doubtful).map(|rival| chosen.fork_from(rival));
    let fork = forks.min().unwrap_or(Lsn::INVALID);
    match decision {
        Ok(decision) => request.target != Target::Latest && decision.stop.kept_until() <= fork,
        Err(error) => matches!(error.code(), Code::NoSuchBackup | Code::ObjectDamaged),
    }
}

async fn ambiguous(wal: &dyn WalSource, chosen: &Chosen, doubts: &[&Branch]) -> Result<Error> {
    let newest = &chosen.ancestry;
    let begin = newest.span(newest.tip()).map_or(Lsn::INVALID, |span| span.begin);
    Ok(chosen.ambiguous(&archived_from(wal, newest, begin).await?, doubts))
}

fn plan_of(
    line: &Line,
    request: &RestoreRequest,
    ancestry: &Ancestry,
    branches: Vec<Branch>,
    mut decision: Decision,
) -> RestorePlan {
    if request.mode == Mode::Primary {
        decision.warnings.insert(0, TWO_PRIMARIES.to_owned());
    }
    // A standby goes on where the WAL ends now, so it is bound for the timeline that was chosen even
    // if none of that is archived yet.
    let timeline = if request.mode == Mode::Standby { ancestry.tip() } else { decision.timeline };
    let left_behind = branches.into_iter().map(|branch| branch.left);
    RestorePlan {
        cluster: line.cluster().clone(),
        line: line.id(),
        mode: request.mode,
        target: request.target.to_string(),
        backup: PlannedBackup {
            found_damaged: decision.found_damaged.clone(),
            ..PlannedBackup::from(&decision.backup)
        },
        timeline,
        path: path_to(ancestry, timeline),
        stop: decision.stop,
        wal_end: decision.wal_end,
        last_commit_kept: decision.last_commit_kept,
        first_commit_left_out: decision.first_commit_left_out,
        removals: Removals {
            kept: decision.removals.found().rev().cloned().collect(),
            looked_from: decision.scanned_from,
            ..Removals::default()
        },
        left_behind: left_behind.filter(|left| leaves_behind(&decision, left)).collect(),
        then: request.then,
        left_out_databases: Vec::new(),
        ignores_invalid_pages: false,
        required: RequiredParameters::default(),
        settings: Vec::new(),
        asked_at: Some(request.asked_at),
        server: None,
        onto: None,
        warnings: decision.warnings.into_iter().map(Hint::from).collect(),
    }
}

/// What went another way only after replay stops is among the commits after it.
fn leaves_behind(decision: &Decision, left: &LeftBehind) -> bool {
    let is_later = left.after > decision.stop.kept_until();
    left.has_commits() && !(is_later && decision.first_commit_left_out.is_some())
}

impl PlannedRestore {
    /// What will be done.
    #[must_use]
    pub const fn plan(&self) -> &RestorePlan {
        &self.plan
    }

    /// What was asked for.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.request.target
    }

    /// Tells the plan of the server it is made of, which goes on: it writes `timeline`, and its next
    /// record will begin at `written_to`.
    ///
    /// # Errors
    /// Those of the WAL's store.
    pub async fn tell_of_living_server(
        &mut self,
        wal: &dyn WalSource,
        timeline: TimelineId,
        written_to: Lsn,
    ) -> Result<()> {
        if self.plan.mode == Mode::Primary {
            self.plan.warnings.push(STILL_RUNS.into());
        }
        if timeline != self.plan.timeline {
            return Ok(());
        }
        let known = self.plan.wal_end;
        let covered = wal.coverage(&ancestry_of(wal, self.plan.timeline).await?, known).await?;
        let archived_to = covered.spans.first().map_or(known, |span| span.end.max(known));
        let size = WalSegmentSize::new(self.manifest.commit.info.wal_segment_bytes);
        let size = size.unwrap_or(WalSegmentSize::DEFAULT);
        let is_ahead = record_position(written_to, size) > record_position(archived_to, size);
        self.plan.server = Some(LivingServer { timeline, written_to, archived_to, is_ahead });
        Ok(())
    }

    /// Whether an interrupted restore is gone on with.
    #[must_use]
    pub const fn is_resumed(&self) -> bool {
        self.resumed.is_some()
    }

    /// The major version of the server that will run on the directory.
    ///
    /// # Errors
    /// [`Code::UnknownPostgresVersion`]
    pub fn major(&self) -> Result<PgMajor> {
        let number = self.manifest.commit.info.major;
        PgMajor::from_number(number).ok_or_else(|| {
            Error::new(
                Code::UnknownPostgresVersion,
                format!("the backup is of PostgreSQL {number}, which this program does not know"),
            )
            .with_hint("Use a newer Seawall.")
        })
    }

    /// Where the server will listen if nothing else is said, by the backup's configuration.
    #[must_use]
    pub fn configured_port(&self) -> u16 {
        self.configuration.port()
    }

    /// Decides what the restored server is told otherwise than the backup's configuration tells it.
    async fn plan_settings(&mut self, wal: &dyn WalSource) -> Result<()> {
        let major = self.major()?;
        self.plan.required = self.required(wal).await?;
        let host = ServerHost::with_programs(find_programs(major).ok().as_deref());
        let (mode, then) = (self.plan.mode, self.plan.then);
        let purpose = Purpose { mode, then, major };
        self.plan.settings = self.plan.required.missing_in(&self.configuration);
        self.plan.settings.extend(changed(purpose, &self.configuration, &host));
        if self.resumed.is_none() {
            let told = warnings(purpose, &self.configuration, &host);
            self.plan.warnings.extend(told.into_iter().map(Hint::from));
        }
        Ok(())
    }

    /// What replay demands, on all the way that it may go.
    async fn required(&self, wal: &dyn WalSource) -> Result<RequiredParameters> {
        let mut required = RequiredParameters::of_control(&control_of(&self.manifest.commit.info)?);
        let from = self.plan.backup.start_lsn;
        let to = match self.plan.mode {
            Mode::Standby => Lsn(u64::MAX),
            Mode::Clone | Mode::Primary => self.plan.stop.kept_until().max(self.plan.wal_end),
        };
        let ancestry = ancestry_of(wal, self.plan.timeline).await?;
        for change in wal.parameter_changes(&ancestry, from, to).await? {
            required.raise(&change);
        }
        Ok(required)
    }

    /// Proves, without writing anything, that there is room and that everything to be read is
    /// there: every object of the backup with its length, whole what says where its files are, whole
    /// the WAL up to the target. The files' content is proven as it is written, which reads it once;
    /// before that, if it was asked for, if a verification found damage, and where there is data
    /// already.
    ///
    /// # Errors
    /// Damage and gaps ([`seawall_core::ExitClass::Integrity`]), [`Code::TargetDiskFull`], and
    /// directories that cannot be taken.
    pub async fn prove(
        self,
        wal: &dyn WalSource,
        options: &RestoreOptions,
    ) -> Result<ProvenRestore> {
        let (plan, resumed) = (self.plan.clone(), self.resumed);
        let (line, request) = (self.line.clone(), self.request.clone());
        let PlannedBackup { ulid, generation, .. } = &plan.backup;
        let pinned = pin_restored(&line, BackupId(*ulid), *generation).await?;
        match self.prove_all(wal, options).await {
            Ok(proven) => Ok(ProvenRestore { pinned, ..proven }),
            Err(error) => {
                Pinned::end_any(pinned).await;
                Err(tell_way_out(&line, wal, &request, (&plan, resumed), error).await)
            }
        }
    }

    async fn prove_all(
        mut self,
        wal: &dyn WalSource,
        options: &RestoreOptions,
    ) -> Result<ProvenRestore> {
        let info = &self.manifest.commit.info;
        let major = self.major()?;
        let into = &self.request.into;
        let tablespaces = remap(&info.tablespace_map, &self.request.tablespaces, into)?;
        prove_outside(into, &tablespaces, self.line.repository().store().url().as_directory())?;
        let surplus = self.look_at_places(&tablespaces, major)?;
        let left_out = self.plan.left_out_databases.iter().map(|database| database.oid);
        let layout = Layout::new(into.clone(), &tablespaces).leaving_out(left_out);
        let ancestry = ancestry_of(wal, self.plan.timeline).await?;
        self.prove_creations(wal, &ancestry, &tablespaces, &surplus).await?;
        wal.prove(&ancestry, self.plan.backup.start_lsn, self.plan.wal_end).await?;
        self.sources.keep(options.memory_bytes / 8);
        let pace = Pace::new(&options.crew);
        let is_resumed = self.resumed.is_some();
        let proves_content = self.proves_content(options);
        let stored = proves_content.then_some(&pace);
        let (sources, progress) = (&self.sources, options.progress.as_ref());
        let proven = prove_backup(sources, &self.manifest, &layout, stored, progress).await?;
        let mut room = proven.bytes.clone();
        let survey = self.survey.take();
        let mut execution = self.execution(options, major, tablespaces, layout, proven);
        if let Some(survey) = survey {
            let delta = execution.prove_onto(options, surplus).await?;
            let freed = survey.freed_bytes.iter().chain(std::iter::repeat(&0));
            let grows = delta.grows_bytes.iter().zip(freed);
            room = grows.map(|(grows, freed)| grows.saturating_sub(*freed)).collect();
            execution.delta = Some(delta);
        }
        if !is_resumed || execution.delta.is_some() {
            execution.prove_room(&room)?;
        }
        Ok(ProvenRestore { execution, content_is_proven: proves_content, pinned: None })
    }

    /// Looks at the places of tablespaces; tells those that the directory has besides.
    fn look_at_places(
        &self,
        tablespaces: &TablespaceMap,
        major: PgMajor,
    ) -> Result<BTreeMap<Oid, PathBuf>> {
        let into = &self.request.into;
        match self.request.delta.filter(|_| self.survey.is_some()) {
            Some(delta) => {
                delta::look_at_tablespaces(into, tablespaces, delta)?;
                delta::surplus(into, tablespaces)
            }
            None => {
                let resumed = self.resumed.map(|it| it.restore_id);
                look_at_tablespaces(tablespaces, major, resumed).map(|()| BTreeMap::new())
            }
        }
    }

    /// Whether the files' content is proven before anything is written.
    fn proves_content(&self, options: &RestoreOptions) -> bool {
        if self.survey.is_some() {
            // What is needed of it is known once all is compared, and proven then.
            return options.proves_first;
        }
        match self.resumed {
            // Of a backup that is written already nothing is read any more.
            Some(resumed) => !resumed.is_complete,
            None => options.proves_first || self.plan.backup.found_damaged.is_some(),
        }
    }

    async fn prove_creations(
        &self,
        wal: &dyn WalSource,
        ancestry: &Ancestry,
        tablespaces: &TablespaceMap,
        surplus: &BTreeMap<Oid, PathBuf>,
    ) -> Result<()> {
        let (from, to) = (self.plan.backup.start_lsn, self.plan.stop.kept_until());
        let changes = wal.tablespace_changes(ancestry, from, to).await?;
        OwnPlaces::planned(&self.request.into, tablespaces)
            .emptying(surplus.values().map(PathBuf::as_path))
            .prove_free(&changes)
    }

    fn execution(
        self,
        options: &RestoreOptions,
        major: PgMajor,
        tablespaces: TablespaceMap,
        layout: Layout,
        proven: Proven,
    ) -> Execution {
        let jobs = options.jobs.max(1);
        // A worker holds two pieces that were read, two to be written, delta frames as long as four
        // (`Worker::new`), and a decoded frame.
        let piece_bytes = (options.memory_bytes / (jobs * 10)).clamp(256 << 10, 4 << 20);
        Execution {
            request: self.request,
            plan: self.plan,
            major,
            manifest: Arc::new(self.manifest),
            sources: Arc::new(self.sources),
            layout,
            tablespaces,
            proven,
            delta: None,
            restore_command: options.restore_command.clone(),
            jobs,
            piece_bytes,
            pace: Arc::new(Pace::new(&options.crew)),
            progress: Arc::clone(&options.progress),
        }
    }
}

impl ProvenRestore {
    /// Bytes that will be written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.execution.delta {
            Some(delta) => delta.differing_bytes,
            None => self.execution.proven.total_bytes(),
        }
    }

    /// What was compared and is needed, if it goes onto what is there.
    #[must_use]
    pub fn delta(&self) -> Option<DeltaReport> {
        let delta = self.execution.delta.as_ref()?;
        Some(DeltaReport {
            compared_bytes: delta.compared_bytes,
            fetched_bytes: delta.fetched_bytes,
            ..DeltaReport::default()
        })
    }

    /// Whether the files' content was read and proven too.
    #[must_use]
    pub const fn content_is_proven(&self) -> bool {
        self.content_is_proven
    }

    /// Writes the data directory. PostgreSQL is not started.
    ///
    /// # Errors
    /// [`Code::TargetDiskFull`], [`Code::LocalIo`], damage that was not seen before, or a store
    /// that fails. The same command goes on where this one ended.
    pub async fn run(self) -> Result<RestoreReport> {
        let request = self.execution.request.clone();
        let written = self.execution.run().await;
        Pinned::end_any(self.pinned).await;
        written.map_err(|error| tell_unstartable(error, &request))
    }

    /// Does not write it.
    pub async fn end(self) {
        Pinned::end_any(self.pinned).await;
    }
}
