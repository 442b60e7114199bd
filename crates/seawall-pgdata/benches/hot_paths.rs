//! What a backup and an archive spend their time on in this crate: judging pages, reading WAL.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use divan::Bencher;
use divan::counter::BytesCount;
use seawall_core::{Lsn, TimelineId, WalFileName, WalSegmentSize};
use seawall_pgdata::checksum::page_checksum;
use seawall_pgdata::page::{PAGE_BYTES, Page, PageVerdict, check_page, is_all_zero};
use seawall_pgdata::wal::{ReaderStart, WalReader};

/// 8 MiB of pages: more than the processor's caches nearest to it hold.
const PAGES: u32 = 1024;

fn main() {
    divan::main();
}

fn pages() -> Vec<Page> {
    let page = |number: u32| {
        let mut page: Page = std::array::from_fn(|at| (at as u32).wrapping_mul(number + 7) as u8);
        // pd_flags, pd_lower, pd_upper, pd_special and pd_pagesize_version
        page[10..20].copy_from_slice(&[0, 0, 0x40, 0, 0x80, 0, 0, 0x20, 4, 0x20]);
        let checksum = page_checksum(&page, number);
        page[8..10].copy_from_slice(&checksum.to_le_bytes());
        page
    };
    (0..PAGES).map(page).collect()
}

#[divan::bench]
fn checksum(bencher: Bencher<'_, '_>) {
    let pages = pages();
    bencher.counter(BytesCount::new(pages.len() * PAGE_BYTES)).bench_local(|| {
        for (block, page) in (0..).zip(&pages) {
            assert_eq!(check_page(black_box(page), block, true), PageVerdict::Valid);
        }
    });
}

#[divan::bench]
fn zero_pages(bencher: Bencher<'_, '_>) {
    let pages = vec![[0u8; PAGE_BYTES]; PAGES as usize];
    bencher.counter(BytesCount::new(pages.len() * PAGE_BYTES)).bench_local(|| {
        for page in &pages {
            black_box(is_all_zero(black_box(page)));
        }
    });
}

/// The log of a real server, as the tests have it.
#[divan::bench]
fn wal_records(bencher: Bencher<'_, '_>) {
    let size = WalSegmentSize::new(1 << 20).unwrap();
    let (start, bytes) = golden_log(size);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let mut reader = WalReader::new(ReaderStart::at(TimelineId(1), start, size)).unwrap();
        let (mut input, mut records) = (black_box(&bytes[..]), 0);
        while reader.next(&mut input).is_some() {
            records += 1;
        }
        records
    });
}

/// The segments of timeline 1, which are adjacent.
fn golden_log(size: WalSegmentSize) -> (Lsn, Vec<u8>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wal/15");
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        match WalFileName::parse(name, size) {
            Some(WalFileName::Segment(segment)) if segment.timeline == TimelineId(1) => {
                segments.push((segment.start(), path));
            }
            _ => {}
        }
    }
    segments.sort();
    let read = |(_, path): &(Lsn, PathBuf)| {
        zstd::stream::decode_all(fs::File::open(path).unwrap()).unwrap()
    };
    (segments[0].0, segments.iter().flat_map(read).collect())
}
