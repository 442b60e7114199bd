use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use seawall_core::Lsn;

use crate::{PgBin, process};

/// How to reach a test server. Cheap to clone and free of the server's life, so that a thread can
/// keep it while the server is stopped and started.
#[derive(Debug, Clone)]
pub struct PgConnection {
    socket_directory: PathBuf,
    bin: PgBin,
}

impl PgConnection {
    /// The port in the socket's name. Nothing listens on TCP.
    pub const PORT: u16 = 5432;

    pub(crate) const fn new(socket_directory: PathBuf, bin: PgBin) -> Self {
        Self { socket_directory, bin }
    }

    /// The directory of the server's socket.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// The programs of the server's major.
    #[must_use]
    pub const fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// A libpq connection string for the superuser and database `postgres`.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let host = self.socket_directory.display();
        format!("host={host} port={} user=postgres dbname=postgres", Self::PORT)
    }

    /// A client program set up to reach this server as superuser; nothing else of the
    /// environment's `PG*` variables counts.
    ///
    /// # Errors
    /// The program is not installed.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.bin.client(program)?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("PGHOST", &self.socket_directory).env("PGPORT", Self::PORT.to_string());
        command.env("PGUSER", "postgres").env("PGAPPNAME", "seawall-testkit");
        command.env("PGOPTIONS", "-c client_min_messages=warning");
        Ok(command)
    }

    /// Runs SQL in database `postgres`; the rows come back as lines, columns separated by `|`.
    /// Statements run one by one, each in its own transaction unless they say otherwise.
    ///
    /// # Errors
    /// No connection, or the first statement that fails.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in("postgres", sql)
    }

    /// Runs SQL in the database named.
    ///
    /// # Errors
    /// As [`Self::psql`].
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.client("psql")?;
        // Of a bare name libpq would take one with an equals sign for a connection string.
        let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
        command.args(QUIET).args(["-d", &format!("dbname='{quoted}'"), "-f", "-"]);
        let output = process::run(&mut command, Some(sql), Duration::from_secs(120))?;
        let output = output.success().with_context(|| format!("psql: {sql}"))?;
        Ok(output.stdout.trim_end_matches('\n').to_owned())
    }

    /// Opens a session that stays.
    ///
    /// # Errors
    /// `psql` cannot be started.
    pub fn session(&self) -> Result<PsqlSession> {
        let mut command = self.client("psql")?;
        command.args(QUIET).args(["-d", "postgres"]);
        PsqlSession::start(&mut command)
    }

    /// Where the next WAL record will go.
    ///
    /// # Errors
    /// No connection, or the server is in recovery.
    pub fn current_lsn(&self) -> Result<Lsn> {
        Ok(self.psql("SELECT pg_current_wal_insert_lsn()")?.parse()?)
    }
}

/// No configuration of the user's, bare rows, stop at the first error.
const QUIET: [&str; 5] = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"];

/// Printed by `psql` when a batch is done.
const DONE: &str = "-- seawall-testkit: done --";

/// One `psql` process fed through a pipe: one server session, for as long as it is needed. The
/// first statement that fails ends it.
#[derive(Debug)]
pub struct PsqlSession {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl PsqlSession {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdin = child.stdin.take().context("stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    /// The process id of `psql`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs statements and returns their rows as lines. What is returned has been acknowledged:
    /// `psql` prints a statement's rows only after its `CommandComplete`.
    ///
    /// # Errors
    /// A statement failed or the connection broke; the session is over.
    pub fn run(&mut self, sql: &str) -> Result<Vec<String>> {
        // A failed write means that psql is gone; reading tells why.
        let fed = writeln!(self.stdin, "{sql};\n\\echo {DONE}").and_then(|()| self.stdin.flush());
        let mut rows = Vec::new();
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line)? == 0 {
                bail!("session ended during {sql}: {}", self.last_words());
            }
            let line = line.trim_end_matches('\n');
            if line == DONE {
                fed?;
                return Ok(rows);
            }
            rows.push(line.to_owned());
        }
    }

    fn last_words(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).ok();
        }
        text
    }
}

impl Drop for PsqlSession {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
