//! One module for each verb.

pub mod adopt;
pub mod backup;
pub mod check;
pub mod demo;
pub mod discard;
pub mod info;
pub mod init;
pub mod job;
pub mod key;
pub mod list;
mod living;
pub mod mark;
pub mod papers;
pub mod promote;
pub mod prune;
pub mod restore;
pub mod show;
pub mod status;
pub mod verify;
pub mod wal;

use seawall_engine::survey::FoundBackup;

use crate::render::Style;

/// Says on standard error which newer backups `latest` does not mean.
fn tell_passed_over<T>(found: &FoundBackup<T>, repository: Option<&str>) {
    let warning = Style::of_stderr().yellow("warning:");
    let place = repository.map_or_else(String::new, |name| format!("repository {name}: "));
    found.notes().for_each(|note| eprintln!("{warning} {place}{note}"));
}
