use async_trait::async_trait;
use seawall_core::{ClusterName, Error, Result};
use seawall_pgwire::Config;
use seawall_repo::Repository;

use super::{ConnectionText, JobRepository};

/// The program that a job runs in: what only it knows of its host, its user and its configuration.
#[async_trait]
pub trait Program: Send + Sync {
    /// Opens a repository.
    ///
    /// # Errors
    /// Those of its key, its store and the repository.
    async fn open(&self, repository: &JobRepository) -> Result<Repository>;

    /// An error of a repository, with what the program knows of the place.
    fn explain(&self, repository: &JobRepository, error: Error) -> Error;

    /// Completes a connection string as libpq would for the user the job runs as.
    ///
    /// # Errors
    /// [`seawall_core::Code::ConninfoInvalid`]
    fn resolve(&self, connection: &ConnectionText) -> Result<Config>;

    /// What PostgreSQL ought to call to archive WAL of the cluster.
    ///
    /// # Errors
    /// Where the program itself is cannot be found out.
    fn archive_command(&self, cluster: &ClusterName) -> Result<String>;
}
