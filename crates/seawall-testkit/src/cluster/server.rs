use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::wait_until;

/// How to stop a server (`pg_ctl stop -m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for clients to leave.
    Smart,
    /// Ends sessions and writes a shutdown checkpoint.
    Fast,
    /// Leaves at once; the next start recovers.
    Immediate,
}

/// A running postmaster, a child of the test: a test killed with its process group takes it
/// along.
#[derive(Debug)]
pub(super) struct Server {
    postmaster: Child,
}

impl Server {
    pub fn spawn(command: &mut Command, log_file: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log_file)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let postmaster = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { postmaster })
    }

    pub fn pid(&self) -> u32 {
        self.postmaster.id()
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.postmaster.try_wait()?.is_some())
    }

    /// Asks `postmaster.pid`, whose eighth line is the state (`PM_STATUS_READY`, pidfile.h):
    /// that needs neither a client program nor a connection slot.
    pub fn wait_ready(&mut self, data_directory: &Path, timeout: Duration) -> Result<()> {
        let pid_file = data_directory.join("postmaster.pid");
        wait_until("server ready", timeout, || {
            if let Some(status) = self.postmaster.try_wait()? {
                bail!("the server ended: {status}");
            }
            // It has paths, which need not be UTF-8.
            let bytes = fs::read(&pid_file).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let mut lines = text.lines();
            // The file may still be that of a server killed before this one.
            let ours = lines.next().is_some_and(|pid| pid == self.pid().to_string());
            Ok(ours && matches!(lines.nth(6).map(str::trim), Some("ready" | "standby")))
        })
    }

    pub fn wait_ended(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until("server end", timeout, || {
            status = self.postmaster.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("the server has no status")
    }

    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let signal = match mode {
            StopMode::Smart => Signal::SIGTERM,
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        };
        if !self.has_ended()? {
            kill(self.postmaster_pid()?, signal)?;
        }
        self.wait_ended(Duration::from_secs(60)).map(drop)
    }

    pub fn kill9(&mut self) -> Result<()> {
        if self.has_ended()? {
            bail!("the server had ended before it could be killed");
        }
        // Stopped first, so that no backend is born between the listing and the killing.
        kill(self.postmaster_pid()?, Signal::SIGSTOP)?;
        let children = children_of(self.pid())?;
        self.postmaster.kill()?;
        for child in &children {
            // One that has just ended by itself is as dead as intended.
            kill(*child, Signal::SIGKILL).ok();
        }
        self.postmaster.wait()?;
        let limit = Duration::from_secs(30);
        wait_until("end of all backends", limit, || Ok(!children.iter().any(|pid| is_alive(*pid))))
    }

    fn postmaster_pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(self.pid().try_into()?))
    }
}

/// State and parent of a process, from `/proc/PID/stat` (proc(5)): the two fields after the
/// command in parentheses, which may itself hold any character.
fn state_and_parent(pid: Pid) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_alive(pid: Pid) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

fn children_of(parent: u32) -> Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
            continue;
        };
        if state_and_parent(pid).is_some_and(|(_, its_parent)| its_parent == parent) {
            children.push(pid);
        }
    }
    Ok(children)
}
