//! The known answers of `docs/reader/vectors.json`, which the Python reader's side made from
//! `docs/format.md` alone: what it sealed opens here, and what both can encode is the same bytes.

use std::sync::Arc;

use seawall_core::{BackupId, LineId, Ulid};
use seawall_repo::envelope::{ObjectKind, WholeObject};
use seawall_repo::hash::BlockHash;
use seawall_repo::keys::{EpochKeys, KeyFile, KeySlot, Keyring, Secret, SlotMethod, Unlock};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::manifest::{Commit, Content, EntryKind, Page};
use seawall_repo::map::{BlockMap, BlockSource, Exception, ExceptionSource, MapReader};
use seawall_repo::pack::{FrameReader, FrameTable, PackInfo};
use seawall_repo::wal::range::open_range;
use seawall_repo::{Line, Repository};
use seawall_store::{ObjectPath, OpenOptions, Store, open_or_create};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../docs/reader/vectors.json")).unwrap()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap()
}

fn bytes(value: &Value, pointer: &str) -> Vec<u8> {
    hex::decode(text(value, pointer)).unwrap()
}

fn array<const N: usize>(value: &Value, pointer: &str) -> [u8; N] {
    bytes(value, pointer).try_into().unwrap()
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).unwrap()
}

fn ulid(text: &str) -> Ulid {
    Ulid::from_string(text).unwrap()
}

fn keyring(vectors: &Value) -> Keyring {
    let key = |pointer| Secret::new(array(vectors, pointer));
    let keys = EpochKeys {
        metadata: key("/keys/metadata"),
        hash: key("/keys/hash"),
        data: key("/keys/data"),
    };
    Keyring::new(array(vectors, "/repository_id"), 1, keys)
}

fn key_file(vectors: &Value) -> KeyFile {
    KeyFile::parse(&format!("# a comment\n{}\n", text(vectors, "/key_file/line"))).unwrap()
}

fn kind(object: &Value) -> ObjectKind {
    match object["kind"].as_u64().unwrap() {
        1 => ObjectKind::Format,
        2 => ObjectKind::KeySlot,
        3 => ObjectKind::About,
        4 => ObjectKind::Pack,
        5 => ObjectKind::Map,
        6 => ObjectKind::Manifest,
        9 => ObjectKind::WalHot,
        19 => ObjectKind::Commit,
        other => panic!("no vector has kind {other}"),
    }
}

fn open(keyring: &Keyring, name: &str, object: &Value) -> Option<WholeObject> {
    let path: ObjectPath = name.parse().unwrap();
    WholeObject::open(keyring, kind(object), &path, &bytes(object, "/bytes")).ok()
}

#[test]
fn a_key_file_says_what_its_line_says() {
    let vectors = vectors();
    assert_eq!(key_file(&vectors).line(), text(&vectors, "/key_file/line"));
    let mistyped = text(&vectors, "/key_file/line").replace("key-1-60", "key-1-61");
    assert!(KeyFile::parse(&mistyped).is_err());
}

#[test]
fn a_key_file_opens_its_slot_and_the_slots_keys_open_objects() {
    let vectors = vectors();
    let unlock = Unlock::KeyFile(key_file(&vectors));
    let [by_key_file, by_passphrase] = list(&vectors, "/slots") else { panic!("two slots") };
    let slot: KeySlot = minicbor::decode(&bytes(by_key_file, "/clear")).unwrap();
    assert_eq!(slot.method(), Some(SlotMethod::KeyFile));
    assert_eq!(minicbor::to_vec(&slot).unwrap(), bytes(by_key_file, "/clear"));
    let id = ulid(text(by_key_file, "/slot"));
    let keys = slot.open(id, &unlock).unwrap().unwrap();
    let keyring = Keyring::new(array(&vectors, "/repository_id"), 1, keys);
    let about = &list(&vectors, "/objects")[1];
    assert!(open(&keyring, text(about, "/name"), about).is_some());

    let elsewhere = ulid(text(by_passphrase, "/slot"));
    assert!(slot.open(elsewhere, &unlock).unwrap().is_none(), "a slot is bound to its name");
    let other: KeySlot = minicbor::decode(&bytes(by_passphrase, "/clear")).unwrap();
    assert_eq!(other.method(), Some(SlotMethod::Passphrase));
    assert_eq!(minicbor::to_vec(&other).unwrap(), bytes(by_passphrase, "/clear"));
    assert!(other.open(elsewhere, &unlock).unwrap().is_none(), "a key file is no passphrase");
}

#[test]
fn objects_open_under_their_names_and_under_no_other() {
    let vectors = vectors();
    let keyring = keyring(&vectors);
    for object in list(&vectors, "/objects").iter().chain(list(&vectors, "/slots")) {
        let name = text(object, "/name");
        let opened = open(&keyring, name, object).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(opened.footer, bytes(object, "/footer"), "{name}");
        if let Some(chunks) = object.get("chunks").and_then(Value::as_array) {
            let expected: Vec<_> = chunks
                .iter()
                .map(|chunk| (chunk["section"].as_u64().unwrap(), bytes(chunk, "/plaintext")))
                .collect();
            let found: Vec<_> = opened
                .chunks
                .into_iter()
                .map(|(section, plaintext)| (u64::from(section.0), plaintext))
                .collect();
            assert_eq!(found, expected, "{name}");
        }
        assert!(open(&keyring, &format!("{name}0"), object).is_none(), "{name} moved");
    }
}

#[test]
fn every_flipped_bit_of_an_object_is_noticed() {
    let vectors = vectors();
    let keyring = keyring(&vectors);
    for object in [&list(&vectors, "/objects")[0], &list(&vectors, "/objects")[1]] {
        let whole = bytes(object, "/bytes");
        let path: ObjectPath = text(object, "/name").parse().unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let opened = WholeObject::open(&keyring, kind(object), &path, &damaged);
            assert!(opened.is_err(), "{path}, bit {bit}");
        }
    }
}

#[tokio::test]
async fn the_vectors_laid_out_in_a_directory_are_a_repository() {
    let vectors = vectors();
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display()).parse().unwrap();
    let store: Arc<dyn Store> = open_or_create(&url, &OpenOptions::default()).await.unwrap();
    for object in list(&vectors, "/slots").iter().chain(list(&vectors, "/objects")) {
        let path: ObjectPath = text(object, "/name").parse().unwrap();
        store.create(&path, bytes(object, "/bytes").into()).await.unwrap();
    }
    let unlock = Unlock::KeyFile(key_file(&vectors));
    let repository = Repository::open(store, &unlock).await.unwrap();
    let line: LineId = "7300000000000000000-0".parse().unwrap();
    let line = repository.line(&"main".parse().unwrap(), line).unwrap();
    let about = line.about().await.unwrap().unwrap();
    assert_eq!((about.major, about.wal_segment_bytes), (15, 16 << 20));

    let pack = &list(&vectors, "/objects")[2];
    let info = PackInfo {
        id: ulid("01KDY6XR800000000000000003"),
        length_bytes: bytes(pack, "/bytes").len() as u64,
        footer_hash: line.keyring().hasher().object(&bytes(pack, "/footer")),
    };
    let path = line.paths().path(&LineObject::Pack(info.id)).unwrap();
    assert_eq!(path.as_str(), text(pack, "/name"));
    let table = FrameTable::read(line.store(), line.keyring(), &path, &info).await.unwrap();
    let mut frames = table.fetch(line.store(), 0, table.frames()).await.unwrap();
    let mut reader = FrameReader::new().unwrap();
    assert_eq!(reader.open(&table, &mut frames, 0).unwrap(), b"seawall ".repeat(1024));
    let small = [b"15\n".as_slice(), &[0; 100]].concat();
    assert_eq!(reader.open(&table, &mut frames, 1).unwrap(), small);

    let later = b"harbour ".repeat(1024);
    assert_eq!(reader.open(&table, &mut frames, 2).unwrap(), later);

    // The second backup has a page of its own, and one of the first one's manifest.
    let backups = line.backups().await.unwrap();
    let [before, after] = backups.as_slice() else { panic!("two backups") };
    let after_info = after.info.as_ref().unwrap();
    assert_eq!((after_info.parent, after_info.cluster.as_str()), (Some(before.id.0), "main"));
    let mut paths = Vec::new();
    for backup in [before, after] {
        let reader = line.manifest(backup.id).await.unwrap().unwrap();
        assert_eq!(reader.packs(line.store()).await.unwrap(), [info]);
        let mut files: Vec<Vec<u8>> = Vec::new();
        for page in 0..reader.pages() {
            let entries = reader.page(line.store(), page).await.unwrap();
            files.extend(entries.iter().map(|entry| entry.path().to_vec()));
        }
        paths.push((reader.commit.parts.manifests.len(), files));
    }
    let names = ["PG_VERSION", "base/1/1259", "global/zeros"].map(|name| name.as_bytes().to_vec());
    assert_eq!(paths, [(1, names.to_vec()), (2, names.to_vec())]);

    // A relation that grew has its first hash with the backup before, and the others of its own.
    let blocks = [b"seawall ".repeat(1024), later];
    let [first, second] = blocks.map(|block| line.keyring().hasher().block(&block).short());
    assert_eq!(relation_hashes(&line, before.id).await, [first]);
    assert_eq!(relation_hashes(&line, after.id).await, [first, second, [0; 8]]);
}

/// The hashes of `base/1/1259` in a backup.
async fn relation_hashes(line: &Line, id: BackupId) -> Vec<BlockHash> {
    let reader = line.manifest(id).await.unwrap().unwrap();
    let entries = reader.page(line.store(), 0).await.unwrap();
    let Some(Content::Mapped { leaves, .. }) = &entries[1].content else { panic!("in a map") };
    let open = async |id| {
        let info = *reader.commit.parts.maps.iter().find(|map| map.id == id).unwrap();
        let path = line.paths().path(&LineObject::Map(id)).unwrap();
        MapReader::read(line.store(), line.keyring(), &path, &info).await.unwrap()
    };
    let map = open(leaves.runs.map).await.runs(line.store(), &leaves.runs).await.unwrap();
    let hashes = open(leaves.hashes.map).await.hashes(line.store(), &leaves.hashes).await.unwrap();
    map.hashes(hashes).unwrap()
}

#[tokio::test]
async fn a_second_epoch_is_opened_by_its_slots_and_not_by_those_of_a_rotation_that_lost() {
    let vectors = vectors();
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display()).parse().unwrap();
    let store: Arc<dyn Store> = open_or_create(&url, &OpenOptions::default()).await.unwrap();
    let rotated = list(&vectors, "/second_epoch");
    let all = list(&vectors, "/slots").iter().chain(list(&vectors, "/objects")).chain(rotated);
    for object in all {
        let path: ObjectPath = text(object, "/name").parse().unwrap();
        store.create(&path, bytes(object, "/bytes").into()).await.unwrap();
    }
    for slot in &rotated[1..] {
        let clear = bytes(slot, "/clear");
        let read: KeySlot = minicbor::decode(&clear).unwrap();
        assert_eq!(minicbor::to_vec(&read).unwrap(), clear);
    }
    let unlock = Unlock::KeyFile(key_file(&vectors));
    let repository = Repository::open(Arc::clone(&store), &unlock).await.unwrap();
    assert_eq!(repository.keyring().current_epoch(), 2);
    let slots = repository.key_slots().await.unwrap();
    let of_second: Vec<Ulid> =
        slots.iter().filter(|(epoch, ..)| *epoch == 2).map(|(_, id, _)| *id).collect();
    assert_eq!(of_second, [ulid("01KDY6XR800000000000000005")]);
    // Without what began it, neither slot is anybody's.
    store.delete(&text(&rotated[0], "/name").parse().unwrap()).await.unwrap();
    let before = Repository::open(store, &unlock).await.unwrap();
    assert_eq!(before.keyring().current_epoch(), 1);
}

#[test]
fn content_hashes_agree() {
    let vectors = vectors();
    let keyring = keyring(&vectors);
    let hasher = keyring.hasher();
    let mut full = Vec::new();
    for block in list(&vectors, "/hashes/blocks") {
        let content = bytes(block, "/block");
        full.push(hasher.block(&content));
        let short = if content.iter().all(|byte| *byte == 0) {
            [0; 8]
        } else {
            hasher.block(&content).short()
        };
        assert_eq!(short, array(block, "/hash"));
    }
    assert_eq!(hasher.frame(&full), array(&vectors, "/hashes/frame_of_these_blocks"));
    let object = hasher.object(&bytes(&vectors, "/hashes/object/plaintext"));
    assert_eq!(object, array(&vectors, "/hashes/object/hash"));
}

#[test]
fn a_page_is_the_same_bytes_and_names_its_packs_and_maps() {
    let vectors = vectors();
    let encoded = bytes(&vectors, "/page/cbor");
    let page: Page = minicbor::decode(&encoded).unwrap();
    assert_eq!(minicbor::to_vec(&page).unwrap(), encoded);
    let [blob, directory, mapped, empty, link] = page.0.as_slice() else { panic!("five") };
    assert_eq!((directory.kind, directory.mode), (EntryKind::Directory, 0o700));
    assert_eq!((empty.size_bytes, &empty.content), (Some(0), &None));
    let [first, second] = [0, 1].map(|at| ulid(text(&vectors, &format!("/page/packs/{at}"))));
    assert!(
        matches!(&blob.content, Some(Content::Blob { pack, hashes, .. }) if hashes.len() == 8 && *pack == first)
    );
    let Some(Content::Mapped { leaves, packs }) = &mapped.content else { panic!("in a map") };
    assert_eq!((leaves.runs.offset, leaves.hashes.length), (64, 224));
    assert_eq!(leaves.runs.map, ulid(text(&vectors, "/page/map")));
    assert_eq!(packs, &[second, first]);
    assert_eq!(mapped.modified_us, Some(-1));
    assert_eq!(link.link_target.as_deref().map(Vec::as_slice), Some(&b"/etc/ssl/\xff.key"[..]));

    // Its lists say what its entries name, no less and no more.
    let (head, name) = (encoded[..2].to_vec(), first.0.to_be_bytes());
    assert_eq!(head, [0x83, 0x82]);
    let mut more = [vec![0x83, 0x83, 0x50], vec![7; 16]].concat();
    more.extend(&encoded[2..]);
    assert!(minicbor::decode::<Page>(&more).is_err(), "a pack that no entry names");
    let less = [vec![0x83, 0x81, 0x50], name.to_vec(), encoded[36..].to_vec()].concat();
    assert!(minicbor::decode::<Page>(&less).is_err(), "a pack that an entry names");
}

#[test]
fn manifests_and_commits_are_the_same_bytes() {
    let vectors = vectors();
    let mut seen = [0, 0];
    for object in list(&vectors, "/objects") {
        match kind(object) {
            ObjectKind::Manifest => {
                for chunk in list(object, "/chunks").iter().filter(|chunk| chunk["section"] == 1) {
                    let plaintext = bytes(chunk, "/plaintext");
                    let page: Page = minicbor::decode(&plaintext).unwrap();
                    assert_eq!(minicbor::to_vec(&page).unwrap(), plaintext);
                    seen[0] += 1;
                }
            }
            ObjectKind::Commit => {
                let footer = bytes(object, "/footer");
                let commit: Commit = minicbor::decode(&footer).unwrap();
                assert_eq!(minicbor::to_vec(&commit).unwrap(), footer);
                seen[1] += 1;
            }
            _ => {}
        }
    }
    assert_eq!(seen, [3, 2]);
}

#[test]
fn a_leaf_is_the_same_bytes_and_means_the_same_runs() {
    let vectors = vectors();
    let encoded = bytes(&vectors, "/leaf/cbor");
    let map = BlockMap::decode(&encoded).unwrap();
    assert_eq!(map.encode(), encoded);
    assert_eq!(Some(map.file_bytes), vectors["leaf"]["file_bytes"].as_u64());
    let expected = list(&vectors, "/leaf/runs");
    assert_eq!(map.runs.len(), expected.len());
    for (run, expected) in map.runs.iter().zip(expected) {
        assert_eq!(Some(u64::from(run.blocks)), expected["blocks"].as_u64());
        let source = match expected["pack"].as_str() {
            None => BlockSource::Zero,
            Some(pack) => BlockSource::Frames {
                pack: ulid(pack),
                first_frame: expected["first_frame"].as_u64().unwrap() as u32,
            },
        };
        assert_eq!(run.source, source);
    }
}

#[test]
fn a_leaf_of_a_file_that_changed_is_the_same_bytes_and_means_the_same_exceptions() {
    let vectors = vectors();
    let encoded = bytes(&vectors, "/changed_leaf/cbor");
    let map = BlockMap::decode(&encoded).unwrap();
    assert_eq!(map.encode(), encoded);
    let pack = ulid(text(&vectors, "/changed_leaf/pack"));
    let number = |value: &Value| value.as_u64().unwrap() as u32;
    let expected = list(&vectors, "/changed_leaf/exceptions").iter().map(|one| Exception {
        block: number(&one["block"]),
        source: match one.get("frame") {
            None => ExceptionSource::Zero,
            Some(frame) => {
                ExceptionSource::Delta { pack, frame: number(frame), slot: number(&one["slot"]) }
            }
        },
        hash: array(one, "/hash"),
    });
    let expected: Vec<Exception> = expected.collect();
    assert_eq!(map.exceptions, expected);
    // It is what becomes of the leaf of before.
    let before = BlockMap::decode(&bytes(&vectors, "/leaf/cbor")).unwrap();
    assert_eq!(before.changed(41 * 8192, &expected), Some(map));
}

#[test]
fn a_range_of_wal_says_what_its_name_says_and_what_was_committed_last() {
    let vectors = vectors();
    let object = list(&vectors, "/objects").iter().find(|object| object["kind"] == 9).unwrap();
    let path: ObjectPath = text(object, "/name").parse().unwrap();
    let Some(ObjectName::Line(_, _, LineObject::WalHot(name))) = ObjectName::parse(&path) else {
        panic!("{path}");
    };
    let sealed = bytes(object, "/bytes");
    let opened = open_range(&keyring(&vectors), &path, name, &sealed).unwrap();
    assert_eq!((opened.range.start(), opened.range.end()), (name.start, name.end));
    assert_eq!(opened.bytes, bytes(object, "/chunks/0/plaintext"));
    let commits = &opened.range.index.facts.commits;
    assert_eq!((commits.len(), commits[0].xid), (1, 700));
    let last = opened.range.so_far.last_commit.unwrap();
    assert_eq!(
        (last.lsn, last.end_lsn, last.time),
        (commits[0].lsn, commits[0].end_lsn, commits[0].time)
    );
    assert_eq!((opened.range.so_far.since, opened.range.so_far.minimal_from), (name.start, None));
}
