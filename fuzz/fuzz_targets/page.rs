#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_pgdata::checksum::page_checksum;
use seawall_pgdata::page::{PageFault, PageHeader, PageVerdict, check_page, is_all_zero};

fuzz_target!(|input: (u32, &[u8])| {
    let (block, bytes) = input;
    let _ = PageHeader::parse(bytes);
    let mut page = [0; 8192];
    page.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    assert_eq!(is_all_zero(&page), page == [0; 8192]);
    let _ = check_page(&page, block, false);

    let checksum = page_checksum(&page, block);
    page[8..10].copy_from_slice(&checksum.to_le_bytes());
    // The stored checksum does not count into itself.
    assert_eq!(page_checksum(&page, block), checksum);
    let verdict = check_page(&page, block, true);
    assert!(!matches!(verdict, PageVerdict::Bad(PageFault::ChecksumMismatch { .. })));
});
