use std::ffi::OsString;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use seawall_core::{ClusterName, Error, Result};
use seawall_pgwire::Config;
use seawall_repo::Repository;

use super::{ConnectionText, JobRepository};
use crate::restore::{Login, PlannedRestore, RestoreReport};

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

    /// What only the program knows of a restore.
    ///
    /// # Errors
    /// It was not made ready for one.
    fn restoring(&self) -> Result<&dyn Restoring>;
}

/// What only the program that a job runs in knows of a restore: whose files are written, who agrees,
/// what PostgreSQL calls.
pub trait Restoring: Send + Sync {
    /// Whether the plan is carried out. Nothing is written before.
    ///
    /// # Errors
    /// [`seawall_core::Code::NotConfirmed`] if it is not.
    fn agree(&self, planned: &PlannedRestore) -> Result<()>;

    /// All is proven that is proven beforehand; from here on files are written, as the user they
    /// belong to.
    ///
    /// # Errors
    /// [`seawall_core::Code::WrongUser`], [`seawall_core::Code::LocalIo`]
    fn begin_writing(&self, into: &Path) -> Result<()>;

    /// What PostgreSQL calls for WAL, with `%f` and `%p`, with absolute paths.
    ///
    /// # Errors
    /// The program is not to be found, or what opens the repository is in no file.
    fn restore_command(&self, cluster: &ClusterName) -> Result<OsString>;

    /// How a restored server is logged in to: as `role`, or else as its backups were taken through
    /// `connection`.
    ///
    /// # Errors
    /// [`seawall_core::Code::ConninfoInvalid`]
    fn login(&self, connection: Option<&ConnectionText>, role: Option<&str>) -> Result<Login>;

    /// Where a restored server logs.
    fn log_file(&self, data_directory: &Path) -> PathBuf;

    /// The command that starts the restored server by hand.
    fn start_command(&self, report: &RestoreReport) -> String;

    /// The command that stops it.
    fn stop_command(&self, report: &RestoreReport) -> String;
}
