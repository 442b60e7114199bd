//! Reading WAL that arrives in any pieces, ends, or is damaged.

mod wal_support;

use proptest::prelude::*;
use seawall_core::{Lsn, SystemId, TimelineId};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::page::WAL_PAGE_BYTES;
use seawall_pgdata::wal::{
    EndReason, HeadState, PageFault, ReaderStart, RecordFault, StartError, WalReader,
};
use wal_support::{Golden, SEGMENT_SIZE, SYSTEM_ID, WalWriter, read_all, start_at};

const LOGICALMSG: u8 = 21;

/// A log of small and large records: within a page, over a page, over several.
fn small_log() -> WalWriter {
    let mut writer = WalWriter::new(PgMajor::V16, 3);
    for length in [0, 1, 30, 255, 256, 5000, 9000, 40, 30_000, 8, 7, 8192, 100] {
        writer.append(LOGICALMSG, 0, 700, &vec![length as u8; length]);
    }
    writer
}

fn reader_of(writer: &WalWriter) -> WalReader {
    WalReader::new(start_at(1, writer.start)).unwrap()
}

/// Cuts `bytes` at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

#[test]
fn every_byte_may_come_alone() {
    let log = small_log();
    let whole = read_all(&mut reader_of(&log), [&log.bytes[..]]);
    let bytewise = read_all(&mut reader_of(&log), log.bytes.chunks(1));
    assert_eq!(whole.len(), 13);
    assert_eq!(bytewise, whole);
}

#[test]
fn zeros_after_the_last_record_are_the_end() {
    let mut log = small_log();
    let end = log.position().align_up();
    log.bytes.resize(SEGMENT_SIZE.bytes() as usize, 0);
    let mut reader = reader_of(&log);
    assert_eq!(read_all(&mut reader, [&log.bytes[..]]).len(), 13);
    let ended = reader.end().unwrap();
    assert_eq!((ended.lsn, ended.fault_lsn, ended.later_page), (end, end, None));
    assert_eq!(ended.reason, EndReason::ZeroLength);
}

#[test]
fn what_a_recycled_segment_held_before_is_the_end() {
    let mut old = WalWriter::new(PgMajor::V16, 1);
    while old.bytes.len() < SEGMENT_SIZE.bytes() as usize {
        old.append(LOGICALMSG, 0, 1, &[7; 100]);
    }
    let log = small_log();
    let mut recycled = old.bytes[..SEGMENT_SIZE.bytes() as usize].to_vec();
    let written = log.bytes.len();
    recycled[..written].copy_from_slice(&log.bytes);
    let mut reader = reader_of(&log);
    assert_eq!(read_all(&mut reader, [&recycled[..]]).len(), 13);
    let ended = reader.end().unwrap();
    assert_eq!((ended.lsn, ended.later_page), (log.position().align_up(), None));
}

#[test]
fn a_switch_makes_the_rest_of_the_segment_padding() {
    let mut log = small_log();
    let switch = log.switch();
    // What stands in padding is never read.
    let garbage = log.bytes.len() - 5000;
    log.bytes[garbage..garbage + 100].fill(0xAA);
    log.append(LOGICALMSG, 0, 0, b"in the next segment");
    let mut reader = reader_of(&log);
    let (first, second) = log.bytes.split_at(SEGMENT_SIZE.bytes() as usize - 10);
    assert_eq!(read_all(&mut reader, [first]).len(), 14);
    assert_eq!(reader.padding_from(), Some(switch.saturating_add(24)));
    assert_eq!(read_all(&mut reader, [second]).len(), 1);
    assert_eq!((reader.padding_from(), reader.end()), (None, None));
}

#[test]
fn a_switch_that_fills_its_segment_leaves_no_padding() {
    let mut log = WalWriter::new(PgMajor::V12, 3);
    let room = SEGMENT_SIZE.bytes() as usize;
    while room - log.bytes.len() > 20_000 {
        log.append(LOGICALMSG, 0, 0, &[1; 1000]);
    }
    while log.left_on_page() < 8000 {
        log.append(LOGICALMSG, 0, 0, &[]);
    }
    // Fill up to 24 bytes before the end: records without data are 24 bytes, the long ones fit.
    while room - log.bytes.len() > WAL_PAGE_BYTES as usize {
        log.append(LOGICALMSG, 0, 0, &[]);
    }
    while !log.left_on_page().is_multiple_of(24) {
        log.append(LOGICALMSG, 0, 0, &[1; 6]);
    }
    while log.left_on_page() > 24 {
        log.append(LOGICALMSG, 0, 0, &[]);
    }
    log.switch();
    assert_eq!(log.bytes.len(), room);
    log.append(LOGICALMSG, 0, 0, b"next");
    let mut reader = reader_of(&log);
    let records = read_all(&mut reader, [&log.bytes[..]]);
    assert_eq!((reader.end(), reader.position()), (None, log.position()));
    assert!(records.last().unwrap().starts_with("0/400028 "), "{:?}", records.last());
}

#[test]
fn a_record_given_up_after_a_crash_is_dropped() {
    let mut log = WalWriter::new(PgMajor::V14, 3);
    log.append(LOGICALMSG, 0, 0, b"before");
    let torn_at = log.position().align_up();
    let count = log.left_on_page() + WAL_PAGE_BYTES as usize - 24;
    log.bytes.resize(log.bytes.len().next_multiple_of(8), 0);
    let torn = log.append_torn(&[9; 30_000], count);
    assert_eq!(torn, torn_at);
    let mut overwritten = torn.0.to_le_bytes().to_vec();
    overwritten.extend(5_i64.to_le_bytes());
    log.append(0, 0xD0, 0, &overwritten);
    let mut reader = reader_of(&log);
    let records = read_all(&mut reader, [&log.bytes[..]]);
    assert_eq!(records.len(), 2);
    assert!(records[1].contains(&format!("Overwritten(OverwrittenRecord {{ lsn: {torn}")));
    assert_eq!(reader.end(), None);

    // A range that begins with the overwriting page says so.
    let page = 2 * WAL_PAGE_BYTES as usize;
    let mut second = WalReader::new(start_at(1, Lsn(log.start.0 + page as u64))).unwrap();
    assert_eq!(read_all(&mut second, [&log.bytes[page..]]), records[1..]);
    assert_eq!(second.head().unwrap().state, HeadState::Overwritten);
    // And one that begins in the middle of the record that was given up, too.
    let page = WAL_PAGE_BYTES as usize;
    let mut middle = WalReader::new(start_at(1, Lsn(log.start.0 + page as u64))).unwrap();
    assert_eq!(read_all(&mut middle, [&log.bytes[page..]]), records[1..]);
    let head = middle.head().unwrap();
    assert_eq!((head.state, head.bytes.len_bytes()), (HeadState::Overwritten, WAL_PAGE_BYTES - 24));
}

#[test]
fn a_record_that_is_not_continued_never_was() {
    let mut log = WalWriter::new(PgMajor::V14, 3);
    log.append(LOGICALMSG, 0, 0, b"before");
    let torn = log.append(LOGICALMSG, 0, 0, &[9; 30_000]);
    let page = 2 * WAL_PAGE_BYTES as usize;
    log.bytes[page..].fill(0);
    let mut reader = reader_of(&log);
    assert_eq!(read_all(&mut reader, [&log.bytes[..]]).len(), 1);
    let ended = reader.end().unwrap();
    assert_eq!(ended.lsn, torn);
    assert_eq!(ended.fault_lsn, Lsn(log.start.0 + page as u64));
    assert_eq!(ended.reason, EndReason::Page(PageFault::Blank));
    assert_eq!(reader.tail(), None);
}

#[test]
fn a_flipped_bit_ends_the_log_at_its_record_and_later_pages_are_told() {
    let mut log = small_log();
    let at = log.append(LOGICALMSG, 0, 0, &[5; 20]);
    for _ in 0..300 {
        log.append(LOGICALMSG, 0, 0, &[6; 100]);
    }
    log.bytes[(at.0 - log.start.0) as usize + 30] ^= 4;
    let mut reader = reader_of(&log);
    assert_eq!(read_all(&mut reader, [&log.bytes[..]]).len(), 13);
    let ended = reader.end().unwrap();
    assert_eq!((ended.lsn, ended.reason), (at, EndReason::WrongCrc));
    assert_eq!(ended.later_page, Some(Lsn(at.0.next_multiple_of(WAL_PAGE_BYTES))));
}

#[test]
fn pages_of_another_place_cluster_timeline_or_major_are_refused() {
    let log = small_log();
    let fault_of = |start: ReaderStart, bytes: &[u8]| {
        let mut reader = WalReader::new(start).unwrap();
        assert_eq!(read_all(&mut reader, [bytes]), Vec::<String>::new());
        match reader.end().unwrap().reason {
            EndReason::Page(fault) => fault,
            other => panic!("{other:?}"),
        }
    };
    let start = start_at(1, log.start);
    let other_cluster = ReaderStart { system_id: Some(SystemId(1)), ..start };
    assert_eq!(fault_of(other_cluster, &log.bytes), PageFault::SystemId { system_id: SYSTEM_ID });
    let other_major = ReaderStart { major: Some(PgMajor::V15), ..start };
    assert_eq!(fault_of(other_major, &log.bytes), PageFault::Magic { magic: 0xD113 });
    let other_place = start_at(1, Lsn(log.start.0 * 2));
    assert_eq!(fault_of(other_place, &log.bytes), PageFault::Address { address: log.start });
    let mut bytes = log.bytes.clone();
    bytes[4] = 2;
    assert_eq!(fault_of(start, &bytes), PageFault::Timeline { timeline: TimelineId(2) });
    let mut bytes = log.bytes.clone();
    bytes[..2].copy_from_slice(&0xD121_u16.to_le_bytes());
    assert_eq!(fault_of(start, &bytes), PageFault::Magic { magic: 0xD121 });
    let mut bytes = log.bytes.clone();
    bytes[34] = 0x20;
    assert!(matches!(fault_of(start, &bytes), PageFault::Geometry { .. }));
    let mut bytes = log.bytes.clone();
    bytes[2] = 0;
    assert!(matches!(fault_of(start, &bytes), PageFault::Flags { .. }));
}

#[test]
fn pages_of_an_ancestor_come_before_those_of_the_timeline_and_not_after() {
    let mut log = small_log();
    log.timeline = TimelineId(2);
    log.append(LOGICALMSG, 0, 0, &[1; 9000]);
    let mut reader = WalReader::new(start_at(2, log.start)).unwrap();
    assert_eq!(read_all(&mut reader, [&log.bytes[..]]).len(), 14);
    log.timeline = TimelineId(1);
    let back = Lsn(log.position().0.next_multiple_of(WAL_PAGE_BYTES));
    log.append(LOGICALMSG, 0, 0, &[1; 9000]);
    let mut reader = WalReader::new(start_at(2, log.start)).unwrap();
    assert_eq!(read_all(&mut reader, [&log.bytes[..]]).len(), 14);
    assert_eq!(reader.end().unwrap().fault_lsn, back);
}

#[test]
fn a_start_inside_a_page_is_a_record_and_needs_the_major() {
    let mut log = small_log();
    let unaligned = log.position();
    log.append(LOGICALMSG, 0, 0, b"one");
    log.append(LOGICALMSG, 0, 0, b"two");
    let offset = log.bytes.len() - (log.position().0 - unaligned.0) as usize;
    let start = start_at(1, unaligned);
    assert_eq!(WalReader::new(start).unwrap_err(), StartError::MajorUnknown(unaligned));
    let known = ReaderStart { major: Some(PgMajor::V16), ..start };
    let mut reader = WalReader::new(known).unwrap();
    assert_eq!(read_all(&mut reader, [&log.bytes[offset..]]).len(), 2);
    let wrong_prev = ReaderStart { prev: Some(Lsn(8)), ..known };
    let mut reader = WalReader::new(wrong_prev).unwrap();
    assert!(read_all(&mut reader, [&log.bytes[offset..]]).is_empty());
    assert!(matches!(reader.end().unwrap().reason, EndReason::WrongPrev { .. }));
    let inside = Lsn(log.start.0 + WAL_PAGE_BYTES + 8);
    let refused = WalReader::new(ReaderStart { lsn: inside, ..known }).unwrap_err();
    assert_eq!(refused, StartError::InsidePageHeader(inside));
}

#[test]
fn a_record_over_the_limit_is_not_read() {
    let log = small_log();
    let start = ReaderStart { max_record_bytes: 20_000, ..start_at(1, log.start) };
    let mut reader = WalReader::new(start).unwrap();
    assert_eq!(read_all(&mut reader, [&log.bytes[..]]).len(), 8);
    assert!(matches!(reader.end().unwrap().reason, EndReason::TooLong { .. }));
}

#[test]
fn a_record_that_breaks_off_is_the_tail() {
    let log = small_log();
    let records = read_all(&mut reader_of(&log), [&log.bytes[..]]);
    let big = records.iter().position(|record| record.contains("total_bytes: 30029")).unwrap();
    let (_, cut) = (big, 45_000);
    let mut reader = reader_of(&log);
    read_all(&mut reader, [&log.bytes[..cut]]);
    let tail = reader.tail().unwrap();
    assert!(records[big].starts_with(&tail.lsn.to_string()));
    assert_eq!(tail.total_bytes, Some(30_029));
    assert_eq!(tail.end, Lsn(log.start.0 + cut as u64));
    let rest = read_all(&mut reader, [&log.bytes[cut..]]);
    assert_eq!(rest, records[big..]);
    assert_eq!(reader.tail(), None);
}

/// A block reference with an image: header bytes, then the image.
fn image_body(info: u8, stored: usize, hole: Option<u16>, hole_offset: u16) -> Vec<u8> {
    let mut body = vec![0, 0x10, 0, 0];
    body.extend(u16::try_from(stored).unwrap().to_le_bytes());
    body.extend(hole_offset.to_le_bytes());
    body.push(info);
    body.extend(hole.map(u16::to_le_bytes).into_iter().flatten());
    body.extend([1663_u32, 5, 16_384, 77].into_iter().flat_map(u32::to_le_bytes));
    body.extend(vec![3; stored]);
    body
}

#[test]
fn image_flags_mean_what_the_major_says() {
    let read = |major, body: &[u8]| {
        let mut log = WalWriter::new(major, 3);
        log.append_body(10, 0, 9, body);
        let mut reader = reader_of(&log);
        let mut input = &log.bytes[..];
        let image = reader.next(&mut input).map(|record| record.blocks[0].image.unwrap());
        image.ok_or_else(|| reader.end().unwrap().reason)
    };
    // Compressed with a hole, to be applied: pglz.
    let old = read(PgMajor::V14, &image_body(0x07, 500, Some(100), 40)).unwrap();
    let new = read(PgMajor::V15, &image_body(0x07, 500, Some(100), 40)).unwrap();
    assert_eq!(old, new);
    assert!(old.compressed && old.apply && old.hole_bytes == 100);
    // Bit 2 alone is "compressed" before 15 and "apply" since.
    assert!(read(PgMajor::V14, &image_body(0x02, 500, None, 0)).unwrap().compressed);
    assert!(read(PgMajor::V15, &image_body(0x02, 8192, None, 0)).unwrap().apply);
    // Zstandard is not known before 15.
    assert!(read(PgMajor::V18, &image_body(0x10, 500, None, 0)).unwrap().compressed);
    let refused = read(PgMajor::V14, &image_body(0x10, 500, None, 0)).unwrap_err();
    assert_eq!(refused, EndReason::Undecodable(RecordFault::ImageInfo));
    // A page without a hole has to be whole.
    let refused = read(PgMajor::V15, &image_body(0x02, 8000, None, 0)).unwrap_err();
    assert_eq!(refused, EndReason::Undecodable(RecordFault::ImageLength));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_of_any_size_give_the_same_records(
        cuts in prop::collection::vec(any::<usize>(), 0..200),
        major in prop::sample::select(PgMajor::ALL.to_vec()),
    ) {
        let (start, bytes) = Golden::of(major).first_timeline();
        let whole = read_all(&mut WalReader::new(start_at(1, start)).unwrap(), [&bytes[..]]);
        let mut reader = WalReader::new(start_at(1, start)).unwrap();
        prop_assert_eq!(read_all(&mut reader, pieces(&bytes, &cuts)), whole);
    }
}

proptest! {
    #[test]
    fn damage_never_yields_a_record_that_was_not_written(
        flips in prop::collection::vec((any::<usize>(), 1_u8..), 1..4),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut log = small_log();
        let records = read_all(&mut reader_of(&log), [&log.bytes[..]]);
        let length = log.bytes.len();
        for (at, mask) in flips {
            log.bytes[at % length] ^= mask;
        }
        let found = read_all(&mut reader_of(&log), pieces(&log.bytes, &cuts));
        prop_assert!(records.starts_with(&found), "{:?}", found.last());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..30_000),
        offset in 0_u64..20_000,
        cuts in prop::collection::vec(any::<usize>(), 0..20),
        valid_pages: bool,
        major in prop::sample::select(PgMajor::ALL.to_vec()),
    ) {
        let mut bytes = bytes;
        let lsn = Lsn(SEGMENT_SIZE.bytes() * 2 + offset);
        if valid_pages {
            let mut pages = WalWriter::new(major, 2);
            pages.append(LOGICALMSG, 0, 0, &vec![0; 60_000]);
            for (index, byte) in bytes.iter_mut().enumerate() {
                let at = usize::try_from(offset).unwrap() + index;
                if at % 8192 < 40 { *byte = pages.bytes[at]; }
            }
        }
        let start = ReaderStart { major: Some(major), ..start_at(1, lsn) };
        if let Ok(mut reader) = WalReader::new(start) {
            read_all(&mut reader, pieces(&bytes, &cuts));
            prop_assert_eq!(reader.position(), lsn.saturating_add(bytes.len() as u64));
        }
    }

    #[test]
    fn arbitrary_record_bodies_never_panic(
        body in prop::collection::vec(any::<u8>(), 0..400),
        rmgr in 0_u8..30,
        info: u8,
        as_main_data: bool,
        major in prop::sample::select(PgMajor::ALL.to_vec()),
    ) {
        let mut log = WalWriter::new(major, 3);
        if as_main_data {
            log.append(rmgr, info, 1, &body);
        } else {
            log.append_body(rmgr, info, 1, &body);
        }
        let mut reader = reader_of(&log);
        let found = read_all(&mut reader, [&log.bytes[..]]).len();
        prop_assert!(found == 1 || matches!(
            reader.end().map(|end| end.reason),
            Some(EndReason::Undecodable(_))
        ));
        prop_assert!(found == 1 || !as_main_data);
    }
}
