use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use seawall_testkit::{Owner, PgCluster, PgConnection};

use super::contestant::{Contestant, quoted};
use crate::command::{capture, find};

const STANZA: &str = "bench";

/// What is set in the configuration file, besides paths.
const OPTIONS: [(&str, &str); 8] = [
    ("repo1-type", "posix"),
    ("repo1-bundle", "y"),
    ("compress-type", "zst"),
    ("compress-level", "3"),
    ("start-fast", "y"),
    ("log-level-file", "off"),
    ("log-level-console", "error"),
    ("log-level-stderr", "error"),
];

/// The pgBackRest found on `PATH`.
pub struct PgBackRest {
    program: PathBuf,
    owner: Owner,
    directory: PathBuf,
    repository: PathBuf,
    processes: usize,
    blocks: bool,
}

impl PgBackRest {
    /// `processes` is the number of its workers.
    pub fn new(work: &Path, processes: usize) -> Result<Self> {
        let program = find("pgbackrest").context("no pgbackrest: run cargo xtask setup --bench")?;
        let directory = work.join("pgbackrest");
        let repository = directory.join("repository");
        let owner = Owner::of_servers()?;
        Ok(Self { program, owner, directory, repository, processes, blocks: false })
    }

    /// With block incremental, which this version has as beta.
    pub fn with_blocks(self) -> Self {
        Self { blocks: true, ..self }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.owner.command(&self.program);
        command.arg(format!("--config={}", self.config().display()));
        command.arg(format!("--stanza={STANZA}"));
        command.args(arguments);
        command
    }

    fn config(&self) -> PathBuf {
        self.directory.join("pgbackrest.conf")
    }

    fn config_text(&self, server: &PgCluster) -> String {
        let directory = self.directory.display();
        let mut text = format!(
            "[global]\nrepo1-path={}\nlock-path={directory}/lock\nspool-path={directory}/spool\n",
            self.repository.display()
        );
        text.push_str(&format!("process-max={}\n", self.processes));
        for (name, value) in OPTIONS {
            text.push_str(&format!("{name}={value}\n"));
        }
        if self.blocks {
            text.push_str("repo1-block=y\nbeta=y\n");
        }
        let socket = server.connection().socket_directory().display();
        let (data, port) = (server.data_directory().display(), PgConnection::PORT);
        text.push_str(&format!(
            "[{STANZA}]\npg1-path={data}\npg1-socket-path={socket}\npg1-port={port}\npg1-user=postgres\n"
        ));
        text
    }
}

impl Contestant for PgBackRest {
    fn name(&self) -> &'static str {
        "pgBackRest"
    }

    fn version(&self) -> Result<String> {
        let version = capture(Command::new(&self.program).arg("version"))?;
        Ok(version.trim().trim_start_matches("pgBackRest ").to_owned())
    }

    fn options(&self) -> String {
        let set: Vec<String> =
            OPTIONS.iter().take(5).map(|(name, value)| format!("{name}={value}")).collect();
        let blocks = if self.blocks {
            "repo1-block=y (2.45 has it as beta)"
        } else {
            "no repo-block (2.45 has it as beta only, and a full backup gains nothing by it)"
        };
        let rest = "no encryption, files and directories synced, restore with type=immediate";
        format!("{} process-max={}; {blocks}, {rest}", set.join(" "), self.processes)
    }

    fn repository(&self) -> &Path {
        &self.repository
    }

    fn prepare(&self, server: &PgCluster) -> Result<()> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        self.owner.create_dir(&self.directory, 0o700)?;
        fs::write(self.config(), self.config_text(server))?;
        self.owner.chown(&self.config())?;
        capture(&mut self.command(&["stanza-create"])).map(drop)
    }

    fn archive_command(&self) -> String {
        let (program, config) = (quoted(&self.program), quoted(&self.config()));
        format!("{program} --config={config} --stanza={STANZA} archive-push %p")
    }

    fn backup(&self) -> Command {
        self.command(&["--type=full", "--no-expire-auto", "backup"])
    }

    fn incremental_backup(&self) -> Command {
        self.command(&["--type=incr", "--no-expire-auto", "backup"])
    }

    fn gentle_backup(&self) -> (Command, &'static str) {
        let backup =
            self.command(&["--process-max=1", "--type=full", "--no-expire-auto", "backup"]);
        let mut gentle = self.owner.command("nice");
        gentle.args(["-n", "19", "ionice", "-c", "3"]).arg(&self.program).args(backup.get_args());
        (gentle, "under nice -n 19 ionice -c 3, process-max=1: it has no limit of its own")
    }

    fn restore(&self, into: &Path) -> Command {
        let into = format!("--pg1-path={}", into.display());
        self.command(&["--type=immediate", "--archive-mode=off", &into, "restore"])
    }

    fn delta_restore(&self, into: &Path) -> Command {
        let into = format!("--pg1-path={}", into.display());
        self.command(&["--type=immediate", "--archive-mode=off", "--delta", &into, "restore"])
    }
}
