use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use seawall_core::{Code, Error, Result};
use seawall_pgdata::PgMajor;

/// Names the directory of PostgreSQL's programs where they are in none of the usual places.
const VARIABLE: &str = "SEAWALL_PG_BIN";

/// Where packages put a major's programs: Debian's, and those of the Red Hat family.
const USUAL: [(&str, &str); 2] = [("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin")];

/// Finds the directory with the programs of exactly this major.
///
/// # Errors
/// [`Code::RestoredServerFailed`] if it is in none of the places looked at. A server program there
/// that does not run is named with what it says.
pub fn find_programs(major: PgMajor) -> Result<PathBuf> {
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    let usual = USUAL.map(|(before, after)| PathBuf::from(format!("{before}{major}{after}")));
    let path = env::var_os("PATH").unwrap_or_default();
    find(named.into_iter().chain(usual).chain(env::split_paths(&path)), major)
}

fn find(places: impl Iterator<Item = PathBuf>, major: PgMajor) -> Result<PathBuf> {
    let mut broken = Vec::new();
    for directory in places {
        if !directory.join("pg_ctl").is_file() {
            continue;
        }
        match major_of(&directory.join("postgres")) {
            Ok(Some(found)) if found == major => return Ok(directory),
            Ok(_) => {}
            Err(problem) => broken.push(problem),
        }
    }
    let missing = format!("the programs of PostgreSQL {major} are not on this host");
    let hint =
        format!("Install that major, or name the directory of its programs: `{VARIABLE}=/…/bin`.");
    Err(if broken.is_empty() {
        Error::new(Code::RestoredServerFailed, missing).with_hint(hint)
    } else {
        let what = format!("{missing}, unless it is one that does not run: {}", broken.join("; "));
        Error::new(Code::RestoredServerFailed, what).with_hint(format!(
            "Run it by hand as the user PostgreSQL runs as, `…/postgres --version`, or name another directory: `{VARIABLE}=/…/bin`."
        ))
    })
}

/// Asks a server program for its major; `postgres (PostgreSQL) 15.4 (Debian …)`. `None` if there is
/// no such program, or it is of no major known here; an error is why it does not run.
fn major_of(postgres: &Path) -> std::result::Result<Option<PgMajor>, String> {
    if !postgres.is_file() {
        return Ok(None);
    }
    let shown = postgres.display();
    let output = Command::new(postgres)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it says nothing").trim();
        return Err(format!("{shown}: {said} ({})", output.status));
    }
    Ok(major_in(&String::from_utf8_lossy(&output.stdout)))
}

fn major_in(version: &str) -> Option<PgMajor> {
    let number = version.split(") ").nth(1)?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    PgMajor::from_number(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory whose `postgres` is this script.
    fn programs(script: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["postgres", "pg_ctl"] {
            let path = directory.path().join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        directory
    }

    #[test]
    fn a_server_program_that_does_not_run_is_reported_with_what_it_says() {
        let library = "echo 'libicui18n.so.60: cannot open shared object file' >&2; exit 127";
        let broken = programs(&format!("#!/bin/sh\n{library}\n"));
        let absent = programs("#!/no/such/interpreter\n");
        let whole = programs("#!/bin/sh\necho 'postgres (PostgreSQL) 15.4 (Debian 15.4-1)'\n");
        let places = |of: &[&tempfile::TempDir]| -> Vec<PathBuf> {
            of.iter().map(|directory| directory.path().to_owned()).collect()
        };
        let error = find(places(&[&broken, &absent]).into_iter(), PgMajor::V15).unwrap_err();
        assert!(error.message().contains("libicui18n.so.60"), "{error:?}");
        assert!(error.message().contains("No such file or directory"), "{error:?}");
        let found = find(places(&[&broken, &whole]).into_iter(), PgMajor::V15).unwrap();
        assert_eq!(found, whole.path());
        let other = find(places(&[&whole]).into_iter(), PgMajor::V16).unwrap_err();
        assert!(!other.message().contains("does not run"), "{other:?}");
    }
}
