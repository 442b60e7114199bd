//! The engine's jobs in this program: repositories, connections and users are those of its
//! configuration and flags.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use seawall_core::{ClusterName, Code, Error, Result};
use seawall_engine::job::{
    self, Cancel, ConnectionText, Ending, Events, JobEnd, JobRepository, JobRequest, Program,
    Restoring,
};
use seawall_pgwire::Config;
use seawall_repo::Repository;

use crate::commands::restore::Hands;
use crate::config::DEFAULT_PATH;
use crate::context::{Context, Place};
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::{postgres, run};

/// What a job needs of this program.
pub struct Site {
    places: Vec<Place>,
    config_path: PathBuf,
    hands: Option<Hands>,
}

impl Site {
    /// Where a job is done in some of a command's repositories.
    pub fn new(context: &Context, places: Vec<Place>) -> Self {
        let config_path = context.config.path.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        Self { places, config_path, hands: None }
    }

    /// The same for a restore. One that asks listens for signals when the plan is agreed to.
    pub fn with_hands(self, hands: Hands) -> Self {
        Self { hands: Some(hands), ..self }
    }

    /// Its repositories, for a request.
    pub fn repositories(&self, context: &Context) -> Vec<JobRepository> {
        let repository = |place: &Place| JobRepository {
            name: place.name.clone(),
            url: Some(place.url.clone()),
            key: None,
            compression_level: Some(place.compression_level),
            pack_bytes: Some(place.pack_size.0),
            clusters: context.config.clusters_in(&place.name),
        };
        self.places.iter().map(repository).collect()
    }

    /// Runs a job until it is done, is told to end, or a signal ends it.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn run(
        &self,
        request: &JobRequest,
        events: impl FnOnce() -> Arc<dyn Events>,
        cancel: &Cancel,
    ) -> Result<JobEnd> {
        // Threads that come have it too.
        request.priority.take();
        if !self.hands.as_ref().is_some_and(Hands::asks) {
            run::cancel_by_signals(cancel)?;
        }
        Ok(job::run(request, self, &events(), cancel))
    }

    fn place(&self, repository: &JobRepository) -> Result<&Place> {
        let found = self.places.iter().find(|place| place.name == repository.name);
        found.ok_or_else(|| {
            Error::new(Code::Internal, format!("repository {} is not known", repository.name))
        })
    }
}

#[async_trait]
impl Program for Site {
    async fn open(&self, repository: &JobRepository) -> Result<Repository> {
        Ok(self.place(repository)?.clone().open().await?.repository)
    }

    fn explain(&self, repository: &JobRepository, error: Error) -> Error {
        match self.place(repository) {
            Ok(place) => place.explain(error),
            Err(_) => error,
        }
    }

    fn resolve(&self, connection: &ConnectionText) -> Result<Config> {
        postgres::resolve(connection.reveal(), &Owner::current())
    }

    fn archive_command(&self, cluster: &ClusterName) -> Result<String> {
        let program = postgres::own_path()?;
        Ok(postgres::archive_command(&program, &self.config_path, cluster.as_str()))
    }

    fn restoring(&self) -> Result<&dyn Restoring> {
        let hands = self.hands.as_ref().map(|hands| hands as &dyn Restoring);
        hands.ok_or_else(|| Error::new(Code::Internal, "nothing is ready for a restore"))
    }
}

/// A time as requests have it.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a job's end is for a command.
///
/// # Errors
/// What the job ended with.
pub fn outcome(end: JobEnd) -> Result<Outcome> {
    match (end.error, end.ending) {
        (Some(error), _) => Err(error),
        (None, Ending::Findings) => Ok(Outcome::Findings),
        (None, Ending::Done | Ending::Failed | Ending::Cancelled) => Ok(Outcome::Done),
    }
}
