//! Pages of a real cluster: `initdb -k` of PostgreSQL 15.

use seawall_pgdata::checksum::page_checksum;
use seawall_pgdata::page::{PAGE_BYTES, Page, PageHeader, PageVerdict, check_page};

/// Heap, heap far into the relation, free space map; each with its block number.
const PAGES: [(&[u8; PAGE_BYTES], u32); 3] = [
    (include_bytes!("golden/page.pg_class.0.bin"), 0),
    (include_bytes!("golden/page.pg_proc.95.bin"), 95),
    (include_bytes!("golden/page.pg_proc_fsm.2.bin"), 2),
];

#[test]
fn the_servers_checksums_are_computed() {
    for (page, block) in PAGES {
        let stored = PageHeader::parse(page).map(|header| header.checksum);
        assert_eq!(stored, Ok(page_checksum(page, block)), "block {block}");
        assert_eq!(check_page(page, block, true), PageVerdict::Valid, "block {block}");
    }
}

#[test]
fn one_flipped_bit_anywhere_is_noticed() {
    for (page, block) in PAGES {
        for byte in (0..PAGE_BYTES).step_by(7) {
            let mut damaged: Page = *page;
            damaged[byte] ^= 1 << (byte % 8);
            let verdict = check_page(&damaged, block, true);
            assert!(matches!(verdict, PageVerdict::Bad(_)), "block {block}, byte {byte}");
        }
    }
}
