//! `seawall wal fetch NAME PATH`: `restore_command`.
//!
//! PostgreSQL takes exit status 1 for proof that there is no such WAL, and ends recovery on it. So
//! nothing but proof may end in [`Code::WalPastEnd`]; `exit::Caller` gives every other failure a
//! status above 200.

use std::path::Path;
use std::time::Duration;

use seawall_core::{ClusterName, Code, Error, Result};
use seawall_engine::restored::RestoreState;
use seawall_engine::wal::{
    FetchRequest, RestorePath, WhileAway, fetch, fetch_kept, keep_recovering, while_away,
};
use seawall_engine::whereabouts::Whereabouts;
use seawall_repo::Line;

use crate::args::FetchArgs;
use crate::context::{Context, Place, open_all};
use crate::exit::Outcome;
use crate::{render, run};

/// How often a standby's fetch is tried again before PostgreSQL is told to ask later.
const STANDBY_RETRIES: u32 = 3;

/// How long between two tries.
const STANDBY_PAUSE: Duration = Duration::from_secs(2);

/// After how many tries it is told again, in the server's log, what is waited for.
const TRIES_A_WORD: u32 = 30;

/// Runs the command.
///
/// # Errors
/// [`Code::WalPastEnd`] if the file is proven not to exist; anything else is not proof.
pub fn main(config: Option<&Path>, args: &FetchArgs) -> Result<Outcome> {
    if fetch_kept(&args.name, &args.path)? {
        return Ok(Outcome::Done);
    }
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
    /// it; and no reason to end its recovery, whoever asked for its promotion. A restore stops, and
    /// so does a standby that would miss a timeline.
    async fn fetch_patiently(&self) -> Result<()> {
        let mut tries = 0;
        loop {
            let Err(error) = self.fetch().await else { return Ok(()) };
            if error.code() == Code::WalPastEnd {
                return Err(error);
            }
            let may_pass = self.args.standby && may_pass(&error);
            let is_patient = may_pass && tries < STANDBY_RETRIES;
            match while_away(&self.request(Vec::new())) {
                WhileAway::GoWithout => return Err(self.not_now(error)),
                WhileAway::NotNow if may_pass && !is_patient => return Err(self.not_now(error)),
                WhileAway::Wait if may_pass => {
                    if tries % TRIES_A_WORD == STANDBY_RETRIES {
                        self.say_what_is_waited_for(&error);
                    }
                }
                _ if is_patient => {}
                _ => return Err(error),
            }
            tries += 1;
            tokio::time::sleep(STANDBY_PAUSE).await;
        }
    }

    fn not_now(&self, error: Error) -> Error {
        let what = format!("{} cannot be had now, and the server goes on without", self.args.name);
        Error::new(Code::WalPastEnd, what).with_source(error)
    }

    fn say_what_is_waited_for(&self, error: &Error) {
        eprintln!(
            "seawall: {} cannot be had now, and the standby waits for it, promotion or not: {}",
            self.args.name,
            error.chain()
        );
    }

    fn request(&self, lines: Vec<Line>) -> FetchRequest {
        FetchRequest {
            lines,
            name: self.args.name.clone(),
            destination: self.args.path.clone(),
            path: self.state.map(RestorePath::from),
            standby: self.args.standby,
        }
    }

    async fn fetch(&self) -> Result<()> {
        let mut found = self.whereabouts().await;
        let failure = found.take_failure();
        let lines: Vec<Line> = found.lines.into_iter().map(|(_, line)| line).collect();
        if lines.is_empty()
            && let Some(failure) = failure
        {
            return Err(failure);
        }
        let request = self.request(lines);
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

    async fn whereabouts(&self) -> Whereabouts {
        let opened = open_all(self.places.to_vec()).await;
        match self.state {
            Some(state) => Whereabouts::of_restored(opened, state),
            None => Whereabouts::of_written(opened, self.cluster).await,
        }
    }
}

/// Whether a failure may be over when it is tried again: the archive could not be asked.
fn may_pass(error: &Error) -> bool {
    matches!(error.code(), Code::StoreFailed | Code::NoRepository)
}

/// Sees to it that a server which a failed fetch is about to stop recovers again when it is started,
/// whatever it failed on. PostgreSQL runs the command in the data directory.
pub fn keep_server_recovering(standby: bool) {
    match keep_recovering(Path::new("."), standby) {
        Ok(None) => {}
        Ok(Some(signal)) => eprintln!("seawall: made {} again", signal.display()),
        Err(error) => render::report(&error),
    }
}
