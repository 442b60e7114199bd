//! Stopping the server of a restored cluster.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seawall_core::{Code, Error, Result, ResultExt, Ulid};
use tokio::time::sleep;

use super::{PAUSE, STARTED_FOR};
use crate::cluster::PostmasterFile;

/// How a server is stopped (`pmdie`, postmaster.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::restore) enum StopMode {
    /// Sessions end, and what is in memory is written.
    Fast,
    /// At once; the next start recovers.
    Immediate,
}

/// The server that runs in a directory, if one does. What `postmaster.pid` says alone may be of a
/// server that died, whose number another process has now.
#[must_use]
pub(in crate::restore) fn server_of(data_directory: &Path) -> Option<PostmasterFile> {
    let file = PostmasterFile::read(data_directory)?;
    // A server works in its data directory (ChangeToDataDir, miscinit.c).
    let works_in = fs::read_link(format!("/proc/{}/cwd", file.pid)).ok()?;
    (works_in == fs::canonicalize(data_directory).ok()?).then_some(file)
}

/// What runs in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::restore) enum RunningServer {
    /// Nothing.
    None,
    /// A server that was started for that restore.
    Started,
    /// A server that somebody else started.
    Foreign,
    /// Perhaps a server: its process cannot be looked at.
    Unknown,
}

impl RunningServer {
    /// Looks for the server of a directory that a restore of that id made.
    pub fn of(data_directory: &Path, restore_id: Ulid) -> Self {
        let Some(noted) = PostmasterFile::read(data_directory) else { return Self::None };
        let Some(server) = server_of(data_directory) else {
            // Else it is another process, which has the number of a server that died.
            let works_in = fs::read_link(format!("/proc/{}/cwd", noted.pid));
            return if works_in.is_ok() { Self::None } else { Self::Unknown };
        };
        let Ok(words) = fs::read(format!("/proc/{}/cmdline", server.pid)) else {
            return Self::Unknown;
        };
        let started_for = format!("{STARTED_FOR}={restore_id}");
        let is_started = words.split(|byte| *byte == 0).any(|word| word == started_for.as_bytes());
        if is_started { Self::Started } else { Self::Foreign }
    }
}

/// Stops the server of a directory, if one runs, and waits until it is gone.
///
/// # Errors
/// [`Code::RestoredServerFailed`] if it does not end in time.
pub(in crate::restore) async fn stop(
    data_directory: &Path,
    mode: StopMode,
    timeout: Duration,
) -> Result<()> {
    let Some(server) = server_of(data_directory) else { return Ok(()) };
    let signal = match mode {
        StopMode::Fast => Signal::SIGINT,
        StopMode::Immediate => Signal::SIGQUIT,
    };
    let shown = data_directory.display();
    let pid = i32::try_from(server.pid).code(Code::Internal, || "no process number".to_owned())?;
    kill(Pid::from_raw(pid), signal)
        .code(Code::RestoredServerFailed, || format!("cannot stop the server in {shown}"))?;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if server_of(data_directory).is_none_or(|now| now.pid != server.pid) {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    let seconds = timeout.as_secs();
    Err(Error::new(
        Code::RestoredServerFailed,
        format!("the server in {shown} did not stop within {seconds} s"),
    )
    .with_hint(format!("Stop it, then type this again: `pg_ctl stop -D {shown} -m immediate`.")))
}
