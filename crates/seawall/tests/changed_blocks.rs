//! Files of which a backup has some blocks of its own and shares the others with an older one come
//! back as the bytes that they are. The backup is made here, as docs/format.md, 6 and 7 say.

#[path = "support/older_pages.rs"]
mod older_pages;
mod support;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use older_pages::put_before;
use seawall_core::{BackupId, Ulid};
use seawall_repo::envelope::Compressor;
use seawall_repo::hash::{BlockHash, FullBlockHash};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{
    BackupInfo, BackupKind, Commit, Content, Entry, EntryKind, ManifestWriter,
};
use seawall_repo::map::{
    BlockMap, BlockMapBuilder, Exception, ExceptionSource, MapBuilder, MapInfo,
};
use seawall_repo::pack::{BLOCK_BYTES, DeltaFile, FrameBody, FramePayload, PackBuilder, PackInfo};
use seawall_repo::{Line, Repository, new_ulid};
use seawall_store::OpenOptions;
use seawall_testkit::faults::Random;
use seawall_testkit::process;
use seawall_testkit::{Owner, StopMode, cache_directory};
use support::{LIMIT, Protected};

/// A file as it was, and as it is now.
struct Case {
    name: &'static str,
    before: Vec<u8>,
    now: Vec<u8>,
}

/// So many blocks go into a delta frame, those of several files beside each other.
const BLOCKS_OF_A_DELTA: usize = 3;

fn random(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut content: Vec<u8> =
        (0..bytes.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    content.truncate(bytes);
    content
}

/// Files that changed in every way: within and behind frames, in length, to zeroes and from them.
fn cases(seed: u64) -> Vec<Case> {
    const B: usize = BLOCK_BYTES;
    let mut lot = Random::new(seed);
    let mut case = |name, before: usize, now: usize, changed: &[usize], zeroes: &[usize]| {
        let before = random(&mut lot, before);
        let mut content = before.clone();
        let added = random(&mut lot, now.saturating_sub(before.len()));
        content.truncate(now);
        content.extend(added);
        for block in changed {
            let end = content.len().min((block + 1) * B);
            let other = random(&mut lot, end - block * B);
            content[block * B..end].copy_from_slice(&other);
        }
        for block in zeroes {
            let end = content.len().min((block + 1) * B);
            content[block * B..end].fill(0);
        }
        Case { name, before, now: content }
    };
    let mut cases = vec![
        case("changed", 40 * B, 40 * B, &[0, 3, 15, 16, 39], &[]),
        case("grown", 20 * B, 26 * B, &[2], &[23]),
        case("shrunk_within_a_frame", 40 * B, 18 * B, &[17], &[]),
        case("short_last_block_now_whole", 83 * B - 100, 84 * B, &[], &[]),
        case("short_last_block_now_longer", 20 * B - 8000, 20 * B - 10, &[], &[]),
        case("whole_last_block_now_short", 20 * B, 20 * B - 100, &[], &[]),
        case("cut_and_short", 40 * B, 17 * B + 5, &[], &[]),
        case("zeroed", 40 * B, 40 * B, &[], &[5, 6, 7, 8, 31]),
        case("untouched", 20 * B, 20 * B, &[], &[]),
        case("all_of_it", 17 * B, 17 * B, &(0..17).collect::<Vec<_>>(), &[]),
    ];
    // Holes that were filled, and one that grew.
    for (name, zeroes) in [("filled", 16..48), ("filled_at_the_end", 16..64)] {
        let mut before = random(&mut lot, 64 * B);
        before[zeroes.start * B..zeroes.end * B].fill(0);
        let mut now = before.clone();
        for block in [16, 17, 30, 47] {
            now[block * B..(block + 1) * B].copy_from_slice(&random(&mut lot, B));
        }
        now.extend(vec![0; 40 * B]);
        now.extend(random(&mut lot, B));
        cases.push(Case { name, before, now });
    }
    cases.sort_by_key(|case| case.name);
    cases
}

/// Writes the pack, the maps and the manifest of a backup.
struct Author<'l> {
    line: &'l Line,
    compressor: Compressor,
    pack: PackBuilder,
    pack_id: Ulid,
    pack_bytes: Vec<u8>,
    before: MapBuilder,
    now: MapBuilder,
    map_bytes: [Vec<u8>; 2],
    /// Blocks that wait for a frame: file, exception, and what it holds.
    waiting: Vec<(usize, usize, Vec<u8>)>,
    /// Counts the slots of frames from here on.
    first_slot: u32,
}

/// What is known of a file while its blocks wait.
struct Changed {
    path: Vec<u8>,
    file_bytes: u64,
    map: BlockMap,
    exceptions: Vec<Exception>,
    leaf: seawall_repo::map::LeafAddress,
    hash_count: usize,
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

impl Author<'_> {
    fn hash(&self, block: &[u8]) -> FullBlockHash {
        self.line.keyring().hasher().block(block)
    }

    fn short(&self, block: &[u8]) -> BlockHash {
        if is_zero(block) { [0; 8] } else { self.hash(block).short() }
    }

    fn frame(&mut self, what: FramePayload<'_>, payload: &[u8], blocks: &[&[u8]]) -> Result<u32> {
        let mut body = FrameBody::new();
        body.fill(what, payload, &mut self.compressor)?;
        let hashes: Vec<_> = blocks.iter().map(|block| self.hash(block)).collect();
        Ok(self.pack.frame(&body, &hashes, &mut self.pack_bytes)?)
    }

    /// Stores a file as it was.
    fn file(&mut self, case: &Case) -> Result<Changed> {
        let path = format!("zz/{}", case.name).into_bytes();
        let mut builder = BlockMapBuilder::default();
        let blocks: Vec<&[u8]> = case.before.chunks(BLOCK_BYTES).collect();
        let mut at = 0;
        while at < blocks.len() {
            let alike = blocks[at..].iter().take(16).take_while(|block| !is_zero(block)).count();
            if alike == 0 {
                builder.zero(1);
                at += 1;
                continue;
            }
            let base = FramePayload::Base { path: &path, first_block: u32::try_from(at)? };
            let stretch = &blocks[at..at + alike];
            let frame = self.frame(base, &stretch.concat(), stretch)?;
            builder.frame(u32::try_from(alike)?, self.pack_id, frame);
            at += alike;
        }
        let map = builder.finish(case.before.len() as u64).context("a whole map")?;
        let hashes: Vec<BlockHash> = blocks.iter().map(|block| self.short(block)).collect();
        let leaves = self.before.add(&map, &hashes, &mut self.map_bytes[0])?;
        let (leaf, hash_count) = (leaves.hashes, hashes.len());
        let file_bytes = case.now.len() as u64;
        Ok(Changed { path, file_bytes, map, exceptions: Vec::new(), leaf, hash_count })
    }

    /// Stores what changed of all of them.
    fn changes(&mut self, cases: &[Case], files: &mut [Changed]) -> Result<()> {
        for (number, case) in cases.iter().enumerate() {
            let before: Vec<&[u8]> = case.before.chunks(BLOCK_BYTES).collect();
            for (block, now) in case.now.chunks(BLOCK_BYTES).enumerate() {
                if before.get(block) == Some(&now) {
                    continue;
                }
                let (hash, source) = (self.short(now), ExceptionSource::Zero);
                let exception = Exception { block: u32::try_from(block)?, source, hash };
                files[number].exceptions.push(exception);
                if !is_zero(now) {
                    let at = files[number].exceptions.len() - 1;
                    self.waiting.push((number, at, now.to_vec()));
                }
                if self.waiting.len() == BLOCKS_OF_A_DELTA {
                    self.delta(files)?;
                }
            }
        }
        if self.waiting.is_empty() { Ok(()) } else { self.delta(files) }
    }

    fn delta(&mut self, files: &mut [Changed]) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut named: Vec<DeltaFile> = Vec::new();
        for (number, at, bytes) in &waiting {
            let file = &files[*number];
            let (block, length) = (file.exceptions[*at].block, u32::try_from(bytes.len())?);
            match named.last_mut().filter(|named| *named.path == file.path) {
                Some(named) => {
                    named.length += length;
                    named.blocks.push(block);
                }
                None => named.push(DeltaFile {
                    path: file.path.clone().into(),
                    length,
                    blocks: vec![block],
                }),
            }
        }
        let blocks: Vec<&[u8]> = waiting.iter().map(|(_, _, bytes)| bytes.as_slice()).collect();
        let frame = self.frame(FramePayload::Delta { files: &named }, &blocks.concat(), &blocks)?;
        for (slot, (number, at, _)) in (self.first_slot..).zip(&waiting) {
            files[*number].exceptions[*at].source =
                ExceptionSource::Delta { pack: self.pack_id, frame, slot };
        }
        Ok(())
    }
}

async fn create(line: &Line, object: LineObject, bytes: Vec<u8>) -> Result<()> {
    Ok(line.store().create(&line.paths().path(&object)?, bytes.into()).await.map(drop)?)
}

/// A second backup: the first one's files, and these. Slots are counted from `first_slot` on, which
/// is wrong for any but 0.
async fn second_backup(line: &Line, cases: &[Case], first_slot: u32) -> Result<BackupId> {
    let first = line.backups().await?.into_iter().next().context("a backup")?.id;
    let older = line.manifest(first).await?.context("a backup")?.commit;
    let ulid = || new_ulid(Timestamp::now());
    let (pack_id, map_ids, manifest_id) = (ulid()?, [ulid()?, ulid()?], ulid()?);
    let keyring = line.keyring();
    let path = |object| line.paths().path(&object);
    let (mut pack_bytes, mut map_bytes) = (Vec::new(), [Vec::new(), Vec::new()]);
    let [first_bytes, second_bytes] = &mut map_bytes;
    let pack =
        PackBuilder::begin(keyring, pack_id, &path(LineObject::Pack(pack_id))?, &mut pack_bytes)?;
    let maps = map_ids.map(LineObject::Map);
    let before = MapBuilder::begin(keyring, map_ids[0], &path(maps[0].clone())?, first_bytes)?;
    let now = MapBuilder::begin(keyring, map_ids[1], &path(maps[1].clone())?, second_bytes)?;
    let (compressor, waiting) = (Compressor::new(1)?, Vec::new());
    let mut author = Author {
        line,
        compressor,
        pack,
        pack_id,
        pack_bytes,
        before,
        now,
        map_bytes,
        waiting,
        first_slot,
    };
    let mut files = cases.iter().map(|case| author.file(case)).collect::<Result<Vec<_>>>()?;
    author.changes(cases, &mut files)?;

    let mut bytes = Vec::new();
    let manifest_path = path(LineObject::Manifest(manifest_id))?;
    let mut manifest = ManifestWriter::begin(keyring, manifest_id, &manifest_path, &mut bytes)?;
    manifest.entry(&directory(b"zz"), &mut bytes)?;
    for file in files {
        let map = file.map.changed(file.file_bytes, &file.exceptions).context("a whole map")?;
        let out = &mut author.map_bytes[1];
        let leaves = author.now.add_changed(&map, file.leaf, file.hash_count, out)?;
        let content = Some(Content::Mapped { leaves, packs: map.packs() });
        let (kind, size_bytes, modified_us) = (EntryKind::File, Some(file.file_bytes), Some(0));
        let entry = Entry {
            path: file.path.into(),
            kind,
            mode: 0o600,
            size_bytes,
            modified_us,
            content,
            ..directory(b"")
        };
        manifest.entry(&entry, &mut bytes)?;
    }
    let Author { pack, mut pack_bytes, before, now, mut map_bytes, .. } = author;
    let packs: [PackInfo; 1] = [pack.finish(&mut pack_bytes)?];
    let infos: [MapInfo; 2] = [before.finish(&mut map_bytes[0])?, now.finish(&mut map_bytes[1])?];
    let mut parts = manifest.finish(&packs, &infos, &mut bytes)?;
    create(line, LineObject::Pack(pack_id), pack_bytes).await?;
    for (object, bytes) in maps.into_iter().zip(map_bytes) {
        create(line, object, bytes).await?;
    }
    create(line, LineObject::Manifest(manifest_id), bytes).await?;

    put_before(&mut parts, older.parts);
    let id = BackupId(ulid()?);
    let (kind, parent) = (BackupKind::Incremental, Some(first.0));
    let info = BackupInfo { id: id.0, kind, parent, head: None, ..older.info };
    let path = path(LineObject::Backup(id, 0))?;
    line.repository().create_record(&path, &Commit { info, parts }).await?;
    Ok(id)
}

fn directory(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec().into(),
        kind: EntryKind::Directory,
        mode: 0o700,
        size_bytes: None,
        modified_us: None,
        content: None,
        link_target: None,
    }
}

fn make(house: &Protected, cases: &[Case], first_slot: u32) -> Result<BackupId> {
    let key = Unlock::KeyFile(KeyFile::parse(&fs::read_to_string(&house.places.key)?)?);
    let url = format!("file://{}", house.places.repository.display()).parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let id = runtime.block_on(async {
        let store = seawall_store::open(&url, &OpenOptions::default()).await?;
        let repository = Repository::open(store, &key).await?;
        let (cluster, line) = repository.lines().await?.pop().context("a line")?;
        second_backup(&repository.line(&cluster, line)?, cases, first_slot).await
    })?;
    house.pg.owner().chown_all(&house.places.repository)?;
    Ok(id)
}

fn prove_same(room: &Path, cases: &[Case]) -> Result<()> {
    for Case { name, now, .. } in cases {
        let found = fs::read(room.join("zz").join(name)).with_context(|| (*name).to_owned())?;
        ensure!(found.len() == now.len(), "{name} has {} bytes, not {}", found.len(), now.len());
        let mut blocks = found.chunks(BLOCK_BYTES).zip(now.chunks(BLOCK_BYTES));
        let other = blocks.position(|(found, expected)| found != expected);
        ensure!(other.is_none(), "block {other:?} of {name} is another one");
    }
    Ok(())
}

#[test]
fn files_that_share_blocks_with_an_older_backup_come_back_as_what_they_are() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Immediate)?;
    let cases = cases(20_261_127);
    let id = make(&house, &cases, 0)?;
    house.command(["verify"]).succeed()?;
    let (shown, ulid) = (id.to_string(), id.0.to_string());
    // With room for many delta frames, and for hardly any.
    for (room, memory, jobs) in [("roomy", "256MiB", "2"), ("narrow", "64MiB", "16")] {
        let restore = ["--latest", "--backup", &shown, "--memory", memory, "--jobs", jobs];
        house.restore(room, restore).succeed().with_context(|| room.to_owned())?;
        prove_same(&house.room(room), &cases).with_context(|| room.to_owned())?;
    }
    let python = cache_directory()?.join("reader/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reader/seawall_reader.py");
    let reader = house.room("reader.py");
    fs::copy(script, &reader)?;
    let mut command = Owner::of_servers()?.command(python);
    command.arg("-B").arg(&reader).arg("restore").arg(&house.places.repository);
    command.arg("--key").arg(&house.places.key).args(["--backup", &ulid, "--into"]);
    process::run(command.arg(house.room("second")), None, LIMIT)?.success()?;
    prove_same(&house.room("second"), &cases)
}

#[test]
fn a_map_that_names_another_block_than_it_says_is_never_restored() -> Result<()> {
    let mut house = Protected::start()?;
    house.backup()?;
    house.archive_everything()?;
    house.pg.stop(StopMode::Immediate)?;
    let id = make(&house, &cases(7), 1)?.to_string();
    let refused = house.restore("room", ["--latest", "--backup", &id]).run()?;
    ensure!(refused.code() == Some(4), "{}\n{}", refused.status, refused.stderr);
    ensure!(!house.room("room/global/pg_control").exists(), "what is wrong could be started");
    Ok(())
}
