use std::time::Duration;

use seawall_core::{Code, Error, Lsn, Result};
use seawall_pgdata::history::Ancestry;
use seawall_repo::Line;
use seawall_repo::wal::WalArchive;
use tokio::time::{Instant, sleep};

use crate::cluster::Server;

/// How often the archive is looked at.
const POLL: Duration = Duration::from_millis(200);

/// WAL that has to be in the repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub from: Lsn,
    pub to: Lsn,
    /// How long nothing new may arrive.
    pub patience: Duration,
}

/// Waits until the archive has all WAL of `wait`, without a gap.
///
/// # Errors
/// [`Code::WalNotArrived`] if nothing more arrives for too long, saying what the archiver fails on.
pub(super) async fn wait_for_wal(
    archive: &WalArchive,
    ancestry: &Ancestry,
    wait: Wait,
    server: &mut Server,
) -> Result<()> {
    let mut reached = Lsn::INVALID;
    let mut since = Instant::now();
    loop {
        let end = archive.contiguous_end(ancestry, wait.from).await?;
        if end >= wait.to {
            return Ok(());
        }
        if end > reached {
            (reached, since) = (end, Instant::now());
        }
        if since.elapsed() >= wait.patience {
            return Err(not_arrived(archive.line(), wait, reached, server).await);
        }
        sleep(POLL).await;
    }
}

async fn not_arrived(line: &Line, wait: Wait, reached: Lsn, server: &mut Server) -> Error {
    let have = reached.max(wait.from);
    let error = Error::new(
        Code::WalNotArrived,
        format!(
            "WAL from {have} to {} did not arrive in the repository within {} s",
            wait.to,
            wait.patience.as_secs()
        ),
    );
    match server.archiver_failure().await {
        Ok(Some(wal)) => error.with_hint(format!(
            "The archiver fails on {wal}; the reason is in PostgreSQL's log. Check with `seawall check {}`.",
            line.cluster()
        )),
        _ => error.with_hint(format!(
            "Is archive_command the one `seawall init` printed? `seawall check {}` tries the whole path.",
            line.cluster()
        )),
    }
}
