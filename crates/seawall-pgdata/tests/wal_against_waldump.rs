//! Record for record the same as `pg_waldump` 15 shows.

mod wal_support;

use seawall_pgdata::PgMajor;
use seawall_pgdata::relation_path::Fork;
use seawall_pgdata::wal::rmgr::operation_name;
use seawall_pgdata::wal::{BlockRef, Record, WalReader};
use wal_support::{Golden, start_at};

/// A record as both sides show it.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    rmgr: String,
    /// Bytes without and with page images.
    lengths: (u64, u64),
    xid: u32,
    lsn: String,
    prev: String,
    operation: String,
    blocks: Vec<String>,
}

/// Reads `rmgr: Heap len (rec/tot): 59/ 59, tx: 734, lsn: 0/0150, prev 0/0110, desc: INSERT …,
/// blkref #0: rel 1663/5/16384 fork vm blk 0 FPW`.
fn parse_waldump(line: &str) -> Line {
    let after = |label: &str| line.split_once(label).unwrap_or_else(|| panic!("{line}")).1.trim();
    let word = |label: &str| after(label).split([' ', ',']).next().unwrap().to_owned();
    let (without, with) = after("(rec/tot):").split_once('/').unwrap();
    let with = with.trim().split(',').next().unwrap();
    let blocks = line.split("blkref #").skip(1).map(parse_blkref).collect();
    let operation = after("desc:").split([' ', ',', ';', '+']).next().unwrap_or_default();
    Line {
        rmgr: word("rmgr:"),
        lengths: (without.trim().parse().unwrap(), with.parse().unwrap()),
        xid: word("tx:").parse().unwrap(),
        lsn: word("lsn:"),
        prev: word("prev "),
        operation: operation.to_owned(),
        blocks,
    }
}

/// Reads `0: rel 1663/5/16384 fork vm blk 0 FPW for WAL verification, `.
fn parse_blkref(text: &str) -> String {
    text.trim_end_matches([',', ' ']).replace("fork main ", "").replace(" (FPW)", " FPW")
}

fn show_blkref(block: &BlockRef) -> String {
    let fork = match block.fork {
        Fork::Main => "",
        Fork::Fsm => "fork fsm ",
        Fork::Vm => "fork vm ",
        Fork::Init => "fork init ",
    };
    let image = match block.image {
        None => "",
        Some(image) if image.apply => " FPW",
        Some(_) => " FPW for WAL verification",
    };
    format!("{}: rel {} {fork}blk {}{image}", block.id, block.locator, block.block)
}

fn show(record: &Record<'_>) -> Line {
    let header = &record.header;
    let total = u64::from(header.total_bytes);
    let padded = |lsn: seawall_core::Lsn| format!("{:X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF);
    Line {
        rmgr: header.rmgr.to_string(),
        lengths: (total - record.image_bytes(), total),
        xid: header.xid,
        lsn: padded(record.lsn),
        prev: padded(header.prev),
        operation: operation_name(header.rmgr, header.info, record.major).unwrap().to_owned(),
        blocks: record.blocks.iter().map(show_blkref).collect(),
    }
}

#[test]
fn every_record_of_15_is_what_waldump_shows() {
    let golden = Golden::of(PgMajor::V15);
    let text = golden.compressed_text("waldump.txt.zst");
    let mut expected = text.lines().filter(|line| line.starts_with("rmgr:")).map(parse_waldump);

    let (start, bytes) = golden.first_timeline();
    let mut reader = WalReader::new(start_at(1, start)).unwrap();
    let (mut input, mut count) = (&bytes[..], 0);
    while let Some(record) = reader.next(&mut input) {
        assert_eq!(Some(show(&record)), expected.next());
        count += 1;
    }

    assert_eq!(expected.next(), None, "waldump shows more records");
    assert!(count > 5000, "{count} records");
}
