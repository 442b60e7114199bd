//! PostgreSQL's archiver as the way in which WAL comes.

use std::time::Duration;

use async_trait::async_trait;
use seawall_core::{Action, Error, Hint, Lsn, Progress, Result, hint};
use seawall_repo::wal::LsnRange;
use tokio::time::{Instant, sleep};

use super::watch::Watch;
use super::{HandOver, SharedServer, WalDelivery, WalNeeded};
use crate::cluster::{Server, ServerFacts};

/// How often the archive is looked at.
const POLL: Duration = Duration::from_millis(200);

/// With several repositories, an archiver that brings nothing for so long is taken to be held up by
/// one of them: a push into a store that does not answer neither succeeds nor fails.
const STANDS_STILL: Duration = Duration::from_secs(20);

/// WAL comes as segments that `archive_command` pushes.
#[derive(Debug, Clone)]
pub(crate) struct ByArchiver {
    /// How long nothing new may arrive.
    pub patience: Duration,
    /// Another repository may fail, to which it pushes as well; then what waits is handed over. `None`
    /// where it is to be seen what the archiver does by itself.
    pub hand_over: Option<HandOver>,
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

    /// Closes the segment.
    async fn hasten(&self, server: &mut Server) -> Result<Lsn> {
        server.switch_wal().await
    }

    /// What was archived before, and where to, does not matter.
    async fn prove(
        &self,
        needed: WalNeeded<'_>,
        server: &SharedServer<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.wait(needed, OnFailure::GiveUp, server, progress).await
    }

    async fn wait_for(
        &self,
        needed: WalNeeded<'_>,
        server: &SharedServer<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.wait(needed, OnFailure::SayAndWait, server, progress).await
    }
}

impl ByArchiver {
    async fn wait(
        &self,
        needed: WalNeeded<'_>,
        on_failure: OnFailure,
        server: &SharedServer<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let WalNeeded { archive, ancestry, range: LsnRange { start: from, end: to } } = needed;
        let mut watch =
            Watch::begin(archive, ancestry.tip(), to, &mut **server.lock().await).await?;
        let mut reached = from;
        let mut since = Instant::now();
        let mut told = false;
        loop {
            // In this order: what the archiver says is done has to be there afterwards.
            let trouble = watch.look(&mut **server.lock().await).await?;
            let end = archive.contiguous_end(ancestry, from).await?;
            if end >= to {
                return Ok(());
            }
            if end > reached {
                (reached, since) = (end, Instant::now());
            }
            let stands_still = since.elapsed() >= STANDS_STILL.min(self.patience / 2);
            let seems_to_fail = watch.sees_failures() || (stands_still && trouble.is_none());
            let held_up = self.hand_over.as_ref().filter(|it| it.is_needed(seems_to_fail));
            match trouble {
                // One that is not used, or archives elsewhere, is not held up by a repository.
                Some(error)
                    if on_failure == OnFailure::GiveUp
                        && !(held_up.is_some() && watch.sees_failures()) =>
                {
                    return Err(error);
                }
                Some(error) if !told => {
                    progress.note(&waiting_on(&error, held_up.is_some()));
                    told = true;
                }
                Some(_) | None => {}
            }
            if let Some(hand_over) = held_up {
                hand_over.store_waiting(needed, end).await?;
                if archive.contiguous_end(ancestry, from).await? > end {
                    continue;
                }
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

fn waiting_on(error: &Error, held_up: bool) -> Hint {
    let hint = error.hint().cloned().unwrap_or_default();
    let then = if held_up {
        "the backup takes the WAL that it needs from pg_wal by itself. What comes later is archived when the archiver succeeds again"
    } else {
        "the backup waits for it"
    };
    hint![format!("{}; {then}. ", error.message()), hint]
}
