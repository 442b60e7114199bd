//! `seawall verify`: reads and authenticates.

use std::path::Path;
use std::sync::Arc;

use seawall_core::{Action, ByteSize, Result, counted};
use seawall_engine::job::{
    Cancel, JobReport, JobRequest, RepositoryOutcome, VERSION, Verb, VerifyVerb,
};
use seawall_engine::verify::VerifyReport;
use serde_json::json;

use crate::args::VerifyArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::job::{Site, outcome};
use crate::render::{self, Display, Out, Style};

/// Runs the command. A repository is verified whole, whichever cluster is named: the cluster chooses
/// its repositories, and whose backup `latest` is.
///
/// # Errors
/// [`seawall_core::Code::VerifyFailed`], and those of configuration and repositories.
pub fn main(config: Option<&Path>, args: &VerifyArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let named = args.cluster.cluster.as_ref();
    let places = match named {
        Some(name) => context.target(name)?.places,
        None => context.places(),
    };
    context.become_owner(None)?;
    let site = Site::new(&context, places);
    let request = JobRequest {
        version: VERSION,
        id: None,
        verb: Verb::Verify(VerifyVerb { backup: args.backup.clone(), sample_percent: args.sample }),
        cluster: named.cloned(),
        repositories: site.repositories(&context),
        connection: None,
        data_directory: None,
        budget: args.work.budget(&context.config),
        rate: args.work.rate(&context.config),
        priority: args.priority.or(&context.config),
    };
    let mut end = site.run(&request, || Arc::new(Display::new()), &Cancel::default())?;
    if let Some(JobReport::Verify { repositories }) = &mut end.report {
        repositories.retain(|repository| repository.report.is_some());
        show(args, repositories)?;
        repositories.iter_mut().for_each(tell_unrecorded);
    }
    outcome(end)
}

/// What was found holds all the same: the storage may be read-only on purpose.
fn tell_unrecorded(repository: &mut RepositoryOutcome<VerifyReport>) {
    let report = repository.report.as_mut();
    if let Some(error) = report.and_then(|report| report.unrecorded.take()) {
        let what =
            format!("what was found in repository {} is not recorded in it", repository.name);
        render::warn(&error.context(what));
    }
}

fn show(args: &VerifyArgs, repositories: &[RepositoryOutcome<VerifyReport>]) -> Result<()> {
    if args.output.json {
        return Out.json(&json!({ "repositories": repositories }));
    }
    let style = Style::of_stdout();
    for repository in repositories {
        if let Some(report) = &repository.report {
            Out.text(&text(&repository.name, report, args, style))?;
        }
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
            style.red(&finding.state.to_string()),
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
    for cluster in &report.without_backup {
        text.push_str(&format!(
            "{} there is no backup of cluster {cluster} to verify\n  fix: {}\n",
            style.red("finding"),
            render::command(&Action::Backup { cluster: Some(cluster.clone()) })
        ));
    }
    if report.backups == 0 && report.without_backup.is_empty() {
        let finding = style.red("finding");
        text.push_str(&format!("{finding} there is no cluster in it, and no backup to verify\n"));
    }
    for backup in &report.going {
        let goes_at = render::utc(backup.goes_at);
        text.push_str(&format!("going backup {}, not before {goes_at}\n", backup.id));
    }
    for backup in &report.verified {
        text.push_str(&format!("{} backup {backup}\n", style.green("whole")));
    }
    if report.findings.is_empty() && args.sample < 100 {
        let sample = args.sample;
        text.push_str(&format!("nothing is wrong with what was read, {sample}% of the data\n"));
    } else if report.findings.is_empty() && args.backup.is_none() && !report.lacks_backups() {
        text.push_str("every object is whole\n");
    }
    text
}
