//! Memory: a program in a cgroup of its own, with a limit, and how much it took.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{Output, Running};
use crate::{Owner, process};

/// What a program took.
#[derive(Debug, Clone)]
pub struct MemoryUse {
    /// How it ended and what it printed.
    pub output: Output,
    /// The cgroup's peak in bytes. The page cache counts and fills whatever the limit leaves it.
    pub peak_bytes: u64,
    /// The peak in bytes of the program's own resident memory (`VmHWM`, proc(5)), files mapped
    /// by it included; its children do not count.
    pub peak_resident_bytes: u64,
    /// Whether the kernel killed something for want of memory.
    pub out_of_memory: bool,
}

/// Runs `wanted` in a fresh memory cgroup of at most `limit_bytes`, as `owner` if there is one,
/// else as the test's own user. Program, arguments and environment count; a user that `wanted`
/// itself was given does not.
///
/// # Errors
/// Cgroups are not to be had: not root, or not writable in this container. The program cannot be
/// started or does not end in time.
pub fn run_limited(
    wanted: &Command,
    owner: Option<&Owner>,
    limit_bytes: u64,
    timeout: Duration,
) -> Result<MemoryUse> {
    let cgroup = Cgroup::create(limit_bytes)?;
    let mut command = Command::new("/bin/sh");
    // The shell joins the cgroup as root and then becomes the program.
    let join = format!("echo $$ > '{}' && exec \"$@\"", cgroup.file("cgroup.procs").display());
    command.current_dir("/").args(["-c", &join, "sh"]);
    if let Some(owner) = owner.filter(|owner| owner.is_another_user()) {
        let ids = [format!("--reuid={}", owner.uid()), format!("--regid={}", owner.gid())];
        command.arg("setpriv").args(ids).arg("--clear-groups");
    }
    command.arg(wanted.get_program()).args(wanted.get_args());
    for (name, value) in wanted.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut running = Running::start(&mut command, None)?;
    let mut peak_resident_bytes = 0;
    let deadline = Instant::now() + timeout;
    while !running.has_ended()? && Instant::now() < deadline {
        peak_resident_bytes = resident_peak(running.pid()).unwrap_or(peak_resident_bytes);
        thread::sleep(Duration::from_millis(2));
    }
    let output = running.wait(Duration::ZERO)?;
    let (peak_bytes, out_of_memory) = (cgroup.peak_bytes()?, cgroup.ran_out()?);
    Ok(MemoryUse { output, peak_bytes, peak_resident_bytes, out_of_memory })
}

/// The high-water mark of a process's resident memory, in bytes.
fn resident_peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A memory cgroup, removed when dropped.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Cgroup {
    fn create(limit_bytes: u64) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let (parent, version) = parent()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("seawall-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        let cgroup = Self { path, version };
        let limit = cgroup.file(match version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        });
        fs::write(&limit, limit_bytes.to_string())
            .with_context(|| format!("write {}", limit.display()))?;
        Ok(cgroup)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn peak_bytes(&self) -> Result<u64> {
        let file = self.file(match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            // Since Linux 5.19.
            Version::V2 => "memory.peak",
        });
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(text.trim().parse()?)
    }

    fn ran_out(&self) -> Result<bool> {
        let text = fs::read_to_string(self.file(match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        }))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.is_some_and(|count| count.trim() != "0"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last process takes a moment to leave.
        let removed = || Ok(fs::remove_dir(&self.path).is_ok());
        if process::wait_until("cgroup empty", Duration::from_secs(2), removed).is_err() {
            eprintln!("could not remove cgroup {}", self.path.display());
        }
    }
}

/// The cgroup to make one in: the test's own under version 1, so that limits set from outside
/// stay in force; under version 2, where a cgroup with processes can have no limited children,
/// the nearest one above that hands out memory.
fn parent() -> Result<(PathBuf, Version)> {
    let membership = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
        if controllers.split(',').any(|controller| controller == "memory") {
            let mounted = mount_point(&mounts, "cgroup", Some("memory"));
            let mounted = mounted.context("the memory cgroup is not mounted")?;
            return Ok((mounted.join(own.trim_start_matches('/')), Version::V1));
        }
    }
    let mounted = mount_point(&mounts, "cgroup2", None).context("no cgroup is mounted")?;
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = mounted.join(own);
    for above in own.ancestors().skip(1).take_while(|path| path.starts_with(&mounted)) {
        let handed = fs::read_to_string(above.join("cgroup.subtree_control")).unwrap_or_default();
        if handed.split_whitespace().any(|controller| controller == "memory") {
            return Ok((above.to_owned(), Version::V2));
        }
    }
    bail!("no cgroup above {} hands out memory", own.display())
}

fn mount_point(mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, place, its_kind, options, ..] = fields.as_slice() else { return None };
        let has = |wanted| options.split(',').any(|option| option == wanted);
        (*its_kind == kind && option.is_none_or(has)).then(|| PathBuf::from(place))
    })
}
