use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cgroup::MemoryUse;
use crate::process::{Output, Running};
use crate::{Owner, TestDir, cgroup, process};

/// The built `seawall`, where both root and the servers' owner can run it.
#[derive(Debug, Clone)]
pub struct SeawallBin {
    path: PathBuf,
    owner: Owner,
    /// Keeps the copy, if one was needed.
    _copy: Option<Arc<TestDir>>,
}

impl SeawallBin {
    /// Finds it: the one nextest built with the tests, else the one beside them in the target
    /// directory. Tests of the `seawall` crate itself may give `env!("CARGO_BIN_EXE_seawall")`
    /// to [`Self::at`].
    ///
    /// # Errors
    /// It has not been built.
    pub fn find() -> Result<Self> {
        if let Some(path) = env::var_os("NEXTEST_BIN_EXE_seawall") {
            return Self::at(path);
        }
        let test = env::current_exe()?;
        let beside = test.ancestors().skip(1).take(2).map(|directory| directory.join("seawall"));
        let found = beside.into_iter().find(|path| path.is_file());
        Self::at(found.context("seawall is not built: run cargo build -p seawall")?)
    }

    /// Takes the one at `path`, or a copy of it if the owner cannot reach it there.
    ///
    /// # Errors
    /// There is none, or it cannot be copied.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        ensure!(path.is_file(), "no program at {}", path.display());
        let owner = Owner::of_servers()?;
        let mut probe = owner.command("test");
        if probe.arg("-x").arg(&path).status()?.success() {
            return Ok(Self { path, owner, _copy: None });
        }
        let directory = TestDir::new()?;
        let copy = directory.join("seawall");
        fs::copy(&path, &copy).with_context(|| format!("copy {}", path.display()))?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(Self { path: copy, owner, _copy: Some(Arc::new(directory)) })
    }

    /// Where it is: what to write into `archive_command`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A call of it, as the servers' owner, with no `SEAWALL_*` or `PG*` variable of the test's
    /// environment.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Invocation {
        Invocation {
            program: self.path.clone(),
            arguments: arguments.into_iter().map(|one| one.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            stdin: None,
            owner: Some(self.owner.clone()),
            isolated: false,
            timeout: Duration::from_secs(120),
        }
    }

    /// Runs it as the servers' owner.
    ///
    /// # Errors
    /// As [`Invocation::run`].
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Output> {
        self.command(arguments).run()
    }
}

/// A call of `seawall` being put together.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Option<String>,
    owner: Option<Owner>,
    isolated: bool,
    timeout: Duration,
}

impl Invocation {
    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What it reads from standard input; nothing unless given.
    #[must_use]
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    /// Runs as the test's own user: root, where tests run as root.
    #[must_use]
    pub fn as_test_user(mut self) -> Self {
        self.owner = None;
        self
    }

    /// Runs in a process namespace of its own, as in a container of this host. Only root can.
    #[must_use]
    pub const fn in_process_namespace(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// How long it may take; two minutes unless told otherwise.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be started or does not end in time.
    pub fn run(&self) -> Result<Output> {
        process::run(&mut self.build(), self.stdin.as_deref(), self.timeout)
    }

    /// Runs it and expects exit status 0.
    ///
    /// # Errors
    /// Any other end; the message holds what it printed.
    pub fn succeed(&self) -> Result<Output> {
        self.run()?.success().with_context(|| format!("seawall {:?}", self.arguments))
    }

    /// Runs it and expects another exit status.
    ///
    /// # Errors
    /// Status 0, a signal, or another status than `code`.
    pub fn fail(&self, code: i32) -> Result<Output> {
        let output = self.run()?;
        ensure!(
            output.code() == Some(code),
            "seawall {:?}: {} and not {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.arguments,
            output.status,
            output.stdout,
            output.stderr
        );
        Ok(output)
    }

    /// Runs it to its end with at most `limit_bytes` of memory, page cache included.
    ///
    /// # Errors
    /// As [`cgroup::run_limited`].
    pub fn run_limited(&self, limit_bytes: u64) -> Result<MemoryUse> {
        cgroup::run_limited(&self.build(), self.owner.as_ref(), limit_bytes, self.timeout)
    }

    /// Starts it and returns at once.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self) -> Result<Running> {
        Running::start(&mut self.build(), self.stdin.as_deref())
    }

    /// Starts it with its standard input left open, and returns at once.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_listening(&self) -> Result<(Running, ChildStdin)> {
        Running::start_listening(&mut self.build())
    }

    /// Kills it with `SIGKILL` after a while, unless it ended before: [`Output::signal`] tells
    /// which.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn kill9_after(&self, delay: Duration) -> Result<Output> {
        let mut running = self.spawn()?;
        let deadline = Instant::now() + delay;
        while Instant::now() < deadline && !running.has_ended()? {
            thread::sleep(Duration::from_millis(1));
        }
        running.kill9()?;
        running.wait(Duration::from_secs(30))
    }

    fn build(&self) -> Command {
        let program = if self.isolated { "unshare".as_ref() } else { self.program.as_os_str() };
        let mut command = match &self.owner {
            Some(owner) => owner.command(program),
            None => Command::new(program),
        };
        if self.isolated {
            command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(&self.program);
        }
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SEAWALL_") || text.starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
