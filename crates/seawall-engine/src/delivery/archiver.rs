//! PostgreSQL's archiver as the way in which WAL comes.

use std::time::Duration;

use async_trait::async_trait;
use seawall_core::{Action, Error, Hint, Lsn, Progress, Result, hint};
use tokio::time::{Instant, sleep};

use super::watch::Watch;
use super::{WalDelivery, WalNeeded};
use crate::cluster::{Server, ServerFacts};

/// How often the archive is looked at.
const POLL: Duration = Duration::from_millis(200);

/// WAL comes as segments that `archive_command` pushes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByArchiver {
    /// How long nothing new may arrive.
    pub patience: Duration,
}

/// What to do when the archiver is seen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    GiveUp,
    SayAndWait,
}

#[async_trait]
impl WalDelivery for ByArchiver {
    fn prove_set_up(&self, facts: &ServerFacts) -> Result<()> {
        if facts.archive_mode != "off" {
            return Ok(());
        }
        Err(facts.unsuitable(
            "archive_mode",
            "archive_mode is off: the WAL a backup needs would not reach the repository",
            hint![
                "ALTER SYSTEM SET archive_mode = 'on'; then restart PostgreSQL. ",
                Action::Check { cluster: None },
                " prints the archive_command."
            ],
        ))
    }

    /// Closes the segment, and waits for it: what was archived before, and where to, does not matter.
    async fn prove(
        &self,
        needed: WalNeeded<'_>,
        server: &mut Server,
        progress: &dyn Progress,
    ) -> Result<()> {
        let to = server.switch_wal().await?;
        self.wait(needed, to, OnFailure::GiveUp, server, progress).await
    }

    async fn wait_for(
        &self,
        needed: WalNeeded<'_>,
        to: Lsn,
        server: &mut Server,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.wait(needed, to, OnFailure::SayAndWait, server, progress).await
    }
}

impl ByArchiver {
    async fn wait(
        &self,
        needed: WalNeeded<'_>,
        to: Lsn,
        on_failure: OnFailure,
        server: &mut Server,
        progress: &dyn Progress,
    ) -> Result<()> {
        let WalNeeded { archive, ancestry, from } = needed;
        let mut watch = Watch::begin(archive, ancestry.tip(), to, server).await?;
        let mut reached = from;
        let mut since = Instant::now();
        let mut told = false;
        loop {
            // In this order: what the archiver says is done has to be there afterwards.
            let trouble = watch.look(server).await?;
            let end = archive.contiguous_end(ancestry, from).await?;
            if end >= to {
                return Ok(());
            }
            if end > reached {
                (reached, since) = (end, Instant::now());
            }
            match trouble {
                Some(error) if on_failure == OnFailure::GiveUp => return Err(error),
                Some(error) if !told => {
                    progress.note(&waiting_on(&error));
                    told = true;
                }
                _ => {}
            }
            if since.elapsed() >= self.patience {
                return Err(watch.not_arrived(reached, self.patience));
            }
            progress.detail(&format!(
                "up to LSN {to}, nothing new for {} s of {} s",
                since.elapsed().as_secs(),
                self.patience.as_secs()
            ));
            sleep(POLL).await;
        }
    }
}

fn waiting_on(error: &Error) -> Hint {
    let hint = error.hint().cloned().unwrap_or_default();
    hint![format!("{}; the backup waits for it. ", error.message()), hint]
}
