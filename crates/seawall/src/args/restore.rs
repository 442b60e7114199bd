use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, ValueEnum};
use seawall_engine::restored::{TablespaceMapping, TargetAction};

use super::{ClusterArgs, JsonArgs, RepositoryArgs, WorkArgs};
use crate::config;

/// `seawall restore`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").args(["to", "before", "latest", "backup_only"]))]
#[command(
    after_help = "WHAT is a time, lsn:0/5000148, xid:1004502 or name:before_migration. A time is \
    written as PostgreSQL logs it ('2026-01-02 14:29:59.5 CET', '… +0545'), as 2026-01-02T14:29:59Z, \
    or by this machine's clock: '2026-01-02 14:29:59', 14:29, 'today 8:00', 'yesterday 14:29', now, \
    '5 minutes ago'.\n\n\
    Before a byte is written the target is proven to be reachable: every object is there, and the log is \
    whole. Files are proven as they are written, and damage leaves a directory that PostgreSQL does not \
    start on. An interrupted restore goes on when the same command is run again."
)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The data directory to make: not there yet, or empty (but see --delta)
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// Up to WHAT, and with it
    #[arg(long, value_name = "WHAT", help_heading = "Target")]
    pub to: Option<String>,
    /// Up to WHAT, and without it
    #[arg(long, value_name = "WHAT", help_heading = "Target")]
    pub before: Option<String>,
    /// To the end of the archive; the default
    #[arg(long, help_heading = "Target")]
    pub latest: bool,
    /// Only as far as the backup needs to be consistent
    #[arg(long, help_heading = "Target")]
    pub backup_only: bool,
    /// The timeline to follow: a number, latest, or a backup's [default: the current one]
    #[arg(long, value_name = "N|latest|BACKUP", help_heading = "Target")]
    pub timeline: Option<String>,
    /// The backup to start from [default: the best one]
    #[arg(long, value_name = "ID", help_heading = "Target")]
    pub backup: Option<String>,
    /// What the result is for: a clone cannot touch production's archive
    #[arg(long = "as", value_name = "clone|primary|standby", default_value = "clone")]
    pub mode: String,
    /// What PostgreSQL does at the target
    #[arg(
        long,
        value_name = "promote|pause|shutdown",
        default_value = "promote",
        hide_possible_values = true
    )]
    pub then: Then,
    /// Put a tablespace elsewhere; may be repeated; a = within OLD is written \=
    #[arg(long, value_name = "OLD=NEW", value_parser = mapping_parser())]
    pub map_tablespace: Vec<TablespaceMapping>,
    /// Restore only this database, and those PostgreSQL itself makes; may be repeated. The others
    /// are there by name and empty
    #[arg(long, value_name = "NAME")]
    pub database: Vec<OsString>,
    /// Restore onto what is in DIR, a stopped server's data directory of this cluster: only what differs
    /// is fetched and written
    #[arg(long, conflicts_with = "database")]
    pub delta: bool,
    /// With --delta: also where DIR is another cluster's, or nothing tells whose it is
    #[arg(long, requires = "delta")]
    pub force: bool,
    /// Start PostgreSQL on the result and wait until it has recovered
    #[arg(long)]
    pub start: bool,
    /// The port to start it on [default: a clone takes the first free one from 5433, a primary or
    /// standby the configured one]
    #[arg(long, value_name = "N", requires = "start", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The superuser whom --start asks as how far it is [default: the role of the cluster's
    /// connection]
    #[arg(long, value_name = "ROLE", requires = "start")]
    pub user: Option<String>,
    /// How long recovery may take with --start
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = config::parse_duration)]
    pub start_timeout: Duration,
    /// Show the plan, prove it, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Read and prove the content of all files too before a byte is written
    #[arg(long)]
    pub prove: bool,
    /// Take the plan without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// What PostgreSQL does at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Then {
    /// It takes writes.
    Promote,
    /// It waits and can be read.
    Pause,
    /// It shuts down.
    Shutdown,
}

impl From<Then> for TargetAction {
    fn from(then: Then) -> Self {
        match then {
            Then::Promote => Self::Promote,
            Then::Pause => Self::Pause,
            Then::Shutdown => Self::Shutdown,
        }
    }
}

/// `seawall promote`
#[derive(Debug, Args)]
#[command(
    after_help = "A standby is promoted only when it has replayed all that is archived on its way, \
    so its repository has to be reachable, and asks if the primary that the configuration names runs \
    still. With --to or --before the server does not take writes: \
    it replays on, and waits at WHAT."
)]
pub struct PromoteArgs {
    /// The restored data directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Move a clone that waits forward, up to WHAT and with it; it waits there again
    #[arg(long, value_name = "WHAT", help_heading = "Target", conflicts_with = "before")]
    pub to: Option<String>,
    /// Move a clone that waits forward, up to WHAT and without it; it waits there again
    #[arg(long, value_name = "WHAT", help_heading = "Target")]
    pub before: Option<String>,
    /// Promote it even if the archive has more, or cannot be asked
    #[arg(long, conflicts_with_all = ["to", "before"])]
    pub without_archive: bool,
    /// Promote it even if the primary that the configuration names runs still
    #[arg(long, short = 'y', conflicts_with_all = ["to", "before"])]
    pub yes: bool,
    /// A superuser of the cluster [default: the role of its connection]
    #[arg(long, value_name = "ROLE")]
    pub user: Option<String>,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = config::parse_duration)]
    pub timeout: Duration,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

/// `seawall discard`
#[derive(Debug, Args)]
#[command(
    after_help = "Only what `seawall restore` made as a clone is removed, or what it made and \
    nobody used yet: no primary, no standby, nothing that was copied or adopted."
)]
pub struct DiscardArgs {
    /// The restored data directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Remove it without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
}

fn mapping_parser() -> impl TypedValueParser<Value = TablespaceMapping> {
    // A path is bytes: nothing says that they are UTF-8.
    OsStringValueParser::new().try_map(|text| parse_mapping(text.as_bytes()))
}

/// Reads `OLD=NEW`. An equals sign with a backslash before it is part of a path, as it is for
/// `pg_basebackup`; so is one that no absolute path follows.
fn parse_mapping(text: &[u8]) -> Result<TablespaceMapping, String> {
    let divides = |at: &usize| {
        let (old, new) = text.split_at(*at);
        new.starts_with(b"=/") && !old.ends_with(b"\\")
    };
    let at = (0..text.len()).find(divides).filter(|_| text.starts_with(b"/"));
    let (old, new) = text.split_at(at.ok_or("it must be OLD=NEW, both absolute")?);
    let new = new.strip_prefix(b"=").unwrap_or(new);
    Ok(TablespaceMapping { old: path_of(old), new: path_of(new) })
}

/// A path without the backslashes before its equals signs.
fn path_of(written: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(written.len());
    for byte in written {
        if *byte == b'=' && path.ends_with(b"\\") {
            path.pop();
        }
        path.push(*byte);
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_divided_where_it_means_to_be() {
        for (text, old, new) in [
            ("/a=/b", "/a", "/b"),
            ("/a=x=/b", "/a=x", "/b"),
            (r"/a\=x=/b", "/a=x", "/b"),
            (r"/a\=/x=/b", "/a=/x", "/b"),
            (r"/a=/b=c\=/d", "/a", "/b=c=/d"),
            (r"/a\b=/c\d", r"/a\b", r"/c\d"),
        ] {
            let mapping = parse_mapping(text.as_bytes()).unwrap();
            assert_eq!(mapping, TablespaceMapping { old: old.into(), new: new.into() });
        }
        for text in ["", "/a", "/a=b", "a=/b", "=/b", r"/a\=/b"] {
            assert!(parse_mapping(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse_mapping(b"/\xFF=/b").is_ok());
    }
}
