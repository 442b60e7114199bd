//! `seawall job`: one job for another program. `docs/job.md` is the contract.

mod input;
mod pipe;

use std::path::Path;
use std::sync::Arc;

use seawall_core::{Code, Error, LocalPath, Result};
use seawall_engine::job::{
    Cancel, Events, JobEnd, JobEvent, JobKey, JobRepository, JobRequest, Verb,
};

use crate::args::{JobArgs, ServerArgs};
use crate::commands::restore::{self, Hands, target_of};
use crate::context::{Context, Place};
use crate::exit::Outcome;
use crate::heap;
use crate::job::{Site, outcome};
use pipe::EventPipe;

/// Runs the command.
///
/// # Errors
/// What the job ended with; it is told as an event too.
pub fn main(config: Option<&Path>, args: &JobArgs) -> Result<Outcome> {
    let cancel = Cancel::default();
    let pipe = Arc::new(EventPipe::begin()?);
    let end = run(config, args, &cancel, &pipe).unwrap_or_else(JobEnd::failed);
    let end = tell(&pipe, end);
    pipe.end(&cancel);
    outcome(end)
}

fn run(
    config: Option<&Path>,
    args: &JobArgs,
    cancel: &Cancel,
    pipe: &Arc<EventPipe>,
) -> Result<JobEnd> {
    let text = match &args.request {
        Some(path) => input::read_request(path)?,
        None => input::listen(cancel, pipe)?,
    };
    let request = JobRequest::parse(&text)?;
    heap::bound(request.budget.heaps);
    let context = Context::of_job(config, &request)?;
    let hands = match &request.verb {
        Verb::Restore(verb) => {
            refuse_what_postgres_cannot_open(&request)?;
            Some(Hands::take(&context, verb)?)
        }
        Verb::Backup(_) | Verb::Verify(_) | Verb::Check(_) => {
            let data_directory = request.data_directory.as_ref().map(AsRef::as_ref);
            context.become_owner(data_directory)?;
            None
        }
    };
    let (request, places) = completed(request, &context)?;
    let site = Site::new(&context, places);
    let site = match hands {
        Some(hands) => site.with_hands(hands),
        None => site,
    };
    let request = with_repositories(request, &site, &context);
    site.run(&request, || Arc::clone(pipe) as Arc<dyn Events>, cancel)
}

/// A restored server fetches WAL with a command, in which a repository is named by configuration, or
/// by one URL and one file.
fn refuse_what_postgres_cannot_open(request: &JobRequest) -> Result<()> {
    let is_text = |one: &JobRepository| matches!(one.key, Some(JobKey::Text(_)));
    let is_given = |one: &JobRepository| one.key.is_some();
    let repositories = request.repositories.as_slice();
    if !repositories.iter().any(is_text)
        && (repositories.len() < 2 || !repositories.iter().any(is_given))
    {
        return Ok(());
    }
    let what = "the restored server could not fetch WAL: it needs the key of one repository in a file, or repositories that the host's configuration has";
    Err(Error::new(Code::JobRequestInvalid, what)
        .with_hint("Name one repository, with `{\"file\": PATH}` as its key."))
}

/// The request with what the host's configuration says where it leaves something open, and its
/// repositories.
fn completed(request: JobRequest, context: &Context) -> Result<(JobRequest, Vec<Place>)> {
    let named = request.cluster.as_ref();
    match &request.verb {
        Verb::Backup(_) | Verb::Check(_) => {
            let target = context.one_target(named)?;
            let server = ServerArgs {
                connection: request.connection.map(|text| text.reveal().to_owned()),
                data_directory: request.data_directory.map(|LocalPath(path)| path),
            };
            let (connection, data_directory) = target.address(&server)?;
            let request = JobRequest {
                cluster: Some(target.name),
                connection: Some(connection),
                data_directory,
                ..request
            };
            Ok((request, target.places))
        }
        Verb::Restore(verb) => {
            let target = target_of(context, named)?;
            let configured = match &request.connection {
                Some(given) => Some(given.clone()),
                None => restore::connection(context, target.as_ref(), verb.start.is_some())?,
            };
            let (cluster, places) = match target {
                Some(target) => (Some(target.name), target.places),
                None => (None, context.places()),
            };
            Ok((JobRequest { cluster, connection: configured, ..request }, places))
        }
        Verb::Verify(_) => {
            let places = match named {
                Some(name) => context.target(name)?.places,
                None => context.places(),
            };
            Ok((request, places))
        }
    }
}

fn with_repositories(request: JobRequest, site: &Site, context: &Context) -> JobRequest {
    let mut repositories = site.repositories(context);
    for repository in &mut repositories {
        let asked = request.repositories.iter().find(|asked| asked.name == repository.name);
        if let Some(asked) = asked.filter(|asked| !asked.clusters.is_empty()) {
            repository.clusters.clone_from(&asked.clusters);
        }
    }
    JobRequest { repositories, ..request }
}

/// Tells the last events.
fn tell(pipe: &EventPipe, end: JobEnd) -> JobEnd {
    let JobEnd { report, ending, error } = end;
    if let Some(report) = report {
        pipe.event(&JobEvent::Report { report });
    }
    let error = error.map(|error| {
        let event = JobEvent::Error { repository: None, error };
        pipe.event(&event);
        event
    });
    pipe.event(&JobEvent::End { outcome: ending });
    let error = error.and_then(|event| match event {
        JobEvent::Error { error, .. } => Some(error),
        _ => None,
    });
    JobEnd { report: None, ending, error }
}
