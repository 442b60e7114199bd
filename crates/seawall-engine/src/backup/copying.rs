//! The copying stage: a source reads, and each destination collects what is packed for it.

use std::time::Duration;

use futures_util::future::join_all;
use seawall_core::{Progress, Result};
use tokio::time::{MissedTickBehavior, interval};

use super::destination::Collector;
use super::going::{Failed, Going, LeftBehind, PULSE};
use super::source::Reading;
use crate::cluster::BackupSession;

/// How often a progress display is told what was read.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Collects until all is read, and looks now and then whether PostgreSQL still knows of the backup.
/// Gives the destinations that have everything, and how many bytes were read.
///
/// # Errors
/// Those of the source, and `BackupAborted`: nobody gets over them. The last failure when nobody is
/// left.
pub(super) async fn copy(
    mut going: Going<Collector>,
    reading: Reading,
    session: &mut BackupSession,
    left: &mut LeftBehind<'_>,
    progress: &dyn Progress,
) -> Result<(Going<Collector>, u64)> {
    let collected = collect(&mut going, &reading, session, progress).await;
    let nobody = matches!(&collected, Ok(outcomes) if outcomes.iter().all(Result::is_err));
    if nobody || collected.is_err() {
        reading.stop();
    }
    let (outcomes, read_bytes) = match (collected, reading.finish().await) {
        (Ok(outcomes), Ok(read_bytes)) => (outcomes, read_bytes),
        // Why nobody was left to read for tells more.
        (Ok(outcomes), Err(_)) if nobody => (outcomes, 0),
        (Err(error), _) | (Ok(_), Err(error)) => {
            going.give_up(left);
            return Err(error);
        }
    };
    Ok((going.keep(outcomes, left)?, read_bytes))
}

/// What came of collecting, by destination.
async fn collect(
    going: &mut Going<Collector>,
    reading: &Reading,
    session: &mut BackupSession,
    progress: &dyn Progress,
) -> Result<Vec<Result<(), Failed>>> {
    let collectors = going.members_mut().map(async |member| {
        let collector = &mut member.state;
        let collected = collector.collect_all().await;
        collected.map_err(|error| collector.failed(error))
    });
    let mut collecting = std::pin::pin!(join_all(collectors));
    let (mut pulse, mut tell) = (interval(PULSE), interval(TELL_EVERY));
    for ticks in [&mut pulse, &mut tell] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut told_bytes = 0;
    let mut told = || {
        let read_bytes = reading.read_bytes();
        progress.advance(read_bytes.saturating_sub(told_bytes));
        told_bytes = read_bytes;
    };
    loop {
        tokio::select! {
            outcomes = &mut collecting => {
                told();
                return Ok(outcomes);
            }
            _ = pulse.tick() => session.prove_alive().await?,
            _ = tell.tick() => told(),
        }
    }
}
