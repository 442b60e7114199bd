//! How WAL comes into a repository.
//!
//! A backup is nothing without the WAL from its start to its stop. Which way that comes is not the
//! backup's affair: it asks for WAL up to a position, and a [`WalDelivery`] sees to it. PostgreSQL's
//! archiver is one way; a receiver that follows the server's stream is another.

mod archiver;
mod watch;

use async_trait::async_trait;
use seawall_core::{Lsn, Progress, Result};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::WalArchive;

use crate::cluster::{Server, ServerFacts};

pub(crate) use archiver::ByArchiver;

/// WAL that has to be in a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalNeeded<'a> {
    /// The line's WAL in the repository.
    pub archive: &'a WalArchive,
    /// The timelines it is on.
    pub ancestry: &'a Ancestry,
    /// From here on, without a gap.
    pub from: Lsn,
}

/// A way in which a server's WAL comes into a repository.
#[async_trait]
pub(crate) trait WalDelivery: Send + Sync {
    /// Refuses a server whose settings keep its WAL from coming.
    ///
    /// # Errors
    /// [`seawall_core::Code::SettingUnsuitable`], with the SQL that sets it.
    fn prove_set_up(&self, facts: &ServerFacts) -> Result<()>;

    /// Proves that WAL comes: hastens what the server wrote up to now, and returns when the
    /// repository has it. Nothing is lost by giving up, so any trouble ends it.
    ///
    /// # Errors
    /// [`seawall_core::Code::WalNotArrived`], [`seawall_core::Code::SettingUnsuitable`], and those
    /// of the server and the repository.
    async fn prove(
        &self,
        needed: WalNeeded<'_>,
        server: &mut Server,
        progress: &dyn Progress,
    ) -> Result<()>;

    /// Returns when the repository has the WAL up to `to`, which the server has let go of. Hours of
    /// copying are at stake and storage comes back: what may pass is waited out, and said.
    ///
    /// # Errors
    /// As for [`WalDelivery::prove`].
    async fn wait_for(
        &self,
        needed: WalNeeded<'_>,
        to: Lsn,
        server: &mut Server,
        progress: &dyn Progress,
    ) -> Result<()>;
}
