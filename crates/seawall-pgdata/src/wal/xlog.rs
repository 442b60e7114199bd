//! What the XLOG resource manager's records say (pg_control.h, xlog_internal.h).

use seawall_core::{Lsn, PgTimestamp, TimelineId};

use super::operation::PayloadFault;
use crate::{Cursor, PgMajor};

/// `wal_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum WalLevel {
    /// `minimal`: some changes of relation files are not logged.
    Minimal = 0,
    /// `replica`.
    Replica = 1,
    /// `logical`.
    Logical = 2,
}

impl WalLevel {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, PayloadFault> {
        match cursor.u32()? {
            0 => Ok(Self::Minimal),
            1 => Ok(Self::Replica),
            2 => Ok(Self::Logical),
            _ => Err(PayloadFault::Value),
        }
    }

    /// The level where the major logs it (17+), else nothing; the bytes are passed either way.
    fn read_since_17(
        cursor: &mut Cursor<'_>,
        major: PgMajor,
    ) -> Result<Option<Self>, PayloadFault> {
        if major >= PgMajor::V17 { Self::read(cursor).map(Some) } else { Ok(None) }
    }
}

/// A checkpoint (`CheckPoint`, pg_control.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whether it was taken at shutdown or at the end of recovery, with nothing running.
    pub shutdown: bool,
    /// Where replay has to begin.
    pub redo: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
    /// The timeline before, if this record begins a new one; else the same.
    pub previous_timeline: TimelineId,
    /// `full_page_writes` at the time.
    pub full_page_writes: bool,
    /// `wal_level` at the time (17+).
    pub wal_level: Option<WalLevel>,
    /// When it began, in whole seconds.
    pub time: PgTimestamp,
}

/// The settings a standby has to match (`xl_parameter_change`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterChange {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

/// A server left recovery without a checkpoint (`xl_end_of_recovery`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfRecovery {
    /// When.
    pub time: PgTimestamp,
    /// The timeline from here on.
    pub timeline: TimelineId,
    /// The timeline it forked off from.
    pub previous_timeline: TimelineId,
    /// `wal_level` at the time (17+).
    pub wal_level: Option<WalLevel>,
}

/// A named restore point (`xl_restore_point`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestorePointBody<'a> {
    /// When it was made.
    pub time: PgTimestamp,
    /// Its name, in the server's encoding.
    pub name: &'a [u8],
}

/// A record that was given up after a crash (`xl_overwrite_contrecord`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverwrittenRecord {
    /// Where the record that was given up begins.
    pub lsn: Lsn,
    /// When the server wrote on.
    pub time: PgTimestamp,
}

impl Checkpoint {
    /// Reads the record's data. 88 bytes in every major; 17 put `wal_level` into a gap.
    pub(super) fn read(data: &[u8], shutdown: bool, major: PgMajor) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let redo = Lsn(cursor.u64()?);
        let timeline = TimelineId(cursor.u32()?);
        let previous_timeline = TimelineId(cursor.u32()?);
        let full_page_writes = read_bool(&mut cursor)?;
        cursor.take(3)?;
        let wal_level = WalLevel::read_since_17(&mut cursor, major)?;
        // Next and oldest transaction, object and multixact ids; their gap is the one before 17.
        let skipped_bytes = if wal_level.is_some() { 40 } else { 44 };
        cursor.take(skipped_bytes)?;
        let time = PgTimestamp::from_timestamp(
            jiff::Timestamp::from_second(cursor.i64()?).map_err(|_| PayloadFault::Value)?,
        );
        cursor.take(16)?;
        finish(&cursor)?;
        Ok(Self { shutdown, redo, timeline, previous_timeline, full_page_writes, wal_level, time })
    }
}

impl ParameterChange {
    pub(super) fn read(data: &[u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let change = Self {
            max_connections: cursor.u32()?,
            max_worker_processes: cursor.u32()?,
            max_wal_senders: cursor.u32()?,
            max_prepared_transactions: cursor.u32()?,
            max_locks_per_transaction: cursor.u32()?,
            wal_level: WalLevel::read(&mut cursor)?,
            wal_log_hints: read_bool(&mut cursor)?,
            track_commit_timestamp: read_bool(&mut cursor)?,
        };
        cursor.take(2)?;
        finish(&cursor)?;
        Ok(change)
    }
}

impl EndOfRecovery {
    pub(super) fn read(data: &[u8], major: PgMajor) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let end = Self {
            time: PgTimestamp(cursor.i64()?),
            timeline: TimelineId(cursor.u32()?),
            previous_timeline: TimelineId(cursor.u32()?),
            wal_level: WalLevel::read_since_17(&mut cursor, major)?,
        };
        if end.wal_level.is_some() {
            cursor.take(4)?;
        }
        finish(&cursor)?;
        Ok(end)
    }
}

impl<'a> RestorePointBody<'a> {
    pub(super) fn read(data: &'a [u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let time = PgTimestamp(cursor.i64()?);
        // What follows the terminator was never initialised.
        let name = until_nul(cursor.rest()).ok_or(PayloadFault::Value)?;
        Ok(Self { time, name })
    }
}

impl OverwrittenRecord {
    pub(super) fn read(data: &[u8]) -> Result<Self, PayloadFault> {
        let mut cursor = Cursor::new(data);
        let overwritten = Self { lsn: Lsn(cursor.u64()?), time: PgTimestamp(cursor.i64()?) };
        finish(&cursor)?;
        Ok(overwritten)
    }
}

/// `CHECKPOINT_REDO` (17+) carries nothing but `wal_level`.
pub(super) fn read_checkpoint_redo(data: &[u8]) -> Result<WalLevel, PayloadFault> {
    let mut cursor = Cursor::new(data);
    let wal_level = WalLevel::read(&mut cursor)?;
    finish(&cursor)?;
    Ok(wal_level)
}

fn read_bool(cursor: &mut Cursor<'_>) -> Result<bool, PayloadFault> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(PayloadFault::Value),
    }
}

/// The bytes before the terminator; `None` if there is none.
pub(super) fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.get(..end)
}

/// A record's data must be used up.
pub(super) fn finish(cursor: &Cursor<'_>) -> Result<(), PayloadFault> {
    match cursor.rest().len() {
        0 => Ok(()),
        left => Err(PayloadFault::BytesLeft { left }),
    }
}
