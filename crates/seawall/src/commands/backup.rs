//! `seawall backup`: backs a cluster up into each of its repositories.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{Action, ByteSize, Code, Error, RateLimit, Result, counted, hint, printable};
use seawall_engine::backup::{self, BackupReport, BackupRequest};
use seawall_engine::cluster::{ClusterLink, Survey};
use seawall_engine::lines::current_line;
use serde_json::{Value, json};

use crate::args::{BackupArgs, WorkArgs};
use crate::config::Config;
use crate::context::{Context, Opened, Place, Server};
use crate::exit::Outcome;
use crate::render::{self, Display, Out};
use crate::run;

/// Runs the command.
///
/// # Errors
/// Those of configuration, server, cluster and repositories. When some repositories have the backup
/// and others failed, the failure is told and the outcome is "done, with findings".
pub fn main(config: Option<&Path>, args: &BackupArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let target = context.one_target(args.cluster.cluster.as_ref())?;
    let data_directory = args.server.data_directory.as_deref();
    context.become_owner(data_directory)?;
    let server = target.server(&args.server)?;
    args.priority.or(&context.config).take();
    let runtime = run::pipeline_runtime(jobs(&args.work, &context.config))?;
    refuse_while_one_is_away(&runtime, &target.places)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for place in target.places {
        let request = request(args, &context.config, &server, &place);
        let explained = place.clone();
        let backup = async {
            let opened = place.open().await?;
            let line = current_line(&opened.repository, &target.name).await?;
            let report = backup::run(&line, &request, &Display::new()).await?;
            Ok((opened, report))
        };
        let backup = async { backup.await.map_err(|error| explained.explain(error)) };
        match runtime.block_on(run::until_interrupted(backup)) {
            Ok((opened, report)) => {
                show(args, &opened, &report)?;
                done.push(report);
            }
            Err(error) if error.code() == Code::Interrupted => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    finish(&done, failed)
}

/// WAL counts as archived when all repositories have it. While one of several is away, what a backup
/// needs comes into none of them, and hours of copying would end with waiting for it.
///
/// # Errors
/// Why the first of them cannot be opened; what is the matter with the others is told.
fn refuse_while_one_is_away(runtime: &tokio::runtime::Runtime, places: &[Place]) -> Result<()> {
    if places.len() < 2 {
        return Ok(());
    }
    let opened = places.iter().map(|place| {
        let opened = runtime.block_on(place.clone().open());
        opened.map(drop).map_err(|error| {
            let name = &place.name;
            error.context(format!("repository {name} cannot be used, and no WAL is archived until it can: no backup was begun"))
        })
    });
    let mut failed: Vec<Error> = opened.filter_map(Result::err).collect();
    let Some(last) = failed.pop() else { return Ok(()) };
    failed.iter().for_each(render::report);
    let why = last.hint().cloned().unwrap_or_default();
    Err(last.with_hint(hint![
        why,
        " If it stays away: take it out of `repositories` in the configuration, so that archiving into the others resumes, and run this again. What is archived meanwhile it will lack: it needs a backup of its own when it is back."
    ]))
}

fn request(args: &BackupArgs, config: &Config, server: &Server, place: &Place) -> BackupRequest {
    let pack_size = args.pack_size.unwrap_or(place.pack_size);
    BackupRequest {
        connection: server.connection.clone(),
        data_directory: server.data_directory.clone(),
        annotations: args.annotate.iter().cloned().collect(),
        jobs: jobs(&args.work, config),
        compression_level: args.compression.unwrap_or(place.compression_level),
        pack_bytes: pack_size.0,
        rate_limit: rate_limit(&args.work, config),
        fast_checkpoint: !args.spread_checkpoint,
        wal_timeout: args.wal_timeout,
        program: concat!("seawall ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// So many links of a kind are named.
const LINKS_SHOWN: usize = 20;

/// What a worker holds: what it reads, a frame and its compressed form, and parts on their way into
/// the store.
const WORKER_BYTES: usize = 24 << 20;

/// What a job holds beside its workers: lists, maps and the manifest, part by part.
const JOB_BYTES: usize = 32 << 20;

/// How many workers a backup or restore has.
pub fn jobs(args: &WorkArgs, config: &Config) -> usize {
    workers(args, config, WORKER_BYTES)
}

/// As many workers as wanted, as far as the memory budget lets when each takes `worker_bytes`.
pub fn workers(args: &WorkArgs, config: &Config, worker_bytes: usize) -> usize {
    let wanted = args.jobs.map_or(config.jobs, |jobs| jobs.0);
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let affordable = memory(args, config).saturating_sub(JOB_BYTES) / worker_bytes;
    wanted.map_or_else(all, usize::from).min(affordable.max(1))
}

/// The memory budget of a job in bytes.
pub fn memory(args: &WorkArgs, config: &Config) -> usize {
    usize::try_from(args.memory.unwrap_or(config.memory).0).unwrap_or(usize::MAX)
}

/// How fast a job may move the cluster's bytes.
pub fn rate_limit(args: &WorkArgs, config: &Config) -> RateLimit {
    args.rate_limit.as_ref().unwrap_or(&config.rate_limit).clone()
}

fn show(args: &BackupArgs, opened: &Opened, report: &BackupReport) -> Result<()> {
    if args.output.json {
        Out.json(&as_json(opened, report))?;
    } else {
        Out.text(&text(opened, report))?;
    }
    for page in &report.page_errors {
        let path = String::from_utf8_lossy(&page.path);
        eprintln!("bad page: {path}, block {}: {}", page.block, page.reason);
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

/// The names are those of `info --json`.
fn as_json(opened: &Opened, report: &BackupReport) -> Value {
    let path = |link: &ClusterLink| link.path.to_string_lossy().into_owned();
    json!({
        "id": report.id.to_string(),
        "kind": "full",
        "source": "files",
        "state": "complete",
        "timeline": report.timeline,
        "start_lsn": report.start_lsn,
        "stop_lsn": report.stop_lsn,
        "started_at": report.started,
        "finished_at": report.finished,
        "duration_s": took(report).as_secs_f64(),
        "cluster_bytes": report.cluster_bytes,
        "read_bytes": report.read_bytes,
        "stored_bytes": report.stored_bytes,
        "files": report.files,
        "reused_files": report.reused_files,
        "resumed": report.resumed.map(|id| id.to_string()),
        "page_errors": report.page_error_count,
        "left_out": report.left_out.iter().map(|file| String::from_utf8_lossy(&file.path)).collect::<Vec<_>>(),
        "links_followed": report.links.followed.iter().map(path).collect::<Vec<_>>(),
        "links_out": report.links.kept.iter().map(path).collect::<Vec<_>>(),
        "repositories": [opened.place.name],
    })
}

fn text(opened: &Opened, report: &BackupReport) -> String {
    let mut text = format!(
        "{} full backup in {}: read {}, added {}, took {}\n",
        report.id,
        opened.place.name,
        ByteSize(report.read_bytes),
        ByteSize(report.stored_bytes),
        render::duration(took(report)),
    );
    if let Some(resumed) = report.resumed {
        text.push_str(&format!(
            "  {} of {} came from {resumed}, which did not finish\n",
            report.reused_files,
            counted(report.files, "file")
        ));
    }
    text
}

fn took(report: &BackupReport) -> std::time::Duration {
    let between = |from: Timestamp, to: Timestamp| to.duration_since(from);
    between(report.started, report.finished).try_into().unwrap_or_default()
}

fn finish(done: &[BackupReport], mut failed: Vec<Error>) -> Result<Outcome> {
    if done.is_empty()
        && let Some(last) = failed.pop()
    {
        failed.iter().for_each(render::report);
        return Err(last);
    }
    failed.iter().for_each(render::report);
    let bad_pages: u64 = done.iter().map(|report| report.page_error_count).sum();
    if bad_pages > 0 {
        return Err(Error::new(
            Code::PageErrorsFound,
            format!(
                "the backup is complete, and the database has {}",
                counted(bad_pages, "damaged page")
            ),
        )
        .with_hint(hint![
            Action::Show { backup: "latest".to_owned() },
            " lists them; keep older backups until they are mended."
        ]));
    }
    let left_out: usize = done.iter().map(|report| report.left_out.len()).sum();
    if left_out > 0 {
        return Err(Error::new(
            Code::FilesLeftOut,
            format!("the backup is complete, but for {}", counted(left_out as u64, "file")),
        )
        .with_hint(
            "They are not PostgreSQL's, and something writes them all the time: let it write outside the data directory.",
        ));
    }
    Ok(if failed.is_empty() { Outcome::Done } else { Outcome::Findings })
}

#[cfg(test)]
mod tests {
    use seawall_core::ByteSize;

    use super::*;
    use crate::args::Jobs;

    #[test]
    fn memory_bounds_the_workers_and_leaves_one() {
        let args = |jobs: usize, memory: u64| WorkArgs {
            jobs: Some(Jobs(std::num::NonZeroUsize::new(jobs))),
            memory: Some(ByteSize(memory)),
            rate_limit: None,
        };
        let config = Config::none();
        assert_eq!(jobs(&args(4, 128 << 20), &config), 4);
        assert_eq!(jobs(&args(64, 256 << 20), &config), 9);
        assert_eq!(jobs(&args(64, 64 << 20), &config), 1);
    }
}
