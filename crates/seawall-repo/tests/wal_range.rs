//! One range of WAL as an object: what is sealed opens again, and nothing else does.

mod archive_support;

use archive_support::wal::{SEGMENT_SIZE, SYSTEM_ID, WalWriter};
use archive_support::{Fixture, Records, T1};
use proptest::prelude::*;
use seawall_core::{Code, Lsn, PgTimestamp, TimelineId};
use seawall_pgdata::PgMajor;
use seawall_pgdata::relation_path::Fork;
use seawall_pgdata::wal::{
    BrokenReason, ChangedBlocks, CommitRow, DatabaseCreate, DatabaseDirectory, DatabaseDrop,
    EndOfRecovery, Event, EventKind, FirstRecord, FragmentBytes, HeadFragment, HeadState,
    LastRecord, ParameterChange, PayloadFault, RangeIndex, ReaderStart, RelFileLocator,
    RestorePoint, Rmgr, SegmentIndexer, TailFragment, TimeMark, WalFacts, WalLevel, XactEndKind,
};
use seawall_repo::keys::{EpochKeys, Keyring};
use seawall_repo::layout::WalRangeName;
use seawall_repo::wal::LogSoFar;
use seawall_repo::wal::range::{RangeSealer, open_range, read_index, read_range};
use seawall_store::ObjectPath;

const START: Lsn = Lsn(0x30_0000);
const END: Lsn = Lsn(START.0 + 8192);

fn keyring() -> Keyring {
    Keyring::new([7; 16], 1, EpochKeys::random().unwrap())
}

fn path() -> ObjectPath {
    path_of(END)
}

fn path_of(end: Lsn) -> ObjectPath {
    let name = format!("wal/hot/00000001/0000000000300000/0000000000300000-{:016X}", end.0);
    format!("c/main/i/7-0/{name}").parse().unwrap()
}

fn name() -> WalRangeName {
    WalRangeName { timeline: T1, segment: START, start: START, end: END }
}

fn rows(facts: impl Strategy<Value = WalFacts>) -> impl Strategy<Value = WalFacts> {
    facts.prop_map(|mut facts| {
        facts.commits.sort_by_key(|row| row.lsn);
        facts
    })
}

fn lsn() -> impl Strategy<Value = Lsn> {
    (0u64..8000).prop_map(|offset| Lsn(START.0 + offset))
}

fn commit() -> impl Strategy<Value = CommitRow> {
    let kind = prop_oneof![
        Just(XactEndKind::Commit),
        Just(XactEndKind::Abort),
        Just(XactEndKind::CommitPrepared),
        Just(XactEndKind::AbortPrepared)
    ];
    let database = proptest::option::of(any::<u32>());
    let subxids = proptest::collection::vec(any::<u32>(), 0..4);
    (lsn(), 1u64..190, any::<u32>(), any::<i64>(), kind, database, subxids, any::<bool>()).prop_map(
        |(lsn, length, xid, time, kind, database, subxids, drops_relations)| CommitRow {
            lsn,
            end_lsn: Lsn(lsn.0 + length),
            xid,
            time: PgTimestamp(time),
            kind,
            database,
            subxids,
            drops_relations,
        },
    )
}

fn event_kind() -> impl Strategy<Value = EventKind> {
    let oids = proptest::collection::vec(any::<u32>(), 0..3);
    let copied = proptest::option::of((any::<u32>(), any::<u32>()));
    let level = proptest::option::of(prop_oneof![
        Just(WalLevel::Minimal),
        Just(WalLevel::Replica),
        Just(WalLevel::Logical)
    ]);
    prop_oneof![
        (any::<u32>(), any::<u32>(), copied).prop_map(|(database, tablespace, copied_from)| {
            EventKind::DatabaseCreated(DatabaseCreate { database, tablespace, copied_from })
        }),
        (any::<u32>(), oids).prop_map(|(database, tablespaces)| {
            EventKind::DatabaseDropped(DatabaseDrop { database, tablespaces })
        }),
        Just(EventKind::DatabaseRowChangedInPlace),
        (any::<[u32; 3]>(), any::<u32>()).prop_map(|(of, block)| EventKind::RelationTruncated {
            locator: RelFileLocator { tablespace: of[0], database: of[1], relation: of[2] },
            block,
        }),
        (any::<u32>(), any::<Vec<u8>>())
            .prop_map(|(tablespace, path)| EventKind::TablespaceCreated { tablespace, path }),
        any::<u32>().prop_map(|tablespace| EventKind::TablespaceDropped { tablespace }),
        (any::<[u32; 5]>(), any::<bool>(), any::<bool>()).prop_map(|(of, hints, track)| {
            EventKind::ParameterChange(ParameterChange {
                max_connections: of[0],
                max_worker_processes: of[1],
                max_wal_senders: of[2],
                max_prepared_transactions: of[3],
                max_locks_per_transaction: of[4],
                wal_level: WalLevel::Logical,
                wal_log_hints: hints,
                track_commit_timestamp: track,
            })
        }),
        (any::<i64>(), any::<u32>(), any::<u32>(), level).prop_map(|(time, to, from, level)| {
            EventKind::EndOfRecovery(EndOfRecovery {
                time: PgTimestamp(time),
                timeline: TimelineId(to),
                previous_timeline: TimelineId(from),
                wal_level: level,
            })
        }),
        (any::<u32>(), any::<u32>()).prop_map(|(to, from)| EventKind::TimelineSwitch {
            timeline: TimelineId(to),
            previous_timeline: TimelineId(from),
        }),
        (any::<u32>(), ".*").prop_map(|(xid, gid)| EventKind::Prepared { xid, gid }),
        any::<u64>().prop_map(|lsn| EventKind::RecordOverwritten { lsn: Lsn(lsn) }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    (lsn(), any::<u32>(), event_kind()).prop_map(|(lsn, xid, kind)| Event {
        lsn,
        end_lsn: Lsn(lsn.0 + 100),
        xid,
        kind,
    })
}

/// Any map that operations on blocks can lead to.
fn changes() -> impl Strategy<Value = ChangedBlocks> {
    let mark = (0u32..3, 0u32..3, 0u32..4, any::<bool>(), any::<u32>(), 0u8..10);
    let reason = prop_oneof![
        (any::<u8>(), any::<u8>())
            .prop_map(|(rmgr, info)| BrokenReason::UnknownRecord { rmgr: Rmgr(rmgr), info }),
        Just(BrokenReason::MinimalWal),
        (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(rmgr, info, left)| {
            let fault = PayloadFault::BytesLeft { left: usize::from(left) };
            BrokenReason::Undecodable { rmgr: Rmgr(rmgr), info, fault }
        }),
    ];
    let broken = proptest::option::of((lsn(), reason));
    (proptest::collection::vec(mark, 0..60), broken).prop_map(|(marks, broken)| {
        let mut changes = ChangedBlocks::new();
        for (tablespace, database, relation, init, block, what) in marks {
            let locator = RelFileLocator { tablespace, database, relation };
            let fork = if init { Fork::Init } else { Fork::Main };
            match what {
                0 => changes.truncate(locator, fork, block),
                1 => changes.renew_database(DatabaseDirectory { tablespace, database }),
                _ => changes.mark(locator, fork, block),
            }
        }
        if let Some((lsn, reason)) = broken {
            changes.break_at(lsn, reason);
        }
        changes
    })
}

fn facts() -> impl Strategy<Value = WalFacts> {
    let point = (lsn(), any::<i64>(), ".*").prop_map(|(lsn, time, name)| RestorePoint {
        lsn,
        end_lsn: Lsn(lsn.0 + 90),
        name,
        time: PgTimestamp(time),
    });
    let mark =
        (lsn(), any::<i64>()).prop_map(|(lsn, time)| TimeMark { lsn, time: PgTimestamp(time) });
    rows(
        (
            proptest::collection::vec(commit(), 0..20),
            proptest::collection::vec(point, 0..3),
            proptest::collection::vec(mark, 0..3),
            proptest::collection::vec(event(), 0..10),
            changes(),
        )
            .prop_map(|(commits, restore_points, time_marks, events, changes)| WalFacts {
                commits,
                restore_points,
                time_marks,
                events,
                changes,
            }),
    )
}

fn fragment() -> impl Strategy<Value = FragmentBytes> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(FragmentBytes::Verbatim),
        any::<u64>().prop_map(|len_bytes| FragmentBytes::ByReference { len_bytes }),
    ]
}

fn index() -> impl Strategy<Value = RangeIndex> {
    let state = prop_oneof![
        Just(HeadState::Complete),
        Just(HeadState::Unfinished),
        Just(HeadState::Overwritten)
    ];
    let head = proptest::option::of((fragment(), any::<u32>(), 0u64..8000, state));
    let tail = proptest::option::of((fragment(), proptest::option::of(any::<u32>()), lsn()));
    let records = proptest::option::of((lsn(), any::<u64>(), lsn()));
    (facts(), head, tail, records).prop_map(|(facts, head, tail, records)| {
        let end = END;
        RangeIndex {
            major: PgMajor::V15,
            timeline: T1,
            segment_size: SEGMENT_SIZE,
            start: START,
            end,
            first_record: records.map(|(lsn, prev, _)| FirstRecord { lsn, prev: Lsn(prev) }),
            last_record: records.map(|(_, _, lsn)| LastRecord { lsn, end }),
            head: head.map(|(bytes, remaining_bytes, length, state)| HeadFragment {
                lsn: START,
                end: Lsn(START.0 + length),
                remaining_bytes,
                bytes,
                state,
            }),
            tail: tail.map(|(bytes, total_bytes, lsn)| TailFragment {
                lsn,
                end,
                total_bytes,
                bytes,
            }),
            valid_end: end,
            padding_from: None,
            ended: None,
            facts,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_index_reads_back_as_it_was_sealed(index in index(), noise: u8) {
        let keyring = keyring();
        let bytes: Vec<u8> = (0..8192u32).map(|i| (i % 251) as u8 ^ noise).collect();
        let mut sealer = RangeSealer::new(SYSTEM_ID, 1).unwrap();
        let so_far = LogSoFar::of(&index);
        let object = sealer.seal(&keyring, &path(), &index, so_far, &bytes).unwrap();
        let opened = open_range(&keyring, &path(), name(), &object).unwrap();
        prop_assert_eq!(opened.range.so_far, so_far);
        prop_assert_eq!(opened.range.index, index);
        prop_assert_eq!(opened.range.system_id, SYSTEM_ID);
        prop_assert_eq!(opened.bytes, bytes);
    }
}

/// A range of a page with a few records.
fn small_range(keyring: &Keyring) -> Vec<u8> {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.commit(700);
    log.insert(16384, 9);
    log.restore_point("here");
    let start = ReaderStart::at(T1, START, SEGMENT_SIZE);
    let mut indexer = SegmentIndexer::new(start).unwrap();
    log.message(9000);
    let page = &log.bytes[..8192];
    indexer.feed(page);
    let index = indexer.finish().unwrap();
    let so_far = LogSoFar::of(&index);
    RangeSealer::new(SYSTEM_ID, 1).unwrap().seal(keyring, &path(), &index, so_far, page).unwrap()
}

#[test]
fn every_bit_of_a_range_is_protected() {
    let keyring = keyring();
    let object = small_range(&keyring);
    assert!(open_range(&keyring, &path(), name(), &object).is_ok());
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open_range(&keyring, &path(), name(), &flipped).is_err(), "bit {bit}");
    }
    for length in 0..object.len() {
        assert!(open_range(&keyring, &path(), name(), &object[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_range_under_another_name_is_refused() {
    let keyring = keyring();
    let object = small_range(&keyring);
    let other_timeline = WalRangeName { timeline: TimelineId(2), ..name() };
    let longer = WalRangeName { end: Lsn(END.0 + 8), ..name() };
    let shorter = WalRangeName { end: Lsn(END.0 - 8), ..name() };
    for claimed in [other_timeline, longer, shorter] {
        assert!(open_range(&keyring, &path(), claimed, &object).is_err(), "{claimed:?}");
    }
    let elsewhere = path_of(Lsn(END.0 + 8));
    assert!(open_range(&keyring, &elsewhere, name(), &object).is_err());
}

#[test]
fn a_range_must_end_where_another_can_begin() {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.commit(700);
    log.message(3000);
    let cut = log.bytes.len() - 1000;
    let mut indexer = SegmentIndexer::new(ReaderStart::at(T1, START, SEGMENT_SIZE)).unwrap();
    indexer.feed(&log.bytes[..cut]);
    let index = indexer.finish().unwrap();
    let mut sealer = RangeSealer::new(SYSTEM_ID, 1).unwrap();
    let so_far = LogSoFar::of(&index);
    let error = sealer.seal(&keyring(), &path(), &index, so_far, &log.bytes[..cut]).unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test]
async fn footer_and_index_are_read_without_the_body() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    let commit = log.commit(700);
    log.message(900_000);
    log.switch();
    fixture.push_all(&log).await;
    let line = fixture.archive.line();
    let name = WalRangeName { end: Lsn(0x40_0000), ..name() };
    let path = line.paths().path(&seawall_repo::layout::LineObject::WalHot(name)).unwrap();
    let metered = seawall_store::Metered::new(
        seawall_store::open(line.store().url(), &seawall_store::OpenOptions::default())
            .await
            .unwrap(),
    );
    let range = read_range(&metered, line.keyring(), &path, name).await.unwrap();
    assert_eq!((range.start(), range.end()), (START, Lsn(0x40_0000)));
    assert!(range.index.facts.commits.is_empty(), "the index was not read");
    let range = read_index(&metered, line.keyring(), &path, name).await.unwrap();
    assert_eq!(range.index.facts.commits[0].lsn, commit);
    let counts = metered.counts();
    assert!(counts.read_bytes < 200_000, "{} bytes read of 900 000", counts.read_bytes);
}
