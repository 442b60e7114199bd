//! `backup_label`, and the `.backup` note a finished backup leaves in the archive.
//!
//! PostgreSQL's own bytes are what is stored and restored; this reads what they say. Text is taken
//! as UTF-8; other bytes, which only a label given by hand can hold, are replaced.

use std::str::FromStr;

use seawall_core::{Lsn, TimelineId};

use crate::decimal::positive_decimal;

/// How the server was told that a backup began (`BACKUP METHOD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupMethod {
    /// `streamed`: the non-exclusive API or `BASE_BACKUP`.
    Streamed,
    /// `pg_start_backup`: the exclusive API, which 15 removed.
    Exclusive,
}

/// What kind of server was backed up (`BACKUP FROM`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFrom {
    /// `primary`; 12 and 13 write `master`.
    Primary,
    /// `standby`.
    Standby,
}

/// Which backup an incremental one of PostgreSQL's own is based on (17 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncrementalFrom {
    /// `INCREMENTAL FROM LSN`.
    pub lsn: Lsn,
    /// `INCREMENTAL FROM TLI`.
    pub timeline: TimelineId,
}

/// What `backup_label` says (`build_backup_content`, xlogbackup.c; `read_backup_label`,
/// xlogrecovery.c; 12–18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay starts.
    pub start_lsn: Lsn,
    /// The WAL segment that holds `start_lsn`: 24 hexadecimal digits, its timeline first.
    pub start_wal_file: String,
    /// Where the checkpoint's record starts.
    pub checkpoint_lsn: Lsn,
    /// How the backup was begun.
    pub method: BackupMethod,
    /// What was backed up.
    pub from: BackupFrom,
    /// When the backup began, in the server's words and its log time zone.
    pub start_time: String,
    /// The label the backup was given.
    pub label: String,
    /// The timeline the backup began on.
    pub start_timeline: TimelineId,
    /// The base of an incremental backup of PostgreSQL's own.
    pub incremental_from: Option<IncrementalFrom>,
}

/// What the `.backup` note says: a label, and how the backup ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHistory {
    /// The label; the note is written from the same values.
    pub label: BackupLabel,
    /// The backup is consistent from here on.
    pub stop_lsn: Lsn,
    /// The WAL segment that holds `stop_lsn`: 24 hexadecimal digits.
    pub stop_wal_file: String,
    /// When the backup ended, in the server's words.
    pub stop_time: String,
    /// The timeline it ended on.
    pub stop_timeline: TimelineId,
}

/// Why the bytes are not what PostgreSQL would write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Another line was expected here, or none.
    #[error("backup label line {line}: expected {expected}")]
    Unexpected {
        /// Counted from one.
        line: usize,
        /// What should begin there.
        expected: &'static str,
    },
    /// The line's value cannot be read.
    #[error("backup label line {line}: {value:?} is not valid for {key}")]
    InvalidValue {
        /// Counted from one.
        line: usize,
        /// What the line begins with.
        key: &'static str,
        /// What follows.
        value: String,
    },
    /// The WAL file named is not of the timeline named.
    #[error("backup label names WAL file {wal_file} but timeline {timeline}")]
    TimelineMismatch {
        /// From `START WAL LOCATION`.
        wal_file: String,
        /// From `START TIMELINE`.
        timeline: TimelineId,
    },
}

impl BackupLabel {
    /// Reads a `backup_label`.
    ///
    /// # Errors
    /// [`LabelError`] unless every line is one PostgreSQL writes, in its place.
    pub fn parse(bytes: &[u8]) -> Result<Self, LabelError> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = Lines { rest: &text, number: 1 };
        let (start_lsn, start_wal_file) = lines.wal_location("START WAL LOCATION: ")?;
        let label = Self::parse_rest(&mut lines, start_lsn, start_wal_file)?;
        let label = Self { incremental_from: lines.incremental_from()?, ..label };
        lines.end()?;
        Ok(label)
    }

    /// Reads the lines from the checkpoint to the start timeline.
    fn parse_rest(
        lines: &mut Lines<'_>,
        start_lsn: Lsn,
        start_wal_file: String,
    ) -> Result<Self, LabelError> {
        let label = Self {
            start_lsn,
            start_wal_file,
            checkpoint_lsn: lines.parsed("CHECKPOINT LOCATION: ")?,
            method: lines.one_of(
                "BACKUP METHOD: ",
                &[
                    ("streamed", BackupMethod::Streamed),
                    ("pg_start_backup", BackupMethod::Exclusive),
                ],
            )?,
            from: lines.one_of(
                "BACKUP FROM: ",
                &[
                    ("primary", BackupFrom::Primary),
                    ("master", BackupFrom::Primary),
                    ("standby", BackupFrom::Standby),
                ],
            )?,
            start_time: lines.value("START TIME: ")?.to_owned(),
            label: lines.value("LABEL: ")?.to_owned(),
            start_timeline: lines.timeline("START TIMELINE: ")?,
            incremental_from: None,
        };
        if wal_file_timeline(&label.start_wal_file) == Some(label.start_timeline) {
            Ok(label)
        } else {
            let (wal_file, timeline) = (label.start_wal_file, label.start_timeline);
            Err(LabelError::TimelineMismatch { wal_file, timeline })
        }
    }
}

impl BackupHistory {
    /// Reads a `.backup` note.
    ///
    /// # Errors
    /// [`LabelError`] unless every line is one PostgreSQL writes, in its place.
    pub fn parse(bytes: &[u8]) -> Result<Self, LabelError> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = Lines { rest: &text, number: 1 };
        let (start_lsn, start_wal_file) = lines.wal_location("START WAL LOCATION: ")?;
        let (stop_lsn, stop_wal_file) = lines.wal_location("STOP WAL LOCATION: ")?;
        let label = BackupLabel::parse_rest(&mut lines, start_lsn, start_wal_file)?;
        let stop_time = lines.value("STOP TIME: ")?.to_owned();
        let stop_timeline = lines.timeline("STOP TIMELINE: ")?;
        let label = BackupLabel { incremental_from: lines.incremental_from()?, ..label };
        lines.end()?;
        Ok(Self { label, stop_lsn, stop_wal_file, stop_time, stop_timeline })
    }
}

/// The lines not read yet, each of the form `KEY: value`.
struct Lines<'a> {
    rest: &'a str,
    /// The number of the next line, from one.
    number: usize,
}

impl<'a> Lines<'a> {
    /// The value of the next line, which must begin with `key` and end with a newline.
    fn value(&mut self, key: &'static str) -> Result<&'a str, LabelError> {
        let found = self.rest.strip_prefix(key).and_then(|rest| rest.split_once('\n'));
        let (value, rest) =
            found.ok_or(LabelError::Unexpected { line: self.number, expected: key })?;
        self.rest = rest;
        self.number += 1;
        Ok(value)
    }

    fn interpret<T>(
        &mut self,
        key: &'static str,
        interpret: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, LabelError> {
        let line = self.number;
        let value = self.value(key)?;
        interpret(value).ok_or_else(|| LabelError::InvalidValue {
            line,
            key,
            value: value.to_owned(),
        })
    }

    fn parsed<T: FromStr>(&mut self, key: &'static str) -> Result<T, LabelError> {
        self.interpret(key, |value| value.parse().ok())
    }

    fn timeline(&mut self, key: &'static str) -> Result<TimelineId, LabelError> {
        self.interpret(key, |value| positive_decimal(value).map(TimelineId))
    }

    fn one_of<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Result<T, LabelError> {
        self.interpret(key, |value| {
            words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning)
        })
    }

    /// `0/2000028 (file 000000010000000000000002)`.
    fn wal_location(&mut self, key: &'static str) -> Result<(Lsn, String), LabelError> {
        self.interpret(key, |value| {
            let (lsn, file) = value.strip_suffix(')')?.split_once(" (file ")?;
            wal_file_timeline(file)?;
            Some((lsn.parse().ok()?, file.to_owned()))
        })
    }

    fn incremental_from(&mut self) -> Result<Option<IncrementalFrom>, LabelError> {
        if !self.rest.starts_with("INCREMENTAL FROM LSN: ") {
            return Ok(None);
        }
        let lsn = self.parsed("INCREMENTAL FROM LSN: ")?;
        let timeline = self.timeline("INCREMENTAL FROM TLI: ")?;
        Ok(Some(IncrementalFrom { lsn, timeline }))
    }

    fn end(&self) -> Result<(), LabelError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(LabelError::Unexpected { line: self.number, expected: "the end" })
    }
}

/// The timeline in a WAL segment's file name; `None` if it is not one.
fn wal_file_timeline(name: &str) -> Option<TimelineId> {
    let upper_hex = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    let is_name = name.len() == 24 && name.bytes().all(upper_hex);
    let digits = is_name.then(|| name.get(..8)).flatten()?;
    u32::from_str_radix(digits, 16).ok().filter(|number| *number != 0).map(TimelineId)
}
