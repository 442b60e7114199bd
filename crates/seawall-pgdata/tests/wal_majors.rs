//! The WAL of every major, against what the server itself said about it.

mod wal_support;

use std::collections::BTreeMap;

use seawall_core::{Lsn, PgTimestamp, TimelineId, Xid};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::{
    EndReason, EventKind, Link, Operation, RangeChain, RangeIndex, SegmentIndexer, WalFacts,
    WalLevel, WalReader, XactEnd, rmgr,
};
use wal_support::{Golden, describe, start_at};

fn index_segments(golden: &Golden) -> Vec<RangeIndex> {
    let index = |(segment, bytes): &(seawall_core::WalSegment, Vec<u8>)| {
        let mut indexer =
            SegmentIndexer::new(start_at(segment.timeline.0, segment.start())).unwrap();
        indexer.feed(bytes);
        indexer.finish().unwrap()
    };
    golden.segments.iter().map(index).collect()
}

/// The facts of all segments, and of the records between them.
fn facts_of(golden: &Golden) -> WalFacts {
    let ranges = index_segments(golden);
    let mut chain = RangeChain::new(&ranges[0]);
    let mut facts = ranges[0].facts.clone();
    for range in &ranges[1..] {
        if let Link::Record(record) = chain.push(range).unwrap() {
            facts.apply(&record.record());
        }
        facts.append(range.facts.clone());
    }
    facts
}

fn for_each_record(golden: &Golden, mut visit: impl FnMut(&seawall_pgdata::wal::Record<'_>)) {
    let (start, bytes) = golden.first_timeline();
    let mut reader = WalReader::new(start_at(1, start)).unwrap();
    let mut input = &bytes[..];
    while let Some(record) = reader.next(&mut input) {
        visit(&record);
    }
    assert_eq!(reader.major(), Some(golden.major));
}

#[test]
fn every_record_is_known_and_decodes() {
    for major in PgMajor::ALL {
        let (mut count, mut managers) = (0, std::collections::BTreeSet::new());
        for_each_record(&Golden::of(major), |record| {
            let header = &record.header;
            let known = rmgr::is_known(header.rmgr, header.info, header.is_special(), major);
            assert!(known, "{major}: {} {:02X} at {}", header.rmgr, header.info, record.lsn);
            let operation = Operation::of(record);
            assert!(operation.is_ok(), "{major}: {operation:?} at {}", record.lsn);
            count += 1;
            managers.insert(header.rmgr);
        });
        assert!(count > 4000, "{major}: {count} records");
        assert!(managers.len() >= 16, "{major}: {managers:?}");
    }
}

#[test]
fn commits_are_those_the_server_lists() {
    for major in PgMajor::ALL {
        let golden = Golden::of(major);
        let text = golden.text("commits.txt");
        let expected: BTreeMap<Xid, PgTimestamp> = text
            .lines()
            .map(|line| {
                let (xid, time) = line.split_once(' ').unwrap();
                (xid.parse().unwrap(), PgTimestamp(time.parse().unwrap()))
            })
            .collect();

        let mut found = BTreeMap::new();
        for_each_record(&golden, |record| {
            if let Ok(Operation::XactEnd(XactEnd { kind, xid, subxids, time, origin, .. })) =
                Operation::of(record)
                && kind.is_commit()
                && xid != 0
            {
                // A replicated transaction is listed with the time of its first commit.
                let time = origin.map_or(time, |origin| origin.time);
                found.extend(subxids.into_iter().chain([xid]).map(|xid| (xid, time)));
            }
        });

        let last = expected.keys().next_back().unwrap();
        found.retain(|xid, _| xid <= last);
        assert_eq!(found, expected, "{major}");
    }
}

#[test]
fn restore_points_are_where_the_server_put_them() {
    for major in PgMajor::ALL {
        let golden = Golden::of(major);
        let facts = facts_of(&golden);
        let found: Vec<String> = facts
            .restore_points
            .iter()
            .map(|point| format!("{} {}", point.name, point.end_lsn.align_up()))
            .collect();
        assert_eq!(found.join("\n"), golden.text("restore_points.txt").trim(), "{major}");
    }
}

#[test]
fn the_record_across_two_segments_is_joined() {
    for major in PgMajor::ALL {
        let golden = Golden::of(major);
        let ranges = index_segments(&golden);
        let mut chain = RangeChain::new(&ranges[0]);
        let Ok(Link::Record(joined)) = chain.push(&ranges[1]) else {
            panic!("{major}: nothing joined");
        };
        let joined = joined.record();
        let mut in_one_go = None;
        for_each_record(&golden, |record| {
            if record.lsn == joined.lsn {
                in_one_go = Some(describe(record));
            }
        });
        assert_eq!(in_one_go, Some(describe(&joined)), "{major}");
        assert!(joined.lsn < ranges[0].end && joined.end > ranges[0].end, "{major}");
    }
}

#[test]
fn a_promotion_is_seen() {
    for major in PgMajor::ALL {
        let golden = Golden::of(major);
        let facts = facts_of(&golden);
        let promotions: Vec<_> = facts
            .events
            .iter()
            .filter_map(|event| match event.kind {
                EventKind::EndOfRecovery(end) => Some(end),
                _ => None,
            })
            .collect();
        let [end] = promotions[..] else { panic!("{major}: {promotions:?}") };
        assert_eq!((end.timeline, end.previous_timeline), (TimelineId(2), TimelineId(1)));
        let logged = (major >= PgMajor::V17).then_some(WalLevel::Logical);
        assert_eq!(end.wal_level, logged, "{major}");
    }
}

#[test]
fn the_map_is_whole_and_the_last_segment_ends_cleanly() {
    for major in PgMajor::ALL {
        let golden = Golden::of(major);
        assert_eq!(facts_of(&golden).changes.broken(), None, "{major}");
        let last = index_segments(&golden).pop().unwrap();
        let ended = last.ended.unwrap();
        assert_eq!(ended.reason, EndReason::ZeroLength, "{major}");
        assert_eq!(last.padding_from, Some(ended.lsn), "{major}");
        assert_eq!(last.valid_end, last.last_record.unwrap().end.align_up(), "{major}");
        assert!(last.valid_end > Lsn(last.start.0), "{major}");
    }
}
