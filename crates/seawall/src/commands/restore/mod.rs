//! `seawall restore`: plan, agree, prove, write, start.

mod after;
mod listen;
mod room;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use seawall_core::{BackupId, ClusterName, Code, Error, Progress, Result, ResultExt, TimelineId};
use seawall_engine::Crew;
use seawall_engine::job::Reporter;
use seawall_engine::lines::several_clusters;
use seawall_engine::restore::{
    Login, Mode, PlannedRestore, Point, ProvenRestore, RestoreOptions, RestorePlan, RestoreRequest,
    Target, TimelineChoice, find_programs, plan_restore,
};
use seawall_engine::survey::{candidates, find_backup};
use seawall_repo::wal::WalArchive;
use seawall_repo::{Line, Repository};
use serde_json::Value;

pub use after::DEFAULT_ROLE;

use super::{living, tell_passed_over};
use crate::args::RestoreArgs;
use crate::config::Config;
use crate::context::{Context, Place, absolute};
use crate::exit::Outcome;
use crate::lines::Whereabouts;
use crate::owner::Owner;
use crate::render::{Display, Out, Style, confirm, sentence, shell_bytes, zones};
use crate::trust::prove_own_way;
use crate::{postgres, run};

pub use after::log_file;

/// What the target is when none is given.
const LATEST: &str = "latest";

/// Runs the command.
///
/// # Errors
/// Those of configuration, repositories, plan and proof; nothing is written before all are passed.
pub fn main(config: Option<&Path>, args: &RestoreArgs) -> Result<Outcome> {
    let mode = Mode::parse(&args.mode)?;
    let context = Context::new(config, &args.repository)?;
    let into = absolute(&args.into);
    let runtime = run::pipeline_runtime(jobs(args, &context))?;
    let progress = Arc::new(Reporter::new(Arc::new(Display::new())));

    let typist = Owner::current();
    let owner = context.owner_of_restored()?;
    let tablespaces = args.map_tablespace.iter().map(|mapping| mapping.new.as_path());
    for directory in std::iter::once(into.as_path()).chain(tablespaces) {
        prove_own_way(directory, &owner)?;
    }
    let acting = owner.act_as()?;
    context.prove_flags_are_readable()?;
    let (line, wal) = runtime.block_on(find_line(&context, args))?;
    let request = runtime.block_on(request(args, &line, mode, into.clone()))?;
    let mut planned = runtime.block_on(plan_restore(&line, &wal, &request))?;
    let own = line.id().system_id;
    let primary = living::primary(&context.config, line.cluster(), own);
    if let Some(primary) = runtime.block_on(primary)
        && let Some(timeline) = primary.timeline
    {
        let told = planned.tell_of_living_server(&wal, timeline, primary.insert_lsn);
        runtime.block_on(told)?;
    }
    let starting = starting(args, &context, &line, &owner, &planned)?;
    show_plan(args, &planned, &request.target)?;
    if !args.dry_run {
        confirm("Restore?", args.yes)?;
    }
    let options = options(args, &context, &line, progress.clone())?;
    let prove = planned.prove(&wal, &options);
    let proven: ProvenRestore = runtime.block_on(run::until_interrupted(prove))?;
    if args.dry_run {
        drop(progress);
        let would_be_written = seawall_core::ByteSize(proven.bytes());
        let content = if proven.content_is_proven() {
            ""
        } else {
            ", the files' content apart (--prove reads that too)"
        };
        eprintln!("proven{content}: {would_be_written} would be written");
        return Ok(Outcome::Done);
    }
    drop(acting);

    room::make(&into, &owner)?;
    owner.become_for_good()?;
    let report = runtime.block_on(run::until_interrupted(proven.run()))?;
    drop((options, progress));
    let sudo = owner.sudo(&typist);
    let started = match starting {
        Some(starting) => {
            let start = run::until_interrupted(starting.start(args, &report, &sudo));
            let started = runtime.block_on(start);
            Some(started.map_err(|error| after::with_running(error, &report, &sudo))?)
        }
        None => None,
    };
    after::tell(args, &context, &report, started.as_ref(), &sudo)?;
    Ok(Outcome::Done)
}

/// A restore takes hours: what the start needs is looked for before.
fn starting(
    args: &RestoreArgs,
    context: &Context,
    line: &Line,
    owner: &Owner,
    planned: &PlannedRestore,
) -> Result<Option<after::Starting>> {
    if !args.start {
        return Ok(None);
    }
    find_programs(planned.major()?)?;
    let login = login(&context.config, line.cluster(), args.user.as_deref(), owner)?;
    let (mode, port) = (planned.plan().mode, planned.configured_port());
    after::Starting::prove(args, mode, login, port).map(Some)
}

/// Who asks a restored server: the role that is named, or the one its backups were taken as.
///
/// # Errors
/// [`Code::ConninfoInvalid`]
pub fn login(
    config: &Config,
    cluster: &ClusterName,
    role: Option<&str>,
    owner: &Owner,
) -> Result<Login> {
    let configured = config.clusters.get(cluster).and_then(|it| it.connection.as_ref());
    let Some((connection, path)) = configured.zip(config.path.as_deref()) else {
        return postgres::login("", role.unwrap_or(DEFAULT_ROLE), owner);
    };
    let connection = connection.read(path)?;
    let usual = postgres::resolve(&connection, owner)?.user().to_owned();
    match role {
        // The password is the usual role's.
        Some(other) if other != usual => postgres::login("", other, owner),
        _ => postgres::login(&connection, &usual, owner),
    }
}

/// The cluster's line in the first repository that has it, and can be read.
async fn find_line(context: &Context, args: &RestoreArgs) -> Result<(Line, WalArchive)> {
    let named = args.cluster.cluster.as_ref();
    let targets = context.known_targets(named)?;
    let places = match targets.as_slice() {
        [] => context.places(),
        [target] => target.places.clone(),
        several => {
            return Err(several_clusters(several.iter().map(|target| &target.name)));
        }
    };
    let cluster = targets.first().map(|target| &target.name);
    let mut found = match &args.backup {
        // A backup may be in a line that is not written any more.
        Some(backup) => lines_of_backup(places, cluster, backup).await,
        None => Whereabouts::of_written(places, cluster).await,
    };
    for (name, line) in found.lines {
        match WalArchive::open(line.clone()).await {
            Ok(wal) => {
                if !found.failures.is_empty() {
                    eprintln!("restoring from repository {name}");
                }
                return Ok((line, wal));
            }
            Err(error) => found.failures.push((name, error)),
        }
    }
    let last = found.failures.pop().map(|(_, error)| error);
    found.failures.iter().for_each(|(_, error)| crate::render::report(error));
    Err(last.unwrap_or_else(|| {
        Error::new(Code::NotConfigured, "there is no repository to restore from")
            .with_hint("Name one: `--repo URL --key FILE`, or `--kit FILE`.")
    }))
}

/// The line that has the backup, in the first repository that has it.
async fn lines_of_backup(
    places: Vec<Place>,
    cluster: Option<&ClusterName>,
    backup: &str,
) -> Whereabouts {
    let mut found = Whereabouts::default();
    for place in places {
        let name = place.name.clone();
        let look = async { line_of_backup(&place.open().await?.repository, cluster, backup).await };
        match look.await {
            Ok(line) => {
                found.lines.push((name, line));
                break;
            }
            Err(error) => found.failures.push((name, error)),
        }
    }
    found
}

async fn line_of_backup(
    repository: &Repository,
    cluster: Option<&ClusterName>,
    backup: &str,
) -> Result<Line> {
    let found = find_backup(backup, candidates(repository, cluster).await?)?;
    repository.line(&found.backup.cluster, found.backup.what)
}

async fn request(
    args: &RestoreArgs,
    line: &Line,
    mode: Mode,
    into: PathBuf,
) -> Result<RestoreRequest> {
    let asked_at = Timestamp::now();
    let (target, target_text) = target(args, asked_at)?;
    let backup = match &args.backup {
        Some(text) => Some(backup_in(line, text).await?),
        None => None,
    };
    let timeline = match args.timeline.as_deref() {
        None => TimelineChoice::Current,
        Some("latest") => TimelineChoice::Latest,
        Some(text) => match text.parse::<u32>() {
            Ok(number) => TimelineChoice::Id(TimelineId(number)),
            Err(_) => TimelineChoice::OfBackup(backup_in(line, text).await?),
        },
    };
    Ok(RestoreRequest {
        target,
        target_text,
        asked_at,
        backup,
        timeline,
        mode,
        then: args.then.into(),
        into,
        tablespaces: args.map_tablespace.clone(),
        databases: args.database.clone(),
        starts: args.start,
    })
}

async fn backup_in(line: &Line, text: &str) -> Result<BackupId> {
    let candidates = candidates(line.repository(), Some(line.cluster())).await?;
    let found = find_backup(text, candidates)?;
    tell_passed_over(&found, None);
    Ok(found.backup.id)
}

/// The target, and the words for it that the same command repeats.
fn target(args: &RestoreArgs, now: Timestamp) -> Result<(Target, String)> {
    let point = |text: &str| Point::parse(text, &TimeZone::system(), now);
    Ok(match (&args.to, &args.before) {
        (Some(text), _) => (Target::To(point(text)?), format!("to {text}")),
        (None, Some(text)) => (Target::Before(point(text)?), format!("before {text}")),
        (None, None) if args.backup_only => (Target::BackupOnly, "backup-only".to_owned()),
        (None, None) => (Target::Latest, LATEST.to_owned()),
    })
}

/// On standard output where the plan is what was asked for, else on standard error.
fn show_plan(args: &RestoreArgs, planned: &PlannedRestore, target: &Target) -> Result<()> {
    if args.dry_run && args.output.json {
        return Out.json(&plan_as_json(planned.plan())?);
    }
    let mut text = format!("{}\n", sentence(&planned.plan().text()));
    if let Some(time) = target.time() {
        text.push_str(&format!("target time   {}\n", zones(time, None)));
    }
    if planned.is_resumed() {
        text.push_str("resuming      an interrupted restore is gone on with\n");
    }
    if args.dry_run {
        return Out.text(&text);
    }
    eprint!("{}", Style::of_stderr().dim(text.trim_end()));
    eprintln!();
    Ok(())
}

/// The plan with its warnings as text.
fn plan_as_json(plan: &RestorePlan) -> Result<Value> {
    let mut json = serde_json::to_value(plan)
        .code(Code::Internal, || "the plan cannot be written as JSON".to_owned())?;
    json["warnings"] = plan.warnings.iter().map(sentence).collect();
    Ok(json)
}

fn jobs(args: &RestoreArgs, context: &Context) -> usize {
    args.work.budget(&context.config).workers(24 << 20)
}

fn options(
    args: &RestoreArgs,
    context: &Context,
    line: &Line,
    progress: Arc<dyn Progress>,
) -> Result<RestoreOptions> {
    let own = postgres::own_path()?;
    let cluster = line.cluster().to_string();
    let fetch =
        ["wal", "fetch", "%f", "%p", "--cluster", &cluster].map(|word| word.as_bytes().to_vec());
    let again = context.again.iter().map(|word| command_word(word));
    let words = std::iter::once(command_word(own.as_os_str())).chain(fetch).chain(again);
    Ok(RestoreOptions {
        jobs: jobs(args, context),
        memory_bytes: args.work.budget(&context.config).memory(),
        crew: Crew::new(args.work.rate(&context.config)),
        proves_first: args.prove,
        restore_command: OsString::from_vec(words.collect::<Vec<_>>().join(&b' ')),
        progress,
    })
}

/// A word of `restore_command`: what the shell and PostgreSQL leave as it is.
fn command_word(word: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in shell_bytes(word) {
        if byte == b'%' {
            escaped.push(byte);
        }
        escaped.push(byte);
    }
    escaped
}
