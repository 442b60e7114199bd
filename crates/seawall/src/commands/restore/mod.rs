//! `seawall restore`: plan, agree, prove, write, start.

mod after;
mod hands;
mod room;

use std::path::Path;
use std::sync::Arc;

use seawall_core::{ByteSize, ClusterName, Code, LocalPath, Result, ResultExt};
use seawall_engine::job::{
    Cancel, ConnectionText, JobReport, JobRequest, PlannedReport, Priority, RestoreVerb, StartVerb,
    TargetVerb, VERSION, Verb,
};
use seawall_engine::lines::several_clusters;
use seawall_engine::restore::{DEFAULT_ROLE, Delta, Login, PlannedRestore};
use seawall_engine::restored::{Mode, RestorePlan};
use serde_json::Value;

use crate::args::RestoreArgs;
use crate::config::Config;
use crate::context::{Context, Target, absolute};
use crate::exit::Outcome;
use crate::job::{Site, milliseconds, outcome};
use crate::owner::Owner;
use crate::render::{Display, Out, Style, confirm, sentence, zones};
use crate::{postgres, run};

pub use after::log_file;
pub use hands::Hands;

/// Runs the command.
///
/// # Errors
/// Those of configuration, repositories, plan and proof; nothing is written before all are passed.
pub fn main(config: Option<&Path>, args: &RestoreArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let verb = verb(args)?;
    let target = target_of(&context, args.cluster.cluster.as_ref())?;
    let hands = Hands::take(&context, &verb)?;
    let connection = connection(&context, target.as_ref(), args.start)?;
    let (cluster, places) = match target {
        Some(target) => (Some(target.name), target.places),
        None => (None, context.places()),
    };
    let cancel = Cancel::default();
    let (shown, asks) = (ShownPlan::of(args), (args.dry_run, args.yes, cancel.clone()));
    let hands = hands.asking(Box::new(move |planned| {
        shown.show(planned)?;
        let (dry_run, yes, cancel) = &asks;
        if !dry_run {
            confirm("Restore?", *yes)?;
        }
        // Before it was agreed to, a signal ends the program as it ends any other.
        run::cancel_by_signals(cancel)
    }));
    let sudo = hands.sudo();
    let site = Site::new(&context, places).with_hands(hands);
    let request = JobRequest {
        version: VERSION,
        id: None,
        verb: Verb::Restore(Box::new(verb)),
        cluster,
        repositories: site.repositories(&context),
        connection,
        data_directory: None,
        budget: args.work.budget(&context.config),
        rate: args.work.rate(&context.config),
        priority: Priority::Normal,
    };
    let end = site.run(&request, || Arc::new(Display::new()), &cancel)?;
    match (&end.report, &end.error) {
        (Some(JobReport::Plan(planned)), None) => tell_proven(planned),
        (Some(JobReport::Restore(restored)), None) => {
            after::tell(args, &context, restored, &sudo)?;
        }
        _ => {}
    }
    outcome(end)
}

fn verb(args: &RestoreArgs) -> Result<RestoreVerb> {
    Ok(RestoreVerb {
        target: match (&args.to, &args.before) {
            (Some(text), _) => TargetVerb::To(text.clone()),
            (None, Some(text)) => TargetVerb::Before(text.clone()),
            (None, None) if args.backup_only => TargetVerb::BackupOnly,
            (None, None) => TargetVerb::Latest,
        },
        backup: args.backup.clone(),
        timeline: args.timeline.clone(),
        mode: Mode::parse(&args.mode)?,
        then: args.then.into(),
        into: LocalPath(absolute(&args.into)),
        tablespaces: args.map_tablespace.clone(),
        databases: args.database.clone(),
        delta: args.delta.then_some(Delta { force: args.force }),
        prove: args.prove,
        dry_run: args.dry_run,
        start: args.start.then(|| StartVerb {
            port: args.port,
            role: args.user.clone(),
            timeout_ms: milliseconds(args.start_timeout),
        }),
    })
}

/// The cluster of the command; `None` where only the repository knows which it holds.
///
/// # Errors
/// [`Code::NoSuchCluster`], and [`Code::Usage`] if there are several.
pub fn target_of(context: &Context, named: Option<&ClusterName>) -> Result<Option<Target>> {
    let mut targets = context.known_targets(named)?;
    if targets.len() > 1 {
        return Err(several_clusters(targets.iter().map(|target| &target.name)));
    }
    Ok(targets.pop())
}

/// How the cluster's server is reached, if the configuration says so. A restore that starts no server
/// does without.
///
/// # Errors
/// [`Code::ConfigUnreadable`]
pub fn connection(
    context: &Context,
    target: Option<&Target>,
    starts: bool,
) -> Result<Option<ConnectionText>> {
    let configured = target.and_then(|target| target.config.as_ref());
    let source = configured.and_then(|cluster| cluster.connection.as_ref());
    let Some((source, path)) = source.zip(context.config.path.as_deref()) else { return Ok(None) };
    match source.read(path) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if starts => Err(error),
        Err(error) => {
            let note = Style::of_stderr().yellow("note:");
            eprintln!(
                "{note} the server that the configuration names is not asked: {}",
                error.chain()
            );
            Ok(None)
        }
    }
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
    match configured.zip(config.path.as_deref()) {
        Some((connection, path)) => login_as(Some(&connection.read(path)?), role, owner),
        None => login_as(None, role, owner),
    }
}

/// As [`login`], with the connection that its backups were taken through.
///
/// # Errors
/// [`Code::ConninfoInvalid`]
pub fn login_as(connection: Option<&str>, role: Option<&str>, owner: &Owner) -> Result<Login> {
    let Some(connection) = connection else {
        return postgres::login("", role.unwrap_or(DEFAULT_ROLE), owner);
    };
    let usual = postgres::resolve(connection, owner)?.user().to_owned();
    match role {
        // The password is the usual role's.
        Some(other) if other != usual => postgres::login("", other, owner),
        _ => postgres::login(connection, &usual, owner),
    }
}

/// How a plan is shown before it is agreed to.
#[derive(Debug, Clone, Copy)]
struct ShownPlan {
    dry_run: bool,
    json: bool,
}

impl ShownPlan {
    const fn of(args: &RestoreArgs) -> Self {
        Self { dry_run: args.dry_run, json: args.output.json }
    }

    /// On standard output where the plan is what was asked for, else on standard error.
    fn show(self, planned: &PlannedRestore) -> Result<()> {
        if self.dry_run && self.json {
            return Out.json(&plan_as_json(planned.plan())?);
        }
        let mut text = format!("{}\n", sentence(&planned.plan().text()));
        if let Some(time) = planned.target().time() {
            text.push_str(&format!("target time   {}\n", zones(time, None)));
        }
        if planned.is_resumed() {
            text.push_str("resuming      an interrupted restore is gone on with\n");
        }
        if self.dry_run {
            return Out.text(&text);
        }
        eprint!("{}", Style::of_stderr().dim(text.trim_end()));
        eprintln!();
        Ok(())
    }
}

fn tell_proven(planned: &PlannedReport) {
    if let Some(delta) = &planned.delta {
        eprintln!(
            "compared {}, and proven what differs: {} would be fetched and {} written",
            ByteSize(delta.compared_bytes),
            ByteSize(delta.fetched_bytes),
            ByteSize(planned.bytes)
        );
        return;
    }
    let content = if planned.content_is_proven {
        ""
    } else {
        ", the files' content apart (--prove reads that too)"
    };
    eprintln!("proven{content}: {} would be written", ByteSize(planned.bytes));
}

/// The plan with its warnings as text.
fn plan_as_json(plan: &RestorePlan) -> Result<Value> {
    let mut json = serde_json::to_value(plan)
        .code(Code::Internal, || "the plan cannot be written as JSON".to_owned())?;
    json["warnings"] = plan.warnings.iter().map(sentence).collect();
    Ok(json)
}
