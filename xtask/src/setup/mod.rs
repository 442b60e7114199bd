//! `cargo xtask setup`: what tests and the demo need, on Debian and Ubuntu. Running it again
//! where everything is there costs nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::{Uid, User};

use crate::command::{capture, find, step};

mod apt;
mod majors;
mod reader;
pub mod tools;
pub mod wheel;

/// The majors Seawall knows, and so those looked for.
pub const MAJORS: std::ops::RangeInclusive<u16> = 12..=18;

/// Something that is not there, and what brings it.
#[derive(Debug)]
pub struct Missing {
    what: String,
    command: String,
}

pub fn main(arguments: &[&str]) -> Result<()> {
    let (mut tests, mut bench) = (false, false);
    for argument in arguments {
        match *argument {
            "--tests" => tests = true,
            "--bench" => bench = true,
            other => bail!("setup: no option {other}"),
        }
    }
    let mut missing = Vec::new();
    missing.extend(apt::server()?);
    if bench {
        missing.extend(apt::package("pgbackrest", "pgbackrest")?);
        missing.extend(apt::package("zstd", "zstd")?);
    }
    missing.extend(owner()?);
    if tests {
        tools::install()?;
        missing.extend(reader::install()?);
        missing.extend(majors::install()?);
        // Where people without root's PATH do not look.
        let pooler = Path::new("/usr/sbin/pgbouncer").exists();
        missing.extend(apt::unless(pooler, "pgbouncer")?);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        missing.iter().map(|one| format!("  {}: {}", one.what, one.command)).collect();
    bail!("missing, and only root can install it:\n{}", lines.join("\n"))
}

/// Somebody to run servers when tests run as root: PostgreSQL refuses root.
fn owner() -> Result<Option<Missing>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "seawall-test"] {
        if User::from_name(name)?.is_some() {
            return Ok(None);
        }
    }
    let mut command = Command::new("useradd");
    command.args(["--system", "--user-group", "--no-create-home", "seawall-test"]);
    step("creating user seawall-test", &mut command)?;
    Ok(None)
}

/// Whether a program is on `PATH` and works.
fn works(program: &str) -> bool {
    find(program).is_some_and(|path| capture(Command::new(path).arg("--version")).is_ok())
}
