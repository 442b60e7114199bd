//! `seawall wal fetch NAME PATH`: `restore_command`.
//!
//! PostgreSQL takes exit status 1 for proof that there is no such WAL, and ends recovery on it. So
//! nothing but proof may end in [`Code::WalPastEnd`]; `exit::Caller` gives every other failure a
//! status above 200.

use std::path::Path;
use std::time::Duration;

use seawall_core::{ClusterName, Code, Error, Result, TimelineId};
use seawall_engine::restore::RestoreState;
use seawall_engine::wal::{FetchRequest, RecoveringServer, RestorePath, fetch};
use seawall_repo::Line;

use crate::args::FetchArgs;
use crate::context::{Context, Place};
use crate::exit::Outcome;
use crate::report::stored_cluster;
use crate::run;

/// How often a standby's fetch is tried again before PostgreSQL is told to ask later.
const STANDBY_RETRIES: u32 = 3;

/// How long between two tries.
const STANDBY_PAUSE: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// [`Code::WalPastEnd`] if the file is proven not to exist; anything else is not proof.
pub fn main(config: Option<&Path>, args: &FetchArgs) -> Result<Outcome> {
    let context = Context::of_server(config, &args.repository)?;
    let state = restore_state(&args.path)?;
    let cluster = cluster(&context, args, state.as_ref())?;
    let places = match &cluster {
        Some(name) => context.target(name)?.places,
        None => context.places(),
    };
    context.become_owner(None)?;
    let wanted = Wanted { args, cluster: cluster.as_ref(), state: state.as_ref(), places: &places };
    run::runtime()?.block_on(wanted.fetch_patiently())?;
    Ok(Outcome::Done)
}

/// PostgreSQL runs the command in the data directory and gives a path relative to it. Run by hand,
/// the path tells: `PGDATA/pg_wal/NAME`.
fn restore_state(destination: &Path) -> Result<Option<RestoreState>> {
    if let Some(state) = RestoreState::read(Path::new("."))? {
        return Ok(Some(state));
    }
    match destination.parent().and_then(Path::parent).filter(|_| destination.is_absolute()) {
        Some(directory) => RestoreState::read(directory),
        None => Ok(None),
    }
}

/// The cluster named, that of the restore, or the only one there is.
fn cluster(
    context: &Context,
    args: &FetchArgs,
    state: Option<&RestoreState>,
) -> Result<Option<ClusterName>> {
    let named = args.cluster.as_ref().or_else(|| state.map(RestoreState::cluster));
    if named.is_some() || context.known_targets(None)?.is_empty() {
        return Ok(named.cloned());
    }
    context.one_target(None).map(|target| Some(target.name))
}

struct Wanted<'a> {
    args: &'a FetchArgs,
    cluster: Option<&'a ClusterName>,
    state: Option<&'a RestoreState>,
    places: &'a [Place],
}

impl Wanted<'_> {
    /// A standby waits and asks again, so that a store that does not answer is no reason to stop
    /// it. A restore stops, and so does a standby that would miss a timeline.
    async fn fetch_patiently(&self) -> Result<()> {
        let mut tries = 0;
        loop {
            let error = match self.fetch().await {
                Err(error) if self.args.standby && may_pass(&error) => error,
                done => return done,
            };
            tries += 1;
            if tries > STANDBY_RETRIES {
                if self.decides_the_timeline() {
                    return Err(error);
                }
                return Err(Error::new(
                    Code::WalPastEnd,
                    format!("{} cannot be had now, and a standby asks again", self.args.name),
                )
                .with_source(error));
            }
            tokio::time::sleep(STANDBY_PAUSE).await;
        }
    }

    /// Whether the server goes along another timeline for good if it takes the file for one that
    /// does not exist: a history as it starts, or at any time that of a timeline on its way. Once it
    /// follows a timeline, it looks for a newer one again and again.
    fn decides_the_timeline(&self) -> bool {
        let Some(number) = self.args.name.strip_suffix(".history") else { return false };
        let timeline = u32::from_str_radix(number, 16).ok().map(TimelineId);
        let path = self.state.map(RestoreState::path).unwrap_or_default();
        let on_the_way = path.iter().any(|span| Some(span.timeline) == timeline);
        on_the_way || RecoveringServer::at(&self.args.path).is_starting
    }

    async fn fetch(&self) -> Result<()> {
        let (mut lines, mut failure) = (Vec::new(), None);
        for place in self.places {
            match self.line(place.clone()).await {
                Ok(line) => lines.push(line),
                Err(error) => failure = Some(error.context(format!("repository {}", place.name))),
            }
        }
        if lines.is_empty()
            && let Some(failure) = failure
        {
            return Err(failure);
        }
        let request = FetchRequest {
            lines,
            name: self.args.name.clone(),
            destination: self.args.path.clone(),
            path: self.state.map(RestorePath::from),
            standby: self.args.standby,
        };
        match (fetch(&request).await, failure) {
            // One repository's "there is none" says nothing of one that did not open.
            (Err(error), Some(failure)) if error.code() == Code::WalPastEnd => Err(failure),
            (done, failure) => {
                if let Some(failure) = failure {
                    tracing::warn!("{}", failure.chain());
                }
                done
            }
        }
    }

    async fn line(&self, place: Place) -> Result<Line> {
        let repository = place.open().await?.repository;
        match (self.state, self.cluster) {
            (Some(state), Some(cluster)) => repository.line(cluster, state.line()),
            _ => stored_cluster(&repository, self.cluster).await,
        }
    }
}

/// Whether a failure may be over when it is tried again.
fn may_pass(error: &Error) -> bool {
    matches!(error.code(), Code::StoreFailed | Code::NoRepository | Code::WalMissing)
}
