use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use seawall_core::{Code, Error, Lsn, Result, SystemId};
use seawall_pgdata::PgMajor;
use seawall_pgdata::backup_manifest::{ManifestFile, ManifestFormat, ManifestWriter, WalRange};
use seawall_pgdata::control::{ControlFile, NO_CHECKPOINT};
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::manifest::{BackupInfo, Entry, EntryKind, ManifestReader};
use tokio::runtime::Handle;

use crate::restored::{Mode, RestoreState, TablespaceNote};

use super::external::{self, Placed};
use super::journal::Journal;
use super::settings::{append_settings, recovery_settings};
use crate::durable::{
    create_directory, create_file, local, publish, publish_file, sync_directory, sync_filesystems,
    unfinished,
};
use crate::stored::{Layout, Sources, inconsistent};

/// Directories that PostgreSQL wants and backups have empty.
const DIRECTORIES: [&str; 11] = [
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_wal",
    "pg_wal/archive_status",
];

/// What is left to do when all files of the backup are written.
pub(in crate::restore) struct Finishing<'f> {
    pub state: &'f RestoreState,
    pub major: PgMajor,
    pub sources: &'f Sources,
    pub manifest: &'f ManifestReader,
    pub layout: &'f Layout,
    pub tablespaces: &'f TablespaceMap,
    /// For each entry of the manifest the CRC-32C of its file, if that is known.
    pub checksums: &'f dyn Fn(u32) -> Option<u32>,
    /// Further directories on whose file systems something was written.
    pub also_synced: &'f [PathBuf],
    pub group_access: bool,
    pub restore_command: &'f OsStr,
}

impl Finishing<'_> {
    /// Makes a startable data directory of the files. `pg_control` comes last: until it is there
    /// PostgreSQL does not start. Returns what a person should know.
    pub fn run(&self, runtime: &Handle) -> Result<Vec<String>> {
        self.make_directories()?;
        self.link_tablespaces()?;
        let control = control_bytes(self.info())?;
        let placed = self.configure(runtime)?;
        self.write_label()?;
        let done = self.state.completed();
        self.write_manifest(runtime, &placed, &control, &done)?;
        let also_synced = self.also_synced.iter().map(PathBuf::as_path);
        sync_filesystems(self.layout.directories().chain(also_synced))?;
        Journal::remove(self.root())?;
        done.write(self.root(), self.file_mode())?;
        publish_control(self.root(), &control, self.file_mode())?;
        Ok(placed.notes)
    }

    fn root(&self) -> &Path {
        self.layout.root()
    }

    const fn info(&self) -> &BackupInfo {
        &self.manifest.commit.info
    }

    const fn file_mode(&self) -> u32 {
        if self.group_access { 0o640 } else { 0o600 }
    }

    const fn directory_mode(&self) -> u32 {
        if self.group_access { 0o750 } else { 0o700 }
    }

    fn make_directories(&self) -> Result<()> {
        let summaries = (self.major >= PgMajor::V17).then_some("pg_wal/summaries");
        for name in DIRECTORIES.into_iter().chain(summaries) {
            let path = self.root().join(name);
            if !path.is_dir() {
                create_directory(&path, self.directory_mode())?;
            }
        }
        Ok(())
    }

    /// PostgreSQL makes the links again from `tablespace_map`; tools that look before need them.
    fn link_tablespaces(&self) -> Result<()> {
        for (oid, place) in self.layout.tablespaces() {
            if !place.is_dir() {
                create_directory(place, self.directory_mode())?;
            }
            let link = self.root().join(format!("pg_tblspc/{oid}"));
            if fs::read_link(&link).is_ok_and(|target| target == place) {
                continue;
            }
            symlink(place, &link).map_err(|error| local(error, "linking", &link))?;
        }
        sync_directory(&self.root().join("pg_tblspc"))
    }

    /// Configuration files from elsewhere, recovery settings, and the file that asks for recovery.
    fn configure(&self, runtime: &Handle) -> Result<Placed> {
        let mode = self.file_mode();
        let (files, taken) = (&self.info().external_files, self.names_taken(runtime)?);
        let mut placed = external::place(files, self.root(), &taken, mode)?;
        external::tie_to(self.root(), mode, &mut placed)?;
        let mut settings = recovery_settings(&self.state.plan, self.restore_command)?;
        settings.append(&mut placed.settings);
        let path = self.root().join("postgresql.auto.conf");
        let old = match fs::read(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(local(error, "reading", &path)),
        };
        publish(&path, &append_settings(&old, &settings), mode)?;
        let signal = match self.state.mode() {
            Mode::Clone | Mode::Primary => "recovery.signal",
            Mode::Standby => "standby.signal",
        };
        publish(&self.root().join(signal), b"", mode)?;
        Ok(placed)
    }

    /// The names in the backup's data directory, where files of other places are to be put too.
    fn names_taken(&self, runtime: &Handle) -> Result<BTreeSet<Vec<u8>>> {
        let mut names: BTreeSet<Vec<u8>> =
            DIRECTORIES.iter().map(|name| name.as_bytes().to_vec()).collect();
        for page in 0..self.manifest.pages() {
            for entry in runtime.block_on(self.manifest.page(self.sources.store(), page))? {
                let first = entry.path().split(|byte| *byte == b'/').next().unwrap_or_default();
                if !names.contains(first) {
                    names.insert(first.to_vec());
                }
            }
        }
        Ok(names)
    }

    fn write_label(&self) -> Result<()> {
        let mode = self.file_mode();
        publish(&self.root().join("backup_label"), &self.info().backup_label, mode)?;
        if self.tablespaces.tablespaces().is_empty() {
            return Ok(());
        }
        publish(&self.root().join("tablespace_map"), &self.tablespaces.to_bytes(), mode)
    }

    /// Writes `backup_manifest`, so that `pg_verifybackup` can check what was written. 12 has none.
    fn write_manifest(
        &self,
        runtime: &Handle,
        placed: &Placed,
        control: &[u8],
        state: &RestoreState,
    ) -> Result<()> {
        let info = self.info();
        let Some(format) = ManifestFormat::of(self.major, info.system_id) else { return Ok(()) };
        let path = self.root().join("backup_manifest");
        let failed = |error| local(error, "writing", &path);
        let file = create_file(&unfinished(&path), self.file_mode())?;
        let out = BufWriter::new(file);
        let mut files =
            Files { out: ManifestWriter::new(out, format).map_err(failed)?, path: &path };
        let mut changed: BTreeMap<&[u8], &[u8]> =
            placed.files.iter().map(|(name, bytes)| (name.as_slice(), bytes.as_slice())).collect();
        let mut number = 0;
        for page in 0..self.manifest.pages() {
            for entry in runtime.block_on(self.manifest.page(self.sources.store(), page))? {
                match changed.remove(entry.path()) {
                    Some(bytes) => files.add_bytes(entry.path(), bytes)?,
                    None => files.add_entry(&entry, (self.checksums)(number))?,
                }
                number += 1;
            }
        }
        let (map, state) = (self.tablespaces.to_bytes(), state.to_bytes()?);
        let made: [(&[u8], &[u8]); 4] = [
            (b"backup_label", &info.backup_label),
            (b"tablespace_map", &map),
            (b"global/pg_control", control),
            (RESTORE_STATE_FILE.as_bytes(), &state),
        ];
        for (name, bytes) in changed.into_iter().chain(made) {
            if !bytes.is_empty() {
                files.add_bytes(name, bytes)?;
            }
        }
        for (oid, place) in self.layout.tablespaces() {
            let note = place.join(TablespaceNote::FILE_NAME);
            let bytes = fs::read(&note).map_err(|error| local(error, "reading", &note))?;
            let name = format!("pg_tblspc/{oid}/{}", TablespaceNote::FILE_NAME);
            files.add_bytes(name.as_bytes(), &bytes)?;
        }
        let mut out = files.out.finish(&self.wal_ranges()).map_err(failed)?;
        out.flush().map_err(failed)?;
        publish_file(out.get_ref(), &path)
    }

    /// The WAL from the backup's start to its stop, newest timeline first.
    fn wal_ranges(&self) -> Vec<WalRange> {
        let info = self.info();
        let end_of = |end: Option<Lsn>| end.unwrap_or(info.stop_lsn).min(info.stop_lsn);
        let path = self.state.plan.path.iter().rev();
        path.map(|span| WalRange {
            timeline: span.timeline,
            start: span.begin.max(info.start_lsn),
            end: end_of(span.end),
        })
        .filter(|range| range.start < range.end)
        .collect()
    }
}

/// Puts `pg_control` where it belongs: from here on PostgreSQL can start.
pub(super) fn publish_control(root: &Path, control: &[u8], mode: u32) -> Result<()> {
    publish(&root.join("global/pg_control"), control, mode)?;
    root.parent().map_or(Ok(()), sync_directory)
}

/// The stored `pg_control`, proven to be useless without its `backup_label`.
pub(super) fn control_bytes(info: &BackupInfo) -> Result<Vec<u8>> {
    let control = ControlFile::parse(&info.pg_control).map_err(|error| {
        inconsistent("the backup's pg_control cannot be used".to_owned()).with_source(error)
    })?;
    let sound = control.checkpoint == NO_CHECKPOINT && control.system_id == info.system_id;
    if sound {
        return Ok(info.pg_control.to_vec());
    }
    let SystemId(system_id) = control.system_id;
    Err(Error::new(
        Code::ObjectInconsistent,
        format!(
            "the backup's pg_control is of cluster {system_id} with a checkpoint at {}, which is not what Seawall stores",
            control.checkpoint
        ),
    ))
}

/// The list of files in a `backup_manifest`.
struct Files<'p> {
    out: ManifestWriter<BufWriter<fs::File>>,
    path: &'p Path,
}

impl Files<'_> {
    fn add_entry(&mut self, entry: &Entry, crc32c: Option<u32>) -> Result<()> {
        // PostgreSQL's tools do not look at this one, which is the server's to change.
        let own = entry.path() == b"postgresql.auto.conf";
        if entry.kind != EntryKind::File || !Layout::restores(entry.path()) || own {
            return Ok(());
        }
        let modified = entry.modified_us.and_then(|us| Timestamp::from_microsecond(us).ok());
        self.add(&ManifestFile {
            path: entry.path(),
            size: entry.size_bytes(),
            modified: modified.unwrap_or_default(),
            crc32c,
        })
    }

    fn add_bytes(&mut self, path: &[u8], bytes: &[u8]) -> Result<()> {
        self.add(&ManifestFile {
            path,
            size: bytes.len() as u64,
            modified: Timestamp::now(),
            crc32c: Some(crc32c::crc32c(bytes)),
        })
    }

    fn add(&mut self, file: &ManifestFile<'_>) -> Result<()> {
        self.out.add_file(file).map_err(|error| local(error, "writing", self.path))
    }
}
