//! What the archive takes, what it refuses, and what it makes of pieces of the same WAL.

mod archive_support;

use archive_support::wal::{SEGMENT_SIZE, WalWriter};
use archive_support::*;
use seawall_core::{Code, Lsn, SystemId, TimelineId, WalFileName, WalSegment};
use seawall_pgdata::PgMajor;
use seawall_repo::CreateOptions;
use seawall_repo::wal::{HistoryStored, LsnRange, SegmentRead, WalArchive};

async fn read(archive: &WalArchive, timeline: u32, number: u64) -> Option<SegmentRead> {
    let timeline = TimelineId(timeline);
    let segment = WalSegment { timeline, number, size: SEGMENT_SIZE };
    let path: Vec<_> = archive.ancestry(timeline).await.unwrap().spans().collect();
    archive.read_segment(segment, &path).await.unwrap()
}

async fn read_whole(archive: &WalArchive, timeline: u32, number: u64) -> Vec<u8> {
    let read = read(archive, timeline, number).await.unwrap();
    assert_eq!(read.covered_to, Lsn((number + 1) * SEGMENT_BYTES));
    read.bytes
}

fn start(number: u64) -> Lsn {
    Lsn(number * SEGMENT_BYTES)
}

/// Three segments, the last one switched, with records across both seams.
fn three_segments() -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(4).saturating_add(1));
    log.fill_past(start(5).saturating_add(500_000));
    log.switch();
    log
}

#[tokio::test]
async fn what_is_archived_after_a_rotation_is_read_by_who_opened_before_it() {
    let fixture = Fixture::new().await;
    let line = fixture.archive.line();
    let now = "2026-01-02T02:00:00Z".parse().unwrap();
    let options = CreateOptions { unlock: &fixture.unlock, label: "test", now };
    let rotated = line.repository().rotate(&[options]).await.unwrap();
    let archiver = rotated.line(line.cluster(), line.id()).unwrap();
    let archiver = WalArchive::open(archiver).await.unwrap();
    let log = three_segments();
    for (name, bytes) in named(&log) {
        push(&archiver, &name, &bytes).await.unwrap();
    }
    // Indexes at the ends of objects, and whole ones.
    let root = fixture.archive.ancestry(T1).await.unwrap();
    let end = fixture.archive.log_end(&root, start(3)).await.unwrap().unwrap();
    assert_eq!(end.hole, None);
    read_whole(&fixture.archive, 1, 4).await;
    for (name, bytes) in named(&log) {
        fixture.push(&name, &bytes).await.unwrap();
    }
}

#[tokio::test]
async fn segments_read_back_as_they_were_pushed() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    fixture.push_all(&log).await;
    assert_eq!(fixture.objects().len(), 3, "a clean segment is one object");
    for (segment, bytes) in segments(&log) {
        assert_eq!(read_whole(&fixture.archive, 1, segment.number).await, bytes);
    }
    assert!(read(&fixture.archive, 1, 6).await.is_none());
}

#[tokio::test]
async fn equal_bytes_again_are_no_success_where_the_archived_ones_are_spoilt() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    fixture.push_all(&log).await;
    let object = fixture.objects().remove(1);
    let mut bytes = std::fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, &bytes).unwrap();
    let name = file_name(1, 4);
    let again = fixture.push(&name, &segment(&log, 4)).await.unwrap_err();
    assert_eq!(again.code(), Code::ObjectDamaged, "{again:?}");
    assert!(format!("{:?}", again.hint()).contains("stores it again"), "{again:?}");
    // As the hint says.
    std::fs::remove_file(&object).unwrap();
    fixture.push(&name, &segment(&log, 4)).await.unwrap();
    assert_eq!(read_whole(&fixture.reopened().await, 1, 4).await, segment(&log, 4));
}

#[tokio::test]
async fn e4_equal_bytes_again_are_success() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    fixture.push_all(&log).await;
    let before = fixture.objects();
    for archive in [fixture.archive.clone(), fixture.reopened().await] {
        for (name, bytes) in named(&log) {
            let stored = push(&archive, &name, &bytes).await.unwrap();
            assert_eq!(stored.new_bytes(), 0);
        }
    }
    assert_eq!(fixture.objects(), before);
}

#[tokio::test]
async fn e3_other_bytes_at_the_same_place_are_refused_and_change_nothing() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    fixture.push_all(&log).await;

    let mut other = WalWriter::new(PgMajor::V15, 3);
    other.fill_past(start(3).saturating_add(400_000));
    let differs = other.position().align_up();
    other.commit(9999);
    other.fill_past(start(4));
    let error = fixture.push(&file_name(1, 3), &segment(&other, 3)).await.unwrap_err();
    assert_eq!(error.code(), Code::WalConflict);
    let lsn = error.message().split(' ').find_map(|word| word.parse::<Lsn>().ok()).unwrap();
    assert!(lsn >= differs && lsn < differs.saturating_add(64), "{error:?}, not at {differs}");
    assert!(error.message().contains("wal/hot/00000001/0000000000300000"), "{error:?}");
    assert_eq!(read_whole(&fixture.archive, 1, 3).await, segment(&log, 3));
}

#[tokio::test]
async fn e5_a_second_writer_does_not_get_past_the_point_where_it_differs() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    let mut other = WalWriter::new(PgMajor::V15, 3);
    other.fill_past(start(4));
    other.message(10);
    other.fill_past(start(6));
    fixture.push(&file_name(1, 3), &segment(&log, 3)).await.unwrap();
    // Its fourth segment does not continue the record that the archived third one begins.
    let error = fixture.push(&file_name(1, 5), &segment(&other, 5)).await;
    assert!(error.is_ok(), "nothing beside it is known yet");
    fixture.push(&file_name(1, 4), &segment(&log, 4)).await.unwrap_err();
    let other_fixture = Fixture::new().await;
    other_fixture.push(&file_name(1, 4), &segment(&log, 4)).await.unwrap();
    let error = other_fixture.push(&file_name(1, 5), &segment(&other, 5)).await.unwrap_err();
    assert_eq!(error.code(), Code::WalDiscontinuous, "{error:?}");
}

#[tokio::test]
async fn e2_a_short_empty_or_damaged_segment_is_refused() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    let name = file_name(1, 3);
    let good = segment(&log, 3);
    let mut refused = Vec::new();
    for length in [0, 39, 8192, good.len() - 1] {
        refused.push(good[..length].to_vec());
    }
    refused.push([good.clone(), vec![0]].concat());
    for at in [200, 8192 + 100, 500_000, good.len() - 8000] {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        refused.push(damaged);
    }
    for (index, bytes) in refused.iter().enumerate() {
        let error = fixture.push(&name, bytes).await.unwrap_err();
        assert_eq!(error.code(), Code::WalDamaged, "{index}: {error:?}");
    }
    assert_eq!(fixture.objects(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_record_across_segments_is_checked_from_whichever_side_comes_last() {
    let log = three_segments();
    let mut damaged = segment(&log, 4);
    let record_goes_on_at = 40 + 8;
    damaged[record_goes_on_at] ^= 1;
    for damaged_first in [true, false] {
        let fixture = Fixture::new().await;
        let mut files = [(file_name(1, 3), segment(&log, 3)), (file_name(1, 4), damaged.clone())];
        if damaged_first {
            files.reverse();
        }
        fixture.push(&files[0].0, &files[0].1).await.unwrap();
        let error = fixture.push(&files[1].0, &files[1].1).await.unwrap_err();
        assert_eq!(error.code(), Code::WalDiscontinuous, "{error:?}");
    }
}

#[tokio::test]
async fn e21_wal_of_another_cluster_is_refused() {
    let log = three_segments();
    let name = file_name(1, 3);
    let good = segment(&log, 3);
    let strangers = [
        Fixture::of(SystemId(1), PgMajor::V15).await,
        Fixture::of(wal::SYSTEM_ID, PgMajor::V16).await,
    ];
    for fixture in &strangers {
        let error = fixture.push(&name, &good).await.unwrap_err();
        assert_eq!(error.code(), Code::WalWrongCluster, "{error:?}");
        assert!(error.hint().is_some());
    }
    let fixture = Fixture::new().await;
    let mut sixteen = good.clone();
    sixteen[32..36].copy_from_slice(&(16u32 << 20).to_le_bytes());
    assert_eq!(fixture.push(&name, &sixteen).await.unwrap_err().code(), Code::WalWrongCluster);
    let noise = vec![0x5A; good.len()];
    assert_eq!(fixture.push(&name, &noise).await.unwrap_err().code(), Code::NotWal);
    assert_eq!(fixture.push(&name, &vec![0; good.len()]).await.unwrap_err().code(), Code::NotWal);
    let renamed = fixture.push(&file_name(1, 4), &good).await.unwrap_err();
    assert_eq!(renamed.code(), Code::WalDamaged);
    let mut later = good.clone();
    later[4] = 9;
    assert_eq!(fixture.push(&name, &later).await.unwrap_err().code(), Code::WalDamaged);
}

#[tokio::test]
async fn e10_a_partial_segment_is_stored_up_to_its_last_record_and_completed_later() {
    for recycled in [false, true] {
        let fixture = Fixture::new().await;
        let mut log = WalWriter::new(PgMajor::V15, 3);
        log.fill_past(start(3).saturating_add(300_000));
        let mut partial = segment(&log, 3);
        let valid = log.position().align_up();
        if recycled {
            with_recycled_tail(&mut partial, log.bytes.len().next_multiple_of(8));
        }
        let name = format!("{}.partial", file_name(1, 3));
        let stored = fixture.push(&name, &partial).await.unwrap();
        assert_eq!(stored.valid_to, valid);
        let again = fixture.push(&name, &partial).await.unwrap();
        assert_eq!((again.valid_to, again.new_bytes()), (valid, 0));

        let there = read(&fixture.archive, 1, 3).await.unwrap();
        assert_eq!(there.covered_to, valid);
        assert_eq!(there.bytes, segment(&log, 3), "zeros behind the last record");

        log.fill_past(start(4));
        let whole = segment(&log, 3);
        let stored = fixture.push(&file_name(1, 3), &whole).await.unwrap();
        assert_eq!(stored.new_bytes(), start(4).bytes_since(valid));
        assert_eq!(read_whole(&fixture.archive, 1, 3).await, whole);
        assert_eq!(fixture.push(&name, &partial).await.unwrap().new_bytes(), 0);
    }
}

#[tokio::test]
async fn a_partial_segment_whose_last_record_is_torn_ends_before_it() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(100_000));
    let torn = log.message(20_000);
    let keep = torn.bytes_since(start(3)) as usize + 12_000;
    log.bytes.truncate(keep);
    let stored = fixture.push(&format!("{}.partial", file_name(1, 3)), &segment(&log, 3)).await;
    assert_eq!(stored.unwrap().valid_to, torn);
}

#[tokio::test]
async fn the_last_segment_of_a_dead_server_is_taken_as_a_partial_one_only() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(300_000));
    let valid = log.position().align_up();
    let partial = |number| format!("{}.partial", file_name(1, number));
    let stored = fixture.push(&partial(3), &segment(&log, 3)).await.unwrap();
    assert_eq!(stored.valid_to, valid);
    assert_eq!(read(&fixture.archive, 1, 3).await.unwrap().covered_to, valid);
    // A segment without a single record adds nothing and is not an error.
    let mut empty = WalWriter::new(PgMajor::V15, 7);
    empty.commit(1);
    empty.bytes.truncate(40);
    let stored = fixture.push(&partial(7), &segment(&empty, 7)).await.unwrap();
    assert_eq!((stored.valid_to, stored.pieces.len()), (start(7), 0));
    // Under the names of whole segments they are not whole.
    let objects = fixture.objects();
    for (number, log) in [(3, &log), (7, &empty)] {
        let error = fixture.push(&file_name(1, number), &segment(log, number)).await.unwrap_err();
        assert_eq!(error.code(), Code::WalDamaged);
        assert!(format!("{:?}", error.hint()).contains("PushPartialWal"), "{error:?}");
    }
    assert_eq!(fixture.objects(), objects);
}

#[tokio::test]
async fn a_segment_that_ends_early_is_refused_wherever_it_ends() {
    let log = three_segments();
    let good = segment(&log, 3);
    let (half, last_page) = (good.len() / 2, good.len() - 8192);
    let next = segment(&log, 4);
    for end in [half, last_page, good.len() - 4096] {
        let (mut zeroed, mut recycled) = (good.clone(), good.clone());
        zeroed[end..].fill(0);
        recycled[end..].copy_from_slice(&next[end..]);
        let fixture = Fixture::new().await;
        for damaged in [zeroed, recycled] {
            let error = fixture.push(&file_name(1, 3), &damaged).await.unwrap_err();
            assert_eq!(error.code(), Code::WalDamaged, "from {end} on: {error:?}");
            assert_eq!(fixture.objects(), Vec::<std::path::PathBuf>::new());
        }
        fixture.push(&file_name(1, 3), &good).await.unwrap();
        assert_eq!(read_whole(&fixture.archive, 1, 3).await, good);
    }
}

/// A standby that has all archived names the segment so in which its primary's timeline ended.
#[tokio::test]
async fn a_segment_that_a_known_timeline_left_is_whole_up_to_there() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(300_000));
    let (_, switch) = fork(&log);
    let mut left = segment(&log, 3);
    with_recycled_tail(&mut left, log.bytes.len().next_multiple_of(8));
    let early = fixture.push(&file_name(1, 3), &left).await.unwrap_err();
    assert_eq!(early.code(), Code::WalDamaged, "nothing is known of a fork yet");
    fixture.push_history(2, &history_of_2(switch)).await;
    let stored = fixture.push(&file_name(1, 3), &left).await.unwrap();
    assert_eq!(stored.valid_to, switch);
    // Short of the fork, what the child needs is missing.
    let other = Fixture::new().await;
    other.push_history(2, &history_of_2(switch)).await;
    left[200_000..].fill(0);
    let error = other.push(&file_name(1, 3), &left).await.unwrap_err();
    assert_eq!(error.code(), Code::WalDamaged, "{error:?}");
}

/// A log whose last record before the end of segment 3 leaves only `left` bytes there, then a switch.
fn with_crossing_switch(left: u64) -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(Lsn(start(4).0 - 7000));
    let overhead = 24 + 5;
    let room = start(4).0 - left - log.position().align_up().0 - overhead;
    log.message(room as usize);
    assert_eq!(log.position().align_up().0, start(4).0 - left);
    log.switch();
    assert_eq!(log.position(), start(5));
    log.fill_past(start(6));
    log.switch();
    log
}

#[tokio::test]
async fn a_switch_that_crosses_into_a_segment_leaves_that_empty_and_the_log_goes_on() {
    for left in [8, 16] {
        let log = with_crossing_switch(left);
        for reverse in [false, true] {
            let fixture = Fixture::new().await;
            let mut files: Vec<_> = named(&log).into_iter().collect();
            if reverse {
                files.reverse();
            }
            for (name, bytes) in &files {
                fixture.push(name, bytes).await.unwrap();
            }
            assert_eq!(read_whole(&fixture.archive, 1, 4).await, segment(&log, 4));
            let root = fixture.archive.ancestry(T1).await.unwrap();
            let stretches = fixture.archive.coverage(&root, start(3)).await.unwrap();
            assert_eq!(stretches.len(), 1, "{stretches:?}");
            assert_eq!(stretches[0].range.end, start(7));
        }
        // What follows the switch is nothing.
        let fixture = Fixture::new().await;
        let mut damaged = segment(&log, 4);
        *damaged.last_mut().unwrap() = 1;
        let error = fixture.push(&file_name(1, 4), &damaged).await.unwrap_err();
        assert_eq!(error.code(), Code::WalDamaged);
    }
}

#[tokio::test]
async fn an_empty_segment_behind_anything_but_a_switch_is_refused() {
    let log = with_crossing_switch(16);
    let mut other = with_crossing_switch(16);
    // The same bytes but for the record that crosses: it ends as a switch does and is none.
    let from = (start(4).0 - 16 - start(3).0) as usize;
    other.bytes.truncate(from);
    other.prev = log.prev;
    other.append(21, 0, 0, &[7; 100]);
    let fixture = Fixture::new().await;
    fixture.push(&file_name(1, 4), &segment(&log, 4)).await.unwrap();
    let mut before = segment(&other, 3);
    before.truncate(SEGMENT_BYTES as usize);
    let error = fixture.push(&file_name(1, 3), &before).await.unwrap_err();
    assert_eq!(error.code(), Code::WalDiscontinuous, "{error:?}");
}

#[tokio::test]
async fn filler_behind_a_switch_may_differ() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    fixture.push_all(&log).await;
    let mut other = segment(&log, 5);
    let last = other.len() - 1;
    other[last] = 1;
    assert_eq!(fixture.push(&file_name(1, 5), &other).await.unwrap().new_bytes(), 0);
    assert_eq!(read_whole(&fixture.archive, 1, 5).await, segment(&log, 5));
}

#[tokio::test]
async fn a_switch_after_a_partial_leaves_filler_ranges_that_read_back() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(300_000));
    let partial = segment(&log, 3);
    fixture.push(&format!("{}.partial", file_name(1, 3)), &partial).await.unwrap();
    log.switch();
    fixture.push(&file_name(1, 3), &segment(&log, 3)).await.unwrap();
    assert_eq!(fixture.objects().len(), 2);
    assert_eq!(read_whole(&fixture.archive, 1, 3).await, segment(&log, 3));
}

#[tokio::test]
async fn the_head_of_a_new_timeline_belongs_to_its_parent() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(4).saturating_add(300_000));
    let (mut child, switch) = fork(&log);
    child.fill_past(start(5));
    let first = segment(&child, 4);

    let early = fixture.push(&file_name(2, 4), &first).await.unwrap_err();
    assert_eq!(early.code(), Code::WalDiscontinuous, "its history is not known yet");
    assert!(format!("{:?}", early.hint()).contains("00000002.history"));

    fixture.push_history(2, &history_of_2(switch)).await;
    let stored = fixture.push(&file_name(2, 4), &first).await.unwrap();
    let parts: Vec<_> = stored.pieces.iter().map(|piece| (piece.timeline, piece.range)).collect();
    let head = LsnRange { start: start(4), end: switch };
    let own = LsnRange { start: switch, end: start(5) };
    assert_eq!(parts, [(T1, head), (T2, own)]);
    assert_eq!(read_whole(&fixture.archive, 2, 4).await, first);

    // The parent's own file says the same and goes on for a while.
    log.fill_past(start(4).saturating_add(600_000));
    let name = format!("{}.partial", file_name(1, 4));
    let stored = fixture.push(&name, &segment(&log, 4)).await.unwrap();
    assert_eq!(stored.new_bytes(), log.position().align_up().bytes_since(switch));
    assert_eq!(read_whole(&fixture.archive, 2, 4).await, first, "the child's stays as it was");
    let parent = read(&fixture.archive, 1, 4).await.unwrap();
    assert_eq!(parent.bytes, segment(&log, 4));
}

#[tokio::test]
async fn a_child_that_contradicts_its_parent_is_refused() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(4).saturating_add(300_000));
    fixture.push(&format!("{}.partial", file_name(1, 4)), &segment(&log, 4)).await.unwrap();

    let mut other = WalWriter::new(PgMajor::V15, 3);
    other.fill_past(start(4).saturating_add(200_000));
    other.commit(4242);
    other.fill_past(start(4).saturating_add(300_000));
    let (mut child, switch) = fork(&other);
    child.fill_past(start(5));
    fixture.push_history(2, &history_of_2(switch)).await;
    let error = fixture.push(&file_name(2, 4), &segment(&child, 4)).await.unwrap_err();
    assert_eq!(error.code(), Code::WalConflict, "{error:?}");
    let too_early = fixture.push(&file_name(2, 3), &segment(&child, 3)).await.unwrap_err();
    assert_eq!(too_early.code(), Code::WalDamaged, "{too_early:?}");
}

#[tokio::test]
async fn damage_behind_a_known_switch_does_not_matter_to_the_parent() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(300_000));
    let (_, switch) = fork(&log);
    log.fill_past(start(4));
    let mut damaged = segment(&log, 3);
    damaged[400_000] ^= 1;
    let name = format!("{}.partial", file_name(1, 3));
    let error = fixture.push(&name, &damaged).await.unwrap_err();
    assert_eq!(error.code(), Code::WalDamaged, "more WAL follows the damage");
    fixture.push_history(2, &history_of_2(switch)).await;
    let stored = fixture.push(&name, &damaged).await.unwrap();
    assert!(stored.valid_to >= switch);
}

#[tokio::test]
async fn a_record_the_server_gave_up_is_part_of_the_log() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    // Torn in the middle of a segment, and then at the seam of two.
    log.fill_past(start(3).saturating_add(200_000));
    log.append_torn(&[7; 30_000], log.left_on_page());
    log.fill_past(Lsn(start(4).0 - 7000));
    log.append_torn(&[8; 30_000], log.left_on_page());
    assert_eq!(log.position(), start(4));
    log.fill_past(start(5));
    fixture.push(&file_name(1, 4), &segment(&log, 4)).await.unwrap();
    fixture.push(&file_name(1, 3), &segment(&log, 3)).await.unwrap();
    assert_eq!(read_whole(&fixture.archive, 1, 3).await, segment(&log, 3));
    let root = fixture.archive.ancestry(T1).await.unwrap();
    let stretches = fixture.archive.coverage(&root, start(3)).await.unwrap();
    assert_eq!(stretches.len(), 1);
}

#[tokio::test]
async fn e6_timelines_are_hexadecimal_in_names_and_decimal_in_histories() {
    let fixture = Fixture::new().await;
    for timeline in [0x10, u32::MAX] {
        let mut log = WalWriter::new(PgMajor::V15, 3);
        log.timeline = TimelineId(timeline);
        log.fill_past(start(4));
        fixture.push(&file_name(timeline, 3), &segment(&log, 3)).await.unwrap();
        assert_eq!(read_whole(&fixture.archive, timeline, 3).await, segment(&log, 3));
    }
    assert!(read(&fixture.archive, 10, 3).await.is_none());
    fixture.push_history(0x10, "15\t0/200000\treason\n").await;
    let timelines = fixture.archive.timelines().await.unwrap();
    assert_eq!(timelines, [TimelineId(0x10), TimelineId(u32::MAX)]);
    let ancestry = fixture.archive.ancestry(TimelineId(0x10)).await.unwrap();
    assert_eq!(ancestry.fork_lsn_of(TimelineId(15)), Some(Lsn(0x20_0000)));
}

#[tokio::test]
async fn e1_empty_or_foreign_history_files_are_refused() {
    let fixture = Fixture::new().await;
    let archive = &fixture.archive;
    let history = WalFileName::TimelineHistory(T2);
    for bad in [&b""[..], b"no history\n", b"2\t0/300000\tof itself\n"] {
        let error = archive.store_history(history, bad).await.unwrap_err();
        assert_eq!(error.code(), Code::WalDamaged, "{error:?}");
    }
    let good = history_of_2(Lsn(0x30_0100));
    let stored = archive.store_history(history, good.as_bytes()).await.unwrap();
    assert_eq!(stored, HistoryStored::Stored);
    let again = archive.store_history(history, good.as_bytes()).await.unwrap();
    assert_eq!(again, HistoryStored::AlreadyThere);
    let other = history_of_2(Lsn(0x30_0200));
    let error = archive.store_history(history, other.as_bytes()).await.unwrap_err();
    assert_eq!(error.code(), Code::HistoryConflict);
    let grandchild = "1\t0/300200\tr\n\n2\t0/400000\tr\n";
    let name = WalFileName::TimelineHistory(TimelineId(3));
    let error = archive.store_history(name, grandchild.as_bytes()).await.unwrap_err();
    assert_eq!(error.code(), Code::HistoryConflict, "it tells another past of timeline 2");

    let segment = WalSegment { timeline: T1, number: 3, size: SEGMENT_SIZE };
    let note = WalFileName::BackupHistory(segment, 0x28);
    assert!(archive.store_history(note, b"").await.is_err());
    assert!(archive.store_history(note, b"START WAL").await.is_err());
    let kept = archive.timeline_history(T2).await.unwrap().unwrap();
    assert_eq!(kept.content.as_slice(), good.as_bytes());
}
