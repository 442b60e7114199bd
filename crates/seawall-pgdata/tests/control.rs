//! `pg_control` of every major, compared with what `pg_controldata` printed for the same file.
//!
//! Each file is that of a standby that was shut down, with settings that differ from one another,
//! cut to its first 512 bytes; the rest was zero.

use std::collections::HashMap;

use proptest::prelude::*;
use seawall_core::Lsn;
use seawall_pgdata::PgMajor;
use seawall_pgdata::control::{
    CONTROL_FILE_BYTES, ControlError, ControlFile, DbState, NO_CHECKPOINT, WalLevel,
    invalidate_checkpoint,
};

/// The file of a major, and what was printed for it.
macro_rules! golden {
    ($major:ident, $number:literal) => {
        (
            PgMajor::$major,
            include_bytes!(concat!("golden/pg_control.", $number, ".bin")),
            include_str!(concat!("golden/pg_control.", $number, ".txt")),
        )
    };
}

const GOLDEN: [(PgMajor, &[u8; 512], &str); 7] = [
    golden!(V12, "12"),
    golden!(V13, "13"),
    golden!(V14, "14"),
    golden!(V15, "15"),
    golden!(V16, "16"),
    golden!(V17, "17"),
    golden!(V18, "18"),
];

fn whole_file(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    file.resize(CONTROL_FILE_BYTES, 0);
    file
}

/// Makes the CRC right again after a field was changed.
fn seal(file: &mut [u8], crc_offset: usize) {
    let crc = crc32c::crc32c(&file[..crc_offset]);
    file[crc_offset..crc_offset + 4].copy_from_slice(&crc.to_le_bytes());
}

fn golden_15() -> Vec<u8> {
    whole_file(GOLDEN[3].1)
}

/// The fields in the words of `pg_controldata`.
fn in_the_words_of_pg_controldata(control: &ControlFile) -> Vec<(&'static str, String)> {
    let on_off = |on| if on { "on" } else { "off" }.to_owned();
    let state = match control.state {
        DbState::ShutDownInRecovery => "shut down in recovery",
        _ => "another",
    };
    let wal_level = match control.wal_level {
        WalLevel::Minimal => "minimal",
        WalLevel::Replica => "replica",
        WalLevel::Logical => "logical",
    };
    let next_xid = format!("{}:{}", control.next_full_xid >> 32, control.next_full_xid as u32);
    let min_recovery_timeline = control.min_recovery_timeline.map_or(0, |timeline| timeline.0);
    vec![
        ("pg_control version number", control.control_version.to_string()),
        ("Catalog version number", control.catalog_version.to_string()),
        ("Database system identifier", control.system_id.to_string()),
        ("Database cluster state", state.to_owned()),
        ("pg_control last modified", control.time.strftime("%a %b %e %H:%M:%S %Y").to_string()),
        ("Latest checkpoint location", control.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", control.redo.to_string()),
        ("Latest checkpoint's TimeLineID", control.checkpoint_timeline.to_string()),
        ("Latest checkpoint's PrevTimeLineID", control.previous_timeline.to_string()),
        ("Latest checkpoint's NextXID", next_xid),
        ("Minimum recovery ending location", control.min_recovery_point.to_string()),
        ("Min recovery ending loc's timeline", min_recovery_timeline.to_string()),
        ("Backup start location", control.backup_start_point.to_string()),
        ("Backup end location", control.backup_end_point.to_string()),
        (
            "End-of-backup record required",
            if control.backup_end_required { "yes" } else { "no" }.to_owned(),
        ),
        ("wal_level setting", wal_level.to_owned()),
        ("wal_log_hints setting", on_off(control.wal_log_hints)),
        ("max_connections setting", control.max_connections.to_string()),
        ("max_worker_processes setting", control.max_worker_processes.to_string()),
        ("max_wal_senders setting", control.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", control.max_prepared_xacts.to_string()),
        ("max_locks_per_xact setting", control.max_locks_per_xact.to_string()),
        ("track_commit_timestamp setting", on_off(control.track_commit_timestamp)),
        ("Database block size", control.block_size.to_string()),
        ("Blocks per segment of large relation", control.relseg_size.to_string()),
        ("WAL block size", control.wal_block_size.to_string()),
        ("Bytes per WAL segment", control.wal_segment_size.bytes().to_string()),
        ("Data page checksum version", control.data_checksum_version.to_string()),
    ]
}

#[test]
fn every_major_says_what_pg_controldata_says() {
    for (major, bytes, printed) in GOLDEN {
        let printed: HashMap<&str, &str> = printed
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect();
        let control = ControlFile::parse(&whole_file(bytes)).expect("a real file is read");
        assert_eq!(control.major, major);
        assert!(control.data_checksums_enabled());
        for (name, value) in in_the_words_of_pg_controldata(&control) {
            assert_eq!(printed.get(name), Some(&value.as_str()), "{major}: {name}");
        }
    }
}

#[test]
fn an_invalidated_copy_differs_in_checkpoint_and_crc_only() {
    for (major, bytes, _) in GOLDEN {
        let before = whole_file(bytes);
        let mut after = before.clone();
        invalidate_checkpoint(&mut after).expect("a real file is invalidated");
        let was = ControlFile::parse(&before).expect("read");
        let is = ControlFile::parse(&after).expect("its CRC is right");
        assert_ne!(was.checkpoint, NO_CHECKPOINT);
        assert_eq!(is, ControlFile { checkpoint: NO_CHECKPOINT, ..was }, "{major}");
        let crc_offset = if major == PgMajor::V18 { 292 } else { 288 };
        for (offset, (old, new)) in before.iter().zip(&after).enumerate() {
            let may_change =
                (32..40).contains(&offset) || (crc_offset..crc_offset + 4).contains(&offset);
            assert!(may_change || old == new, "{major}: byte {offset}");
        }
    }
}

#[test]
fn the_checkpoint_that_does_not_exist_looks_like_one() {
    let (segment, page_offset) = (NO_CHECKPOINT.0 / (1 << 20), NO_CHECKPOINT.0 % 8192);
    assert_eq!(segment, 0, "the smallest segments begin at 1 MiB, and none has the number 0");
    assert!(page_offset >= 24, "XRecOffIsValid: not in a page header");
}

#[test]
fn a_torn_or_damaged_file_is_refused_and_left_alone() {
    for (major, bytes, _) in GOLDEN {
        for offset in (16..288).step_by(7) {
            let mut file = whole_file(bytes);
            file[offset] ^= 0x10;
            let damaged = file.clone();
            let error = invalidate_checkpoint(&mut file).expect_err("damage is noticed");
            assert!(matches!(error, ControlError::CrcMismatch { .. }), "{major}: {error}");
            assert_eq!(file, damaged);
        }
        assert!(matches!(ControlFile::parse(&bytes[..287]), Err(ControlError::Truncated(_))));
    }
}

#[test]
fn unknown_releases_are_refused_by_number() {
    let mut file = golden_15();
    file[12..16].copy_from_slice(&202_209_999_u32.to_le_bytes());
    seal(&mut file, 288);
    let error = ControlFile::parse(&file).expect_err("a pre-release");
    assert_eq!(
        error.to_string(),
        "pg_control version 1300 with catalog version 202209999 belongs to no known PostgreSQL release"
    );
    file[8..12].copy_from_slice(&1900_u32.to_le_bytes());
    assert!(matches!(
        invalidate_checkpoint(&mut file),
        Err(ControlError::UnknownVersion { control_version: 1900, catalog_version: 202_209_999 })
    ));
}

#[test]
fn the_other_byte_order_is_named() {
    let mut file = golden_15();
    file[8..12].copy_from_slice(&1300_u32.to_be_bytes());
    let error = ControlFile::parse(&file).expect_err("big-endian");
    assert_eq!(error, ControlError::ByteOrder(1300_u32.swap_bytes()));
}

#[test]
fn other_builds_and_undefined_values_are_refused() {
    let refusal = |offset: usize, value: u32| {
        let mut file = golden_15();
        file[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        seal(&mut file, 288);
        ControlFile::parse(&file).expect_err("refused").to_string()
    };
    assert_eq!(refusal(216, 32_768), "the cluster was built with blcksz 32768, not 8192");
    assert_eq!(refusal(224, 4096), "the cluster was built with xlog_blcksz 4096, not 8192");
    assert_eq!(refusal(204, 4), "the cluster was built with maxAlign 4, not 8");
    assert!(refusal(212, 0).starts_with("the cluster was built with floatFormat"));
    assert_eq!(refusal(16, 7), "pg_control field state has the unknown value 7");
    assert_eq!(refusal(172, 3), "pg_control field wal_level has the unknown value 3");
    assert!(refusal(228, 3).contains("3 bytes is not a WAL segment size"));
}

#[test]
fn recovery_state_is_read() {
    let mut file = golden_15();
    file[136..144].copy_from_slice(&[0; 8]);
    file[144..148].copy_from_slice(&[0; 4]);
    file[152..160].copy_from_slice(&0x700_0028_u64.to_le_bytes());
    file[160..168].copy_from_slice(&0x800_0000_u64.to_le_bytes());
    file[168] = 1;
    seal(&mut file, 288);
    let control = ControlFile::parse(&file).expect("read");
    assert_eq!((control.min_recovery_point, control.min_recovery_timeline), (Lsn::INVALID, None));
    assert_eq!(control.backup_start_point, Lsn(0x700_0028));
    assert_eq!(control.backup_end_point, Lsn(0x800_0000));
    assert!(control.backup_end_required);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ControlFile::parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_fields_never_panic(offset in 16usize..284, value: [u8; 4]) {
        let mut file = golden_15();
        file[offset..offset + 4].copy_from_slice(&value);
        seal(&mut file, 288);
        let _ = ControlFile::parse(&file);
    }
}
