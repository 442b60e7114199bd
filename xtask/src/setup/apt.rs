//! Packages of Debian and Ubuntu.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use super::{MAJORS, Missing};
use crate::command::{capture, find, step};

/// Makes sure that one major is there with server, client programs and amcheck.
pub fn server() -> Result<Option<Missing>> {
    if MAJORS.rev().any(is_complete) {
        return Ok(None);
    }
    if !Uid::effective().is_root() {
        let what = "PostgreSQL server with amcheck".to_owned();
        let command = "apt-get install postgresql postgresql-contrib".to_owned();
        return Ok(Some(Missing { what, command }));
    }
    update()?;
    let packaged = MAJORS.rev().map(|major| format!("postgresql-{major}"));
    let package = packaged.into_iter().find(|package| has_candidate(package));
    install(&package.context("no postgresql-12 to postgresql-18 in apt's lists")?)?;
    if !MAJORS.rev().any(is_complete) {
        bail!("the PostgreSQL just installed lacks initdb, psql, pg_checksums or amcheck");
    }
    Ok(None)
}

/// Makes sure that a package's program is there.
pub fn package(package: &str, program: &str) -> Result<Option<Missing>> {
    unless(find(program).is_some(), package)
}

/// Makes sure that a package is there, which the caller has looked for.
pub fn unless(present: bool, package: &str) -> Result<Option<Missing>> {
    if present {
        return Ok(None);
    }
    if !Uid::effective().is_root() {
        let command = format!("apt-get install {package}");
        return Ok(Some(Missing { what: package.to_owned(), command }));
    }
    update()?;
    install(package)?;
    Ok(None)
}

fn is_complete(major: u16) -> bool {
    let programs = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let extensions = PathBuf::from(format!("/usr/share/postgresql/{major}/extension"));
    let needed = ["postgres", "initdb", "psql", "pg_basebackup", "pg_checksums", "pg_dumpall"];
    needed.iter().all(|program| programs.join(program).is_file())
        && extensions.join("amcheck.control").is_file()
}

/// Fetches apt's lists, once in a run: a fresh image has none.
fn update() -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("no apt-get here: install PostgreSQL (12 to 18, with contrib) by hand");
    }
    static DONE: Once = Once::new();
    let mut updated = Ok(());
    DONE.call_once(|| updated = step("apt-get update", apt_get().args(["-qq", "update"])));
    updated
}

fn has_candidate(package: &str) -> bool {
    let policy = capture(Command::new("apt-cache").args(["policy", package]));
    policy.is_ok_and(|text| text.contains("Candidate: ") && !text.contains("Candidate: (none)"))
}

fn install(package: &str) -> Result<()> {
    let mut command = apt_get();
    command.args(["-qq", "install", "--yes", "--no-install-recommends", package]);
    step(&format!("apt-get install {package}"), &mut command)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
