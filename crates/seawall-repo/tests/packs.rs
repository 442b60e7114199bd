//! What is packed opens again, whatever the files are called and however long they are.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use seawall_core::{Code, Ulid};
use seawall_repo::envelope::Compressor;
use seawall_repo::hash::FullBlockHash;
use seawall_repo::keys::{EpochKeys, Keyring};
use seawall_repo::manifest::{Content, Entry, EntryKind, ManifestWriter};
use seawall_repo::map::{BlockMapBuilder, MapBuilder};
use seawall_repo::pack::{
    BundleSize, DeltaFile, FrameBody, FramePayload, FrameReader, FrameTable, PackBuilder, PackInfo,
};
use seawall_store::{ObjectPath, OpenOptions, Store, open_or_create};

const PACK: Ulid = Ulid(0x019A_0000_0000_0000_0000_0000_0000_0001);
const BLOCK_BYTES: usize = 8192;

type Files = Vec<(Vec<u8>, Vec<u8>)>;

fn keyring() -> Keyring {
    Keyring::new([7; 16], 1, EpochKeys::random().unwrap())
}

fn path() -> ObjectPath {
    format!("c/main/i/7-0/pack/20251020/{PACK}").parse().unwrap()
}

/// The files of one frame, its payload, and the hashes of its blocks.
fn payload(keyring: &Keyring, files: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Vec<FullBlockHash>) {
    let payload = files.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    let blocks = files.iter().flat_map(|(_, bytes)| bytes.chunks(BLOCK_BYTES));
    (payload, blocks.map(|block| keyring.hasher().block(block)).collect())
}

fn body(what: FramePayload<'_>, payload: &[u8]) -> seawall_core::Result<FrameBody> {
    let mut body = FrameBody::new();
    body.fill(what, payload, &mut Compressor::new(1).unwrap())?;
    Ok(body)
}

/// Adds one frame of whole files.
fn add(
    keyring: &Keyring,
    pack: &mut PackBuilder,
    files: &[(Vec<u8>, Vec<u8>)],
    out: &mut Vec<u8>,
) -> seawall_core::Result<u32> {
    let (payload, hashes) = payload(keyring, files);
    let names: Vec<(Vec<u8>, u32)> =
        files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u32)).collect();
    pack.frame(&body(FramePayload::Blob { files: &names }, &payload)?, &hashes, out)
}

/// Packs the files into as few frames as the sizes say, and reads them all again.
fn round_trip(files: &Files) -> Files {
    let keyring = keyring();
    let mut out = Vec::new();
    let mut pack = PackBuilder::begin(&keyring, PACK, &path(), &mut out).unwrap();
    let mut bundles: Vec<Files> = Vec::new();
    let mut size = BundleSize::default();
    for (name, bytes) in files {
        let with = size.with_file(name, bytes.len() as u64);
        if bundles.is_empty() || !with.fits() {
            bundles.push(Vec::new());
            size = BundleSize::default().with_file(name, bytes.len() as u64);
        } else {
            size = with;
        }
        bundles.last_mut().unwrap().push((name.clone(), bytes.clone()));
    }
    for bundle in &bundles {
        add(&keyring, &mut pack, bundle, &mut out).unwrap();
    }
    let info = pack.finish(&mut out).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let payloads = runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let store: Arc<dyn Store> = open_or_create(&url, &OpenOptions::default()).await.unwrap();
        store.create(&path(), Bytes::from(out)).await.unwrap();
        let table = FrameTable::read(store.as_ref(), &keyring, &path(), &info).await.unwrap();
        let mut frames = table.fetch(store.as_ref(), 0, table.frames()).await.unwrap();
        let mut reader = FrameReader::new().unwrap();
        let open = |frame| reader.open(&table, &mut frames, frame).unwrap().to_vec();
        (0..table.frames()).map(open).collect::<Vec<_>>()
    });
    let mut read = Vec::new();
    for (bundle, payload) in bundles.iter().zip(payloads) {
        let mut rest = payload.as_slice();
        for (name, bytes) in bundle {
            let (file, after) = rest.split_at(bytes.len());
            read.push((name.clone(), file.to_vec()));
            rest = after;
        }
        assert!(rest.is_empty());
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_small_files_open_again_as_what_they_were(
        shapes in proptest::collection::vec((1usize..400, 0usize..200, 0u8..4), 1..400),
        longer in proptest::collection::vec(0usize..65_536, 0..6),
    ) {
        let short = shapes.into_iter().enumerate().map(|(number, (name, bytes, fill))| {
            (format!("{number:04}{}", "n".repeat(name)).into_bytes(), vec![fill; bytes])
        });
        let long = longer.into_iter().map(|bytes| {
            (format!("long/{bytes}").into_bytes(), (0..bytes).map(|at| (at % 251) as u8).collect())
        });
        let files: Files = short.chain(long).collect();
        prop_assert_eq!(round_trip(&files), files);
    }
}

#[test]
fn as_many_files_as_fit_are_one_frame_and_one_more_is_refused() {
    let keyring = keyring();
    // Heads of one, two and three bytes for names, lengths and their number.
    for (name_bytes, file_bytes) in [(7, 0), (20, 30), (60, 36), (250, 300), (300, 20)] {
        let mut size = BundleSize::default();
        let mut files = Files::new();
        loop {
            let name = format!("{:0width$}", files.len(), width = name_bytes).into_bytes();
            let with = size.with_file(&name, file_bytes as u64);
            let fits = with.fits();
            files.push((name, vec![1; file_bytes]));
            if !fits {
                break;
            }
            size = with;
        }
        let mut out = Vec::new();
        let mut pack = PackBuilder::begin(&keyring, PACK, &path(), &mut out).unwrap();
        let refused = add(&keyring, &mut pack, &files, &mut out).unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{name_bytes} {file_bytes}");
        files.pop();
        add(&keyring, &mut pack, &files, &mut out).unwrap();
    }
}

#[test]
fn scattered_blocks_of_several_files_are_one_frame_and_open_again_as_what_they_were() {
    let keyring = keyring();
    let block = |fill: u8| vec![fill; BLOCK_BYTES];
    let file = |path: &[u8], length, blocks: &[u32]| DeltaFile {
        path: path.to_vec().into(),
        length,
        blocks: blocks.to_vec(),
    };
    // The last block of the first file is short.
    let files = [file(b"base/1/1", 8192 + 100, &[3, 9]), file(b"base/1/2", 16384, &[0, 131_071])];
    let blocks = [block(1), vec![2; 100], block(3), block(4)];
    let payload = blocks.concat();
    let hashes: Vec<_> = blocks.iter().map(|block| keyring.hasher().block(block)).collect();
    let size = BundleSize::default().with_blocks(b"base/1/1", 2).with_blocks(b"base/1/2", 2);
    assert!(size.fits());
    assert!(!size.with_blocks(b"base/1/3", 29).fits(), "33 blocks");

    let mut out = Vec::new();
    let mut pack = PackBuilder::begin(&keyring, PACK, &path(), &mut out).unwrap();
    let delta = FramePayload::Delta { files: &files };
    assert_eq!(pack.frame(&body(delta, &payload).unwrap(), &hashes, &mut out).unwrap(), 0);
    let info = pack.finish(&mut out).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let store: Arc<dyn Store> = open_or_create(&url, &OpenOptions::default()).await.unwrap();
        store.create(&path(), Bytes::from(out)).await.unwrap();
        let table = FrameTable::read(store.as_ref(), &keyring, &path(), &info).await.unwrap();
        let mut frames = table.fetch(store.as_ref(), 0, 1).await.unwrap();
        let mut reader = FrameReader::new().unwrap();
        reader.open(&table, &mut frames, 0).unwrap();
        let expected = blocks.iter().zip(&hashes);
        let expected = expected.map(|(block, hash)| (block.as_slice(), hash.short()));
        assert!(reader.blocks().eq(expected));
    });

    for (what, file) in [
        ("a block that is not there", file(b"a", 8192, &[1, 2])),
        ("blocks out of order", file(b"a", 16384, &[2, 1])),
        ("no block", file(b"a", 0, &[])),
    ] {
        let payload = vec![1; file.length as usize];
        let files = [file];
        let refused = body(FramePayload::Delta { files: &files }, &payload);
        assert_eq!(refused.unwrap_err().code(), Code::Internal, "{what}");
    }
}

#[test]
fn a_frame_whose_hashes_are_not_its_blocks_is_never_sealed() {
    let keyring = keyring();
    let mut out = Vec::new();
    let mut pack = PackBuilder::begin(&keyring, PACK, &path(), &mut out).unwrap();
    let block = vec![1; BLOCK_BYTES];
    let hash = keyring.hasher().block(&block);
    let base = FramePayload::Base { path: b"base/1/1259", first_block: 0 };
    let names = [(b"a".to_vec(), 4000), (b"b".to_vec(), 4000)];
    let blob = FramePayload::Blob { files: &names };
    for hashes in [&[][..], &[hash, hash]] {
        let sealed = pack.frame(&body(base, &block).unwrap(), hashes, &mut out);
        assert_eq!(sealed.unwrap_err().code(), Code::Internal);
    }
    // Names of fewer bytes than there are.
    assert_eq!(body(blob, &block).unwrap_err().code(), Code::Internal);
    assert_eq!(pack.frame(&body(base, &block).unwrap(), &[hash], &mut out).unwrap(), 0);
}

#[test]
fn what_a_restore_would_refuse_is_not_sealed() {
    let keyring = keyring();
    let at = |name: &str| -> ObjectPath { format!("c/main/i/7-0/{name}").parse().unwrap() };
    let file = |path: &[u8], size_bytes, content| Entry {
        path: path.to_vec().into(),
        kind: EntryKind::File,
        mode: 0o600,
        size_bytes: Some(size_bytes),
        modified_us: Some(0),
        content,
        link_target: None,
    };
    let blob = |pack, hashes| Some(Content::Blob { pack, frame: 0, offset: 0, hashes });
    for (what, entry) in [
        ("a path that leads out", file(b"base/../../x", 0, None)),
        ("bytes that are nowhere", file(b"base/1/1", 1, None)),
        ("a hash for two blocks", file(b"base/1/1", 8193, blob(PACK, vec![1; 8]))),
        ("a pack that was not finished", file(b"base/1/1", 1, blob(Ulid(1), vec![1; 8]))),
    ] {
        let mut out = Vec::new();
        let name = at("manifest/01ARZ3NDEKTSV4RRFFQ69G5FAV");
        let mut manifest = ManifestWriter::begin(&keyring, PACK, &name, &mut out).unwrap();
        manifest.entry(&entry, &mut out).unwrap();
        let packs = [PackInfo { id: PACK, length_bytes: 1, footer_hash: [0; 16] }];
        let sealed = manifest.finish(&packs, &[], &mut out);
        assert_eq!(sealed.unwrap_err().code(), Code::Internal, "{what}");
    }
    let mut out = Vec::new();
    let name = at("map/01ARZ3NDEKTSV4RRFFQ69G5FAV");
    let mut maps = MapBuilder::begin(&keyring, PACK, &name, &mut out).unwrap();
    let mut builder = BlockMapBuilder::default();
    builder.zero(2);
    let map = builder.finish(2 * 8192).unwrap();
    let sealed = maps.add(&map, &[[0; 8]], &mut out);
    assert_eq!(sealed.unwrap_err().code(), Code::Internal, "a block without a hash");
    let leaves = maps.add(&map, &[[0; 8]; 2], &mut out).unwrap();
    let sealed = maps.add_changed(&map, leaves.hashes, 1, &mut out);
    assert_eq!(sealed.unwrap_err().code(), Code::Internal, "a leaf of too few hashes");
    maps.add_changed(&map, leaves.hashes, 3, &mut out).unwrap();
}
