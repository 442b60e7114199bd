use std::time::Duration;

use seawall_core::{Error, Hint, Lsn, Progress, Result, hint};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::WalArchive;
use tokio::time::{Instant, sleep};

use super::archiving::Watch;
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
    /// What an archiver that fails is a reason for.
    pub archiver: OnFailure,
}

/// What to do when the archiver is seen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// Give up at once: nothing is lost.
    GiveUp,
    /// Say so and wait on: hours of copying are at stake, and storage comes back.
    Wait,
}

/// Waits until the archive has all WAL of `wait`, without a gap.
///
/// # Errors
/// [`seawall_core::Code::WalNotArrived`] if nothing more arrives for too long, or the archiver fails and there is
/// nothing to be lost, saying what it fails on; [`seawall_core::Code::SettingUnsuitable`] if nothing is set that
/// archives.
pub(super) async fn wait_for_wal(
    archive: &WalArchive,
    ancestry: &Ancestry,
    wait: Wait,
    server: &mut Server,
    progress: &dyn Progress,
) -> Result<()> {
    let mut watch = Watch::begin(archive, ancestry.tip(), wait.to, server).await?;
    let mut reached = Lsn::INVALID;
    let mut since = Instant::now();
    let mut told = false;
    loop {
        // In this order: what the archiver says is done has to be there afterwards.
        let trouble = watch.look(server).await?;
        let end = archive.contiguous_end(ancestry, wait.from).await?;
        if end >= wait.to {
            return Ok(());
        }
        if end > reached {
            (reached, since) = (end, Instant::now());
        }
        match trouble {
            Some(error) if wait.archiver == OnFailure::GiveUp => return Err(error),
            Some(error) if !told => {
                progress.note(&waiting_on(&error));
                told = true;
            }
            _ => {}
        }
        if since.elapsed() >= wait.patience {
            return Err(watch.not_arrived(reached.max(wait.from), wait.patience));
        }
        progress.detail(&format!(
            "up to LSN {}, nothing new for {} s of {} s",
            wait.to,
            since.elapsed().as_secs(),
            wait.patience.as_secs()
        ));
        sleep(POLL).await;
    }
}

fn waiting_on(error: &Error) -> Hint {
    let hint = error.hint().cloned().unwrap_or_default();
    hint![format!("{}; the backup waits for it. ", error.message()), hint]
}
