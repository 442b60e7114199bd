//! Writes `backup_manifest`, so that `pg_verifybackup` can check a restored directory.

use std::io::{self, Write};

use jiff::Timestamp;
use seawall_core::{Lsn, SystemId, TimelineId};
use sha2::{Digest, Sha256};

use crate::PgMajor;

/// Which version of the manifest, and what only it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFormat {
    /// Version 1: PostgreSQL 13 to 16.
    V1,
    /// Version 2, 17 and later: it names the cluster.
    V2(SystemId),
}

impl ManifestFormat {
    /// The format of a major; `None` for 12, which has no manifests.
    #[must_use]
    pub const fn of(major: PgMajor, system_id: SystemId) -> Option<Self> {
        match major {
            PgMajor::V12 => None,
            PgMajor::V13 | PgMajor::V14 | PgMajor::V15 | PgMajor::V16 => Some(Self::V1),
            PgMajor::V17 | PgMajor::V18 => Some(Self::V2(system_id)),
        }
    }
}

/// A file of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestFile<'a> {
    /// The path relative to PGDATA, tablespaces as `pg_tblspc/<oid>/…`.
    pub path: &'a [u8],
    /// The size in bytes.
    pub size: u64,
    /// When the file was last changed; written in whole seconds.
    pub modified: Timestamp,
    /// The CRC-32C of all its bytes. Without one only the size can be verified.
    pub crc32c: Option<u32>,
}

/// WAL that must be replayed before the backup is consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline that wrote it.
    pub timeline: TimelineId,
    /// Its first byte.
    pub start: Lsn,
    /// The byte after its last.
    pub end: Lsn,
}

/// Writes a manifest as the files come (`backup_manifest.c`, 13–18). Nothing is kept in memory.
///
/// The bytes are those `BASE_BACKUP` would send. The writer is given small pieces: buffer it.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    out: Hashing<W>,
    has_files: bool,
}

impl<W: Write> ManifestWriter<W> {
    /// Writes the head.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, format: ManifestFormat) -> io::Result<Self> {
        let mut out = Hashing { out, hash: Sha256::new() };
        match format {
            ManifestFormat::V1 => writeln!(out, "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,")?,
            ManifestFormat::V2(system_id) => {
                writeln!(out, "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,")?;
                writeln!(out, "\"System-Identifier\": {system_id},")?;
            }
        }
        write!(out, "\"Files\": [")?;
        Ok(Self { out, has_files: false })
    }

    /// Adds a file. Each path must be added once.
    ///
    /// # Errors
    /// What `out` says.
    pub fn add_file(&mut self, file: &ManifestFile<'_>) -> io::Result<()> {
        let out = &mut self.out;
        out.write_all(if self.has_files { b",\n" } else { b"\n" })?;
        self.has_files = true;
        match std::str::from_utf8(file.path) {
            Ok(path) => write!(out, "{{ \"Path\": {}", serde_json::to_string(path)?)?,
            Err(_) => write!(out, "{{ \"Encoded-Path\": \"{}\"", hex::encode(file.path))?,
        }
        let modified = file.modified.strftime("%Y-%m-%d %H:%M:%S GMT");
        write!(out, ", \"Size\": {}, \"Last-Modified\": \"{modified}\"", file.size)?;
        if let Some(crc) = file.crc32c {
            // PostgreSQL shows the number's bytes as they lie in memory, the lowest first.
            let crc = hex::encode(crc.to_le_bytes());
            write!(out, ", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{crc}\"")?;
        }
        write!(out, " }}")
    }

    /// Writes the tail: the WAL to replay, newest timeline first, and the manifest's own SHA-256.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(self, wal_ranges: &[WalRange]) -> io::Result<W> {
        let mut out = self.out;
        write!(out, "\n],\n\"WAL-Ranges\": [\n")?;
        for (index, WalRange { timeline, start, end }) in wal_ranges.iter().enumerate() {
            out.write_all(if index == 0 { b"" } else { b",\n" })?;
            write!(
                out,
                "{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}"
            )?;
        }
        write!(out, "\n],\n")?;
        let Hashing { mut out, hash } = out;
        writeln!(out, "\"Manifest-Checksum\": \"{}\"}}", hex::encode(hash.finalize()))?;
        Ok(out)
    }
}

/// Passes bytes on and hashes them.
#[derive(Debug)]
struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
