//! Why a started server is not where it should be, and what helps.

use std::time::Duration;

use seawall_core::{Action, Error, Lsn, Result, TimelineId, hint};
use seawall_pgdata::control::ControlFile;
use seawall_pgwire::Connection;

use super::log::ServerLog;
use super::{Login, failed};
use crate::restored::RequiredParameters;

/// What PostgreSQL needs for others to read while it replays (`ProcArrayApplyRecoveryInfo`,
/// procarray.c).
const UNREADABLE: &str = "a transaction with more than 64 subtransactions was open when the backup \
     became consistent, and until it has ended PostgreSQL cannot tell what is committed";

/// The server is gone. Without a hint: it is to be started again, once its reason is.
pub(super) fn ended(log: &ServerLog) -> Error {
    let why = log.last_words().map_or_else(String::new, |words| format!(", saying: {words}"));
    failed(format!("the restored server ended by itself{why}"))
}

/// Nobody is let in who could see how far replay is.
pub(super) fn cannot_ask(login: &Login, error: &Error) -> Error {
    let role = login.role().unwrap_or_default();
    failed(format!(
        "the restored server cannot be asked how far it is, as role \"{role}\": {}",
        error.chain()
    ))
    .with_hint(hint![
        "It goes on as planned. A superuser who may log in over its socket is needed: name one with `--user ROLE`, in a restore and, for this server, in ",
        Action::Promote { directory: None, without_archive: false },
        "."
    ])
}

/// Replay waits at a place that is not the planned end. From 14 on, `pg_control` says what the log
/// demands by then (`xlog_redo`, xlog.c).
///
/// # Errors
/// The one that says so, if settings are the reason.
pub(super) async fn refuse_insufficient(
    connection: &mut Connection,
    control: &ControlFile,
) -> Result<()> {
    let mut low = Vec::new();
    for (name, demanded, _) in RequiredParameters::of_control(control).demands() {
        let sql = format!("SELECT pg_catalog.current_setting('{name}')");
        let has: String = connection.query_value(&sql).await?;
        if has.parse::<u32>().is_ok_and(|has| has < demanded) {
            low.push((name, has, demanded));
        }
    }
    if low.is_empty() {
        return Ok(());
    }
    let told = low.iter().map(|(name, has, demanded)| {
        format!("{name} is {has}, and the server that wrote the log had {demanded} by then")
    });
    let told = told.collect::<Vec<_>>().join("; ");
    let sql =
        low.iter().map(|(name, _, demanded)| format!("ALTER SYSTEM SET {name} = {demanded};"));
    let sql = sql.collect::<Vec<_>>().join(" ");
    Err(failed(format!("replay has paused, since {told}"))
        .with_hint(format!("Run this there, then restart the server, and replay goes on: {sql}")))
}

/// Replay waits, and nothing was said of that.
pub(super) fn paused(at: Lsn) -> Error {
    failed(format!("replay has paused at {at}, before its planned end"))
        .with_hint("Its log tells why; `SELECT pg_wal_replay_resume();` lets it go on.")
}

/// A pause that PostgreSQL leaves out where nobody could read (`recoveryPausesHere`,
/// xlogrecovery.c).
pub(super) fn pause_skipped(timeline: TimelineId, end: Lsn) -> Error {
    failed(format!(
        "the restored server did not pause at its target: it takes writes, on timeline {timeline}. It holds what was planned, replay ended at {end}; but PostgreSQL pauses only where it can be read, and it could not be yet: {UNREADABLE}"
    ))
    .with_hint(
        "Look at it as it is. To have one that pauses, restore again to a target after that transaction's end; one that shuts down at this target: `--then shutdown`.",
    )
}

/// A standby that has replayed all, and lets nobody in.
pub(super) fn not_readable(next: Lsn) -> Error {
    failed(format!(
        "the standby has replayed what was archived, up to {next}, and cannot be read yet: {UNREADABLE}"
    ))
    .with_hint("It goes on replaying, and can be read once the primary has ended that transaction, has made a checkpoint, and has archived its WAL. It can be promoted by `pg_ctl promote` meanwhile.")
}

/// Replay waits for WAL that was there when the restore was planned.
pub(super) fn no_wal(segment: Lsn, waits: Duration) -> Error {
    failed(format!(
        "replay has waited for the WAL from {segment} on for {} s",
        waits.as_secs()
    ))
    .with_hint("Its log tells what restore_command says; is the repository there? It goes on by itself once the WAL can be had.")
}
