//! Records whose CRC is right and whose contents are anything: an index is made of them, the same
//! in one go and in pieces, and it survives being stored as a range.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_fuzz::{LooseRecord, keyring, major, path, range_name, start_at};
use seawall_pgdata::wal::{RangeIndex, SegmentIndexer};
use seawall_repo::layout::LineObject;
use seawall_repo::wal::LogSummary;
use seawall_repo::wal::range::{RangeSealer, open_range};

#[path = "../../crates/seawall-pgdata/tests/wal_support/mod.rs"]
mod wal_support;

use wal_support::{SYSTEM_ID, WalWriter};

fn index(writer: &WalWriter, piece_bytes: usize) -> RangeIndex {
    let mut indexer =
        SegmentIndexer::new(start_at(writer.start, Some(writer.major))).expect("a segment's start");
    writer.bytes.chunks(piece_bytes).for_each(|piece| indexer.feed(piece));
    indexer.finish().expect("the major is known")
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([number, piece_bytes], records)) = bytes.split_first_chunk() else { return };
    let mut writer = WalWriter::new(major(*number), 5);
    for record in LooseRecord::read_all(records) {
        writer.append_body(record.rmgr, record.info, record.xid, &record.body);
    }
    writer.bytes.resize(writer.bytes.len().next_multiple_of(8), 0);
    let at_once = index(&writer, usize::MAX);
    assert_eq!(index(&writer, usize::from(*piece_bytes) * 64 + 1), at_once);

    let name = range_name(writer.start, writer.bytes.len());
    let (keyring, path) = (keyring(), path(&LineObject::WalHot(name)));
    let mut sealer = RangeSealer::new(SYSTEM_ID, 1).expect("zstd");
    // Not everything can be a range of its own, and the sealer says so.
    let summary = LogSummary::of(&at_once);
    if let Ok(object) = sealer.seal(&keyring, &path, &at_once, summary, &writer.bytes) {
        let opened = open_range(&keyring, &path, name, &object).expect("opens");
        assert_eq!((opened.range.index, opened.bytes), (at_once, writer.bytes));
    }
});
