//! `seawall prune`: what stays of backups and WAL, what goes, and why; and how it goes.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use seawall_core::{
    BackupId, ByteSize, ClusterName, Error, Hint, Progress, Result, Stage, counted,
};
use seawall_engine::job::{Events, JobEvent};
use seawall_engine::lines::{KnownLine, stored_lines};
use seawall_engine::prune::{self, Going, Gone, PruneReport, PruneRequest};
use seawall_engine::retention::{plan_line, plan_to_act};
use seawall_repo::Line;
use seawall_repo::retention::{
    BackupFate, Gap, LinePlan, Lost, Moment, Policy, Recovery, Rule, WalFate,
};
use serde_json::{Value, json};

use crate::args::PruneArgs;
use crate::context::{Context, Opened, Place};
use crate::exit::Outcome;
use crate::render::{self, Align, Display, Out, confirm, table, utc};
use crate::run;

/// Runs the command.
///
/// # Errors
/// [`seawall_core::Code::PruneRefused`], [`seawall_core::Code::NotConfirmed`], and those of
/// configuration and repositories.
pub fn main(config: Option<&Path>, args: &PruneArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let target = super::restore::target_of(&context, args.cluster.cluster.as_ref())?;
    let (cluster, places) = match target {
        Some(target) => (Some(target.name), target.places),
        None => (None, context.places()),
    };
    context.become_owner(None)?;
    let runtime = run::runtime()?;
    let mut shelves = Vec::new();
    for place in places {
        shelves.push(runtime.block_on(Shelf::look(&context, place, cluster.as_ref())));
    }
    let told = |of: fn(&Shelf) -> String, shelves: &[Shelf]| {
        Out.text(&shelves.iter().map(of).collect::<Vec<_>>().join("\n"))
    };
    if !args.output.json {
        told(Shelf::text, &shelves)?;
    }
    if !args.dry_run {
        if shelves.iter().any(Shelf::goes) {
            confirm("Let go what goes?", args.yes)?;
        }
        let progress = Shown(Display::new());
        for shelf in &mut shelves {
            runtime.block_on(shelf.prune(&progress));
        }
    }
    if args.output.json {
        let repositories: Vec<Value> = shelves.iter().map(Shelf::json).collect();
        let cluster = shelves.iter().find_map(|shelf| shelf.cluster.clone()).or(cluster);
        Out.json(&json!({ "cluster": cluster, "repositories": repositories }))?;
    } else if !args.dry_run {
        told(Shelf::pruned_text, &shelves)?;
    }
    end(shelves)
}

/// Shows how far it has come.
struct Shown(Display);

impl Progress for Shown {
    fn stage(&self, stage: Stage, total_bytes: Option<u64>) {
        self.0.event(&JobEvent::Stage { stage, total_bytes });
    }

    fn detail(&self, what: &str) {
        self.0.event(&JobEvent::Waiting { waits_for: what.to_owned() });
    }

    fn advance(&self, _: u64) {}

    fn note(&self, note: &Hint) {
        self.0.event(&JobEvent::Note { note: note.clone() });
    }
}

/// A refusal to plan comes before a repository that could not be looked at.
fn end(shelves: Vec<Shelf>) -> Result<Outcome> {
    let is_planned = shelves.iter().any(|shelf| shelf.lines.iter().any(|line| line.plan.is_ok()));
    let (mut away, mut refused) = (Vec::new(), Vec::new());
    for Shelf { repository, lines, problem, .. } in shelves {
        let told = |error: Error| error.context(format_args!("repository {repository}"));
        away.extend(problem.map(told));
        let of_line =
            |line: PlannedLine| line.plan.err().or_else(|| line.pruned.and_then(Result::err));
        refused.extend(lines.into_iter().filter_map(of_line).map(told));
    }
    let (last, others) = match (refused.pop(), away.pop()) {
        (Some(refusal), last) => (Some(refusal), last),
        (None, Some(last)) if is_planned => {
            away.push(last);
            (None, None)
        }
        (None, last) => (last, None),
    };
    away.extend(others);
    let has_findings = !away.is_empty();
    away.iter().chain(&refused).for_each(render::report);
    match last {
        Some(error) => Err(error),
        None if has_findings => Ok(Outcome::Findings),
        None => Ok(Outcome::Done),
    }
}

/// What one repository has of the cluster.
struct Shelf {
    repository: String,
    cluster: Option<ClusterName>,
    policy: Policy,
    lines: Vec<PlannedLine>,
    /// Why it could not be looked at.
    problem: Option<Error>,
}

struct PlannedLine {
    line: Line,
    plan: Result<LinePlan>,
    /// What was done, if anything was to be.
    pruned: Option<Result<PruneReport>>,
}

impl PlannedLine {
    /// Lets go what was shown, as far as it still goes: somebody may have held it since.
    async fn prune(&mut self, policy: &Policy, progress: &dyn Progress) {
        let Ok(shown) = &self.plan else { return };
        let shown: BTreeSet<BackupId> = shown.going().map(|backup| backup.id.0).collect();
        let line = &self.line;
        let pruned = async {
            let plan = plan_to_act(line, policy).await?;
            let mut going = Going::from(&plan);
            going.backups.retain(|id| shown.contains(id));
            prune::run(line, &going, PruneRequest::default(), progress).await
        };
        self.pruned = Some(pruned.await);
    }
}

impl Shelf {
    async fn look(context: &Context, place: Place, named: Option<&ClusterName>) -> Self {
        let mut shelf = Self {
            repository: place.name.clone(),
            cluster: named.cloned(),
            policy: Policy::none(),
            lines: Vec::new(),
            problem: None,
        };
        match shelf.known_lines(place).await {
            Err(error) => shelf.problem = Some(error),
            Ok(lines) => {
                shelf.cluster = lines.last().map(|known| known.line.cluster().clone());
                if let Some(cluster) = &shelf.cluster {
                    shelf.policy = context.config.retention(cluster, &shelf.repository);
                }
                for KnownLine { line, .. } in lines {
                    let plan = plan_line(&line, &shelf.policy, Timestamp::now()).await;
                    shelf.lines.push(PlannedLine { line, plan, pruned: None });
                }
            }
        }
        shelf
    }

    async fn known_lines(&self, place: Place) -> Result<Vec<KnownLine>> {
        let Opened { repository, .. } = place.open().await?;
        stored_lines(&repository, self.cluster.as_ref()).await
    }

    /// Whether anything goes that is not condemned yet, or may be.
    fn goes(&self) -> bool {
        self.lines.iter().any(|line| line.plan.as_ref().is_ok_and(|plan| !plan.keeps_all()))
    }

    async fn prune(&mut self, progress: &dyn Progress) {
        for line in &mut self.lines {
            line.prune(&self.policy, progress).await;
        }
    }

    fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            let id = line.line.id().to_string();
            let (pruned, failed) = match &line.pruned {
                Some(Ok(pruned)) => (Some(pruned), None),
                Some(Err(error)) => (None, Some(error)),
                None => (None, None),
            };
            match &line.plan {
                Ok(plan) => json!({
                    "line": id,
                    "plan": plan,
                    "going_backups_stored_bytes": going_bytes(plan),
                    "going_wal_bytes": going_wal_bytes(plan),
                    "pruned": pruned,
                    "error": failed,
                }),
                Err(error) => {
                    json!({ "line": id, "plan": null, "pruned": null, "error": error })
                }
            }
        });
        json!({
            "name": self.repository,
            "retention": policy_json(&self.policy),
            "lines": lines.collect::<Vec<_>>(),
            "error": self.problem,
        })
    }

    fn text(&self) -> String {
        let cluster =
            self.cluster.as_ref().map_or_else(String::new, |it| format!("cluster {it}, "));
        let policy = policy_text(&self.policy);
        let mut text = format!("{cluster}repository {}: {policy}\n", self.repository);
        for line in &self.lines {
            if self.lines.len() > 1 {
                text.push_str(&format!("\nline {}\n", line.line.id()));
            }
            match &line.plan {
                Ok(plan) => text.push_str(&plan_text(plan)),
                // Why is told after all that is planned.
                Err(_) => text.push_str("nothing goes: it could not be decided\n"),
            }
        }
        text
    }
}

impl Shelf {
    fn pruned_text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let Some(Ok(pruned)) = &line.pruned else { continue };
            let of_line = match self.lines.len() {
                1 => String::new(),
                _ => format!(", line {}", line.line.id()),
            };
            text.push_str(&format!("repository {}{of_line}:\n", self.repository));
            text.push_str(&report_text(pruned));
        }
        text
    }
}

fn report_text(report: &PruneReport) -> String {
    let mut text = String::new();
    let gone = |word: &str, gone: &Gone| {
        let backups = match gone.backups.as_slice() {
            [] => String::new(),
            ids => format!("; {}: {}", counted(ids.len(), "backup"), ids.join(", ")),
        };
        let (all, bytes) = (counted(gone.all.objects, "object"), ByteSize(gone.all.bytes));
        let wal = ByteSize(gone.wal.bytes);
        format!("  {word} {all}, {bytes} ({wal} of WAL){backups}\n")
    };
    if report.deleted.all.objects > 0 {
        text.push_str(&gone("deleted", &report.deleted));
    }
    if report.condemned.all.objects > 0 {
        text.push_str(&gone("condemned", &report.condemned));
    }
    for backup in &report.spared {
        text.push_str(&format!("  backup {backup} was condemned, and stays after all\n"));
    }
    for attempt in &report.fenced {
        let what = "died a day ago or longer, and is not gone on with any more";
        text.push_str(&format!("  backup {attempt} {what}\n"));
    }
    match report.goes_at {
        Some(goes_at) => {
            let waiting = counted(report.waiting, "condemned object");
            text.push_str(&format!(
                "  {waiting}: the next prune from {} on deletes what waited long enough\n",
                utc(goes_at)
            ));
        }
        None => text.push_str("  nothing waits to be deleted\n"),
    }
    text
}

fn going_bytes(plan: &LinePlan) -> u64 {
    plan.going().filter_map(|backup| backup.stored_bytes).sum()
}

fn going_wal_bytes(plan: &LinePlan) -> u64 {
    plan.going_wal().map(|(_, range)| range.len_bytes()).sum()
}

fn plan_text(plan: &LinePlan) -> String {
    let mut text = String::new();
    if plan.backups.is_empty() {
        text.push_str("no backups\n");
    } else {
        text.push_str(&backups_table(plan));
    }
    if !plan.wal.is_empty() {
        text.push_str(&format!("\n{}", wal_table(plan)));
    }
    text.push('\n');
    text.push_str(&recovery_text(&plan.recovery));
    plan.lost.iter().for_each(|lost| text.push_str(&lost_text(lost)));
    plan.gaps.iter().for_each(|gap| text.push_str(&gap_text(gap)));
    text.push_str(&sum_text(plan));
    text
}

fn backups_table(plan: &LinePlan) -> String {
    let columns = [
        ("BACKUP", Align::Left),
        ("WRITTEN", Align::Left),
        ("STORED", Align::Right),
        ("", Align::Left),
        ("WHY", Align::Left),
    ];
    let dash = || "-".to_owned();
    let rows = plan.backups.iter().map(|backup| {
        let (fate, why) = match &backup.fate {
            BackupFate::Keep(why) => {
                let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                ("stays", why.join(", "))
            }
            BackupFate::Go(why) => ("goes", why.to_string()),
        };
        vec![
            backup.id.to_string(),
            backup.written.map_or_else(dash, utc),
            backup.stored_bytes.map_or_else(dash, |bytes| ByteSize(bytes).to_string()),
            fate.to_owned(),
            why,
        ]
    });
    table(&columns, rows.collect())
}

fn wal_table(plan: &LinePlan) -> String {
    let columns =
        [("TIMELINE", Align::Right), ("WAL", Align::Left), ("", Align::Left), ("FOR", Align::Left)];
    let rows = plan.wal.iter().map(|wal| {
        let (fate, what) = match &wal.fate {
            WalFate::Keep(what) => {
                let what: Vec<String> = what.iter().map(ToString::to_string).collect();
                ("stays", what.join(", "))
            }
            WalFate::Go => ("goes", "nothing that stays needs it".to_owned()),
        };
        vec![wal.timeline.to_string(), wal.range.to_string(), fate.to_owned(), what]
    });
    table(&columns, rows.collect())
}

fn moment(moment: &Moment) -> String {
    format!("{} ({})", utc(moment.at), moment.backup)
}

fn recovery_text(recovery: &Recovery) -> String {
    let shown = |at: Option<Moment>| at.as_ref().map_or_else(|| "none".to_owned(), moment);
    let then = |before: Option<Moment>, after: Option<Moment>| {
        if before == after {
            shown(before)
        } else {
            format!("{}, then {}", shown(before), shown(after))
        }
    };
    let earliest = then(recovery.earliest_before, recovery.earliest_after);
    let every = then(recovery.every_moment_before, recovery.every_moment_after);
    format!("first moment   {earliest}\nevery moment from {every}\n")
}

fn lost_text(lost: &Lost) -> String {
    let after =
        lost.after.as_ref().map_or_else(String::new, |it| format!(", after {}", moment(it)));
    let before =
        lost.before.as_ref().map_or_else(String::new, |it| format!(", before {}", moment(it)));
    format!(
        "cannot be restored any more: timeline {}, {}{after}{before}\n",
        lost.timeline, lost.range
    )
}

fn gap_text(gap: &Gap) -> String {
    format!("missing already: timeline {}, {}\n", gap.timeline, gap.range)
}

fn sum_text(plan: &LinePlan) -> String {
    if plan.keeps_all() {
        return "nothing goes\n".to_owned();
    }
    let backups = counted(plan.going().count(), "backup");
    let (stored, wal) = (ByteSize(going_bytes(plan)), ByteSize(going_wal_bytes(plan)));
    format!(
        "{backups} would go, which stored {stored} when made (others may share it), and {wal} of WAL\n"
    )
}

fn rules(policy: &Policy) -> [(Rule, u32); 5] {
    let keep = policy.keep;
    [
        (Rule::Hourly, keep.hourly),
        (Rule::Daily, keep.daily),
        (Rule::Weekly, keep.weekly),
        (Rule::Monthly, keep.monthly),
        (Rule::Yearly, keep.yearly),
    ]
}

fn policy_text(policy: &Policy) -> String {
    if policy.is_none() {
        return "no retention is configured, so everything stays".to_owned();
    }
    let span = |span: jiff::SignedDuration| render::duration(span.unsigned_abs());
    let mut parts = Vec::new();
    parts.extend(policy.last.map(|last| format!("last {last}")));
    parts.extend(policy.window.map(|window| format!("window {}", span(window))));
    parts.extend(policy.age.map(|age| format!("age {}", span(age))));
    let kept = rules(policy).into_iter().filter(|(_, count)| *count > 0);
    parts.extend(kept.map(|(rule, count)| format!("{} {count}", rule.word())));
    parts.join(", ")
}

fn policy_json(policy: &Policy) -> Value {
    if policy.is_none() {
        return Value::Null;
    }
    let keep: serde_json::Map<String, Value> = rules(policy)
        .into_iter()
        .map(|(rule, count)| (rule.word().to_owned(), json!(count)))
        .collect();
    json!({
        "last": policy.last,
        "window_s": policy.window.map(|window| window.as_secs()),
        "age_s": policy.age.map(|age| age.as_secs()),
        "keep": keep,
        "zone": policy.zone.iana_name(),
    })
}
