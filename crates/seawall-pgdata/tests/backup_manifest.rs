//! Manifests against those of real backups, and against `pg_verifybackup`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, str};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use seawall_core::{Lsn, SystemId, TimelineId};
use seawall_pgdata::PgMajor;
use seawall_pgdata::backup_manifest::{ManifestFile, ManifestFormat, ManifestWriter, WalRange};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn writer(format: ManifestFormat) -> ManifestWriter<Vec<u8>> {
    ManifestWriter::new(Vec::new(), format).expect("a vector takes all")
}

fn file(path: &[u8]) -> ManifestFile<'_> {
    let modified = Timestamp::from_second(1_700_000_000).expect("a time");
    ManifestFile { path, size: 3, modified, crc32c: Some(0x1234_5678) }
}

/// Reads a manifest with a JSON library and writes it again with ours.
fn rewritten(manifest: &str) -> String {
    let json: Value = serde_json::from_str(manifest).expect("JSON");
    let text = |value: &Value, key: &str| value[key].as_str().expect("text").to_owned();
    let lsn = |value: &Value, key: &str| text(value, key).parse::<Lsn>().expect("an LSN");
    let format = match json["System-Identifier"].as_u64() {
        Some(system_id) => ManifestFormat::V2(SystemId(system_id)),
        None => ManifestFormat::V1,
    };
    let mut writer = writer(format);
    for entry in json["Files"].as_array().expect("files") {
        let modified: DateTime =
            text(entry, "Last-Modified").trim_end_matches(" GMT").parse().expect("a time");
        let crc = hex::decode(text(entry, "Checksum")).expect("hex");
        writer
            .add_file(&ManifestFile {
                path: text(entry, "Path").as_bytes(),
                size: entry["Size"].as_u64().expect("a size"),
                modified: modified.to_zoned(TimeZone::UTC).expect("a time").timestamp(),
                crc32c: Some(u32::from_le_bytes(crc.try_into().expect("four bytes"))),
            })
            .expect("written");
    }
    let ranges: Vec<WalRange> = json["WAL-Ranges"]
        .as_array()
        .expect("ranges")
        .iter()
        .map(|range| WalRange {
            timeline: TimelineId(range["Timeline"].as_u64().expect("a number") as u32),
            start: lsn(range, "Start-LSN"),
            end: lsn(range, "End-LSN"),
        })
        .collect();
    String::from_utf8(writer.finish(&ranges).expect("written")).expect("text")
}

/// Two manifests of `pg_basebackup`, cut to five files, their own checksum computed again.
#[test]
fn the_bytes_are_those_of_a_real_backup() {
    for manifest in [
        include_str!("golden/backup_manifest.15.json"),
        include_str!("golden/backup_manifest.18.json"),
    ] {
        assert_eq!(rewritten(manifest), manifest);
    }
}

#[test]
fn the_format_follows_the_major() {
    let id = SystemId(7);
    for (major, format) in [
        (PgMajor::V12, None),
        (PgMajor::V13, Some(ManifestFormat::V1)),
        (PgMajor::V16, Some(ManifestFormat::V1)),
        (PgMajor::V17, Some(ManifestFormat::V2(id))),
        (PgMajor::V18, Some(ManifestFormat::V2(id))),
    ] {
        assert_eq!(ManifestFormat::of(major, id), format, "{major}");
    }
}

#[test]
fn names_of_any_bytes_are_written() {
    let mut writer = writer(ManifestFormat::V1);
    for path in [b"a \"b\"\\\n\x01".as_slice(), "é".as_bytes(), b"\xFFx"] {
        writer.add_file(&file(path)).expect("written");
    }
    let bytes = writer.finish(&[]).expect("written");
    let json: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(json["Files"][0]["Path"], "a \"b\"\\\n\u{1}");
    assert_eq!(json["Files"][1]["Path"], "é");
    assert_eq!(json["Files"][2]["Encoded-Path"], "ff78");
    assert_eq!(json["Files"][2]["Path"], Value::Null);
}

#[test]
fn a_file_may_go_without_a_checksum() {
    let mut writer = writer(ManifestFormat::V1);
    writer.add_file(&ManifestFile { crc32c: None, ..file(b"a") }).expect("written");
    let bytes = writer.finish(&[]).expect("written");
    let text = str::from_utf8(&bytes).expect("text");
    let line =
        "{ \"Path\": \"a\", \"Size\": 3, \"Last-Modified\": \"2023-11-14 22:13:20 GMT\" }\n]";
    assert!(text.contains(line), "{text}");
}

#[test]
fn several_timelines_are_listed_and_all_is_hashed() {
    let range = |timeline, start, end| WalRange {
        timeline: TimelineId(timeline),
        start: Lsn(start),
        end: Lsn(end),
    };
    let ranges = [range(2, 0x300_0000, 0x400_0000), range(1, 0x200_0028, 0x300_0000)];
    let bytes = writer(ManifestFormat::V1).finish(&ranges).expect("written");
    let json: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(json["WAL-Ranges"][0]["Timeline"], 2);
    assert_eq!(json["WAL-Ranges"][1]["Start-LSN"], "0/2000028");
    let text = str::from_utf8(&bytes).expect("text");
    let hashed = text.find("\"Manifest-Checksum\"").expect("the last line");
    let hash = hex::encode(Sha256::digest(&bytes[..hashed]));
    assert_eq!(json["Manifest-Checksum"], hash.as_str());
}

/// PostgreSQL's own check, of any installed major that knows version 1. Debian's place is tried;
/// elsewhere it must be on `PATH`.
fn pg_verifybackup() -> Command {
    let of = |major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/pg_verifybackup"));
    Command::new(
        (13..=18)
            .map(of)
            .find(|program| program.exists())
            .unwrap_or_else(|| "pg_verifybackup".into()),
    )
}

/// A directory with a few files and our manifest of them.
fn directory_with_manifest(root: &Path) {
    let out = fs::File::create(root.join("backup_manifest")).expect("created");
    let mut writer = ManifestWriter::new(out, ManifestFormat::V1).expect("written");
    let files: [(&str, &[u8], bool); 4] = [
        ("PG_VERSION", b"15\n", true),
        ("base/5/1259", &[7; 20_000], true),
        ("base/5/odd \"name\"\té", b"", true),
        ("postgresql.conf", b"# nothing", false),
    ];
    for (path, content, with_checksum) in files {
        let on_disk = root.join(path);
        fs::create_dir_all(on_disk.parent().expect("a parent")).expect("created");
        fs::write(&on_disk, content).expect("written");
        let crc32c = with_checksum.then(|| crc32c::crc32c(content));
        let size = content.len() as u64;
        writer.add_file(&ManifestFile { size, crc32c, ..file(path.as_bytes()) }).expect("written");
    }
    writer.finish(&[]).expect("written");
}

#[test]
fn pg_verifybackup_accepts_it_and_notices_damage() {
    let root = tempfile::tempdir().expect("a directory");
    directory_with_manifest(root.path());
    let verify = || {
        let output = pg_verifybackup().arg("--no-parse-wal").arg(root.path()).output();
        output.expect("PostgreSQL 13 or later is installed")
    };
    let output = verify();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    fs::write(root.path().join("base/5/1259"), [8; 20_000]).expect("written");
    let output = verify();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("checksum mismatch for file \"base/5/1259\""), "{complaint}");
}
