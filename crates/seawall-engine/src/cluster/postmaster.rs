//! The note that a running server keeps in its data directory.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// What `postmaster.pid` of a live server says (pidfile.h, 12–18).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostmasterFile {
    /// Its process.
    pub pid: u32,
    /// When it was started, in seconds since 1970; zero if it does not say.
    pub started: u64,
    /// Where it listens; zero if it does not say yet.
    pub port: u16,
    /// Its first socket directory; empty if it has none.
    pub socket_directory: PathBuf,
    /// `ready`, `standby` and others.
    pub status: String,
}

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The directory of its Unix socket; empty if it has none.
    pub socket_directory: PathBuf,
    /// Its port.
    pub port: u16,
}

impl PostmasterFile {
    /// `None` if no server runs in the directory.
    #[must_use]
    pub fn read(data_directory: &Path) -> Option<Self> {
        let bytes = fs::read(data_directory.join("postmaster.pid")).ok()?;
        let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        // A stand-alone backend writes its number negated (CreateLockFile, miscinit.c).
        let pid = number::<i32>(lines.next()?)?.saturating_abs();
        let is_gone = matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH));
        if pid == 0 || is_gone || is_zombie(pid) {
            return None;
        }
        // the data directory is between
        let started = lines.nth(1).and_then(number).unwrap_or_default();
        let port = lines.next().and_then(number).unwrap_or_default();
        let socket_directory = OsStr::from_bytes(lines.next().unwrap_or_default()).into();
        let status = String::from_utf8_lossy(lines.nth(2).unwrap_or_default()).into_owned();
        Some(Self { pid: pid.unsigned_abs(), started, port, socket_directory, status })
    }

    /// Where it is reached.
    #[must_use]
    pub fn listening(&self) -> Listening {
        Listening { socket_directory: self.socket_directory.clone(), port: self.port }
    }
}

/// A process of a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerProcess {
    /// Its number here.
    pub pid: u32,
    /// A link to its data directory, which every server works in (`ChangeToDataDir`, miscinit.c).
    pub works_in: PathBuf,
}

impl ServerProcess {
    /// Those that can be looked at, in whatever namespace they are.
    pub fn all() -> Vec<Self> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let named = numbers.filter(|pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.contains("postgres") || name.contains("postmaster")
        });
        named.map(|pid| Self { pid, works_in: format!("/proc/{pid}/cwd").into() }).collect()
    }

    /// Whether a directory of it, relative to its data directory, is this one by whatever name.
    pub fn has(&self, below: &Path, directory: &Path) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        match (identity(&self.works_in.join(below)), identity(directory)) {
            (Ok(its), Ok(this)) => its == this,
            _ => false,
        }
    }
}

/// Whether a process has ended and nobody has asked how: in a container, the first process may
/// never do so (proc(5): the state follows the command in parentheses).
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

fn number<T: FromStr>(line: &[u8]) -> Option<T> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_server_is_told_from_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: String| {
            fs::write(dir.path().join("postmaster.pid"), text).unwrap();
            PostmasterFile::read(dir.path())
        };
        assert_eq!(PostmasterFile::read(dir.path()), None);
        let pid = std::process::id();
        let told = read(format!("{pid}\n/data\n1700000000\n5433\n/run/pg\n*\n 1 2\nready   \n"));
        let socket_directory = PathBuf::from("/run/pg");
        let (started, status) = (1_700_000_000, "ready".to_owned());
        let ready = PostmasterFile { pid, started, port: 5433, socket_directory, status };
        assert_eq!(told, Some(ready));
        // Its paths are bytes.
        let note =
            [pid.to_string().as_bytes(), b"\n/caf\xe9\n1700000000\n5433\n/run/\xe9\n"].concat();
        fs::write(dir.path().join("postmaster.pid"), note).unwrap();
        let told = PostmasterFile::read(dir.path()).expect("it lives");
        assert_eq!(told.socket_directory.as_os_str().as_bytes(), b"/run/\xe9");
        assert_eq!(
            read(format!("-{pid}\n/data\n")),
            Some(PostmasterFile { pid, ..PostmasterFile::default() })
        );
        for dead in ["2147483646\n/data\n", "0\n", "no number\n", ""] {
            assert_eq!(read(dead.to_owned()), None, "{dead}");
        }
    }

    #[test]
    fn a_server_that_nobody_buried_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        fs::write(dir.path().join("postmaster.pid"), format!("{pid}\n/data\n")).unwrap();
        while !is_zombie(pid.cast_signed()) {
            std::thread::yield_now();
        }
        assert_eq!(PostmasterFile::read(dir.path()), None);
        child.wait().unwrap();
    }
}
