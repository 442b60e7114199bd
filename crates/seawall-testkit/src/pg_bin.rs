use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{cache_directory, process};

/// The majors that are looked for.
const MAJORS: std::ops::RangeInclusive<u16> = 12..=18;

/// The programs of one PostgreSQL major.
#[derive(Debug, Clone)]
pub struct PgBin {
    major: u16,
    directory: PathBuf,
}

impl PgBin {
    /// Finds Debian's server of that major, or the one `cargo xtask setup --tests` brought.
    ///
    /// # Errors
    /// Neither is there.
    pub fn find(major: u16) -> Result<Self> {
        let places = [
            PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
            cache_directory()?.join(format!("postgres/{major}/bin")),
        ];
        for directory in places {
            if directory.join("postgres").is_file() {
                return Ok(Self { major, directory });
            }
        }
        bail!("no PostgreSQL {major} server: run cargo xtask setup --tests")
    }

    /// The majors whose server is there, oldest first.
    #[must_use]
    pub fn installed() -> Vec<u16> {
        MAJORS.filter(|major| Self::find(*major).is_ok()).collect()
    }

    /// The major for tests that are not about one: `$SEAWALL_TEST_MAJOR`, else the newest of
    /// Debian's servers, else the newest there is.
    ///
    /// # Errors
    /// There is none.
    pub fn default_major() -> Result<u16> {
        if let Ok(chosen) = env::var("SEAWALL_TEST_MAJOR") {
            return chosen.parse().with_context(|| format!("SEAWALL_TEST_MAJOR={chosen}"));
        }
        let installed = Self::installed();
        let packaged =
            |major: &&u16| Path::new(&format!("/usr/lib/postgresql/{major}/bin/postgres")).exists();
        let newest = installed.iter().rev().find(packaged).or(installed.last());
        newest.copied().context("no PostgreSQL server: run cargo xtask setup")
    }

    /// The major version.
    #[must_use]
    pub const fn major(&self) -> u16 {
        self.major
    }

    /// The directory of the programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A program of exactly this major.
    ///
    /// # Errors
    /// It is not installed: servers from a package of the bare server lack the client programs.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!("PostgreSQL {} is here without {name}", self.major)
    }

    /// A client program that can talk to this major: its own, else that of the nearest newer one,
    /// else, for `psql` and `pgbench` alone, which do not mind, of an older one.
    ///
    /// # Errors
    /// There is none.
    pub fn client(&self, name: &str) -> Result<PathBuf> {
        let (older, newer): (Vec<u16>, Vec<u16>) =
            Self::installed().into_iter().partition(|major| *major < self.major);
        let older = if matches!(name, "psql" | "pgbench") { older } else { Vec::new() };
        let majors = newer.into_iter().chain(older.into_iter().rev());
        let mut found = majors.filter_map(|major| Self::find(major).ok()?.program(name).ok());
        found.next().with_context(|| {
            format!("no {name} that can talk to PostgreSQL {}: run cargo xtask setup", self.major)
        })
    }

    /// The exact version as the server prints it, such as `postgres (PostgreSQL) 15.6`.
    ///
    /// # Errors
    /// The server cannot be run.
    pub fn version(&self) -> Result<String> {
        let mut command = Command::new(self.program("postgres")?);
        let output = process::run(command.arg("--version"), None, Duration::from_secs(10))?;
        Ok(output.success()?.stdout.trim().to_owned())
    }
}
