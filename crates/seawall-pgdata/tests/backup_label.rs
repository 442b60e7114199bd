//! Labels and `.backup` notes of real backups.

use proptest::prelude::*;
use seawall_core::{Lsn, TimelineId};
use seawall_pgdata::backup_label::{
    BackupFrom, BackupHistory, BackupLabel, BackupMethod, IncrementalFrom, LabelError,
};

/// `pg_start_backup` of 12, which still says `master`.
const LABEL_12: &str = include_str!("golden/backup_label.12.txt");
/// `pg_basebackup --incremental` of 18.
const LABEL_18: &str = include_str!("golden/backup_label.18.txt");
const HISTORY_15: &str = include_str!("golden/backup_history.15.txt");
const HISTORY_18: &str = include_str!("golden/backup_history.18.txt");

#[test]
fn a_label_is_read_line_by_line() {
    let label = BackupLabel::parse(LABEL_12.as_bytes());
    let expected = BackupLabel {
        start_lsn: Lsn(0xC0_0028),
        start_wal_file: "00000001000000000000000C".to_owned(),
        checkpoint_lsn: Lsn(0xC0_0060),
        method: BackupMethod::Streamed,
        from: BackupFrom::Primary,
        start_time: "2026-11-21 07:56:46 UTC".to_owned(),
        label: "seawall test".to_owned(),
        start_timeline: TimelineId(1),
        incremental_from: None,
    };
    assert_eq!(label, Ok(expected));
}

#[test]
fn an_incremental_label_names_its_base() {
    let label = BackupLabel::parse(LABEL_18.as_bytes()).expect("a real label is read");
    let base = IncrementalFrom { lsn: Lsn(0x180_0028), timeline: TimelineId(1) };
    assert_eq!(label.incremental_from, Some(base));
    assert_eq!(label.label, "inc");
}

#[test]
fn the_archived_note_says_how_the_backup_ended() {
    let history = BackupHistory::parse(HISTORY_15.as_bytes()).expect("a real note is read");
    assert_eq!(history.label.label, "nightly: ünï 100%");
    assert_eq!(history.label.start_lsn, Lsn(0xC00_0028));
    assert_eq!(history.stop_lsn, Lsn(0xC00_0100));
    assert_eq!(history.stop_wal_file, "000000010000000000000006");
    assert_eq!(history.stop_time, "2026-11-21 08:07:19 UTC");
    assert_eq!(history.stop_timeline, TimelineId(1));

    let history = BackupHistory::parse(HISTORY_18.as_bytes()).expect("a real note is read");
    assert_eq!(history.stop_lsn, Lsn(0x200_0120));
    assert!(history.label.incremental_from.is_some());
}

#[test]
fn standbys_and_the_exclusive_api_are_told_apart() {
    let text = LABEL_12.replace("master", "standby").replace("streamed", "pg_start_backup");
    let label = BackupLabel::parse(text.as_bytes()).expect("read");
    assert_eq!((label.from, label.method), (BackupFrom::Standby, BackupMethod::Exclusive));
}

#[test]
fn a_label_in_another_encoding_does_not_hide_the_rest() {
    let mut bytes = LABEL_12.as_bytes().to_vec();
    let at = LABEL_12.find("seawall").expect("the label");
    bytes[at] = 0xE9;
    let label = BackupLabel::parse(&bytes).expect("read");
    assert_eq!(label.label, "\u{FFFD}eawall test");
}

#[test]
fn lines_postgres_does_not_write_are_refused() {
    for (text, line) in [
        (String::new(), 1),
        (LABEL_12.trim_end().to_owned(), 7),
        (format!("{LABEL_12}\n"), 8),
        (format!("{LABEL_12}MORE: 1\n"), 8),
        (format!("{LABEL_12}{LABEL_12}"), 8),
        (format!("{LABEL_12}INCREMENTAL FROM LSN: 0/28\n"), 9),
        (LABEL_12.replace("BACKUP METHOD: streamed\n", ""), 3),
        (LABEL_12.replace("LABEL: seawall", "LABEL: two\nlines"), 7),
        (HISTORY_15.to_owned(), 2),
    ] {
        let error = BackupLabel::parse(text.as_bytes()).expect_err("refused");
        let refused_at = match error {
            LabelError::Unexpected { line, .. } => line,
            other => panic!("{other}"),
        };
        assert_eq!(refused_at, line, "{text}");
    }
    assert!(BackupHistory::parse(LABEL_12.as_bytes()).is_err());
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (from, to) in [
        ("0/C00028", "C00028"),
        ("00000001000000000000000C", "00000001000000000000000"),
        ("00000001000000000000000C", "00000000000000000000000C"),
        (" (file ", " file "),
        ("0/C00060", "0/C00060 "),
        ("streamed", "dreamed"),
        ("master", "slave"),
        ("TIMELINE: 1", "TIMELINE: 0"),
        ("TIMELINE: 1", "TIMELINE: +1"),
    ] {
        let text = LABEL_12.replace(from, to);
        let error = BackupLabel::parse(text.as_bytes()).expect_err("refused");
        assert!(matches!(error, LabelError::InvalidValue { .. }), "{text}{error}");
    }
}

#[test]
fn the_wal_file_must_be_of_the_start_timeline() {
    let text = LABEL_12.replace("TIMELINE: 1", "TIMELINE: 2");
    let error = BackupLabel::parse(text.as_bytes()).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "backup label names WAL file 00000001000000000000000C but timeline 2"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, cut in 0usize..400) {
        let _ = BackupLabel::parse(&bytes);
        let mut note = HISTORY_18.as_bytes().to_vec();
        note.truncate(cut.min(note.len()));
        note.extend(bytes);
        let _ = BackupHistory::parse(&note);
    }
}
