use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use seawall_testkit::{Owner, PgCluster, SeawallBin};

use super::contestant::{Contestant, quoted};
use crate::command::capture;

/// The `seawall` of this checkout, as a release is built.
pub struct Seawall {
    program: SeawallBin,
    owner: Owner,
    directory: PathBuf,
    repository: PathBuf,
    jobs: usize,
    memory: Option<&'static str>,
    backup_options: Vec<String>,
}

impl Seawall {
    /// `jobs` is the number of its workers.
    pub fn new(program: &SeawallBin, work: &Path, jobs: usize) -> Result<Self> {
        let directory = work.join("seawall");
        let repository = directory.join("repository");
        Ok(Self {
            program: program.clone(),
            owner: Owner::of_servers()?,
            directory,
            repository,
            jobs,
            memory: None,
            backup_options: Vec::new(),
        })
    }

    /// Gives it another memory budget, and options to its backups.
    pub fn with(mut self, memory: Option<&'static str>, backup_options: &[&str]) -> Self {
        self.memory = memory;
        self.backup_options = backup_options.iter().map(ToString::to_string).collect();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.owner.command(self.program.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SEAWALL_") {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(self.config()).args(arguments);
        command
    }

    fn config(&self) -> PathBuf {
        self.directory.join("seawall.toml")
    }
}

impl Contestant for Seawall {
    fn name(&self) -> &'static str {
        "Seawall"
    }

    fn version(&self) -> Result<String> {
        let version = capture(Command::new(self.program.path()).arg("--version"))?;
        Ok(version.trim().trim_start_matches("seawall ").to_owned())
    }

    fn options(&self) -> String {
        format!(
            "jobs = {}, compression zstd:1, encrypted, objects and directories synced, restore with \
             --backup-only",
            self.jobs
        )
    }

    fn repository(&self) -> &Path {
        &self.repository
    }

    fn prepare(&self, server: &PgCluster) -> Result<()> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        self.owner.create_dir(&self.directory, 0o700)?;
        let memory = self.memory.map(|memory| format!("memory = \"{memory}\"\n"));
        let config = format!("jobs = {}\n{}", self.jobs, memory.unwrap_or_default());
        fs::write(self.config(), config)?;
        self.owner.chown(&self.config())?;
        let repository = format!("file://{}", self.repository.display());
        let kit = self.directory.join("main.kit").display().to_string();
        let connection = server.connection_string();
        let init = ["init", "main", "--repo", &repository, "--connection", &connection];
        capture(self.command(&init).args(["--kit", &kit])).map(drop)
    }

    fn archive_command(&self) -> String {
        let (program, config) = (quoted(self.program.path()), quoted(&self.config()));
        format!("{program} --config {config} wal push %p --cluster main")
    }

    fn backup(&self) -> Command {
        let mut backup = self.command(&["backup", "main", "--full"]);
        backup.args(&self.backup_options);
        backup
    }

    fn incremental_backup(&self) -> Command {
        self.command(&["backup", "main"])
    }

    fn gentle_backup(&self) -> (Command, &'static str) {
        let options = ["--priority", "low", "--rate-limit", "100MB/s"];
        let mut backup = self.backup();
        backup.args(options);
        (backup, "--priority low --rate-limit 100MB/s")
    }

    fn restore(&self, into: &Path) -> Command {
        let into = into.display().to_string();
        self.command(&["restore", "main", "--into", &into, "--backup-only", "--yes"])
    }

    fn delta_restore(&self, into: &Path) -> Command {
        let mut restore = self.restore(into);
        restore.args(["--delta", "--json"]);
        restore
    }
}
