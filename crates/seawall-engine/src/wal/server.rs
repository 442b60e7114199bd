//! Who asks for WAL.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use seawall_core::TimelineId;
use seawall_pgdata::control::{ControlFile, DbState};

use crate::cluster::{PostmasterFile, read_control};

/// The files that ask for recovery. PostgreSQL reads them as it starts, and removes them when
/// recovery ends.
pub(super) const STANDBY_SIGNAL: &str = "standby.signal";
pub(super) const RECOVERY_SIGNAL: &str = "recovery.signal";

/// A promotion was asked for, and the startup process has not seen it yet (`CheckPromoteSignal`,
/// 12–18).
const PROMOTE_SIGNAL: &str = "promote";

/// The server that recovers, as its data directory tells.
#[derive(Debug, Clone)]
pub struct RecoveringServer {
    /// Its data directory; may be relative.
    pub(super) data_directory: PathBuf,
    /// Its `pg_control`, if it can be read.
    pub(super) control: Option<ControlFile>,
    /// What its `postmaster.pid` says; `None` if it does not run.
    pub(super) running: Option<PostmasterFile>,
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
        let data_directory = data_directory.filter(|path| !path.as_os_str().is_empty());
        Self::of(data_directory.unwrap_or(Path::new(".")))
    }

    /// The server of a data directory.
    pub(super) fn of(data_directory: &Path) -> Self {
        let control = read_control(data_directory).ok();
        let running = PostmasterFile::read(data_directory);
        let chosen =
            running.as_ref().is_some_and(|it| matches!(it.status.as_str(), "ready" | "standby"));
        let data_directory = data_directory.to_owned();
        Self { data_directory, control, running, is_starting: !chosen }
    }

    /// Whether recovery is past the point where it can be begun again: PostgreSQL has removed its
    /// signal files, and has not noted yet that it takes writes. What it asks for now is the
    /// history of the timeline it comes from (`writeTimeLineHistory`; seen on 12–18).
    pub(super) fn is_ending(&self) -> bool {
        let recovers =
            self.control.as_ref().is_some_and(|it| it.state == DbState::InArchiveRecovery);
        self.running.is_some() && recovers && !self.is_asked_to_recover()
    }

    fn is_asked_to_recover(&self) -> bool {
        [STANDBY_SIGNAL, RECOVERY_SIGNAL].iter().any(|name| self.data_directory.join(name).exists())
    }

    /// Whether somebody asked for its promotion, as far as can be seen.
    pub(super) fn is_to_be_promoted(&self) -> bool {
        self.data_directory.join(PROMOTE_SIGNAL).exists()
    }

    /// The newest timeline it is known to have been on.
    pub(super) fn timeline(&self) -> Option<TimelineId> {
        let control = self.control.as_ref()?;
        control.min_recovery_timeline.max(Some(control.checkpoint_timeline))
    }

    /// Whether it has another way to its WAL than the archive: `primary_conninfo`. One that cannot
    /// be asked has none.
    pub(super) fn streams(&self) -> bool {
        let value = self.setting("primary_conninfo");
        value.is_some_and(|value| !value.trim_ascii().is_empty())
    }

    /// What a server of this program, started with these words, takes a setting for.
    fn setting(&self, name: &str) -> Option<Vec<u8>> {
        let pid = self.running.as_ref()?.pid;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = words.strip_suffix(b"\0").unwrap_or(&words).split(|byte| *byte == 0).skip(1);
        let output = Command::new(program)
            .args(words.map(std::ffi::OsStr::from_bytes))
            .arg("-D")
            .arg(&self.data_directory)
            .args(["-C", name])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then_some(output.stdout)
    }
}
