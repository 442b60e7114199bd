use std::fs;
use std::path::Path;

use seawall_core::{Code, Error, Lsn, Result, TimelineId, WalFileName, WalSegmentSize};
use seawall_pgdata::PgMajor;
use seawall_pgdata::control::ControlFile;
use seawall_pgdata::history::Ancestry;

use crate::durable::local;
use crate::restore::plan::record_position;
use crate::restored::{RestorePlan, Stop};

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
    let beside = control.min_recovery_timeline.max(Some(control.checkpoint_timeline));
    let newest = histories(data_directory, control.wal_segment_size)?.last().copied().max(beside);
    Ok(newest.filter(|newest| *newest > timeline).and_then(|newest| {
        let ancestry = ancestry_kept(data_directory, newest)?;
        Some((newest, ancestry.fork_lsn_of(timeline)?))
    }))
}

/// The timelines whose history files are in `pg_wal`, in order.
fn histories(data_directory: &Path, segment_size: WalSegmentSize) -> Result<Vec<TimelineId>> {
    let directory = data_directory.join("pg_wal");
    let read = |error| local(error, "reading", &directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let parsed = name.to_str().and_then(|name| WalFileName::parse(name, segment_size));
        if let Some(WalFileName::TimelineHistory(timeline)) = parsed {
            found.push(timeline);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What the history file in `pg_wal` says of a timeline.
fn ancestry_kept(data_directory: &Path, timeline: TimelineId) -> Option<Ancestry> {
    let name = WalFileName::TimelineHistory(timeline).to_string();
    let history = fs::read(data_directory.join("pg_wal").join(name)).ok()?;
    Ancestry::parse(timeline, &history).ok()
}

/// The timeline a standby goes along instead of the planned one, as far as can be told; `None` if it
/// goes the way that was planned, or one that goes on from its end.
///
/// A server keeps the history of the timeline it goes along in `pg_wal` (`readTimeLineHistory`,
/// timeline.c, 12–18). It also keeps those of newer ones it found and could not change to.
///
/// # Errors
/// [`Code::LocalIo`] if `pg_wal` cannot be read.
pub(super) fn other_way(
    plan: &RestorePlan,
    data_directory: &Path,
    control: &ControlFile,
) -> Result<Option<TimelineId>> {
    let kept: Vec<Ancestry> = histories(data_directory, control.wal_segment_size)?
        .into_iter()
        .filter_map(|timeline| ancestry_kept(data_directory, timeline))
        .collect();
    let kept_until = plan.stop.kept_until();
    let goes_on = |ancestry: &&Ancestry| {
        let tip = ancestry.span(plan.timeline);
        tip.is_some_and(|tip| tip.end.is_none_or(|end| end >= kept_until))
    };
    let been_to =
        control.min_recovery_timeline.map(|timeline| (timeline, control.min_recovery_point));
    let is_on_path = |(timeline, lsn): (TimelineId, Lsn)| {
        let span = plan.path.iter().find(|span| span.timeline == timeline);
        span.is_some_and(|span| span.begin <= lsn && span.end.is_none_or(|end| lsn <= end))
    };
    if let Some((timeline, lsn)) = been_to
        && !is_on_path((timeline, lsn))
        && !kept.iter().filter(goes_on).any(|ancestry| ancestry.contains(timeline, lsn))
    {
        return Ok(Some(timeline));
    }
    let has_history = plan.path.last().is_some_and(|tip| tip.begin.is_valid());
    if has_history && !kept.iter().any(|ancestry| goes_on(&ancestry)) {
        return Ok(Some(kept.last().map_or(plan.backup.timeline, Ancestry::tip)));
    }
    // Of a child that left too early it is only proven that it is not followed by having gone past.
    let passed =
        |fork: Lsn| been_to.is_some_and(|(timeline, lsn)| timeline == plan.timeline && lsn > fork);
    let followed = |ancestry: &&Ancestry| {
        let fork = ancestry.fork_lsn_of(plan.timeline);
        fork.is_some_and(|fork| fork < kept_until && !passed(fork))
    };
    Ok(kept.iter().find(followed).map(Ancestry::tip))
}

/// Whether replay went past the beginning of the last record that is known to be kept.
fn holds_what_is_known(plan: &RestorePlan, replayed: Lsn) -> bool {
    let last = match plan.stop {
        Stop::After { lsn, .. } => Some(lsn),
        _ => plan.last_commit_kept.map(|commit| commit.lsn),
    };
    replayed >= plan.backup.stop_lsn && last.is_none_or(|last| replayed > last)
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
        _ => {
            let is_whole = major >= PgMajor::V13 && holds_what_is_known(plan, replayed);
            reached == wanted || after_switch || (reached < wanted && is_whole)
        }
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use seawall_core::{BranchNumber, LineId, SystemId, Ulid};

    use super::*;
    use crate::restored::{
        CommitPlace, Mode, PathSpan, PlannedBackup, RequiredParameters, TargetAction,
    };

    const T1: TimelineId = TimelineId(1);
    const T2: TimelineId = TimelineId(2);
    const FORK: Lsn = Lsn(0x500_0100);
    const END: Lsn = Lsn(0x600_0200);

    /// From timeline 1 to 2, and as far as there is WAL.
    fn plan() -> RestorePlan {
        let line = LineId { system_id: SystemId(7), branch: BranchNumber(0) };
        RestorePlan {
            cluster: "main".parse().unwrap(),
            line,
            mode: Mode::Standby,
            target: "latest".to_owned(),
            backup: PlannedBackup {
                id: "x".to_owned(),
                ulid: Ulid(1),
                generation: 0,
                start_lsn: Lsn(0x200_0028),
                stop_lsn: Lsn(0x200_0100),
                timeline: T1,
                finished_at: Timestamp::UNIX_EPOCH,
                cluster_bytes: 0,
                found_damaged: None,
            },
            timeline: T2,
            path: vec![
                PathSpan { timeline: T1, begin: Lsn::INVALID, end: Some(FORK) },
                PathSpan { timeline: T2, begin: FORK, end: None },
            ],
            stop: Stop::After { lsn: Lsn(0x600_01C8), end: END },
            wal_end: END,
            last_commit_kept: None,
            first_commit_left_out: None,
            removals: crate::restored::Removals::default(),
            left_behind: Vec::new(),
            then: TargetAction::Promote,
            left_out_databases: Vec::new(),
            ignores_invalid_pages: false,
            required: RequiredParameters::default(),
            settings: Vec::new(),
            asked_at: None,
            server: None,
            onto: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn an_earlier_end_has_to_hold_all_that_is_known_to_be_kept() {
        let ends = |plan: &RestorePlan, major, lsn| {
            prove_end(plan, major, Lsn(lsn), WalSegmentSize::DEFAULT).is_ok()
        };
        let after = plan();
        assert!(ends(&after, PgMajor::V15, END.0));
        assert!(ends(&after, PgMajor::V15, 0x600_01F0), "past the beginning of the last record");
        assert!(!ends(&after, PgMajor::V12, 0x600_01F0), "it does not insist on its target");
        assert!(!ends(&after, PgMajor::V15, 0x600_01C8), "the last record is missing");
        assert!(!ends(&after, PgMajor::V15, 0x300_0000));

        let commit = CommitPlace { xid: 700, lsn: Lsn(0x600_0100), time: Timestamp::UNIX_EPOCH };
        let before = RestorePlan {
            stop: Stop::Before { lsn: END },
            last_commit_kept: Some(commit),
            ..plan()
        };
        assert!(ends(&before, PgMajor::V15, 0x600_0140));
        assert!(!ends(&before, PgMajor::V15, 0x600_0100), "the last commit is missing");
        let no_commit = RestorePlan { last_commit_kept: None, ..before };
        assert!(ends(&no_commit, PgMajor::V15, 0x200_0100));
        assert!(!ends(&no_commit, PgMajor::V15, 0x200_00F8), "the backup is not even consistent");
    }

    /// Which other way a standby goes that keeps these histories and has been there.
    fn other(histories: &[(u32, &str)], been_to: (TimelineId, Lsn)) -> Option<u32> {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("pg_wal")).unwrap();
        for (timeline, text) in histories {
            let name = format!("pg_wal/{timeline:08X}.history");
            fs::write(directory.path().join(name), text).unwrap();
        }
        let golden = include_bytes!("../../../../seawall-pgdata/tests/golden/pg_control.15.bin");
        let mut control = ControlFile::parse(golden).unwrap();
        control.min_recovery_timeline = Some(been_to.0);
        control.min_recovery_point = been_to.1;
        other_way(&plan(), directory.path(), &control).unwrap().map(|timeline| timeline.0)
    }

    #[test]
    fn a_standby_is_proven_to_go_along_its_timeline() {
        let two = (2, "1\t0/5000100\tx\n");
        let sibling = (3, "1\t0/4000000\tx\n");
        let child = (4, "1\t0/5000100\tx\n2\t0/6000200\tx\n");
        let early_child = (5, "1\t0/5000100\tx\n2\t0/6000100\tx\n");
        assert_eq!(other(&[two], (T2, END)), None);
        assert_eq!(other(&[two], (T1, FORK)), None, "it has just begun");
        assert_eq!(other(&[sibling], (T1, Lsn(0x300_0000))), Some(3));
        assert_eq!(other(&[two, sibling], (T2, END)), None, "it could not change to that");
        assert_eq!(other(&[two, sibling], (TimelineId(3), END)), Some(3));
        assert_eq!(other(&[two, child], (T2, END)), None);
        assert_eq!(other(&[two, child], (TimelineId(4), Lsn(0x700_0000))), None);
        assert_eq!(other(&[two, early_child], (T2, FORK)), Some(5));
        assert_eq!(other(&[two, early_child], (T2, END)), None, "it has gone past");
        assert_eq!(other(&[], (T1, FORK)), Some(1), "it never learned of 2");
        assert_eq!(other(&[two], (T1, END)), Some(1), "it went past the fork");
    }
}
