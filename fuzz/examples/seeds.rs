//! Makes `corpus/TARGET/` from the golden files of the crates, so that every target begins with
//! input that parses.

use std::fs;
use std::path::{Path, PathBuf};

use seawall_core::{Lsn, WalFileName};
use seawall_fuzz::{LooseRecord, RangeParts, SEGMENT_SIZE, keyring, path, range_name, start_at};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::{SegmentIndexer, WalReader};
use seawall_repo::envelope::{ObjectKind, WholeObject};
use seawall_repo::layout::LineObject;
use seawall_repo::map::BlockMapBuilder;
use seawall_repo::wal::LogSummary;
use seawall_repo::wal::range::RangeSealer;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Golden WAL is used up to here: what is longer is slow to fuzz and no richer.
const WAL_BYTES: usize = 32 * 1024;

fn main() -> Result<()> {
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/seawall-pgdata/tests/golden");
    for entry in fs::read_dir(&golden)? {
        let file = entry?.path();
        if file.is_file() {
            plain(&file)?;
        }
    }
    for (number, major) in PgMajor::ALL.into_iter().enumerate() {
        for entry in fs::read_dir(golden.join(format!("wal/{major}")))? {
            wal(&entry?.path(), u8::try_from(number)?, major)?;
        }
    }
    texts()?;
    let mut map = BlockMapBuilder::default();
    map.frame(16, seawall_core::Ulid(1), 0);
    map.frame(16, seawall_core::Ulid(2), 7);
    map.zero(40);
    let map = map.finish(72 * 8192 - 10).ok_or("the map covers its file")?;
    seed("block_map", "three-runs", &map.encode())
}

/// Files that are input as they are.
fn plain(file: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = fs::read(file)?;
    if name.starts_with("pg_control") && name.ends_with(".bin") {
        seed("pg_control", &name, &bytes)?;
    } else if name.starts_with("page.") {
        // Block and LSNs come first where numbers stand before the bytes.
        seed("page", &name, &[[0; 20].as_slice(), &bytes].concat())?;
    } else if name.starts_with("backup_label") || name.starts_with("backup_history") {
        seed("backup_label", &name, &bytes)?;
    }
    Ok(())
}

/// A golden segment: its pages, its records one by one, and a range made of it.
fn wal(file: &Path, number: u8, major: PgMajor) -> Result<()> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let Some(WalFileName::Segment(segment)) = WalFileName::parse(&name, SEGMENT_SIZE) else {
        return Ok(());
    };
    let bytes = zstd::stream::decode_all(fs::File::open(file)?)?;
    let name = format!("{major}-{name}");
    let pages = bytes.get(..WAL_BYTES).ok_or("a short segment")?;
    let start = segment.start();
    let twice = (start.0 << 1).to_le_bytes();
    seed("wal_reader", &name, &[&twice[..], &[100, 1], pages].concat())?;

    let mut reader = WalReader::new(start_at(start, Some(major)))?;
    let mut records = vec![number, 3];
    let mut rest = &bytes[..];
    while let Some(record) = reader.next(&mut rest) {
        let body = record.bytes.get(24..).unwrap_or_default().to_vec();
        if records.len() + body.len() < WAL_BYTES {
            let header = record.header;
            LooseRecord { rmgr: header.rmgr.0, info: header.info, xid: header.xid, body }
                .write(&mut records);
        }
    }
    seed("wal_indexer", &name, &records)?;
    range(&name, start, major, pages)
}

fn range(name: &str, start: Lsn, major: PgMajor, pages: &[u8]) -> Result<()> {
    let mut indexer = SegmentIndexer::new(start_at(start, Some(major)))?;
    indexer.feed(pages);
    let index = indexer.finish()?;
    let (keyring, place) = (keyring(), range_name(start, pages.len()));
    let path = path(&LineObject::WalHot(place));
    let mut sealer = RangeSealer::new(seawall_core::SystemId(7), 1)?;
    let summary = LogSummary::of(&index);
    // A segment that was switched early ends inside what was taken of it.
    let Ok(object) = sealer.seal(&keyring, &path, &index, summary, pages) else { return Ok(()) };
    let object = WholeObject::open(&keyring, ObjectKind::WalHot, &path, &object)?;
    let mut parts = object.chunks.into_iter().map(|(_, bytes)| bytes);
    let (body, index) = (parts.next().ok_or("a body")?, parts.next().ok_or("an index")?);
    let parts = RangeParts { start: u32::try_from(start.0)?, footer: object.footer, index, body };
    seed("wal_range", name, &parts.bytes())
}

/// Small texts that no golden file has.
fn texts() -> Result<()> {
    let history =
        b"\x03\0\0\x001\t0/5000148\tno recovery target specified\n\n2\t0/7000000\tbefore\n";
    seed("timeline_history", "three", history)?;
    seed("tablespace_map", "odd", b"16390 /srv/fast disk\n16391 /odd\\\\na\\\nme\\\r\n")?;
    let paths = [
        "base/5/1259",
        "global/1262_fsm",
        "base/5/16384_vm.3",
        "base/5/t3_16384",
        "pg_tblspc/16390/PG_15_202209061/5/16399_init",
        "pg_wal/000000010000000000000001",
    ];
    for (number, path) in paths.iter().enumerate() {
        seed("relation_path", &number.to_string(), path.as_bytes())?;
    }
    let conninfos = [
        "host=db1,db2 port=5432,5433 dbname='a b' user=me password='it\\'s' connect_timeout=10",
        "postgresql://me:p%40ss@[::1]:5432,db2/app?target_session_attrs=read-write&sslmode=require",
        "postgres:///app?host=%2Frun%2Fpostgresql&keepalives=1",
    ];
    for (number, text) in conninfos.iter().enumerate() {
        seed("conninfo", &number.to_string(), text.as_bytes())?;
    }
    Ok(())
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(format!("seed-{name}")), bytes)?)
}
