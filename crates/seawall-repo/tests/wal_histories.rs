//! Timeline histories that are damaged: whose harm that is, and who can tell the same.

mod archive_support;

use std::fs;
use std::path::PathBuf;

use archive_support::wal::WalWriter;
use archive_support::*;
use seawall_core::{Code, Error, ExitClass, Lsn, TimelineId, WalFileName};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{HistoryStored, WalArchive};

const T3: TimelineId = TimelineId(3);
const T4: TimelineId = TimelineId(4);

const OF_2: &str = "1\t0/300100\tno recovery target specified\n";
const OF_3: &str = "1\t0/300100\tno recovery target specified\n\n2\t0/400100\tbefore noon\n";
/// It left the first timeline as the second did.
const BESIDE: &str = "1\t0/500000\tof another server\n";

fn object_of(fixture: &Fixture, timeline: TimelineId) -> PathBuf {
    let name = format!("history/{:08X}", timeline.0);
    let mut files = files_below(fixture.directory.path()).into_iter();
    files.find(|path| path.ends_with(&name)).unwrap()
}

fn damage(fixture: &Fixture, timeline: TimelineId) {
    let path = object_of(fixture, timeline);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
}

async fn store(
    archive: &WalArchive,
    timeline: TimelineId,
    text: &str,
) -> Result<HistoryStored, Error> {
    archive.store_history(WalFileName::TimelineHistory(timeline), text.as_bytes()).await
}

/// A log that has just left another one.
fn child(timeline: TimelineId, from: u64, to: u64) -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, from);
    log.timeline = timeline;
    log.fill_past(Lsn(to * SEGMENT_BYTES));
    log
}

#[tokio::test]
async fn damage_of_one_history_is_the_harm_of_its_timeline_alone() {
    let fixture = Fixture::new().await;
    fixture.push_history(2, OF_2).await;
    fixture.push_history(3, BESIDE).await;
    damage(&fixture, T2);
    let archive = fixture.reopened().await;
    let beside = Ancestry::parse(T3, BESIDE.as_bytes()).unwrap();
    assert_eq!(archive.ancestry(T3).await.unwrap(), beside);
    for timeline in [T1, T3] {
        let log = child(timeline, 6, 7);
        push(&archive, &file_name(timeline.0, 6), &segment(&log, 6)).await.unwrap();
    }
    let log = child(T2, 6, 7);
    let refused = push(&archive, &file_name(2, 6), &segment(&log, 6)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ObjectDamaged, "nobody could read it afterwards: {refused:?}");
    let hint = format!("{:?}", refused.hint());
    assert!(hint.contains("00000002.history"), "{hint}");
    let look = archive.ancestries().await.unwrap();
    assert_eq!(look.known, [Ancestry::root(T1), beside]);
    let [damaged] = look.damaged.as_slice() else { panic!("{look:?}") };
    assert_eq!((damaged.timeline, damaged.told_by), (T2, None));
    assert_eq!(damaged.error().code(), Code::ObjectDamaged);
}

#[tokio::test]
async fn what_a_damaged_history_told_its_descendants_tell() {
    let fixture = Fixture::new().await;
    fixture.push_history(2, OF_2).await;
    fixture.push_history(3, OF_3).await;
    damage(&fixture, T2);
    let archive = fixture.reopened().await;
    let told = archive.timeline_history(T2).await.unwrap().unwrap();
    assert_eq!(told.content.as_slice(), OF_2.as_bytes(), "to the byte");
    let of_2 = Ancestry::parse(T2, OF_2.as_bytes()).unwrap();
    assert_eq!(archive.ancestry(T2).await.unwrap(), of_2);
    let look = archive.ancestries().await.unwrap();
    assert_eq!(look.known.iter().map(Ancestry::tip).collect::<Vec<_>>(), [T2, T3]);
    let [damaged] = look.damaged.as_slice() else { panic!("{look:?}") };
    assert_eq!((damaged.timeline, damaged.told_by), (T2, Some(T3)));
    // Its WAL goes on, and so do its children.
    let log = child(T2, 6, 7);
    push(&archive, &file_name(2, 6), &segment(&log, 6)).await.unwrap();
    store(&archive, T4, &format!("{OF_2}\n2\t0/600000\tlater\n")).await.unwrap();
    let other = store(&archive, TimelineId(5), "1\t0/300200\tr\n\n2\t0/600000\tr\n").await;
    assert_eq!(other.unwrap_err().code(), Code::HistoryConflict, "another past of timeline 2");
    // One of the two is damaged as well.
    damage(&fixture, T3);
    let archive = fixture.reopened().await;
    assert_eq!(archive.ancestry(T2).await.unwrap(), of_2);
    assert_eq!(archive.ancestry(T3).await.unwrap_err().code(), Code::ObjectDamaged);
    damage(&fixture, T4);
    let archive = fixture.reopened().await;
    assert_eq!(archive.ancestry(T2).await.unwrap_err().code(), Code::ObjectDamaged);
}

/// Whoever took the same number elsewhere in the same segment is another one.
#[tokio::test]
async fn a_history_of_a_timeline_that_began_elsewhere_in_the_segment_is_refused() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(Lsn(3 * SEGMENT_BYTES + 200_000));
    let (mut own, switch) = fork(&log);
    own.fill_past(Lsn(4 * SEGMENT_BYTES));
    fixture.push_history(2, &history_of_2(switch)).await;
    fixture.push(&file_name(2, 3), &segment(&own, 3)).await.unwrap();
    damage(&fixture, T2);
    let archive = fixture.reopened().await;
    let child_of = |begin: Lsn| format!("{}\n2\t0/500000\tpromoted\n", history_of_2(begin));
    let clone = store(&archive, T3, &child_of(Lsn(switch.0 - 64))).await.unwrap_err();
    assert_eq!(clone.code(), Code::ObjectDamaged, "{clone:?}");
    assert!(clone.chain().contains("where timeline 2 began cannot be compared"), "{clone:?}");
    // Its own history is not taken either when there is room for one.
    fs::remove_file(object_of(&fixture, T2)).unwrap();
    for elsewhere in [Lsn(switch.0 - 64), Lsn(switch.0 + 64)] {
        let clone = store(&archive, T2, &history_of_2(elsewhere)).await.unwrap_err();
        assert_eq!(clone.code(), Code::HistoryConflict, "{clone:?}");
    }
    store(&archive, T2, &history_of_2(switch)).await.unwrap();
    damage(&fixture, T2);
    let archive = fixture.reopened().await;
    store(&archive, T3, &child_of(switch)).await.unwrap();
    assert_eq!(archive.ancestry(T2).await.unwrap().span(T2).unwrap().begin, switch);
}

/// Where a timeline ended is told by those that left it.
#[tokio::test]
async fn a_segment_that_may_end_at_a_fork_nobody_can_read_is_refused_for_that() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(Lsn(3 * SEGMENT_BYTES + 200_000));
    let left = history_of_2(log.position());
    fixture.push_history(2, &left).await;
    damage(&fixture, T2);
    let archive = fixture.reopened().await;
    let refused = push(&archive, &file_name(1, 3), &segment(&log, 3)).await.unwrap_err();
    assert_eq!(refused.exit_class(), ExitClass::Integrity, "{refused:?}");
    assert!(refused.chain().contains("timeline 2"), "{refused:?}");
    fs::remove_file(object_of(&fixture, T2)).unwrap();
    store(&archive, T2, &left).await.unwrap();
    push(&archive, &file_name(1, 3), &segment(&log, 3)).await.unwrap();
}

/// A child may be archived before its parent: they are compared in either order.
#[tokio::test]
async fn a_history_that_contradicts_its_descendant_is_refused() {
    let fixture = Fixture::new().await;
    fixture.push_history(3, OF_3).await;
    let refused = store(&fixture.archive, T2, "1\t0/300200\tanother past\n").await.unwrap_err();
    assert_eq!(refused.code(), Code::HistoryConflict, "{refused:?}");
    fixture.push_history(2, OF_2).await;
}

/// The damaged object is in the way of the file until it is moved out.
#[tokio::test]
async fn a_damaged_history_is_stored_again_when_it_was_moved_out() {
    let fixture = Fixture::new().await;
    fixture.push_history(2, OF_2).await;
    damage(&fixture, T2);
    let archive = fixture.reopened().await;
    for refused in [store(&archive, T2, OF_2).await, store(&archive, T3, OF_3).await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::ObjectDamaged, "{refused:?}");
        assert!(format!("{:?}", refused.hint()).contains("out of the repository"), "{refused:?}");
    }
    fs::remove_file(object_of(&fixture, T2)).unwrap();
    assert_eq!(store(&archive, T2, OF_2).await.unwrap(), HistoryStored::Stored);
    assert_eq!(store(&archive, T3, OF_3).await.unwrap(), HistoryStored::Stored);
    assert!(archive.ancestries().await.unwrap().damaged.is_empty());
}
