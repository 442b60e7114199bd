//! What the guide tells people to type, taken from the guide itself, and typed.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail, ensure};
use seawall_testkit::{PgBin, SeawallBin, process};

use crate::support::LIMIT;

/// The page about restoring.
pub const RESTORING: &str = include_str!("../../../../docs/guide/restoring.md");

/// The code below a heading, up to the next one: a text for each block, without its indentation.
///
/// # Errors
/// There is none.
pub fn code(page: &str, heading: &str) -> Result<Vec<String>> {
    let from = page.lines().skip_while(|line| *line != heading);
    let section = from.skip(1).take_while(|line| !line.starts_with('#'));
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    for line in section {
        match line.strip_prefix("    ") {
            Some(code) => blocks.last_mut().context("no block")?.push(code),
            None if blocks.last().is_some_and(|block| !block.is_empty()) => blocks.push(Vec::new()),
            None => {}
        }
    }
    let filled = blocks.iter().filter(|block| !block.is_empty());
    let texts: Vec<String> = filled.map(|block| block.join("\n")).collect();
    ensure!(!texts.is_empty(), "the guide has no code below {heading}");
    Ok(texts)
}

/// Puts what is there in place of what the guide takes for an example.
///
/// # Errors
/// The guide does not say that: it has changed, and its test has to.
pub fn with(text: &str, places: &[(&str, &str)]) -> Result<String> {
    places.iter().try_fold(text.to_owned(), |text, (example, real)| {
        ensure!(text.contains(example), "no {example} in: {text}");
        Ok(text.replace(example, real))
    })
}

/// What came of something that was typed.
#[derive(Debug)]
pub struct Typed {
    /// All that was printed, errors too.
    pub output: String,
    /// The first command that failed.
    pub failed: Option<String>,
}

impl Typed {
    /// The output, if no command failed.
    pub fn succeed(self) -> Result<String> {
        match self.failed {
            Some(failed) => bail!("failed: {failed}\n{}", self.output),
            None => Ok(self.output),
        }
    }

    /// The output, if a command failed and told `why`.
    pub fn fail(self, why: &str) -> Result<String> {
        ensure!(self.failed.is_some(), "nothing failed: {}", self.output);
        ensure!(self.output.contains(why), "no {why} in: {}", self.output);
        Ok(self.output)
    }
}

/// A `bash` in which the servers' owner types.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Printed when something typed is done.
const DONE: &str = "-- done --";

/// Printed before a command that failed.
const FAILED: &str = "-- failed: ";

impl Shell {
    /// Opens it in a directory, with `seawall` and the programs of a server in its path and no
    /// configuration but the one named.
    pub fn open(
        seawall: &SeawallBin,
        programs: &PgBin,
        directory: &Path,
        config: Option<&Path>,
    ) -> Result<Self> {
        let owner = seawall_testkit::Owner::of_servers()?;
        let mut bash = owner.command("bash");
        bash.args(["--noprofile", "--norc"]).current_dir(directory);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SEAWALL_") || text.starts_with("PG") {
                bash.env_remove(name);
            }
        }
        bash.env("PATH", path(seawall, programs)?).env("PGUSER", "postgres");
        bash.env("SEAWALL_PG_BIN", programs.directory());
        if let Some(config) = config {
            bash.env("SEAWALL_CONFIG", config);
        }
        bash.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bash.spawn().context("bash")?;
        let stdin = child.stdin.take().context("stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let mut shell = Self { child, stdin, stdout };
        let trap = format!("exec 2>&1; trap 'echo \"{FAILED}$BASH_COMMAND\"' ERR");
        shell.enter(&trap)?.succeed()?;
        Ok(shell)
    }

    /// Types something and waits until it is done.
    pub fn enter(&mut self, text: &str) -> Result<Typed> {
        let quoted = text.replace('\'', r"'\''");
        // What is typed must not read what will be typed next.
        writeln!(self.stdin, "eval '{quoted}' </dev/null\nprintf '\\n%s\\n' '{DONE}'")?;
        self.stdin.flush()?;
        let mut typed = Typed { output: String::new(), failed: None };
        loop {
            let mut line = Vec::new();
            if self.stdout.read_until(b'\n', &mut line)? == 0 {
                bail!("the shell ended: {}", typed.output);
            }
            let line = String::from_utf8_lossy(&line);
            match line.strip_prefix(FAILED) {
                Some(failed) if typed.failed.is_none() => {
                    typed.failed = Some(failed.trim_end().to_owned());
                }
                Some(_) => {}
                None if line.trim_end() == DONE => return Ok(typed),
                None => typed.output.push_str(&line),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path(seawall: &SeawallBin, programs: &PgBin) -> Result<OsString> {
    let own = seawall.path().parent().context("seawall's directory")?.to_owned();
    let dump = programs.client("pg_dump")?;
    let clients = dump.parent().context("the clients' directory")?.to_owned();
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let directories = [own, clients].into_iter().chain(std::env::split_paths(&inherited));
    Ok(std::env::join_paths(directories)?)
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A directory on which `seawall` may have started a server: whatever becomes of the test, none
/// stays.
#[derive(Debug)]
pub struct Room {
    /// The data directory.
    pub directory: PathBuf,
    programs: PgBin,
}

impl Room {
    /// Takes care of a directory that need not be there yet.
    pub const fn new(directory: PathBuf, programs: PgBin) -> Self {
        Self { directory, programs }
    }

    /// Where its server listens: the directory of its socket and the port (`postmaster.pid`,
    /// lines 5 and 4).
    pub fn listens(&self) -> Result<(String, String)> {
        let text = std::fs::read_to_string(self.directory.join("postmaster.pid"))?;
        let mut lines = text.lines().skip(3).map(str::to_owned);
        let (port, socket) = (lines.next().context("port")?, lines.next().context("socket")?);
        Ok((socket, port))
    }

    /// `pg_ctl` on it.
    pub fn pg_ctl(&self, arguments: &[&str]) -> Result<()> {
        let owner = seawall_testkit::Owner::of_servers()?;
        let mut command = owner.command(self.programs.program("pg_ctl")?);
        command.args(arguments).arg("-w").arg("-D").arg(&self.directory);
        process::run(&mut command, None, LIMIT)?.success().map(drop)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.directory.join("postmaster.pid").exists()
            && let Err(error) = self.pg_ctl(&["stop", "-m", "immediate"])
        {
            eprintln!("{error:#}");
        }
    }
}
