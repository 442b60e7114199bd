//! Several writers at once, in any order, that die at any moment.

mod archive_support;

use std::sync::Arc;

use archive_support::wal::{SEGMENT_SIZE, SYSTEM_ID, WalWriter};
use archive_support::*;
use seawall_core::{Code, Lsn, WalFileName, WalSegment};
use seawall_pgdata::PgMajor;
use seawall_store::testing::{Call, Fault, Faulty};

fn start(number: u64) -> Lsn {
    Lsn(number * SEGMENT_BYTES)
}

/// Eight segments with records across every seam.
fn eight_segments() -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(11));
    log.switch();
    log
}

/// The whole log is there, in one piece, byte for byte.
async fn assert_archived(fixture: &Fixture, log: &WalWriter) {
    let archive = fixture.reopened().await;
    let root = archive.ancestry(T1).await.unwrap();
    let end = log.position();
    assert_eq!(archive.contiguous_end(&root, log.start).await.unwrap(), end);
    let stretches = archive.coverage(&root, log.start).await.unwrap();
    assert_eq!(stretches.len(), 1, "{stretches:?}");
    assert_eq!((stretches[0].range.start, stretches[0].range.end), (log.start, end));
    let path: Vec<_> = root.spans().collect();
    for (segment, bytes) in segments(log) {
        let read = archive.read_segment(segment, &path).await.unwrap().unwrap();
        assert!(read.bytes == bytes, "{segment}");
    }
}

#[tokio::test]
async fn e62_segments_may_arrive_in_any_order() {
    let log = eight_segments();
    for seed in 0u64..6 {
        let fixture = Fixture::new().await;
        let mut files: Vec<_> = named(&log).into_iter().collect();
        files.sort_by_key(|(name, _)| {
            let number = u64::from_str_radix(&name[16..], 16).unwrap();
            (number + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        for (name, bytes) in &files {
            fixture.push(name, bytes).await.unwrap();
        }
        assert_archived(&fixture, &log).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_of_the_same_log_store_it_once() {
    let fixture = Fixture::new().await;
    let log = eight_segments();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        for (name, bytes) in named(&log) {
            let archive = fixture.archive.clone();
            writers.spawn(async move { push(&archive, &name, &bytes).await });
        }
    }
    let mut new_bytes = 0;
    while let Some(stored) = writers.join_next().await {
        new_bytes += stored.unwrap().unwrap().new_bytes();
    }
    assert_eq!(new_bytes, log.bytes.len() as u64, "each byte was new to one writer");
    assert_eq!(fixture.objects().len(), segments(&log).len());
    assert_archived(&fixture, &log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_with_shorter_and_longer_copies_agree() {
    for _ in 0..8 {
        let fixture = Fixture::new().await;
        let mut log = WalWriter::new(PgMajor::V15, 3);
        let mut copies = Vec::new();
        for step in 1..6 {
            log.fill_past(start(3).saturating_add(step * 170_000));
            copies.push((format!("{}.partial", file_name(1, 3)), segment(&log, 3)));
        }
        log.switch();
        copies.push((file_name(1, 3), segment(&log, 3)));
        let mut writers = tokio::task::JoinSet::new();
        for (name, bytes) in copies {
            let archive = fixture.archive.clone();
            writers.spawn(async move { push(&archive, &name, &bytes).await });
        }
        while let Some(stored) = writers.join_next().await {
            stored.unwrap().unwrap();
        }
        assert_archived(&fixture, &log).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn e5_of_two_servers_with_one_name_one_is_refused() {
    for round in 0..8 {
        let fixture = Fixture::new().await;
        let mut writers = tokio::task::JoinSet::new();
        for xid in [1, 2] {
            let mut log = WalWriter::new(PgMajor::V15, 3);
            log.fill_past(start(3).saturating_add(round * 100_000));
            log.commit(xid);
            log.switch();
            let archive = fixture.archive.clone();
            let bytes = segment(&log, 3);
            writers.spawn(async move { push(&archive, &file_name(1, 3), &bytes).await });
        }
        let mut outcomes = Vec::new();
        while let Some(stored) = writers.join_next().await {
            outcomes.push(stored.unwrap().map(drop).map_err(|error| error.code()));
        }
        outcomes.sort_by_key(Result::is_err);
        assert_eq!(outcomes, [Ok(()), Err(Code::WalConflict)]);
    }
}

#[tokio::test]
async fn a_writer_that_dies_at_any_call_leaves_an_archive_that_takes_the_segment_again() {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(400_000));
    let partial = segment(&log, 3);
    log.switch();
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::AnswerLost, Fault::Full];
    for call in [Call::Create, Call::List, Call::Read, Call::ReadRange, Call::Stat] {
        for fault in faults {
            for number in 1..12 {
                let mut faulty = None;
                let fixture = Fixture::with_store(SYSTEM_ID, PgMajor::V15, |store| {
                    faulty = Some(Arc::clone(&store));
                    store
                })
                .await;
                let plain = faulty.unwrap();
                push(&fixture.archive, &format!("{}.partial", file_name(1, 3)), &partial)
                    .await
                    .unwrap();
                let store = Arc::new(Faulty::new(plain).fail(call, number..=number, fault));
                let broken = fixture.with_other_store(store.clone()).await;
                let outcome = match broken {
                    Ok(archive) => push(&archive, &file_name(1, 3), &segment(&log, 3)).await,
                    Err(error) => Err(error),
                };
                let happened = store.count(call) >= number;
                assert_eq!(outcome.is_err(), happened, "{call:?} {number} {fault:?}: {outcome:?}");
                fixture.push(&file_name(1, 3), &segment(&log, 3)).await.unwrap();
                assert_archived(&fixture, &log).await;
                if !happened {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_shows_objects_cut_short_is_never_believed() {
    let log = eight_segments();
    let mut plain = None;
    let fixture = Fixture::with_store(SYSTEM_ID, PgMajor::V15, |store| {
        plain = Some(Arc::clone(&store));
        store
    })
    .await;
    fixture.push_all(&log).await;
    let plain = plain.unwrap();
    for cut in [0, 1, 64, 500, 5000] {
        let store = Faulty::new(Arc::clone(&plain)).fail(Call::Read, 4.., Fault::Short(cut));
        let archive = fixture.with_other_store(Arc::new(store)).await.unwrap();
        let path: Vec<_> = archive.ancestry(T1).await.unwrap().spans().collect();
        for number in 4..8 {
            let segment = WalSegment { timeline: T1, number, size: SEGMENT_SIZE };
            let read = archive.read_segment(segment, &path).await;
            assert!(read.is_err(), "{number} cut to {cut}");
        }
    }
}

/// Whoever stored it may have died before it was durable, and PostgreSQL removes its own.
#[tokio::test]
async fn what_is_archived_already_is_made_durable_before_it_is_acknowledged() {
    let log = eight_segments();
    let mut plain = None;
    let fixture = Fixture::with_store(SYSTEM_ID, PgMajor::V15, |store| {
        plain = Some(Arc::clone(&store));
        store
    })
    .await;
    fixture.push_all(&log).await;
    fixture.push_history(2, "1\t0/5000000\tpromoted\n").await;
    let store = Faulty::new(plain.unwrap()).fail(Call::MakeDurable, .., Fault::Unavailable);
    let archive = fixture.with_other_store(Arc::new(store)).await.unwrap();
    let again = push(&archive, &file_name(1, 3), &segment(&log, 3)).await;
    assert_eq!(again.unwrap_err().code(), Code::StoreFailed);
    let name = WalFileName::TimelineHistory(T2);
    let again = archive.store_history(name, b"1\t0/5000000\tpromoted\n").await;
    assert_eq!(again.unwrap_err().code(), Code::StoreFailed);
}
