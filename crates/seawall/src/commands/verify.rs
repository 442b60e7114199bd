//! `seawall verify`: reads and authenticates.

use std::path::Path;

use seawall_core::{Action, BackupId, ByteSize, Code, Result, counted};
use seawall_engine::survey::{candidates, find_backup};
use seawall_engine::verify::{self, VerifyReport, VerifyRequest};
use serde_json::{Value, json};

use super::backup::{rate_limit, workers};
use crate::args::VerifyArgs;
use crate::context::{Context, Opened};
use crate::exit::Outcome;
use crate::render::{self, Display, Out, Style};
use crate::run;

/// What a worker holds: a segment of WAL as it is stored, and the part of it that is proven.
const WORKER_BYTES: usize = 32 << 20;

/// Runs the command. A repository is verified whole, whichever cluster is named: the cluster chooses
/// its repositories, and whose backup `latest` is.
///
/// # Errors
/// [`Code::VerifyFailed`], and those of configuration and repositories.
pub fn main(config: Option<&Path>, args: &VerifyArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let named = args.cluster.cluster.as_ref();
    let places = match named {
        Some(name) => context.target(name)?.places,
        None => context.places(),
    };
    context.become_owner(None)?;
    args.priority.or(&context.config).take();
    let jobs = workers(&args.work, &context.config, WORKER_BYTES);
    let runtime = run::pipeline_runtime(jobs)?;
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for place in places {
        let verify = async {
            let opened = place.open().await?;
            let request = VerifyRequest {
                backup: find(&opened, args).await?,
                clusters: context.config.clusters_in(&opened.place.name),
                sample_percent: args.sample,
                jobs,
                rate_limit: rate_limit(&args.work, &context.config),
            };
            let report = verify::run(&opened.repository, &request, &Display::new()).await?;
            Ok((opened.place.name, report))
        };
        match runtime.block_on(run::until_interrupted(verify)) {
            Ok(done) => reports.push(done),
            Err(error) if error.code() == Code::Interrupted => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    show(args, &reports)?;
    // What was found holds all the same: the storage may be read-only on purpose.
    for (name, report) in reports.iter_mut() {
        if let Some(error) = report.unrecorded.take() {
            let what = format!("what was found in repository {name} is not recorded in it");
            render::warn(&error.context(what));
        }
    }
    let is_blocked = reports.iter().any(|(_, report)| !report.blocked_wal.is_empty());
    failed.extend(reports.iter().filter_map(|(_, report)| report.error()));
    if let Some(last) = failed.pop() {
        failed.iter().for_each(render::report);
        return Err(last);
    }
    Ok(if is_blocked { Outcome::Findings } else { Outcome::Done })
}

async fn find(opened: &Opened, args: &VerifyArgs) -> Result<Option<BackupId>> {
    let Some(word) = &args.backup else { return Ok(None) };
    let cluster = args.cluster.cluster.as_ref();
    let mut candidates = candidates(&opened.repository, cluster).await?;
    // The latest is the latest here, or a damaged one would not be looked at again.
    candidates.iter_mut().for_each(|one| one.is_complete = true);
    find_backup(word, candidates).map(|found| Some(found.id))
}

fn show(args: &VerifyArgs, reports: &[(String, VerifyReport)]) -> Result<()> {
    if args.output.json {
        let reports: Vec<Value> =
            reports.iter().map(|(name, report)| json!({"name": name, "report": report})).collect();
        return Out.json(&json!({ "repositories": reports }));
    }
    let style = Style::of_stdout();
    for (name, report) in reports {
        Out.text(&text(name, report, args, style))?;
    }
    Ok(())
}

fn text(name: &str, report: &VerifyReport, args: &VerifyArgs, style: Style) -> String {
    let mut text = format!(
        "repository {name}: {}, {}, {}\n",
        counted(report.objects, "object"),
        ByteSize(report.bytes),
        counted(report.backups, "backup")
    );
    for finding in &report.findings {
        text.push_str(&format!(
            "{} {}: {} ({})\n",
            style.red("damaged"),
            finding.object,
            finding.problem,
            finding.code
        ));
    }
    for blocked in &report.blocked_wal {
        text.push_str(&format!(
            "{} cluster {} cannot be restored past this with backup {}: {}\n  fix: {}\n",
            style.red("finding"),
            blocked.cluster,
            blocked.backup,
            blocked.message,
            render::command(&Action::Backup { cluster: Some(blocked.cluster.clone()) })
        ));
    }
    for backup in &report.verified {
        text.push_str(&format!("{} backup {backup}\n", style.green("whole")));
    }
    if report.findings.is_empty() && args.sample < 100 {
        let sample = args.sample;
        text.push_str(&format!("nothing is wrong with what was read, {sample}% of the data\n"));
    } else if report.findings.is_empty() && args.backup.is_none() {
        text.push_str("every object is whole\n");
    }
    text
}
