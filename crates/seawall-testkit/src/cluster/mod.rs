use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use seawall_core::Lsn;

use crate::{Owner, PgBin, PgConnection, TestClock, TestDir, process};

mod builder;
mod server;
mod template;

pub use builder::{PgClusterBuilder, PgOpenBuilder};
pub use server::StopMode;

use server::Server;

/// A real PostgreSQL cluster for one test: a Unix socket, no TCP, authentication `trust`,
/// superuser `postgres`. Dropping it stops the server and removes what the kit made.
#[derive(Debug)]
pub struct PgCluster {
    // Before the directory: the server stops before its files go.
    server: Option<Server>,
    connection: PgConnection,
    data_directory: PathBuf,
    owner: Owner,
    command_line: Vec<(String, String)>,
    clock: Vec<(&'static str, String)>,
    directory: TestDir,
}

impl PgCluster {
    /// A new, empty cluster of that major.
    #[must_use]
    pub const fn builder(major: u16) -> PgClusterBuilder {
        PgClusterBuilder::new(major)
    }

    /// A server on a data directory that exists: a restored one. The directory must belong to
    /// the servers' owner and stays when the fixture goes.
    pub fn open(major: u16, data_directory: impl Into<PathBuf>) -> PgOpenBuilder {
        PgOpenBuilder::new(major, data_directory.into())
    }

    /// How to reach the server; stays good across stops and starts.
    #[must_use]
    pub const fn connection(&self) -> &PgConnection {
        &self.connection
    }

    /// The programs of the server's major.
    #[must_use]
    pub const fn bin(&self) -> &PgBin {
        self.connection.bin()
    }

    /// The user the server runs as.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// A libpq connection string.
    #[must_use]
    pub fn connection_string(&self) -> String {
        self.connection.connection_string()
    }

    /// `PGDATA`.
    #[must_use]
    pub fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    /// A directory of the cluster's own, beside `PGDATA`, that the owner may write and that goes
    /// with the cluster: for tablespaces, archives, repositories.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// See [`PgConnection::psql`].
    ///
    /// # Errors
    /// As there, with the end of the server's log.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.connection.psql(sql).with_context(|| self.log_tail())
    }

    /// Where the next WAL record will go.
    ///
    /// # Errors
    /// The server is down or in recovery.
    pub fn current_lsn(&self) -> Result<Lsn> {
        self.connection.current_lsn()
    }

    /// Ends the current WAL segment; returns the end of its last record.
    ///
    /// # Errors
    /// The server is down or in recovery.
    pub fn switch_wal(&self) -> Result<Lsn> {
        Ok(self.psql("SELECT pg_switch_wal()")?.parse()?)
    }

    /// Everything the server has logged, over all its starts.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn logs(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_file())?).into_owned())
    }

    /// The postmaster's process id, while it runs.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// # Errors
    /// It is running already, or it ends or hangs instead; the message holds the log's end.
    pub fn start(&mut self) -> Result<()> {
        self.start_without_waiting()?;
        self.wait_ready(Duration::from_secs(60))
    }

    /// Starts the server and returns at once.
    ///
    /// # Errors
    /// It is running already or cannot be run.
    pub fn start_without_waiting(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("the server is running");
        }
        let mut command = self.owner.command(self.bin().program("postgres")?);
        command.arg("-D").arg(&self.data_directory);
        let socket = self.connection.socket_directory().display().to_string();
        let port = PgConnection::PORT.to_string();
        let harness = [
            ("unix_socket_directories", socket.as_str()),
            ("listen_addresses", ""),
            ("port", &port),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
        ];
        let own = self.command_line.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in harness.into_iter().chain(own) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.envs(self.clock.iter().map(|(name, value)| (name, value)));
        self.server = Some(Server::spawn(&mut command, &self.log_file())?);
        Ok(())
    }

    /// Waits until the server takes connections: as a primary, or read-only from a consistent
    /// point of recovery.
    ///
    /// # Errors
    /// It ended or is not ready in time; the message holds the log's end.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let log_tail = self.log_tail();
        let server = self.server.as_mut().context("the server is not running")?;
        let waited = server.wait_ready(&self.data_directory, timeout);
        if waited.is_err() && server.has_ended()? {
            self.server = None;
        }
        waited.with_context(|| if self.server.is_some() { log_tail } else { self.log_tail() })
    }

    /// Waits until recovery is over and the server takes writes.
    ///
    /// # Errors
    /// It ended or is not there in time.
    pub fn wait_promoted(&mut self, timeout: Duration) -> Result<()> {
        self.wait_ready(timeout)?;
        let promoted = process::wait_until("end of recovery", timeout, || {
            if self.server.as_mut().is_none_or(|server| server.has_ended().unwrap_or(true)) {
                bail!("the server ended");
            }
            Ok(self.connection.psql("SELECT pg_is_in_recovery()")? == "f")
        });
        promoted.with_context(|| self.log_tail())
    }

    /// Waits until the server has ended by itself, as `recovery_target_action = shutdown` makes
    /// it; returns its exit status, `None` if a signal ended it.
    ///
    /// # Errors
    /// It still runs after `timeout`.
    pub fn wait_ended(&mut self, timeout: Duration) -> Result<Option<i32>> {
        let server = self.server.as_mut().context("the server is not running")?;
        let status = server.wait_ended(timeout)?;
        self.server = None;
        Ok(status.code())
    }

    /// Stops the server; nothing to do when it is down.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let Some(server) = self.server.as_mut() else { return Ok(()) };
        server.stop(mode).with_context(|| format!("stop ({mode:?})"))?;
        self.server = None;
        Ok(())
    }

    /// Stops the server with a shutdown checkpoint and starts it again.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop(StopMode::Fast)?;
        self.start()
    }

    /// Kills the postmaster and all its processes with `SIGKILL`, as the kernel's OOM killer or
    /// a pulled plug of a container would.
    ///
    /// # Errors
    /// The server is not running or its processes do not go.
    pub fn kill9(&mut self) -> Result<()> {
        let server = self.server.as_mut().context("the server is not running")?;
        server.kill9()?;
        self.server = None;
        Ok(())
    }

    /// Ends recovery and waits until the server takes writes.
    ///
    /// # Errors
    /// The server is not in recovery.
    pub fn promote(&mut self) -> Result<()> {
        self.psql("SELECT pg_promote(true, 60)")?;
        self.wait_promoted(Duration::from_secs(60))
    }

    /// Puts the server, and what it runs, under a clock of the test's from its next start on.
    pub fn look_at(&mut self, clock: &TestClock) {
        self.clock = clock.environment().to_vec();
    }

    /// Reads the configuration files again.
    ///
    /// # Errors
    /// The server is down.
    pub fn reload(&self) -> Result<()> {
        self.psql("SELECT pg_reload_conf()").map(drop)
    }

    /// Changes a setting in `postgresql.auto.conf`, with `ALTER SYSTEM` while the server runs.
    /// It takes effect after [`Self::reload`] or [`Self::restart`], as PostgreSQL says.
    ///
    /// # Errors
    /// PostgreSQL refuses the setting, or the file cannot be written.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let quoted = value.replace('\'', "''");
        if self.server.is_some() {
            return self.psql(&format!("ALTER SYSTEM SET {name} = '{quoted}'")).map(drop);
        }
        let path = self.data_directory.join("postgresql.auto.conf");
        let file = fs::OpenOptions::new().append(true).open(&path);
        writeln!(file.with_context(|| format!("open {}", path.display()))?, "{name} = '{quoted}'")?;
        Ok(())
    }

    /// A streaming standby of this server, made by its own major's `pg_basebackup`.
    ///
    /// # Errors
    /// The server is down, or its major is installed without `pg_basebackup`.
    pub fn standby(&self) -> Result<Self> {
        let directory = TestDir::new()?;
        let data = directory.join("data");
        let mut command = self.owner.command(self.bin().program("pg_basebackup")?);
        command.args(["-d", &self.connection_string(), "-X", "stream", "-c", "fast", "-R", "-D"]);
        let output = process::run(command.arg(&data), None, Duration::from_secs(120))?;
        output.success().context("pg_basebackup")?;
        let mut standby = PgOpenBuilder::new(self.bin().major(), data).prepare(directory)?;
        standby.start()?;
        Ok(standby)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn log_tail(&self) -> String {
        let log = self.logs().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
        format!("server log:\n{}", tail.join("\n"))
    }
}

impl Drop for PgCluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop(StopMode::Immediate) {
            eprintln!("{error:#}");
            if let Some(server) = self.server.as_mut() {
                server.kill9().ok();
            }
        }
    }
}
