//! WAL comes in stretches of any length and from several writers: what names say of it is what is
//! there.

mod archive_support;

use std::collections::BTreeSet;
use std::sync::Arc;

use archive_support::wal::{SEGMENT_SIZE, SYSTEM_ID, WalWriter};
use archive_support::*;
use proptest::prelude::*;
use seawall_core::{Code, Lsn, PgTimestamp, TimelineId, WalSegment};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{ReaderStart, WalReader};
use seawall_repo::layout::{LineObject, ObjectName, WalColdName, WalRangeName};
use seawall_repo::wal::range::read_range;
use seawall_repo::wal::{LsnRange, WalArchive};
use seawall_store::{Call, Metered, Store};

fn start(number: u64) -> Lsn {
    Lsn(number * SEGMENT_BYTES)
}

/// Three segments; the last one is switched.
fn three_segments() -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(5).saturating_add(500_000));
    log.switch();
    log
}

/// The bytes of a log in a range.
fn bytes(log: &WalWriter, range: LsnRange) -> Vec<u8> {
    let at = |lsn: Lsn| lsn.bytes_since(log.start) as usize;
    let mut bytes = log.bytes.clone();
    bytes.resize(at(range.end).max(bytes.len()), 0);
    bytes[at(range.start)..at(range.end)].to_vec()
}

/// Streams a log in stretches of so many bytes, as a receiver does: what was not taken comes again
/// with what follows.
async fn stream(
    archive: &WalArchive,
    log: &WalWriter,
    stretches: impl Iterator<Item = u64>,
) -> Lsn {
    let (mut from, mut received) = (log.start, log.start);
    for length in stretches {
        received = received.saturating_add(length).min(log.position());
        let range = LsnRange { start: from, end: received };
        let stored = archive.store_stretch(log.timeline, from, &bytes(log, range)).await.unwrap();
        assert!(from <= stored.valid_to && stored.valid_to <= received);
        from = stored.valid_to;
        if received == log.position() {
            break;
        }
    }
    from
}

/// What lies in the archive, by name.
async fn names(archive: &WalArchive) -> Vec<WalRangeName> {
    let line = archive.line();
    let paths = line.repository().list(&line.paths().below("wal/hot").unwrap()).await.unwrap();
    let range = |path| match ObjectName::parse(path) {
        Some(ObjectName::Line(_, _, LineObject::WalHot(name))) => name,
        other => panic!("{path}: {other:?}"),
    };
    paths.iter().map(range).collect()
}

async fn assert_archived(archive: &WalArchive, log: &WalWriter) {
    let root = Ancestry::root(T1);
    let end = log.position();
    assert_eq!(archive.contiguous_end(&root, log.start).await.unwrap(), end);
    let stretches = archive.coverage(&root, log.start).await.unwrap();
    let ranges: Vec<_> = stretches.iter().map(|stretch| stretch.range).collect();
    assert_eq!(ranges, [LsnRange { start: log.start, end }]);
    let path: Vec<_> = root.spans().collect();
    for (segment, bytes) in segments(log) {
        let read = archive.read_segment(segment, &path).await.unwrap().unwrap();
        assert!(read.bytes == bytes, "{segment}");
    }
}

#[tokio::test]
async fn a_second_of_the_log_in_the_middle_of_a_segment_is_a_range_of_its_own() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(200_000));
    let from = log.position().align_up();
    log.fill_past(start(3).saturating_add(300_000));
    let to = log.position().align_up();
    let range = LsnRange { start: from, end: to };
    let stored = fixture.archive.store_stretch(T1, from, &bytes(&log, range)).await.unwrap();
    assert_eq!((stored.valid_to, stored.new_bytes()), (to, to.bytes_since(from)));
    let name = WalRangeName { timeline: T1, segment: start(3), start: from, end: to };
    assert_eq!(names(&fixture.archive).await, [name]);
    let covered = fixture.archive.timeline_coverage(T1).await.unwrap();
    assert_eq!(covered.ranges, [range]);
    // What was written before comes later, as a file.
    log.switch();
    fixture.push_all(&log).await;
    assert_archived(&fixture.reopened().await, &log).await;
    assert_eq!(names(&fixture.archive).await.len(), 3, "before it, it, behind it");
}

#[tokio::test]
async fn a_record_across_stretches_is_one_record_and_nothing_of_it_is_lost() {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    let mut commits = 0;
    for size in [10, 30_000, 200, 70_000, 9000, 900_000, 50] {
        log.message(size);
        log.commit(700 + commits);
        commits += 1;
    }
    log.switch();
    for length in [1000, 8192, 20_001, 65_536] {
        let fixture = Fixture::new().await;
        let end = stream(&fixture.archive, &log, std::iter::repeat(length)).await;
        assert_eq!(end, log.position(), "{length}");
        let archive = fixture.reopened().await;
        assert_archived(&archive, &log).await;
        let mut reader = archive.facts(&Ancestry::root(T1), log.start, END);
        let mut found = 0;
        while let Some(part) = reader.next().await.unwrap() {
            match part {
                seawall_repo::wal::FactsPart::Facts { facts, .. } => found += facts.commits.len(),
                seawall_repo::wal::FactsPart::Hole(hole) => panic!("{hole:?}"),
            }
        }
        assert_eq!(found, commits as usize, "{length}");
    }
}

#[tokio::test]
async fn a_stretch_may_begin_in_the_filler_behind_a_segment_switch() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(100_000));
    log.switch();
    log.fill_past(start(4).saturating_add(100_000));
    log.switch();
    let end = stream(&fixture.archive, &log, std::iter::repeat(131_072)).await;
    assert_eq!(end, start(5));
    assert_archived(&fixture.archive, &log).await;
    // Where none is known, nothing is no log.
    let nothing = vec![0; 8192];
    let refused = fixture.archive.store_stretch(T1, start(7).saturating_add(8192), &nothing).await;
    assert_eq!(refused.unwrap_err().code(), Code::WalDamaged);
}

#[tokio::test]
async fn a_damaged_stretch_is_refused_whole() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    let range = LsnRange { start: start(3), end: start(3).saturating_add(100_000) };
    let mut damaged = bytes(&log, range);
    damaged[50_000] ^= 1;
    let refused = fixture.archive.store_stretch(T1, start(3), &damaged).await.unwrap_err();
    assert_eq!(refused.code(), Code::WalDamaged, "{refused:?}");
    assert_eq!(names(&fixture.archive).await, []);
}

/// A store that lets another writer in just before an object is created.
mod between {
    use super::*;
    use async_trait::async_trait;
    use bytes::Bytes;
    use seawall_store::{
        ListPage, ObjectEnd, ObjectInfo, ObjectPath, ObjectPrefix, ObjectWriter, StoreError,
        StoreUrl,
    };
    use std::ops::Range;
    use std::sync::Mutex;
    use std::time::Duration;

    #[derive(Debug)]
    pub struct Interposed {
        pub inner: Arc<dyn Store>,
        pub first: Mutex<Option<(WalArchive, Lsn, Vec<u8>)>>,
    }

    #[async_trait]
    impl Store for Interposed {
        fn url(&self) -> &StoreUrl {
            self.inner.url()
        }

        async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
            let first = self.first.lock().unwrap().take();
            if let Some((archive, start, bytes)) = first {
                archive.store_stretch(T1, start, &bytes).await.unwrap();
            }
            self.inner.create(path, bytes).await
        }

        async fn create_large(
            &self,
            path: &ObjectPath,
        ) -> Result<Box<dyn ObjectWriter>, StoreError> {
            self.inner.create_large(path).await
        }

        async fn read_within(&self, path: &ObjectPath, limit: u64) -> Result<Bytes, StoreError> {
            self.inner.read_within(path, limit).await
        }

        async fn read_range(
            &self,
            path: &ObjectPath,
            range: Range<u64>,
        ) -> Result<Bytes, StoreError> {
            self.inner.read_range(path, range).await
        }

        async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
            self.inner.stat(path).await
        }

        async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError> {
            self.inner.make_durable(path).await
        }

        async fn list(
            &self,
            prefix: &ObjectPrefix,
            after: Option<&ObjectPath>,
            limit: usize,
        ) -> Result<ListPage, StoreError> {
            self.inner.list(prefix, after, limit).await
        }

        async fn read_end(&self, path: &ObjectPath, bytes: u64) -> Result<ObjectEnd, StoreError> {
            self.inner.read_end(path, bytes).await
        }

        async fn list_children(&self, prefix: &ObjectPrefix) -> Result<Vec<String>, StoreError> {
            self.inner.list_children(prefix).await
        }

        async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
            self.inner.delete(path).await
        }

        async fn delete_many(&self, paths: &[ObjectPath]) -> Result<(), StoreError> {
            self.inner.delete_many(paths).await
        }

        async fn sweep_unfinished(&self, older_than: Duration) -> Result<(), StoreError> {
            self.inner.sweep_unfinished(older_than).await
        }
    }
}

/// Stores a stretch while another writer, who saw as little, stores one of the same start first.
async fn crossing(
    ours: &WalWriter,
    theirs: &WalWriter,
    [our_end, their_end]: [Lsn; 2],
) -> (Fixture, seawall_core::Result<u64>) {
    let mut plain = None;
    let fixture = Fixture::with_store(SYSTEM_ID, PgMajor::V15, |store| {
        plain = Some(Arc::clone(&store));
        store
    })
    .await;
    let (from, range) = (start(3), |end| LsnRange { start: start(3), end });
    let first = (fixture.archive.clone(), from, bytes(theirs, range(their_end)));
    let store = Arc::new(between::Interposed { inner: plain.unwrap(), first: Some(first).into() });
    let archive = fixture.with_other_store(store).await.unwrap();
    let stored = archive.store_stretch(T1, from, &bytes(ours, range(our_end))).await;
    (fixture, stored.map(|stored| stored.new_bytes()))
}

#[tokio::test]
async fn two_writers_with_one_start_and_other_ends_both_succeed_where_their_bytes_agree() {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3).saturating_add(100_000));
    let short = log.position().align_up();
    log.fill_past(start(3).saturating_add(200_000));
    let long = log.position().align_up();
    for ends in [[short, long], [long, short]] {
        let (fixture, stored) = crossing(&log, &log, ends).await;
        assert_eq!(stored.unwrap(), ends[0].bytes_since(start(3)));
        let range = |end| WalRangeName { timeline: T1, segment: start(3), start: start(3), end };
        assert_eq!(names(&fixture.archive).await, [range(short), range(long)]);
        let covered = fixture.archive.timeline_coverage(T1).await.unwrap();
        assert_eq!(covered.ranges, [LsnRange { start: start(3), end: long }]);
        let segment = WalSegment { timeline: T1, number: 3, size: SEGMENT_SIZE };
        let path: Vec<_> = Ancestry::root(T1).spans().collect();
        let read = fixture.archive.read_segment(segment, &path).await.unwrap().unwrap();
        assert_eq!(read.covered_to, long);
    }
}

#[tokio::test]
async fn e5_of_two_writers_with_one_start_and_other_bytes_the_later_one_fails() {
    let mut ours = WalWriter::new(PgMajor::V15, 3);
    ours.fill_past(start(3).saturating_add(100_000));
    let mut theirs = WalWriter::new(PgMajor::V15, 3);
    theirs.message(77);
    theirs.fill_past(start(3).saturating_add(200_000));
    let ends = [ours.position().align_up(), theirs.position().align_up()];
    let (fixture, stored) = crossing(&ours, &theirs, ends).await;
    assert_eq!(stored.unwrap_err().code(), Code::WalConflict);
    // Nobody reads across it.
    let segment = WalSegment { timeline: T1, number: 3, size: SEGMENT_SIZE };
    let path: Vec<_> = Ancestry::root(T1).spans().collect();
    let read = fixture.archive.read_segment(segment, &path).await.unwrap_err();
    assert_eq!(read.code(), Code::WalConflict);
}

#[tokio::test]
async fn a_range_whose_footer_contradicts_its_name_is_damage() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    fixture.push_all(&log).await;
    let object = fixture.objects().remove(1);
    let longer = object.with_file_name(format!("{:016X}-{:016X}", start(4).0, start(5).0 - 8192));
    std::fs::rename(&object, &longer).unwrap();
    let archive = fixture.reopened().await;
    let root = Ancestry::root(T1);
    assert_eq!(
        archive.contiguous_end(&root, start(3)).await.unwrap(),
        Lsn(start(5).0 - 8192),
        "names are believed where a look is enough"
    );
    let read = archive.coverage(&root, start(3)).await.unwrap_err();
    assert_eq!(read.code(), Code::ObjectDamaged, "{read:?}");
    let segment = WalSegment { timeline: T1, number: 4, size: SEGMENT_SIZE };
    let path: Vec<_> = root.spans().collect();
    let read = archive.read_segment(segment, &path).await.unwrap_err();
    assert_eq!(read.code(), Code::ObjectDamaged, "{read:?}");
}

#[tokio::test]
async fn wal_named_as_before_the_first_release_is_refused() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    fixture.push_all(&log).await;
    let object = fixture.objects().remove(1);
    std::fs::rename(&object, object.with_file_name(format!("{:016X}", start(4).0))).unwrap();
    let archive = fixture.reopened().await;
    let refused = archive.timeline_coverage(T1).await.unwrap_err();
    assert_eq!(refused.code(), Code::UnknownFormat, "{refused:?}");
    let refused = fixture.push(&file_name(1, 4), &segment(&log, 4)).await.unwrap_err();
    assert_eq!(refused.code(), Code::UnknownFormat, "{refused:?}");
}

#[tokio::test]
async fn a_compacted_range_counts_in_listings_and_its_bytes_are_refused() {
    let fixture = Fixture::new().await;
    let log = three_segments();
    for number in [3, 5] {
        fixture.push(&file_name(1, number), &segment(&log, number)).await.unwrap();
    }
    let archive = &fixture.archive;
    let id = seawall_core::Ulid(7);
    let cold = WalColdName { timeline: T1, start: start(1), end: start(5), id };
    let path = archive.line().paths().path(&LineObject::WalCold(cold)).unwrap();
    archive.line().store().create(&path, b"compacted".as_slice().into()).await.unwrap();

    let root = Ancestry::root(T1);
    let covered = archive.timeline_coverage(T1).await.unwrap();
    assert_eq!(covered.ranges, [LsnRange { start: start(1), end: start(6) }]);
    assert_eq!(covered.objects, 3);
    assert_eq!(archive.contiguous_end(&root, start(2)).await.unwrap(), start(6));
    let of_segment = |number| WalSegment { timeline: T1, number, size: SEGMENT_SIZE };
    let spans: Vec<_> = root.spans().collect();
    for number in [3, 5] {
        assert!(archive.read_segment(of_segment(number), &spans).await.unwrap().is_some());
    }
    let refused = [
        archive.read_segment(of_segment(4), &spans).await.map(drop),
        archive.coverage(&root, start(3)).await.map(drop),
        fixture.push(&file_name(1, 4), &segment(&log, 4)).await.map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().code(), Code::UnknownFormat);
    }
}

/// A log with commits, for what its end says.
fn log_with_commits(segments: u64) -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.fill_past(start(3 + segments));
    log.switch();
    log
}

#[tokio::test]
async fn the_end_of_the_log_is_known_from_its_last_range() {
    let log = log_with_commits(6);
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
    let before = metered.counts();
    let end = archive.log_end(&Ancestry::root(T1), start(3)).await.unwrap().unwrap();
    let after = metered.counts();
    assert_eq!((end.complete_to, end.hole), (log.position(), None));
    let mut reader = archive.facts(&Ancestry::root(T1), start(3), END);
    let mut last = None;
    while let Some(part) = reader.next().await.unwrap() {
        if let seawall_repo::wal::FactsPart::Facts { facts, .. } = part {
            last = facts.commits.last().map(|commit| commit.time).or(last);
        }
    }
    assert_eq!(end.last_commit.map(|commit| commit.time), last);
    assert!(last.is_some_and(|time| time > PgTimestamp(0)));
    assert!(after.calls() - before.calls() <= 7, "{before:?} {after:?}");
}

#[tokio::test]
async fn the_end_of_the_log_is_the_same_in_whatever_order_it_was_stored() {
    let log = log_with_commits(4);
    let mut ends = BTreeSet::new();
    for seed in 0u64..4 {
        let fixture = Fixture::new().await;
        let mut files: Vec<_> = named(&log).into_iter().collect();
        files.sort_by_key(|(name, _)| {
            let number = u64::from_str_radix(&name[16..], 16).unwrap();
            (number + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        for (name, bytes) in &files {
            fixture.push(name, bytes).await.unwrap();
        }
        let archive = fixture.reopened().await;
        let end = archive.log_end(&Ancestry::root(T1), start(3)).await.unwrap().unwrap();
        ends.insert(format!("{end:?}"));
        // Behind a hole the log is not replayed.
        std::fs::remove_file(&fixture.objects()[2]).unwrap();
        let end = archive.log_end(&Ancestry::root(T1), start(3)).await.unwrap().unwrap();
        assert_eq!(end.hole, Some(LsnRange { start: start(5), end: start(6) }));
        assert!(end.complete_to < start(5), "a record is open at the hole");
    }
    assert_eq!(ends.len(), 1, "{ends:?}");
}

#[tokio::test]
async fn minimal_wal_is_not_passed_over_at_the_end_of_the_log() {
    // Settings from a server with wal_level = minimal, such that the record crosses into the next
    // segment, or does not.
    for room in [40, 4000] {
        for reverse in [false, true] {
            let mut log = WalWriter::new(PgMajor::V15, 3);
            log.fill_past(Lsn(start(4).0 - 9000));
            let left = start(4).0 - log.position().align_up().0;
            log.message((left - room - 24 - 5) as usize);
            let minimal = log.append(0, 0x60, 0, &[0; 28]);
            log.fill_past(start(5));
            log.switch();
            let fixture = Fixture::new().await;
            let mut files: Vec<_> = named(&log).into_iter().collect();
            if reverse {
                files.reverse();
            }
            for (name, bytes) in &files {
                fixture.push(name, bytes).await.unwrap();
            }
            let root = Ancestry::root(T1);
            let end = fixture.archive.log_end(&root, start(3)).await.unwrap();
            assert_eq!(end, None, "from {minimal} on nothing is sure");
            let behind = fixture.archive.log_end(&root, start(5)).await.unwrap();
            assert!(behind.is_some());
        }
    }
}

/// Names are all that is looked at here: what lies under them is nothing.
fn make_names(fixture: &Fixture, count: u64, missing: u64) -> Vec<LsnRange> {
    let line = fixture.archive.line();
    let mut ranges = Vec::new();
    for number in (0..count).filter(|number| *number != missing) {
        // Sixteen to a segment.
        let at = start(3).0 + number * (SEGMENT_BYTES / 16);
        let (start, end) = (Lsn(at), Lsn(at + SEGMENT_BYTES / 16));
        let segment = Lsn(at / SEGMENT_BYTES * SEGMENT_BYTES);
        let name = WalRangeName { timeline: T1, segment, start, end };
        let path = line.paths().path(&LineObject::WalHot(name)).unwrap();
        let file = fixture.directory.path().join(path.as_str());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, b"").unwrap();
        ranges.push(LsnRange { start, end });
    }
    LsnRange::joined(ranges)
}

#[tokio::test]
async fn a_long_archive_is_listed_in_parts_and_tells_the_same_with_and_without_a_head() {
    let mut metered = None;
    let fixture = Fixture::with_store(SYSTEM_ID, PgMajor::V15, |store| {
        let counted = Arc::new(Metered::new(store));
        metered = Some(Arc::clone(&counted));
        counted
    })
    .await;
    let metered = metered.unwrap();
    make_names(&fixture, 5000, 1234);
    let line = fixture.archive.line();
    let next = line.paths().path(&LineObject::Head(seawall_core::Ulid(1))).unwrap();
    let head = line.write_head(&next, "2026-01-02T02:00:00Z".parse().unwrap()).await.unwrap();
    // What came after the head is found as well.
    let expected = make_names(&fixture, 5500, 1234);
    let before = metered.counts().of(Call::List);
    let with_head = fixture.archive.timeline_coverage(T1).await.unwrap();
    let calls = metered.counts().of(Call::List) - before;
    assert_eq!((&with_head.ranges, with_head.objects), (&expected, 5499));
    assert!((8..=14).contains(&calls), "{calls} listings of six pages, in parts");
    // A head is no more than a hint: damaged or gone, it takes longer.
    let path = line.paths().path(&LineObject::Head(head)).unwrap();
    let file = fixture.directory.path().join(path.as_str());
    std::fs::write(&file, b"damaged").unwrap();
    assert_eq!(fixture.archive.timeline_coverage(T1).await.unwrap(), with_head);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(fixture.archive.timeline_coverage(T1).await.unwrap(), with_head);
}

/// Where records end.
fn record_ends(log: &WalWriter) -> Vec<Lsn> {
    let mut reader = WalReader::new(ReaderStart::at(T1, log.start, SEGMENT_SIZE)).unwrap();
    let mut input = log.bytes.as_slice();
    let mut ends = Vec::new();
    while let Some(record) = reader.next(&mut input) {
        ends.push(record.end.align_up());
    }
    ends
}

/// Stores parts of a log, as files of a dead server and as a stream brings them.
async fn store_cut(archive: &WalArchive, log: &WalWriter, used: Lsn, cuts: &[(u32, u32, bool)]) {
    let ends = record_ends(log);
    for (from, length, as_file) in cuts {
        let at = log.start.saturating_add(u64::from(*from) % used.bytes_since(log.start));
        let segment = WalSegment::containing(T1, at, SEGMENT_SIZE);
        let end = Lsn((at.0 + u64::from(*length % 300_000)).min(log.position().0));
        if *as_file {
            let Some(end) = ends.iter().rfind(|record| **record <= end) else { continue };
            let range = LsnRange { start: segment.start(), end: *end.min(&segment.end()) };
            if range.start.saturating_add(100) > range.end {
                continue;
            }
            let mut file = bytes(log, range);
            file.resize(SEGMENT_BYTES as usize, 0);
            push(archive, &format!("{segment}.partial"), &file).await.unwrap();
        } else {
            // A stream goes on at a page.
            let page = Lsn(at.0 / 8192 * 8192);
            let stretch = bytes(log, LsnRange { start: page, end });
            archive.store_stretch(T1, page, &stretch).await.unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_names_say_is_what_footers_say(
        cuts in proptest::collection::vec(any::<(u32, u32, bool)>(), 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            let mut log = WalWriter::new(PgMajor::V15, 3);
            log.fill_past(start(6));
            let used = log.position();
            log.switch();
            store_cut(&fixture.archive, &log, used, &cuts).await;
            let archive = fixture.reopened().await;
            let line = archive.line();
            let mut held = Vec::new();
            for name in names(&archive).await {
                let path = line.paths().path(&LineObject::WalHot(name)).unwrap();
                let range = read_range(line.store(), line.keyring(), &path, name).await.unwrap();
                held.push(LsnRange { start: range.start(), end: range.end() });
            }
            let held = LsnRange::joined(held);
            assert_eq!(archive.timeline_coverage(T1).await.unwrap().ranges, held);
            let root = Ancestry::root(TimelineId(1));
            for part in &held {
                assert_eq!(archive.contiguous_end(&root, part.start).await.unwrap(), part.end);
            }
            let walked = archive.coverage(&root, log.start).await.unwrap();
            let walked = walked.iter().map(|stretch| stretch.range).collect();
            assert_eq!(LsnRange::joined(walked), held);
            // With the rest, it is the log.
            fixture.push_all(&log).await;
            assert_archived(&archive, &log).await;
            let end = archive.log_end(&root, log.start).await.unwrap();
            assert!(end.is_none_or(|end| end.complete_to == log.position()));
        });
    }
}
