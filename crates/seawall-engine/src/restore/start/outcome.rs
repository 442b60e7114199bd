use std::fs;
use std::path::Path;

use seawall_core::{Code, Error, Lsn, Result, TimelineId, WalFileName, WalSegmentSize};
use seawall_pgdata::PgMajor;
use seawall_pgdata::control::ControlFile;
use seawall_pgdata::history::Ancestry;

use crate::restore::durable::local;
use crate::restore::plan::record_position;
use crate::restore::{RestorePlan, Stop};

/// Where recovery ended, as the history file of the timeline it began tells; `None` if there is no
/// such file, or not yet.
///
/// `pg_control` names the new timeline: in the checkpoint that ends recovery, or, until there is
/// one, beside the end-of-recovery record (`CreateEndOfRecoveryRecord`, xlog.c). A listing of
/// `pg_wal` alone would have to be read while the server renames segments in it.
///
/// # Errors
/// [`Code::LocalIo`] if `pg_wal` cannot be read.
pub(super) fn end_of_recovery(
    data_directory: &Path,
    control: &ControlFile,
    timeline: TimelineId,
) -> Result<Option<(TimelineId, Lsn)>> {
    let directory = data_directory.join("pg_wal");
    let read = |error| local(error, "reading", &directory);
    let mut newest = control.min_recovery_timeline.max(Some(control.checkpoint_timeline));
    for entry in fs::read_dir(&directory).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let name = name.to_str();
        let parsed = name.and_then(|name| WalFileName::parse(name, control.wal_segment_size));
        if let Some(WalFileName::TimelineHistory(found)) = parsed {
            newest = newest.max(Some(found));
        }
    }
    Ok(newest.filter(|newest| *newest > timeline).and_then(|newest| {
        let path = directory.join(WalFileName::TimelineHistory(newest).to_string());
        let ancestry = Ancestry::parse(newest, &fs::read(path).ok()?).ok()?;
        Some((newest, ancestry.fork_lsn_of(timeline)?))
    }))
}

/// Proves that replay ended where it was planned to. `replayed` is the end of the last record that
/// was replayed.
///
/// # Errors
/// [`Code::RestoredServerFailed`].
pub(super) fn prove_end(
    plan: &RestorePlan,
    major: PgMajor,
    replayed: Lsn,
    segment_size: WalSegmentSize,
) -> Result<()> {
    let wanted = record_position(plan.stop.kept_until(), segment_size);
    let reached = record_position(replayed, segment_size);
    // A segment switch counts as ending where its segment does.
    let segment_end = plan.stop.kept_until().0.next_multiple_of(segment_size.bytes());
    let after_switch = replayed == Lsn(segment_end);
    let fine = match plan.stop {
        Stop::Consistent { .. } => reached >= wanted,
        // From 13 on PostgreSQL itself insists on reaching its target; it ends before `wanted`
        // where a record was given up that began in between.
        _ => reached == wanted || after_switch || (reached < wanted && major >= PgMajor::V13),
    };
    if fine {
        return Ok(());
    }
    Err(Error::new(
        Code::RestoredServerFailed,
        format!(
            "the restored server replayed WAL to LSN {replayed}, and {} was planned",
            plan.stop.kept_until()
        ),
    )
    .with_hint("Do not use it; look at its log, and restore again into another directory."))
}
