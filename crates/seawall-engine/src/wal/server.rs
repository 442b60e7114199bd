//! Who asks for WAL.

use std::path::Path;

use seawall_pgdata::control::ControlFile;

use crate::cluster::{PostmasterFile, read_control};

/// The server that recovers, as its data directory tells.
#[derive(Debug, Clone)]
pub struct RecoveringServer {
    /// Its `pg_control`, if it can be read.
    pub(super) control: Option<ControlFile>,
    /// Whether it may still have to choose its timeline. It takes the newest it finds archived as
    /// it starts, before `postmaster.pid` says that it can be read or, without hot standby, that it
    /// recovers (`validateRecoveryParameters`, `process_pm_pmsignal`; 12–18). Later it changes to
    /// none but children of its own.
    pub is_starting: bool,
}

impl RecoveringServer {
    /// The server that wants a file there: in `PGDATA/pg_wal`.
    #[must_use]
    pub fn at(destination: &Path) -> Self {
        let data_directory = destination.parent().and_then(Path::parent);
        let control = data_directory.and_then(|directory| read_control(directory).ok());
        let running = data_directory.and_then(PostmasterFile::read);
        let chosen =
            running.is_some_and(|file| matches!(file.status.as_str(), "ready" | "standby"));
        Self { control, is_starting: !chosen }
    }
}
