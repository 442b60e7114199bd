use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use seawall_core::{Code, Error, Result};
use seawall_pgdata::PgMajor;

/// Names the directory of PostgreSQL's programs where they are in none of the usual places.
const VARIABLE: &str = "SEAWALL_PG_BIN";

/// Where packages put a major's programs: Debian's, and those of the Red Hat family.
const USUAL: [(&str, &str); 2] = [("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin")];

/// Finds the directory with the programs of exactly this major.
///
/// # Errors
/// [`Code::RestoredServerFailed`] if it is in none of the places looked at.
pub fn find_programs(major: PgMajor) -> Result<PathBuf> {
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    let usual = USUAL.map(|(before, after)| PathBuf::from(format!("{before}{major}{after}")));
    let path = env::var_os("PATH").unwrap_or_default();
    let places = named.into_iter().chain(usual).chain(env::split_paths(&path));
    for directory in places {
        if major_of(&directory.join("postgres")) == Some(major)
            && directory.join("pg_ctl").is_file()
        {
            return Ok(directory);
        }
    }
    Err(Error::new(
        Code::RestoredServerFailed,
        format!("the programs of PostgreSQL {major} are not on this host"),
    )
    .with_hint(format!(
        "Install that major, or name the directory of its programs: `{VARIABLE}=/…/bin`."
    )))
}

/// Asks a server program for its major; `postgres (PostgreSQL) 15.4 (Debian …)`.
fn major_of(postgres: &Path) -> Option<PgMajor> {
    if !postgres.is_file() {
        return None;
    }
    let output = Command::new(postgres).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split(") ").nth(1)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    PgMajor::from_number(digits.parse().ok()?)
}
