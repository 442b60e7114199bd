//! Python with what the reader in `docs/reader/` needs, in an environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Missing, apt};
use crate::command::{capture, find, step};
use crate::paths;

pub fn install() -> Result<Option<Missing>> {
    let place = paths::cache()?.join("reader");
    let requirements = paths::repository().join("docs/reader/requirements.txt");
    let wanted = fs::read(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    // Copied there when all of it is installed: what is half done is made again.
    let installed = place.join("requirements.txt");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) && runs(&place) {
        return Ok(None);
    }
    if let Some(missing) = apt::unless(python().is_some_and(has_venv), "python3-venv")? {
        return Ok(Some(missing));
    }
    let python = python().context("no python3, though its package is installed")?;
    let mut create = Command::new(python);
    create.args(["-m", "venv", "--clear"]).arg(&place);
    step("making the Python reader's environment", &mut create)?;
    let mut pip = Command::new(place.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--only-binary", ":all:", "--requirement"]).arg(&requirements);
    step("installing what the Python reader needs", &mut pip)?;
    fs::write(&installed, wanted)?;
    Ok(None)
}

/// The environment's Python, which has pip.
pub fn interpreter() -> Result<PathBuf> {
    Ok(paths::cache()?.join("reader/bin/python"))
}

/// The system's before any other: the servers' owner, too, has to be able to run it.
fn python() -> Option<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    if system.is_file() { Some(system) } else { find("python3") }
}

fn has_venv(python: PathBuf) -> bool {
    capture(Command::new(python).args(["-c", "import ensurepip, venv"])).is_ok()
}

/// A system's upgrade takes the interpreter from under an environment.
fn runs(place: &Path) -> bool {
    let imports = "import argon2, blake3, cryptography, google_crc32c, zstandard";
    capture(Command::new(place.join("bin/python")).args(["-c", imports])).is_ok()
}
