//! Running a program with a time limit and all of its output.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a waiting test looks again.
const POLL: Duration = Duration::from_millis(5);

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// All of standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// The exit status; `None` if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// The output if the program ended with status 0.
    ///
    /// # Errors
    /// Any other end; the message holds both streams.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr);
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// It is something else.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }
}

/// A program under way, its output being collected. Killed when dropped before it ended.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Collector,
    stderr: Collector,
}

impl Running {
    /// Starts `command`, feeding it `stdin`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command, stdin: Option<&str>) -> Result<Self> {
        let open = if stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut running = Self::start_with(command, open)?;
        if let (Some(text), Some(mut pipe)) = (stdin, running.child.stdin.take()) {
            let text = text.to_owned();
            // A program may end without reading all it is fed; that is not the feeder's failure.
            thread::spawn(move || pipe.write_all(text.as_bytes()));
        }
        Ok(running)
    }

    /// Starts `command` with its standard input left open; it is closed when the pipe is dropped.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_listening(command: &mut Command) -> Result<(Self, ChildStdin)> {
        let mut running = Self::start_with(command, Stdio::piped())?;
        let input = running.child.stdin.take().context("stdin")?;
        Ok((running, input))
    }

    fn start_with(command: &mut Command, stdin: Stdio) -> Result<Self> {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdout = Collector::new(child.stdout.take().context("stdout")?);
        let stderr = Collector::new(child.stderr.take().context("stderr")?);
        Ok(Self { child, stdout, stderr })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout_so_far(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr_so_far(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends `SIGKILL`. A process that has already ended is left as it is.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn kill9(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Sends `SIGTERM`. A process that has already ended is left as it is.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn terminate(&mut self) -> Result<()> {
        if self.has_ended()? {
            return Ok(());
        }
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        Ok(kill(pid, Signal::SIGTERM)?)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It did not end in time: it is killed, and the message holds what it printed.
    pub fn wait(mut self, timeout: Duration) -> Result<Output> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
                return Ok(Output { status, stdout, stderr });
            }
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
                bail!("no end after {timeout:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// It cannot be started or does not end in time. Any exit status is fine: see
/// [`Output::success`].
pub fn run(command: &mut Command, stdin: Option<&str>, timeout: Duration) -> Result<Output> {
    let output = Running::start(command, stdin)?.wait(timeout);
    output.with_context(|| format!("{command:?}"))
}

/// Waits until `condition` holds, asking every few milliseconds.
///
/// # Errors
/// It fails, or does not hold in time; `what` names it.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition().with_context(|| format!("waiting for {what}"))? {
        if Instant::now() >= deadline {
            bail!("{what}: not within {timeout:?}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Reads one stream in the background.
#[derive(Debug)]
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Collector {
    fn new(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(length @ 1..) = stream.read(&mut chunk) {
                let read = chunk.get(..length).unwrap_or_default();
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(read);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All of it. A grandchild that outlives the program and holds the stream open is waited for
    /// only briefly.
    fn finish(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.text()
    }
}
