use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::PgCluster;
use super::template::Template;
use crate::{Owner, PgBin, PgConnection, TestDir};

/// What a new cluster should be like.
#[derive(Debug, Clone)]
pub struct PgClusterBuilder {
    major: u16,
    checksums: bool,
    wal_segment_mb: u32,
    initdb: Vec<String>,
    own_system_identifier: bool,
    settings: Vec<(String, String)>,
}

impl PgClusterBuilder {
    pub(super) const fn new(major: u16) -> Self {
        Self {
            major,
            checksums: true,
            wal_segment_mb: 16,
            initdb: Vec::new(),
            own_system_identifier: false,
            settings: Vec::new(),
        }
    }

    /// Whether pages carry checksums; they do unless told otherwise.
    #[must_use]
    pub const fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// The size of a WAL segment in MiB: a power of two from 1 to 1024; 16 unless told otherwise.
    #[must_use]
    pub const fn wal_segment_mb(mut self, mb: u32) -> Self {
        self.wal_segment_mb = mb;
        self
    }

    /// One more argument of `initdb`, which outranks what the fixture gives it.
    #[must_use]
    pub fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// Runs `initdb` for this cluster alone. Clusters are otherwise copies of one template per
    /// shape and so share a system identifier, which matters to tests that must tell two apart.
    #[must_use]
    pub const fn own_system_identifier(mut self) -> Self {
        self.own_system_identifier = true;
        self
    }

    /// A line of `postgresql.conf`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `fsync = off`: quicker, and wrong for any test about crashes or durability.
    #[must_use]
    pub fn without_fsync(self) -> Self {
        self.config("fsync", "off")
    }

    /// Makes the cluster and leaves it stopped.
    ///
    /// # Errors
    /// The server is not installed or `initdb` refuses.
    pub fn create(self) -> Result<PgCluster> {
        let bin = PgBin::find(self.major)?;
        let owner = Owner::of_servers()?;
        let directory = TestDir::new()?;
        let data_directory = directory.join("data");
        let template = Template {
            bin: &bin,
            owner: &owner,
            checksums: self.checksums,
            wal_segment_mb: self.wal_segment_mb,
            arguments: &self.initdb,
        };
        if self.own_system_identifier {
            template.initdb(&data_directory)?;
        } else {
            template.copy_to(&data_directory)?;
        }
        let path = data_directory.join("postgresql.conf");
        let mut file = OpenOptions::new().append(true).open(path).context("postgresql.conf")?;
        for (name, value) in &self.settings {
            writeln!(file, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        assemble(bin, owner, directory, data_directory, Vec::new())
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// As [`Self::create`] and [`PgCluster::start`].
    pub fn start(self) -> Result<PgCluster> {
        let mut cluster = self.create()?;
        cluster.start()?;
        Ok(cluster)
    }
}

/// How to run a server on a data directory that exists.
#[derive(Debug, Clone)]
pub struct PgOpenBuilder {
    major: u16,
    data_directory: PathBuf,
    command_line: Vec<(String, String)>,
}

impl PgOpenBuilder {
    pub(super) const fn new(major: u16, data_directory: PathBuf) -> Self {
        Self { major, data_directory, command_line: Vec::new() }
    }

    /// A setting on the server's command line, which outranks the directory's own files and
    /// leaves them untouched.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.command_line.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Prepares the fixture and leaves the server stopped.
    ///
    /// # Errors
    /// The server is not installed.
    pub fn create(self) -> Result<PgCluster> {
        self.prepare(TestDir::new()?)
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// # Errors
    /// As [`PgCluster::start`].
    pub fn start(self) -> Result<PgCluster> {
        let mut cluster = self.create()?;
        cluster.start()?;
        Ok(cluster)
    }

    pub(super) fn prepare(self, directory: TestDir) -> Result<PgCluster> {
        let bin = PgBin::find(self.major)?;
        let owner = Owner::of_servers()?;
        assemble(bin, owner, directory, self.data_directory, self.command_line)
    }
}

fn assemble(
    bin: PgBin,
    owner: Owner,
    directory: TestDir,
    data_directory: PathBuf,
    command_line: Vec<(String, String)>,
) -> Result<PgCluster> {
    let socket_directory = directory.join("socket");
    owner.create_dir(&socket_directory, 0o755)?;
    Ok(PgCluster {
        server: None,
        connection: PgConnection::new(socket_directory, bin),
        data_directory,
        owner,
        command_line,
        clock: Vec::new(),
        directory,
    })
}
