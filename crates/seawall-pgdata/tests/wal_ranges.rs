//! Indexes of ranges, and the seams between them.

mod wal_support;

use proptest::prelude::*;
use seawall_core::Lsn;
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::page::WAL_PAGE_BYTES;
use seawall_pgdata::wal::{
    FRAGMENT_CAP_BYTES, FragmentBytes, HeadFragment, Link, RangeChain, RangeIndex, ReaderStart,
    SegmentIndexer, Stitch, StitchFault, WalFacts, WalReader, join_heads, stitch,
};
use wal_support::{Golden, SEGMENT_SIZE, WalWriter, describe, start_at};

const LOGICALMSG: u8 = 21;

fn index(major: PgMajor, start: Lsn, bytes: &[u8]) -> RangeIndex {
    let start = ReaderStart { major: Some(major), ..start_at(1, start) };
    let mut indexer = SegmentIndexer::new(start).unwrap();
    indexer.feed(bytes);
    indexer.finish().unwrap()
}

/// Indexes the log cut at the given offsets.
fn index_cut(major: PgMajor, start: Lsn, bytes: &[u8], cuts: &[usize]) -> Vec<RangeIndex> {
    let mut cuts = cuts.to_vec();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2)
        .map(|pair| index(major, Lsn(start.0 + pair[0] as u64), &bytes[pair[0]..pair[1]]))
        .collect()
}

/// Joins ranges into the facts of all; records by reference are read again from the log.
fn join(ranges: &[RangeIndex], start: Lsn, bytes: &[u8]) -> Result<WalFacts, StitchFault> {
    let mut chain = RangeChain::new(&ranges[0]);
    let mut facts = ranges[0].facts.clone();
    for range in &ranges[1..] {
        match chain.push(range)? {
            Link::Record(record) => facts.apply(&record.record()),
            Link::ByReference { lsn, end } => {
                let offset = |lsn: Lsn| usize::try_from(lsn.0 - start.0).unwrap();
                let again = ReaderStart { major: Some(range.major), ..start_at(1, lsn) };
                let mut reader = WalReader::new(again).unwrap();
                let mut input = &bytes[offset(lsn)..offset(end)];
                facts.apply(&reader.next(&mut input).unwrap());
            }
            Link::Seamless | Link::Overwritten | Link::Unfinished => {}
        }
        facts.append(range.facts.clone());
    }
    Ok(facts)
}

/// Page starts, and ends of records, as offsets: where ranges are cut.
fn cut_points(major: PgMajor, start: Lsn, bytes: &[u8]) -> Vec<usize> {
    let known = ReaderStart { major: Some(major), ..start_at(1, start) };
    let mut reader = WalReader::new(known).unwrap();
    let mut points: Vec<usize> = (1..bytes.len() / 8192).map(|page| page * 8192).collect();
    let mut input = bytes;
    while let Some(record) = reader.next(&mut input) {
        for end in [record.end, record.end.align_up()] {
            // Between a page's start and the end of its header nothing can begin.
            if end.0 % WAL_PAGE_BYTES != 0 {
                points.push(usize::try_from(end.0 - start.0).unwrap());
            }
        }
    }
    points.retain(|point| *point < bytes.len());
    points
}

fn big_records() -> WalWriter {
    let mut log = WalWriter::new(PgMajor::V17, 5);
    for length in [10, 30_000, 100, 9000, FRAGMENT_CAP_BYTES + 50_000, 20, 60_000] {
        log.append(LOGICALMSG, 0, 5, &vec![length as u8; length]);
    }
    log
}

#[test]
fn a_record_over_several_ranges_is_joined_in_any_order() {
    let log = big_records();
    let mut reader = WalReader::new(start_at(1, log.start)).unwrap();
    let mut input = &log.bytes[..];
    reader.next(&mut input).unwrap();
    let expected = describe(&reader.next(&mut input).unwrap());
    let ranges = index_cut(PgMajor::V17, log.start, &log.bytes[..40_000], &[8192, 16_384, 24_576]);
    let [first, second, third, fourth] = &ranges[..] else { panic!() };
    let tail = first.tail.as_ref().unwrap();
    let head = |range: &RangeIndex| range.head.clone().unwrap();

    let Stitch::NeedMore(longer) = stitch(tail, &head(second), PgMajor::V17) else { panic!() };
    let Stitch::NeedMore(longer) = stitch(&longer, &head(third), PgMajor::V17) else { panic!() };
    let Stitch::Record(forwards) = stitch(&longer, &head(fourth), PgMajor::V17) else { panic!() };

    let heads: HeadFragment = join_heads(&head(third), &head(fourth)).unwrap();
    let heads = join_heads(&head(second), &heads).unwrap();
    let Stitch::Record(backwards) = stitch(tail, &heads, PgMajor::V17) else { panic!() };

    assert_eq!(describe(&forwards.record()), expected);
    assert_eq!(describe(&backwards.record()), expected);
    assert_eq!(fourth.first_record.unwrap().prev, forwards.record().lsn);
}

#[test]
fn a_chain_may_begin_inside_a_record() {
    let log = big_records();
    let cuts = [8192, 16_384, 24_576];
    let ranges = index_cut(PgMajor::V17, log.start, &log.bytes[..40_000], &cuts);
    let mut chain = RangeChain::new(&ranges[1]);
    assert_eq!(chain.push(&ranges[2]), Ok(Link::Seamless));
    assert_eq!(chain.push(&ranges[3]), Ok(Link::Seamless));
    let tail = ranges[0].tail.as_ref().unwrap();
    let joined = stitch(tail, chain.head().unwrap(), PgMajor::V17);
    assert!(matches!(joined, Stitch::Record(_)), "{joined:?}");
    // Inside a record, a range that does not go on with it is noticed.
    let mut other = ranges[2].clone();
    other.head = None;
    let fault = RangeChain::new(&ranges[1]).push(&other).unwrap_err();
    assert!(matches!(fault, StitchFault::Remaining { .. }));
}

#[test]
fn a_fragment_over_the_cap_is_kept_by_reference() {
    let log = big_records();
    let ranges = index_cut(PgMajor::V17, log.start, &log.bytes, &[49_152, 57_344]);
    let head = ranges[2].head.as_ref().unwrap();
    assert!(matches!(head.bytes, FragmentBytes::ByReference { .. }));
    let in_one_go = index(PgMajor::V17, log.start, &log.bytes).facts;
    assert_eq!(join(&ranges, log.start, &log.bytes), Ok(in_one_go));
    let mut chain = RangeChain::new(&ranges[0]);
    assert_eq!(chain.push(&ranges[1]), Ok(Link::Unfinished));
    assert!(matches!(chain.push(&ranges[2]), Ok(Link::ByReference { .. })));
}

#[test]
fn ranges_of_different_logs_do_not_join() {
    let log = big_records();
    let cut = 16_384;
    let [first, second] = &index_cut(PgMajor::V17, log.start, &log.bytes, &[cut])[..] else {
        panic!()
    };
    let push = |range: &RangeIndex| RangeChain::new(first).push(range).unwrap_err();

    assert!(matches!(push(first), StitchFault::NotAdjacent { .. }));
    // Equal lengths, other bytes.
    let mut other = big_records();
    other.bytes[cut + 100] ^= 1;
    let other = index(PgMajor::V17, second.start, &other.bytes[cut..]);
    assert_eq!(push(&other), StitchFault::WrongCrc);
    // The record goes on for another number of bytes.
    let mut other = WalWriter::new(PgMajor::V17, 5);
    other.append(LOGICALMSG, 0, 5, &[1; 40_000]);
    let other = index(PgMajor::V17, second.start, &other.bytes[cut..]);
    assert!(matches!(push(&other), StitchFault::Remaining { .. }));
    // Nothing goes on.
    let mut other = WalWriter::new(PgMajor::V17, 5);
    while other.bytes.len() < cut + 1000 {
        other.append(LOGICALMSG, 0, 5, &[1; 3]);
    }
    let mut other = index(PgMajor::V17, second.start, &other.bytes[cut..]);
    other.head = None;
    assert!(matches!(push(&other), StitchFault::Remaining { found: None, .. }));
}

#[test]
fn a_chain_notices_a_record_that_is_missing_between_ranges() {
    let mut log = WalWriter::new(PgMajor::V13, 5);
    log.append(LOGICALMSG, 0, 0, b"one");
    let cut = log.append(LOGICALMSG, 0, 0, b"two");
    log.append(LOGICALMSG, 0, 0, b"three");
    let cut = usize::try_from(cut.0 - log.start.0).unwrap();
    let ranges = index_cut(PgMajor::V13, log.start, &log.bytes, &[cut]);
    let mut lost = ranges[0].clone();
    lost.last_record = lost.last_record.map(|mut last| {
        last.lsn = Lsn(last.lsn.0 - 8);
        last
    });
    assert_eq!(RangeChain::new(&ranges[0]).push(&ranges[1]), Ok(Link::Seamless));
    let fault = RangeChain::new(&lost).push(&ranges[1]).unwrap_err();
    assert!(matches!(fault, StitchFault::WrongPrev { .. }));
}

#[test]
fn padding_may_be_cut_anywhere() {
    let mut log = WalWriter::new(PgMajor::V18, 5);
    log.append(LOGICALMSG, 0, 0, b"before");
    let switch = log.switch();
    log.append(LOGICALMSG, 0, 0, b"after");
    let switched = usize::try_from(switch.0 - log.start.0).unwrap() + 24;
    let cuts = [switched, 8192, 50_000, 1 << 20];
    let ranges = index_cut(PgMajor::V18, log.start, &log.bytes, &cuts);
    assert_eq!(join(&ranges, log.start, &log.bytes).map(|facts| facts.commits.len()), Ok(0));
    assert_eq!(ranges[0].valid_end, ranges[0].padding_from.unwrap());
    assert_eq!(
        (ranges[2].valid_end, ranges[2].padding_from),
        (ranges[2].start, Some(ranges[2].start))
    );
    // Without the switch the same bytes are the end of the log, and nothing may follow.
    let ended = index(PgMajor::V18, ranges[2].start, &log.bytes[8192..1 << 20]);
    let fault = RangeChain::new(&ended).push(&ranges[4]).unwrap_err();
    assert_eq!(fault, StitchFault::EndedBefore { lsn: ended.start });
}

#[test]
fn a_record_given_up_after_a_crash_leaves_an_overwritten_seam() {
    let mut log = WalWriter::new(PgMajor::V15, 5);
    log.append(LOGICALMSG, 0, 0, b"before");
    let count = log.left_on_page();
    log.append_torn(&[9; 30_000], count);
    log.append(0, 0xD0, 0, &[0; 16]);
    let ranges = index_cut(PgMajor::V15, log.start, &log.bytes, &[8192]);
    assert!(ranges[0].tail.is_some());
    let mut chain = RangeChain::new(&ranges[0]);
    assert_eq!(chain.push(&ranges[1]), Ok(Link::Overwritten));
}

#[test]
fn damage_is_not_taken_for_padding() {
    let (start, mut bytes) = Golden::of(PgMajor::V16).first_timeline();
    bytes[300_000] ^= 1;
    let range = index(PgMajor::V16, start, &bytes[..1 << 20]);
    let ended = range.ended.unwrap();
    assert!(ended.later_page.is_some());
    assert_eq!((range.padding_from, range.valid_end), (None, ended.lsn));
    assert!(range.valid_end.0 - start.0 <= 300_000);
}

#[test]
fn a_page_of_no_known_major_is_refused() {
    let mut bytes = vec![0; 8192];
    let at = Lsn(SEGMENT_SIZE.bytes());
    let refuse = |bytes: &[u8]| {
        let mut indexer = SegmentIndexer::new(start_at(1, at)).unwrap();
        indexer.feed(bytes);
        indexer.finish().unwrap_err().to_string()
    };
    assert_eq!(refuse(&bytes), "no valid WAL page at 0/100000: the page is not written");
    bytes[0] = 0x21;
    bytes[1] = 0xD1;
    assert!(refuse(&bytes).ends_with("page magic D121 is not the expected one"));
    assert_eq!(refuse(&[]), "no WAL page at 0/100000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn ranges_join_to_what_one_range_says(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        major in prop::sample::select(PgMajor::ALL.to_vec()),
    ) {
        let (start, bytes) = Golden::of(major).first_timeline();
        let points = cut_points(major, start, &bytes);
        let cuts: Vec<usize> = picks.iter().map(|pick| *pick.get(&points)).collect();
        let in_one_go = index(major, start, &bytes);
        let ranges = index_cut(major, start, &bytes, &cuts);
        prop_assert_eq!(join(&ranges, start, &bytes), Ok(in_one_go.facts));
    }
}
