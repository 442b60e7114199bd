//! What a backup and a restore spend their time on in this crate: hashing, compressing, sealing,
//! opening, and writing down which block is where.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use seawall_core::Ulid;
use seawall_repo::envelope::{Compressor, ObjectKind, ObjectSealer, Section};
use seawall_repo::hash::BlockHash;
use seawall_repo::keys::{EpochKeys, Keyring};
use seawall_repo::map::{BlockMap, BlockMapBuilder};
use seawall_repo::pack::{BLOCK_BYTES, FRAME_BLOCKS};

const FRAME_BYTES: usize = FRAME_BLOCKS as usize * BLOCK_BYTES;

/// How many frames are worked on in turn: 8 MiB.
const FRAMES: usize = 64;

fn main() {
    divan::main();
}

fn keyring() -> Keyring {
    Keyring::new([7; 16], 1, EpochKeys::random().unwrap())
}

/// Pages of rows: numbers that grow, words that come again, blanks as in pgbench's tables.
fn frames() -> Vec<Vec<u8>> {
    const WORDS: [&str; 6] = ["anchor", "ballast", "capstan", "davit", "ensign", "fender"];
    let mut state = 1u64;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut frame = |_| {
        let mut bytes = Vec::with_capacity(FRAME_BYTES + 128);
        while bytes.len() < FRAME_BYTES {
            bytes.extend((next() as u32).to_le_bytes());
            bytes.extend([2, 0, 24, 9, 1, 0, 0, 0]);
            bytes.extend(WORDS[next() as usize % WORDS.len()].as_bytes());
            bytes.extend(format!("{:<60}", next() % 1_000_000).as_bytes());
        }
        bytes.truncate(FRAME_BYTES);
        bytes
    };
    (0..FRAMES).map(&mut frame).collect()
}

#[divan::bench]
fn hash_blocks(bencher: Bencher<'_, '_>) {
    let (frames, keyring) = (frames(), keyring());
    bencher.counter(BytesCount::new(FRAMES * FRAME_BYTES)).bench_local(|| {
        for block in frames.iter().flat_map(|frame| frame.chunks(BLOCK_BYTES)) {
            black_box(keyring.hasher().block(black_box(block)));
        }
    });
}

/// Compressed at a level, or only encrypted.
#[divan::bench(args = [0, 1, 2, 3])]
fn compress_and_seal(bencher: Bencher<'_, '_>, level: i32) {
    let (frames, keyring) = (frames(), keyring());
    let mut compressor = (level > 0).then(|| Compressor::new(level).unwrap());
    let mut out = Vec::with_capacity(FRAMES * FRAME_BYTES * 2);
    bencher.counter(BytesCount::new(FRAMES * FRAME_BYTES)).bench_local(|| {
        out.clear();
        let path = "p/00".parse().unwrap();
        let mut sealer = ObjectSealer::begin(&keyring, ObjectKind::Pack, &path, &mut out).unwrap();
        for frame in &frames {
            sealer.chunk(Section::FIRST, frame, compressor.as_mut(), &mut out).unwrap();
        }
        out.len()
    });
}

/// The map of a file of 1 GiB, every eighth frame followed by a block of zeros.
fn map() -> (BlockMapBuilder, u64) {
    let mut builder = BlockMapBuilder::default();
    let mut blocks = 0u64;
    for frame in 0..(1u64 << 30) / FRAME_BYTES as u64 {
        builder.frame(FRAME_BLOCKS, Ulid(u128::from(frame / 500)), (frame % 500) as u32);
        blocks += u64::from(FRAME_BLOCKS);
        if frame.is_multiple_of(8) {
            builder.zero(1);
            blocks += 1;
        }
    }
    (builder, blocks * BLOCK_BYTES as u64)
}

#[divan::bench]
fn map_encode(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(8192usize)).bench_local(|| {
        let (builder, bytes) = map();
        builder.finish(bytes).unwrap().encode()
    });
}

#[divan::bench]
fn map_decode(bencher: Bencher<'_, '_>) {
    let (builder, bytes) = map();
    let encoded = builder.finish(bytes).unwrap().encode();
    bencher
        .counter(ItemsCount::new(8192usize))
        .bench_local(|| BlockMap::decode(black_box(&encoded)).unwrap());
}

#[divan::bench]
fn compare_block_hashes(bencher: Bencher<'_, '_>) {
    let hashes: Vec<BlockHash> = (0u64..131_072).map(u64::to_le_bytes).collect();
    let other = hashes.clone();
    bencher
        .counter(ItemsCount::new(hashes.len()))
        .bench_local(|| hashes.iter().zip(&other).filter(|(one, other)| one != other).count());
}
