use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use seawall_testkit::PgCluster;
use seawall_testkit::process::wait_until;

/// A tool that backs up and restores.
pub trait Contestant {
    fn name(&self) -> &'static str;

    /// What was run, exactly.
    fn version(&self) -> Result<String>;

    /// The settings that matter, in words a reader can use.
    fn options(&self) -> String;

    /// Its repository: everything below counts as stored.
    fn repository(&self) -> &Path;

    /// Makes a new, empty repository for the server's cluster in place of any other.
    fn prepare(&self, server: &PgCluster) -> Result<()>;

    /// The server's `archive_command` for it.
    fn archive_command(&self) -> String;

    /// A full backup.
    fn backup(&self) -> Command;

    /// A backup of what changed since the one before.
    fn incremental_backup(&self) -> Command;

    /// A full backup that disturbs the server as little as the tool can, and how in words.
    fn gentle_backup(&self) -> (Command, &'static str);

    /// A restore of the newest backup, no further than it needs, into an empty directory.
    fn restore(&self, into: &Path) -> Command;

    /// The same onto a directory that was restored before.
    fn delta_restore(&self, into: &Path) -> Command;
}

/// Makes a new repository, hands the server's archiving to it, and waits until nothing is left to
/// archive or to write.
pub fn archive_for(contestant: &dyn Contestant, server: &PgCluster) -> Result<()> {
    server.set("archive_command", "")?;
    server.reload()?;
    contestant.prepare(server).context("preparing the repository")?;
    server.set("archive_command", &contestant.archive_command())?;
    server.reload()?;
    wait_archived(server)
}

/// Waits until nothing is left to archive or to write.
pub fn wait_archived(server: &PgCluster) -> Result<()> {
    server.psql("CHECKPOINT; SELECT pg_create_restore_point('turn')")?;
    server.switch_wal()?;
    let status = server.data_directory().join("pg_wal/archive_status");
    wait_until("archive up to date", Duration::from_secs(300), || is_archived(&status))
}

fn is_archived(status: &Path) -> Result<bool> {
    for entry in fs::read_dir(status)? {
        if entry?.file_name().to_string_lossy().ends_with(".ready") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A word of a shell command line.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
