//! What the log says, told from footers and indexes, is what a reader of all its bytes would tell.

mod archive_support;

use archive_support::wal::{SEGMENT_SIZE, SYSTEM_ID, WalWriter};
use archive_support::*;
use proptest::prelude::*;
use seawall_core::{Lsn, WalSegment};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{ReaderStart, TablespaceChange, WalFacts, WalReader};
use seawall_repo::wal::{FactsPart, LsnRange, WalArchive};
use seawall_store::Metered;
use std::sync::Arc;

fn start(number: u64) -> Lsn {
    Lsn(number * SEGMENT_BYTES)
}

/// All facts along a timeline, and the breaks.
async fn facts(
    archive: &WalArchive,
    timeline: seawall_core::TimelineId,
    from: Lsn,
    to: Lsn,
) -> (WalFacts, Vec<LsnRange>) {
    let ancestry = archive.ancestry(timeline).await.unwrap();
    let mut reader = archive.facts(&ancestry, from, to);
    let (mut all, mut holes) = (WalFacts::default(), Vec::new());
    while let Some(part) = reader.next().await.unwrap() {
        match part {
            FactsPart::Facts { facts, .. } => all.append(*facts),
            FactsPart::Hole(hole) => holes.push(hole.range),
        }
    }
    (all, holes)
}

/// What the log says when it is read as one.
fn read_in_one(log: &WalWriter, system: bool) -> WalFacts {
    let mut start = ReaderStart::at(log.timeline, log.start, SEGMENT_SIZE);
    start.system_id = system.then_some(SYSTEM_ID);
    let mut reader = WalReader::new(start).unwrap();
    let mut facts = WalFacts::default();
    let mut input = log.bytes.as_slice();
    while let Some(record) = reader.next(&mut input) {
        facts.apply(&record);
    }
    facts
}

/// A log with every kind of record the tests know, across four segments.
fn busy_log() -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    for xid in 700.. {
        log.insert(16384 + xid % 3, xid * 7 % 5000);
        log.message(2500);
        log.commit(xid);
        if xid % 100 == 0 {
            log.restore_point(&format!("point {xid}"));
        }
        if log.position() > start(6).saturating_add(300_000) {
            break;
        }
    }
    log.switch();
    log
}

#[tokio::test]
async fn facts_and_changes_of_many_ranges_are_those_of_the_whole_log() {
    let fixture = Fixture::new().await;
    let log = busy_log();
    fixture.push_all(&log).await;
    let whole = read_in_one(&log, true);
    assert!(whole.commits.len() > 1000 && whole.restore_points.len() > 10);
    let (told, holes) = facts(&fixture.archive, T1, start(3), END).await;
    assert!(told == whole, "the facts differ");
    assert_eq!(holes, []);
    let root = fixture.archive.ancestry(T1).await.unwrap();
    let changes = fixture.archive.changes(&root, start(3), log.position()).await.unwrap();
    assert_eq!((changes.unusable(), changes.blocks), (None, whole.changes));
}

#[tokio::test]
async fn only_records_that_end_within_what_is_asked_for_are_told() {
    let fixture = Fixture::new().await;
    let log = busy_log();
    fixture.push_all(&log).await;
    let whole = read_in_one(&log, true);
    let from = whole.commits[300].lsn;
    let to = whole.commits[900].end_lsn;
    let (told, _) = facts(&fixture.archive, T1, from, to).await;
    assert_eq!(told.commits, whole.commits[300..=900]);
    let root = fixture.archive.ancestry(T1).await.unwrap();
    let changes = fixture.archive.changes(&root, from, to).await.unwrap();
    let in_range = &whole.commits[300..=900];
    for (index, commit) in in_range.iter().enumerate() {
        let (relation, block) = (16384 + commit.xid % 3, commit.xid * 7 % 5000);
        let locator =
            seawall_pgdata::wal::RelFileLocator { tablespace: 1663, database: 5, relation };
        let fork = seawall_pgdata::relation_path::Fork::Main;
        assert!(index == 0 || changes.blocks.touches(locator, fork, block..block + 1));
    }
}

#[tokio::test]
async fn a_hole_is_told_and_the_log_behind_it_too() {
    let fixture = Fixture::new().await;
    let log = busy_log();
    for number in [3, 5, 6] {
        fixture.push(&file_name(1, number), &segment(&log, number)).await.unwrap();
    }
    let (told, holes) = facts(&fixture.archive, T1, start(3), END).await;
    assert_eq!(holes, [LsnRange { start: start(4), end: start(5) }]);
    assert!(told.commits.iter().any(|commit| commit.lsn >= start(6)));
    assert!(told.commits.iter().all(|commit| commit.lsn < start(4) || commit.lsn >= start(5)));

    let root = fixture.archive.ancestry(T1).await.unwrap();
    assert_eq!(fixture.archive.contiguous_end(&root, start(3)).await.unwrap(), start(4));
    assert_eq!(fixture.archive.contiguous_end(&root, start(4)).await.unwrap(), start(4));
    assert_eq!(fixture.archive.contiguous_end(&root, start(5)).await.unwrap(), start(7));
    let changes = fixture.archive.changes(&root, start(3), start(6)).await.unwrap();
    assert!(changes.unusable().unwrap().contains("0/400000 to 0/500000"));
    let stretches = fixture.archive.coverage(&root, start(3)).await.unwrap();
    let ranges: Vec<_> = stretches.iter().map(|stretch| stretch.range).collect();
    let expected = [(3, 4), (5, 7)].map(|(a, b)| LsnRange { start: start(a), end: start(b) });
    assert_eq!(ranges, expected);
    assert!(stretches[0].complete_to < start(4), "a record is open at the hole");
    let of_timeline = fixture.archive.timeline_coverage(T1).await.unwrap();
    assert_eq!((of_timeline.ranges, of_timeline.objects), (expected.to_vec(), 3));
    assert_eq!(of_timeline.stored_bytes, {
        let sizes = fixture.objects().into_iter().map(|path| path.metadata().unwrap().len());
        sizes.sum::<u64>()
    });
}

#[tokio::test]
async fn a_log_goes_on_along_its_timelines_and_leaves_out_what_was_abandoned() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(4).saturating_add(300_000));
    let (mut child, switch) = fork(&log);
    child.commit(7_000_000);
    child.fill_past(start(6));
    child.switch();
    // The old primary lived on for a while.
    log.commit(8_000_000);
    log.fill_past(start(4).saturating_add(700_000));
    fixture.push_history(2, &history_of_2(switch)).await;
    fixture.push(&file_name(1, 3), &segment(&log, 3)).await.unwrap();
    fixture.push(&format!("{}.partial", file_name(1, 4)), &segment(&log, 4)).await.unwrap();
    for number in [4, 5, 6] {
        fixture.push(&file_name(2, number), &segment(&child, number)).await.unwrap();
    }
    let archive = fixture.reopened().await;
    let (told, holes) = facts(&archive, T2, start(3), END).await;
    assert_eq!(holes, []);
    assert!(told == read_in_one(&child, true), "the child's log is its parent's and its own");
    let (parent, _) = facts(&archive, T1, start(3), END).await;
    assert_eq!(
        parent.commits.last().unwrap().xid,
        read_in_one(&log, true).commits.last().unwrap().xid
    );

    let ancestry = archive.ancestry(T2).await.unwrap();
    assert_eq!(archive.contiguous_end(&ancestry, start(3)).await.unwrap(), child.position());
    let around = archive.records_around(&ancestry, switch).await.unwrap();
    assert_eq!(around.at_or_after.unwrap().lsn, switch, "the child's first record");
    assert_eq!(around.before.unwrap().end.align_up(), switch);
    let changes = archive.changes(&ancestry, start(3), END).await.unwrap();
    assert_eq!(changes.unusable(), None);
}

#[tokio::test]
async fn a_record_of_several_segments_is_read_back_from_its_bytes() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.commit(1);
    let long = log.message(2_500_000);
    let after = log.commit(2);
    log.switch();
    for number in [5, 3, 4] {
        fixture.push(&file_name(1, number), &segment(&log, number)).await.unwrap();
    }
    let (told, holes) = facts(&fixture.archive, T1, start(3), END).await;
    assert_eq!(holes, []);
    assert!(told == read_in_one(&log, true));
    let root = fixture.archive.ancestry(T1).await.unwrap();
    for lsn in [long.saturating_add(1), start(4), start(5).saturating_add(9000)] {
        let around = fixture.archive.records_around(&root, lsn).await.unwrap();
        assert_eq!(around.before.unwrap().lsn, long);
        assert_eq!(around.at_or_after.unwrap().lsn, after);
    }
    let inside = facts(&fixture.archive, T1, start(4), END).await;
    assert_eq!(inside.1, [], "a walk may begin inside a record");
}

#[tokio::test]
async fn records_are_found_on_both_sides_of_any_position() {
    let fixture = Fixture::new().await;
    let log = busy_log();
    fixture.push_all(&log).await;
    let root = fixture.archive.ancestry(T1).await.unwrap();
    let mut starts = Vec::new();
    let mut reader = WalReader::new(ReaderStart::at(T1, log.start, SEGMENT_SIZE)).unwrap();
    let mut input = log.bytes.as_slice();
    while let Some(record) = reader.next(&mut input) {
        starts.push(record.lsn);
    }
    let near_seam = starts.iter().position(|lsn| *lsn >= start(5)).unwrap();
    for index in [1, 2, 500, near_seam - 1, near_seam, near_seam + 1, starts.len() - 1] {
        let around = fixture.archive.records_around(&root, starts[index]).await.unwrap();
        assert_eq!(around.before.unwrap().lsn, starts[index - 1]);
        assert_eq!(around.at_or_after.unwrap().lsn, starts[index]);
        let next = starts[index].saturating_add(1);
        let around = fixture.archive.records_around(&root, next).await.unwrap();
        assert_eq!(around.before.unwrap().lsn, starts[index]);
        assert_eq!(around.at_or_after.map(|record| record.lsn), starts.get(index + 1).copied());
    }
    let first = fixture.archive.records_around(&root, starts[0]).await.unwrap();
    assert_eq!((first.before, first.at_or_after.unwrap().lsn), (None, starts[0]));
    let beyond = fixture.archive.records_around(&root, start(9)).await.unwrap();
    assert_eq!((beyond.before, beyond.at_or_after), (None, None));
}

#[tokio::test]
async fn names_alone_tell_what_is_archived() {
    let log = busy_log();
    let mut metered = None;
    let fixture = Fixture::with_store(SYSTEM_ID, PgMajor::V15, |store| {
        let counted = Arc::new(Metered::new(store));
        metered = Some(Arc::clone(&counted));
        counted
    })
    .await;
    fixture.push_all(&log).await;
    let metered = metered.unwrap();
    let archive = fixture.reopened().await;
    let root = Ancestry::root(T1);
    let before = metered.counts().reads();
    assert_eq!(archive.contiguous_end(&root, start(3)).await.unwrap(), log.position());
    assert_eq!(archive.timeline_coverage(T1).await.unwrap().objects, 4);
    assert_eq!(metered.counts().reads(), before, "nothing was read");
}

/// Cuts a log at any pages and record ends, as a receiver that flushes does, in any order.
fn pieces_of(log: &WalWriter, cuts: &[usize]) -> Vec<(String, Vec<u8>)> {
    let mut reader = WalReader::new(ReaderStart::at(T1, log.start, SEGMENT_SIZE)).unwrap();
    let mut input = log.bytes.as_slice();
    let mut ends = Vec::new();
    while let Some(record) = reader.next(&mut input) {
        ends.push(record.end.align_up());
    }
    cuts.iter()
        .map(|cut| {
            let end = ends[cut % ends.len()];
            let segment = WalSegment::containing(T1, Lsn(end.0 - 1), SEGMENT_SIZE);
            let from = segment.start().bytes_since(log.start) as usize;
            let to = end.bytes_since(log.start) as usize;
            let mut bytes = log.bytes[from..to.min(log.bytes.len())].to_vec();
            bytes.resize(SEGMENT_BYTES as usize, 0);
            (format!("{segment}.partial"), bytes)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn however_the_log_is_cut_it_says_the_same(
        cuts in proptest::collection::vec(any::<usize>(), 0..12), seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            let mut log = WalWriter::new(PgMajor::V15, 3);
            for xid in 0..90u32 {
                log.message((seed.wrapping_mul(u64::from(xid) + 1) >> 48) as usize % 60_000);
                log.insert(16384, xid);
                log.commit(xid);
            }
            log.switch();
            for (name, bytes) in pieces_of(&log, &cuts) {
                fixture.push(&name, &bytes).await.unwrap();
            }
            fixture.push_all(&log).await;
            let (told, holes) = facts(&fixture.archive, T1, log.start, END).await;
            assert_eq!(holes, []);
            assert!(told == read_in_one(&log, true));
            let path: Vec<_> = fixture.archive.ancestry(T1).await.unwrap().spans().collect();
            for (segment, bytes) in segments(&log) {
                let read = fixture.archive.read_segment(segment, &path).await.unwrap().unwrap();
                assert!(read.bytes == bytes, "{segment}");
            }
        });
    }
}

/// Replay makes a tablespace when it has read the whole record, wherever that was cut.
#[tokio::test]
async fn a_segment_tells_of_the_tablespaces_whose_records_end_in_it() {
    let mut seen = [false; 2];
    for before_end in (8..200).step_by(24) {
        let mut log = WalWriter::new(PgMajor::V15, 3);
        while log.position() < Lsn(start(4).0 - 16_384) {
            log.message(700);
        }
        // A message without content takes 24 bytes, and its place is a multiple of 8.
        while log.position().align_up() < Lsn(start(4).0 - before_end) {
            log.append(21, 0, 0, &[]);
        }
        let path = "/srv/fast/".repeat(8);
        let lsn = log.append(5, 0, 0, &[&[7, 64, 0, 0], path.as_bytes(), &[0]].concat());
        let end = log.position();
        log.append(5, 0x10, 0, &[7, 64, 0, 0]);
        log.switch();
        let fixture = Fixture::new().await;
        fixture.push_all(&log).await;
        let spans: Vec<_> = fixture.archive.ancestry(T1).await.unwrap().spans().collect();
        for (at, (segment, _)) in segments(&log).into_iter().enumerate() {
            let read = fixture.archive.read_segment(segment, &spans).await.unwrap().unwrap();
            let is_created =
                |change: &&TablespaceChange| change.lsn == lsn && change.created_in.is_some();
            let told = read.tablespaces.iter().filter(is_created).count() == 1;
            let ends_here = segment.start() < end && end <= segment.end();
            assert_eq!(told, ends_here, "{before_end} bytes before the end, segment {segment}");
            seen[at.min(1)] |= told;
        }
    }
    assert_eq!(seen, [true; 2], "none was cut");
}

/// The end of a backup tells one history from another that has the same positions.
#[tokio::test]
async fn the_end_of_a_backup_is_found_by_its_position_alone() {
    let begun = start(3).saturating_add(40);
    let mut log = WalWriter::new(PgMajor::V15, 3);
    let mut ends = Vec::new();
    while log.bytes.len() < 3 * SEGMENT_BYTES as usize {
        if log.position().0 % SEGMENT_BYTES < SEGMENT_BYTES - 8192 {
            log.message(700);
        }
        log.append(0, 0x50, 0, &begun.0.to_le_bytes());
        ends.push(log.position().align_up());
    }
    let fixture = Fixture::new().await;
    fixture.push_all(&log).await;
    let ancestry = fixture.archive.ancestry(T1).await.unwrap();
    let crossing = |end: &Lsn| end.0 % SEGMENT_BYTES < 80;
    assert!(ends.iter().any(crossing), "one crosses a segment's end");
    let some = ends.iter().take(3).chain(ends.iter().filter(|end| crossing(end)));
    for end in some.filter(|end| **end < start(6)) {
        let found = fixture.archive.backup_that_ended_at(&ancestry, *end).await.unwrap();
        assert_eq!(found, Some(begun), "{end}");
        for other in [Lsn(end.0 - 8), Lsn(end.0 + 8)] {
            let found = fixture.archive.backup_that_ended_at(&ancestry, other).await.unwrap();
            assert_eq!(found, None, "{other}");
        }
    }
}
