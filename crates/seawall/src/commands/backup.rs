//! `seawall backup`: backs a cluster up into all of its repositories.

use std::path::Path;
use std::sync::Arc;

use seawall_core::{ByteSize, Result, counted, printable};
use seawall_engine::backup::{BackupReport, DestinationReport, Kept, LedOn};
use seawall_engine::cluster::Survey;
use seawall_engine::job::{BackupVerb, Cancel, JobReport, JobRequest, VERSION, Verb};
use seawall_repo::manifest::Incident;
use serde_json::json;

use crate::args::BackupArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::job::{Site, milliseconds, outcome};
use crate::render::{self, Display, Out};

/// Runs the command.
///
/// # Errors
/// Those of configuration, server, cluster and repositories. When some repositories have the backup
/// and others failed, the failure is told and the outcome is "done, with findings".
pub fn main(config: Option<&Path>, args: &BackupArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let target = context.one_target(args.cluster.cluster.as_ref())?;
    context.become_owner(args.server.data_directory.as_deref())?;
    let (connection, data_directory) = target.address(&args.server)?;
    let mut places = target.places;
    for place in &mut places {
        place.compression_level = args.compression.unwrap_or(place.compression_level);
        place.pack_size = args.pack_size.unwrap_or(place.pack_size);
    }
    let site = Site::new(&context, places);
    let request = JobRequest {
        version: VERSION,
        id: None,
        verb: Verb::Backup(BackupVerb {
            full: args.full,
            parent: args.parent.clone(),
            annotations: args.annotate.iter().cloned().collect(),
            spread_checkpoint: args.spread_checkpoint,
            wal_timeout_ms: milliseconds(args.wal_timeout),
        }),
        cluster: Some(target.name),
        repositories: site.repositories(&context),
        connection: Some(connection),
        data_directory,
        budget: args.work.budget(&context.config),
        rate: args.work.rate(&context.config),
        priority: args.priority.or(&context.config),
    };
    let end = site.run(&request, || Arc::new(Display::new()), &Cancel::default())?;
    match &end.report {
        Some(JobReport::Backup(report)) => show(args, report)?,
        // What people are told of it is in the error.
        Some(JobReport::CancelledBackup(report)) if args.output.json => Out.json(&json!(report))?,
        _ => {}
    }
    outcome(end)
}

/// So many links of a kind are named.
const LINKS_SHOWN: usize = 20;

fn show(args: &BackupArgs, report: &BackupReport) -> Result<()> {
    if args.output.json {
        Out.json(&json!(report))?;
    } else {
        Out.text(&text(report))?;
    }
    for page in &report.page_errors {
        let path = String::from_utf8_lossy(&page.path);
        eprintln!("bad page: {path}, block {}: {}", page.block, page.reason);
    }
    for Incident { path, block, kind } in &report.incidents.listed {
        eprintln!("incident: {}, block {block}: {kind}", String::from_utf8_lossy(path));
    }
    for file in &report.left_out {
        let path = printable(&String::from_utf8_lossy(&file.path));
        eprintln!("left out: {path}: {}", file.reason);
    }
    links(&report.links);
    Ok(())
}

/// Where links lead that PostgreSQL did not make, and what that means for a restore.
fn links(survey: &Survey) {
    let each = [
        (&survey.followed, "is in the backup; a restore makes no link of it"),
        (&survey.kept, "is not in the backup; a restore leaves the link out"),
    ];
    for (links, what) in each {
        for link in links.iter().take(LINKS_SHOWN) {
            let shown = |path: &Path| printable(&path.display().to_string());
            let (path, target) = (shown(&link.path), shown(&link.target));
            eprintln!("note: {path} is a link to {target}: what is there {what}");
        }
        if links.len() > LINKS_SHOWN {
            eprintln!(
                "note: so it is with {} more",
                counted((links.len() - LINKS_SHOWN) as u64, "link")
            );
        }
    }
}

fn text(report: &BackupReport) -> String {
    let (id, read) = (report.id, ByteSize(report.read_bytes));
    let took = render::duration(report.took());
    if let [DestinationReport { name, outcome: Ok(kept) }] = report.destinations.as_slice() {
        let (kind, added) = (kept.led_on.kind(), ByteSize(kept.stored_bytes));
        let more: String = more(report, kept).iter().map(|what| format!("  {what}\n")).collect();
        return format!("{id} {kind} backup in {name}: read {read}, added {added}, took {took}\n")
            + &more;
    }
    let mut text = format!("{id} backup: read {read} once, took {took}\n");
    for DestinationReport { name, outcome } in &report.destinations {
        let told = match outcome {
            Ok(kept) => {
                let added = ByteSize(kept.stored_bytes);
                let more: String =
                    more(report, kept).iter().map(|what| format!("; {what}")).collect();
                format!("complete, added {added}{more}")
            }
            Err(error) => format!("no backup ({})", error.code()),
        };
        text.push_str(&format!("  in {name}: {told}\n"));
    }
    text
}

/// What else is to be told of a backup in a repository.
fn more(report: &BackupReport, kept: &Kept) -> Vec<String> {
    let files = counted(report.files, "file");
    let mut more = Vec::new();
    match &kept.led_on {
        LedOn::Nothing { why } => more.extend(why.as_ref().map(|why| format!("full: {why}"))),
        LedOn::From { parent, trouble, .. } => {
            let same = kept.unchanged_files;
            more.push(format!("leads on from {parent}: {same} of {files} did not change"));
            more.extend(trouble.clone());
        }
    }
    more.extend(kept.resumed.map(|resumed| {
        format!("{} of {files} came from {resumed}, which did not finish", kept.reused_files)
    }));
    more
}
