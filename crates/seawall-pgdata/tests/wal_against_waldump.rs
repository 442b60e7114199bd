//! Record for record the same as `pg_waldump` 15 shows.

mod wal_support;

use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::WalReader;
use wal_support::waldump::Line;
use wal_support::{Golden, start_at};

#[test]
fn every_record_of_15_is_what_waldump_shows() {
    let golden = Golden::of(PgMajor::V15);
    let text = golden.compressed_text("waldump.txt.zst");
    let mut expected = text.lines().filter(|line| line.starts_with("rmgr:")).map(Line::parse);

    let (start, bytes) = golden.first_timeline();
    let mut reader = WalReader::new(start_at(1, start)).unwrap();
    let (mut input, mut count) = (&bytes[..], 0);
    while let Some(record) = reader.next(&mut input) {
        assert_eq!(Some(Line::of(&record)), expected.next());
        count += 1;
    }

    assert_eq!(expected.next(), None, "waldump shows more records");
    assert!(count > 5000, "{count} records");
}
