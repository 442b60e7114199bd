//! How WAL comes into a repository.
//!
//! A backup is nothing without the WAL from its start to its stop. Which way that comes is not the
//! backup's affair: it asks for WAL up to a position, and a [`WalDelivery`] sees to it. PostgreSQL's
//! archiver is one way; a receiver that follows the server's stream is another.

mod archiver;
mod hand_over;
mod watch;

use async_trait::async_trait;
use seawall_core::{Lsn, Progress, Result};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{LsnRange, WalArchive};
use tokio::sync::Mutex;

use crate::cluster::{Server, ServerFacts};

pub(crate) use archiver::ByArchiver;
pub(crate) use hand_over::{HandOver, WalRoom};

/// WAL that has to be in a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalNeeded<'a> {
    /// The line's WAL in the repository.
    pub archive: &'a WalArchive,
    /// The timelines it is on.
    pub ancestry: &'a Ancestry,
    /// All of it, without a gap.
    pub range: LsnRange,
}

/// A server that several wait for and ask in turn.
pub(crate) type SharedServer<'s> = Mutex<&'s mut Server>;

/// A way in which a server's WAL comes into a repository.
#[async_trait]
pub(crate) trait WalDelivery: Send + Sync {
    /// Refuses a server whose settings keep its WAL from coming.
    ///
    /// # Errors
    /// [`seawall_core::Code::SettingUnsuitable`], with the SQL that sets it.
    fn prove_set_up(&self, facts: &ServerFacts) -> Result<()>;

    /// Hastens what the server wrote up to now. Where it is up to there, WAL comes.
    ///
    /// # Errors
    /// Those of the server.
    async fn hasten(&self, server: &mut Server) -> Result<Lsn>;

    /// Proves that WAL comes: returns when the repository has what was hastened. Nothing is lost by
    /// giving up, so any trouble ends it.
    ///
    /// # Errors
    /// [`seawall_core::Code::WalNotArrived`], [`seawall_core::Code::SettingUnsuitable`], and those
    /// of the server and the repository.
    async fn prove(
        &self,
        needed: WalNeeded<'_>,
        server: &SharedServer<'_>,
        progress: &dyn Progress,
    ) -> Result<()>;

    /// Returns when the repository has WAL that the server has let go of. Hours of copying are at
    /// stake and storage comes back: what may pass is waited out, and said.
    ///
    /// # Errors
    /// As for [`WalDelivery::prove`].
    async fn wait_for(
        &self,
        needed: WalNeeded<'_>,
        server: &SharedServer<'_>,
        progress: &dyn Progress,
    ) -> Result<()>;
}
