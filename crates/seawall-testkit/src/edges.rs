//! Killing a program exactly before one of the calls by which it makes something durable or
//! visible.
//!
//! Every system call of the program is stopped at (ptrace(2)) and those that matter are named by
//! what they touch. `strace --inject` cannot do this: it counts the calls of each thread, and the
//! calls here wander between threads.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{Write, pipe};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::{Output, Owner, TestDir};

/// A call after which the world, or what a crash leaves of it, is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The call, as section 2 of the manual names it.
    pub call: &'static str,
    /// What it is about: the directory an object is in, such as `pack`, or a file.
    pub place: String,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.place)
    }
}

/// Where to kill: before the `occurrence`th of equal edges, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The call.
    pub edge: Edge,
    /// Its place among equals.
    pub occurrence: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "before {} #{}", self.edge, self.occurrence)
    }
}

/// What a traced program did.
#[derive(Debug)]
pub struct Traced {
    /// Its edges, in order.
    pub edges: Vec<Edge>,
    /// How it ended, and what it printed.
    pub output: Output,
}

impl Traced {
    /// Whether it was killed at its cut. One that never came there ended by itself.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.output.signal() == Some(Signal::SIGKILL as i32)
    }

    /// The cut before each edge.
    #[must_use]
    pub fn cuts(&self) -> Vec<Cut> {
        let mut seen: HashMap<&Edge, usize> = HashMap::new();
        let cut = |edge| {
            let count = seen.entry(edge).or_default();
            let occurrence = *count;
            *count += 1;
            Cut { edge: edge.clone(), occurrence }
        };
        self.edges.iter().map(cut).collect()
    }
}

/// Says what a path is to the test; calls on paths it has no name for do not count.
pub type Naming = Box<dyn Fn(&Path) -> Option<String> + Send>;

/// Runs a program as `owner` under watch, and kills it at the cut if there is one.
///
/// # Errors
/// The program cannot be started or watched.
pub fn run(owner: Owner, line: Vec<OsString>, naming: Naming, cut: Option<Cut>) -> Result<Traced> {
    // In a thread of its own: who traces must be who starts, and wait for nothing else.
    let tracer = thread::spawn(move || trace(&owner, &line, &naming, cut.as_ref()));
    tracer.join().map_err(|_| anyhow!("the tracer panicked"))?
}

fn trace(owner: &Owner, line: &[OsString], naming: &Naming, cut: Option<&Cut>) -> Result<Traced> {
    let directory = TestDir::new()?;
    let (mut started, streams) = start_waiting(owner, line, &directory)?;
    let leader = started.pid;
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).context("ptrace is not permitted")?;
    ptrace::interrupt(leader)?;
    started.go.write_all(b"\n")?;
    drop(started.go);

    let mut watch = Watch { leader, naming, cut, edges: Vec::new(), seen: 0, began: false };
    let status = watch.until_the_end()?;
    let text = |path: &Path| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    let [stdout, stderr] = streams;
    let output = Output { status, stdout: text(&stdout)?, stderr: text(&stderr)? };
    Ok(Traced { edges: watch.edges, output })
}

struct Started {
    pid: Pid,
    /// Written to when the program may begin.
    go: std::io::PipeWriter,
}

/// Starts a shell that waits for a line and then becomes the program. What it prints goes to
/// files: a pipe would be emptied by a thread, and here one thread does everything.
fn start_waiting(
    owner: &Owner,
    line: &[OsString],
    directory: &TestDir,
) -> Result<(Started, [PathBuf; 2])> {
    let streams = [directory.join("stdout"), directory.join("stderr")];
    let (reader, go) = pipe()?;
    let mut command = owner.command("/bin/sh");
    command.args(["-c", "read go; exec \"$@\" </dev/null", "sh"]).args(line);
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("SEAWALL_") || text.starts_with("PG") {
            command.env_remove(variable);
        }
    }
    let [stdout, stderr] = &streams;
    command.stdin(reader).stdout(File::create(stdout)?).stderr(File::create(stderr)?);
    let child = command.spawn().with_context(|| format!("start {command:?}"))?;
    Ok((Started { pid: Pid::from_raw(child.id().try_into()?), go }, streams))
}

/// A program being watched.
struct Watch<'w> {
    leader: Pid,
    naming: &'w Naming,
    cut: Option<&'w Cut>,
    edges: Vec<Edge>,
    /// How many edges equal to the cut's have passed.
    seen: usize,
    /// Whether the shell has become the program.
    began: bool,
}

impl Watch<'_> {
    fn until_the_end(&mut self) -> Result<ExitStatus> {
        let mut ended = None;
        loop {
            // Threads too (`__WALL`), and only of this thread: servers of the test are children
            // of others.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let event = match waitpid(Pid::from_raw(-1), Some(flags)) {
                Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) => continue,
                event => event?,
            };
            match event {
                WaitStatus::Exited(pid, code) if pid == self.leader => {
                    ended = Some(ExitStatus::from_raw(code << 8));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.leader => {
                    ended = Some(ExitStatus::from_raw(signal as i32));
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.at_system_call(pid)?;
                    go_on(pid, None)?;
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    self.began |= event == ptrace::Event::PTRACE_EVENT_EXEC as i32;
                    go_on(pid, None)?;
                }
                WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal))?,
                _ => {}
            }
        }
        ended.context("the program's end went unnoticed")
    }

    fn at_system_call(&mut self, pid: Pid) -> Result<()> {
        if !self.began || !is_entry(pid) {
            return Ok(());
        }
        // A thread may be killed by its siblings' end at any moment.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/syscall")) else { return Ok(()) };
        let Some(edge) = edge_of(pid, &text, self.naming) else { return Ok(()) };
        if self.cut.is_some_and(|cut| cut.edge == edge) {
            if self.cut.is_some_and(|cut| cut.occurrence == self.seen) {
                // The call is not made: a task with SIGKILL pending does not enter it. A child
                // that makes it goes with the program.
                kill(pid, Signal::SIGKILL)?;
                kill(self.leader, Signal::SIGKILL)?;
            }
            self.seen += 1;
        }
        self.edges.push(edge);
        Ok(())
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A system call stops twice; `PTRACE_SYSCALL_INFO_ENTRY` is 1 (linux/ptrace.h).
fn is_entry(pid: Pid) -> bool {
    ptrace::syscall_info(pid).is_ok_and(|info| info.op == 1)
}

/// What a call's arguments say it is about.
enum About {
    /// The file of a descriptor.
    Descriptor(usize),
    /// A path relative to a directory's descriptor: positions of both.
    At(usize, usize),
    /// A path.
    Path(usize),
}

/// The calls that count.
fn known(number: libc::c_long) -> Option<(&'static str, About)> {
    #[cfg(target_arch = "x86_64")]
    match number {
        libc::SYS_rename => return Some(("rename", About::Path(1))),
        libc::SYS_link => return Some(("link", About::Path(1))),
        libc::SYS_unlink => return Some(("unlink", About::Path(0))),
        libc::SYS_mkdir => return Some(("mkdir", About::Path(0))),
        libc::SYS_symlink => return Some(("symlink", About::Path(1))),
        _ => {}
    }
    Some(match number {
        libc::SYS_fsync => ("fsync", About::Descriptor(0)),
        libc::SYS_fdatasync => ("fdatasync", About::Descriptor(0)),
        libc::SYS_syncfs => ("syncfs", About::Descriptor(0)),
        libc::SYS_renameat => ("rename", About::At(2, 3)),
        libc::SYS_renameat2 => ("rename", About::At(2, 3)),
        libc::SYS_linkat => ("link", About::At(2, 3)),
        libc::SYS_symlinkat => ("symlink", About::At(1, 2)),
        libc::SYS_unlinkat => ("unlink", About::At(0, 1)),
        libc::SYS_mkdirat => ("mkdir", About::At(0, 1)),
        _ => return None,
    })
}

/// `text` is `/proc/PID/syscall`: number and arguments, the latter hexadecimal.
fn edge_of(pid: Pid, text: &str, naming: &Naming) -> Option<Edge> {
    let mut words = text.split_whitespace();
    let (call, about) = known(words.next()?.parse().ok()?)?;
    let arguments: Vec<u64> = words
        .map_while(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
        .collect();
    let descriptor = |at: usize| -> Option<PathBuf> {
        // Lower half: descriptors are ints.
        let number = *arguments.get(at)? as u32 as i32;
        let link = if number == libc::AT_FDCWD { "cwd".into() } else { format!("fd/{number}") };
        fs::read_link(format!("/proc/{pid}/{link}")).ok()
    };
    let path = match about {
        About::Descriptor(at) => descriptor(at)?,
        About::At(directory, path) => {
            descriptor(directory)?.join(read_path(pid, *arguments.get(path)?)?)
        }
        About::Path(at) => {
            let working = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            working.join(read_path(pid, *arguments.get(at)?)?)
        }
    };
    naming(&path).map(|place| Edge { call, place })
}

/// A path in the program's memory.
fn read_path(pid: Pid, address: u64) -> Option<PathBuf> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut text = Vec::new();
    while text.len() < libc::PATH_MAX as usize {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, address + text.len() as u64).ok()?;
        if byte == [0] {
            return Some(String::from_utf8_lossy(&text).into_owned().into());
        }
        text.push(byte[0]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &TestDir, cut: Option<Cut>) -> Result<Traced> {
        let root = directory.path().to_owned();
        let text = "cd \"$0\" && mkdir one && sync one && mv one two && mkdir one && echo done";
        let line =
            ["/bin/sh", "-c", text].map(OsString::from).into_iter().chain([root.clone().into()]);
        let naming = move |path: &Path| Some(path.strip_prefix(&root).ok()?.display().to_string());
        run(Owner::of_servers()?, line.collect(), Box::new(naming), cut)
    }

    #[test]
    fn every_edge_of_a_program_and_its_children_is_seen_in_order() {
        let traced = script(&TestDir::new().unwrap(), None).unwrap();
        assert_eq!(traced.output.stdout, "done\n");
        let edges: Vec<String> = traced.edges.iter().map(ToString::to_string).collect();
        assert_eq!(edges, ["mkdir one", "fsync one", "rename two", "mkdir one"]);
        let occurrences: Vec<usize> = traced.cuts().iter().map(|cut| cut.occurrence).collect();
        assert_eq!(occurrences, [0, 0, 0, 1]);
    }

    #[test]
    fn what_is_cut_off_does_not_happen() {
        for (occurrence, left) in [(0, vec![]), (1, vec!["two"])] {
            let directory = TestDir::new().unwrap();
            let edge = Edge { call: "mkdir", place: "one".to_owned() };
            let traced = script(&directory, Some(Cut { edge, occurrence })).unwrap();
            assert!(traced.output.stdout.is_empty());
            let entries = fs::read_dir(directory.path()).unwrap();
            let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, left);
        }
    }
}
