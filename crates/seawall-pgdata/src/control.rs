//! `global/pg_control`: who a cluster is, where its last checkpoint is, and how it was built.

use jiff::Timestamp;
use seawall_core::{InvalidSegmentSize, Lsn, SystemId, TimelineId, WalSegmentSize};

use crate::page::PAGE_BYTES;
use crate::{Cursor, PgMajor, Truncated};

/// The size of the file in bytes (`PG_CONTROL_FILE_SIZE`). What follows the CRC is zero.
pub const CONTROL_FILE_BYTES: usize = 8192;

/// The checkpoint [`invalidate_checkpoint`] writes.
///
/// It must look like the position of a record, or PostgreSQL refuses the file even when a
/// `backup_label` replaces the checkpoint (`StartupXLOG`, "control file contains invalid checkpoint
/// location"). And no WAL may be there: it lies in segment 0, which no cluster ever writes, since
/// `initdb` begins with segment 1 (`BootStrapXLOG`).
pub const NO_CHECKPOINT: Lsn = Lsn(0xDEAD);

/// Where `checkPoint` stands; the same from 12 to 18.
const CHECKPOINT_OFFSET: usize = 32;

/// What the database was doing when it last wrote the file (`DBState`, pg_control.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbState {
    /// `DB_STARTUP`.
    Startup,
    /// `DB_SHUTDOWNED`: shut down cleanly.
    ShutDown,
    /// `DB_SHUTDOWNED_IN_RECOVERY`: a standby shut down cleanly.
    ShutDownInRecovery,
    /// `DB_SHUTDOWNING`.
    ShuttingDown,
    /// `DB_IN_CRASH_RECOVERY`.
    InCrashRecovery,
    /// `DB_IN_ARCHIVE_RECOVERY`: a standby, or a restore still replaying.
    InArchiveRecovery,
    /// `DB_IN_PRODUCTION`.
    InProduction,
}

/// How much is written to WAL (`WalLevel`, xlog.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Not enough to restore a backup.
    Minimal,
    /// Enough for archiving and standbys.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

/// What `pg_control` says (`ControlFileData`, pg_control.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The number every copy of this cluster carries.
    pub system_id: SystemId,
    /// The major both version numbers belong to.
    pub major: PgMajor,
    /// `pg_control_version`.
    pub control_version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// What the database was doing.
    pub state: DbState,
    /// When the file was last written, by the server's clock, in whole seconds.
    pub time: Timestamp,
    /// Where the last checkpoint's record starts.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint starts.
    pub redo: Lsn,
    /// The timeline the checkpoint is on.
    pub checkpoint_timeline: TimelineId,
    /// The timeline before it, if the checkpoint began a new one; else the same.
    pub previous_timeline: TimelineId,
    /// The next transaction id, its epoch in the upper half (`FullTransactionId`).
    pub next_full_xid: u64,
    /// A standby is consistent from here on; invalid if no recovery is going on.
    pub min_recovery_point: Lsn,
    /// The timeline of `min_recovery_point`; `None` if it is invalid.
    pub min_recovery_timeline: Option<TimelineId>,
    /// The start of the backup being recovered; invalid if none is.
    pub backup_start_point: Lsn,
    /// The end of a backup that was taken from a standby; invalid if there is none.
    pub backup_end_point: Lsn,
    /// Whether recovery must reach a backup's end record.
    pub backup_end_required: bool,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `max_connections`. A standby must not have less, nor of the four below.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_xacts: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_xact: u32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// Bytes per data page; always [`PAGE_BYTES`], anything else is refused.
    pub block_size: u32,
    /// Blocks per segment file of a relation.
    pub relseg_size: u32,
    /// Bytes per WAL page; always 8192, anything else is refused.
    pub wal_block_size: u32,
    /// Bytes per WAL segment file.
    pub wal_segment_size: WalSegmentSize,
    /// Version of the data page checksums; zero if they are off.
    pub data_checksum_version: u32,
}

/// Why the bytes are not a `pg_control` this crate can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The file ends early.
    #[error("pg_control is {0}")]
    Truncated(#[from] Truncated),
    /// Written on a machine of the other byte order.
    #[error("pg_control has the other byte order (its version reads {0})")]
    ByteOrder(u32),
    /// A major this crate does not know, or a pre-release of one.
    #[error(
        "pg_control version {control_version} with catalog version {catalog_version} \
         belongs to no known PostgreSQL release"
    )]
    UnknownVersion {
        /// `pg_control_version`.
        control_version: u32,
        /// `catalog_version_no`.
        catalog_version: u32,
    },
    /// Damaged, or read while the server wrote it: read it again.
    #[error("pg_control has CRC {stored:08X}, but {computed:08X} was computed")]
    CrcMismatch {
        /// The one in the file.
        stored: u32,
        /// The one of its bytes.
        computed: u32,
    },
    /// A field holds a number PostgreSQL does not define.
    #[error("pg_control field {field} has the unknown value {value}")]
    InvalidField {
        /// PostgreSQL's name of the field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// Built with other page sizes, or for another kind of machine.
    #[error("the cluster was built with {field} {value}, not {expected}")]
    UnsupportedBuild {
        /// PostgreSQL's name of the field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What this crate can read.
        expected: u32,
    },
    /// No WAL segment has this size.
    #[error("pg_control is not valid: {0}")]
    WalSegmentSize(InvalidSegmentSize),
}

impl ControlFile {
    /// Reads the file. Only its first 296 bytes are needed.
    ///
    /// # Errors
    /// [`ControlError`]. Version numbers are read first, because they say where the CRC is; nothing
    /// else is looked at before the CRC is right.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let (control_version, catalog_version) = verify_crc(bytes)?;
        let major = PgMajor::from_control(control_version, catalog_version)
            .ok_or(ControlError::UnknownVersion { control_version, catalog_version })?;
        let fields = Fields { bytes };
        check_build(&fields)?;
        let min_recovery_timeline = fields.u32(144)?;
        Ok(Self {
            system_id: SystemId(fields.u64(0)?),
            major,
            control_version,
            catalog_version,
            state: db_state(fields.u32(16)?)?,
            time: fields.time(24)?,
            checkpoint: fields.lsn(CHECKPOINT_OFFSET)?,
            redo: fields.lsn(40)?,
            checkpoint_timeline: TimelineId(fields.u32(48)?),
            previous_timeline: TimelineId(fields.u32(52)?),
            next_full_xid: fields.u64(64)?,
            min_recovery_point: fields.lsn(136)?,
            min_recovery_timeline: (min_recovery_timeline != 0)
                .then_some(TimelineId(min_recovery_timeline)),
            backup_start_point: fields.lsn(152)?,
            backup_end_point: fields.lsn(160)?,
            backup_end_required: fields.bool(168)?,
            wal_level: wal_level(fields.u32(172)?)?,
            wal_log_hints: fields.bool(176)?,
            max_connections: fields.u32(180)?,
            max_worker_processes: fields.u32(184)?,
            max_wal_senders: fields.u32(188)?,
            max_prepared_xacts: fields.u32(192)?,
            max_locks_per_xact: fields.u32(196)?,
            track_commit_timestamp: fields.bool(200)?,
            block_size: fields.u32(216)?,
            relseg_size: fields.u32(220)?,
            wal_block_size: fields.u32(224)?,
            wal_segment_size: WalSegmentSize::new(fields.u32(228)?)
                .map_err(ControlError::WalSegmentSize)?,
            data_checksum_version: fields.u32(252)?,
        })
    }

    /// Whether data pages carry checksums.
    #[must_use]
    pub const fn data_checksums_enabled(&self) -> bool {
        self.data_checksum_version != 0
    }
}

/// Makes a stored copy of `pg_control` useless without its `backup_label`.
///
/// `checkPoint` becomes [`NO_CHECKPOINT`] and the CRC is made right again; nothing else changes.
/// With a `backup_label` PostgreSQL takes the checkpoint from there and starts as ever. Without
/// one it would start from the wrong checkpoint and lose data silently; now it stops with
/// "could not locate a valid checkpoint record".
///
/// # Errors
/// As [`ControlFile::parse`]; the bytes are then unchanged.
pub fn invalidate_checkpoint(bytes: &mut [u8]) -> Result<(), ControlError> {
    let control = ControlFile::parse(bytes)?;
    let crc_offset = crc_offset(control.major);
    overwrite(bytes, CHECKPOINT_OFFSET, &NO_CHECKPOINT.0.to_le_bytes());
    let crc = crc32c::crc32c(bytes.get(..crc_offset).unwrap_or_default());
    overwrite(bytes, crc_offset, &crc.to_le_bytes());
    Ok(())
}

fn overwrite(bytes: &mut [u8], offset: usize, new: &[u8]) {
    for (old, new) in bytes.iter_mut().skip(offset).zip(new) {
        *old = *new;
    }
}

/// Where the CRC stands: 18 added `default_char_signedness` before it.
const fn crc_offset(major: PgMajor) -> usize {
    match major {
        PgMajor::V12 | PgMajor::V13 | PgMajor::V14 | PgMajor::V15 | PgMajor::V16 | PgMajor::V17 => {
            288
        }
        PgMajor::V18 => 292,
    }
}

/// Checks byte order and CRC, and returns control and catalog version.
fn verify_crc(bytes: &[u8]) -> Result<(u32, u32), ControlError> {
    let fields = Fields { bytes };
    let (control_version, catalog_version) = (fields.u32(8)?, fields.u32(12)?);
    let layout_of = |version| PgMajor::ALL.into_iter().find(|it| it.control_version() == version);
    let Some(layout) = layout_of(control_version) else {
        return Err(if layout_of(control_version.swap_bytes()).is_some() {
            ControlError::ByteOrder(control_version)
        } else {
            ControlError::UnknownVersion { control_version, catalog_version }
        });
    };
    let crc_offset = crc_offset(layout);
    let stored = fields.u32(crc_offset)?;
    let computed = crc32c::crc32c(bytes.get(..crc_offset).unwrap_or_default());
    if stored == computed {
        Ok((control_version, catalog_version))
    } else {
        Err(ControlError::CrcMismatch { stored, computed })
    }
}

/// [`PAGE_BYTES`], as the field has it.
const BLCKSZ: u32 = 8192;
const _: () = assert!(BLCKSZ as usize == PAGE_BYTES);

/// The checks PostgreSQL makes of how a cluster was built (`ReadControlFile`, xlog.c).
fn check_build(fields: &Fields<'_>) -> Result<(), ControlError> {
    for (field, offset, expected) in
        [("maxAlign", 204, 8), ("blcksz", 216, BLCKSZ), ("xlog_blcksz", 224, 8192)]
    {
        let value = fields.u32(offset)?;
        if value != expected {
            let value = value.to_string();
            return Err(ControlError::UnsupportedBuild { field, value, expected });
        }
    }
    let float = f64::from_bits(fields.u64(208)?);
    if float.to_bits() != 1_234_567.0_f64.to_bits() {
        let (value, expected) = (float.to_string(), 1_234_567);
        return Err(ControlError::UnsupportedBuild { field: "floatFormat", value, expected });
    }
    Ok(())
}

fn db_state(value: u32) -> Result<DbState, ControlError> {
    Ok(match value {
        0 => DbState::Startup,
        1 => DbState::ShutDown,
        2 => DbState::ShutDownInRecovery,
        3 => DbState::ShuttingDown,
        4 => DbState::InCrashRecovery,
        5 => DbState::InArchiveRecovery,
        6 => DbState::InProduction,
        _ => return Err(ControlError::InvalidField { field: "state", value: value.into() }),
    })
}

fn wal_level(value: u32) -> Result<WalLevel, ControlError> {
    Ok(match value {
        0 => WalLevel::Minimal,
        1 => WalLevel::Replica,
        2 => WalLevel::Logical,
        _ => return Err(ControlError::InvalidField { field: "wal_level", value: value.into() }),
    })
}

/// Reads values at the places `ControlFileData` has them.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N], Truncated> {
        let rest = self.bytes.get(offset..).unwrap_or_default();
        Cursor::new(rest).array().map_err(|error| Truncated { offset, ..error })
    }

    fn u32(&self, offset: usize) -> Result<u32, Truncated> {
        self.array(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, Truncated> {
        self.array(offset).map(u64::from_le_bytes)
    }

    fn lsn(&self, offset: usize) -> Result<Lsn, Truncated> {
        self.u64(offset).map(Lsn)
    }

    fn bool(&self, offset: usize) -> Result<bool, Truncated> {
        self.array(offset).map(|[byte]| byte != 0)
    }

    fn time(&self, offset: usize) -> Result<Timestamp, ControlError> {
        let value = self.array(offset).map(i64::from_le_bytes)?;
        Timestamp::from_second(value)
            .map_err(|_| ControlError::InvalidField { field: "time", value })
    }
}
