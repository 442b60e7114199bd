use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use seawall_engine::restore::{TablespaceMapping, TargetAction};

use super::{ClusterArgs, JsonArgs, RepositoryArgs, WorkArgs, parse_duration};

/// `seawall restore`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").args(["to", "before", "latest", "backup_only"]))]
#[command(
    after_help = "WHAT is a time (2026-01-02T14:29:59Z, '2026-01-02 14:29:59.5' in the local \
    zone, '5 minutes ago'), lsn:0/5000148, xid:1004502 or name:before_migration.\n\n\
    The target is proven to be reachable before a byte is written. An interrupted restore goes on \
    when the same command is run again."
)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The data directory to make: not there yet, or empty
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
    #[arg(long = "as", value_name = "clone|primary", default_value = "clone")]
    pub mode: String,
    /// What PostgreSQL does at the target
    #[arg(
        long,
        value_name = "promote|pause|shutdown",
        default_value = "promote",
        hide_possible_values = true
    )]
    pub then: Then,
    /// Put a tablespace elsewhere; may be repeated
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_mapping)]
    pub map_tablespace: Vec<TablespaceMapping>,
    /// Start PostgreSQL on the result and wait until it has recovered
    #[arg(long)]
    pub start: bool,
    /// The port to start it on [default: the first free one from 5433]
    #[arg(long, value_name = "N", requires = "start", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How long recovery may take with --start
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub start_timeout: Duration,
    /// Show the plan, prove it, and write nothing
    #[arg(long)]
    pub dry_run: bool,
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
pub struct PromoteArgs {
    /// The restored data directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// A superuser of the cluster
    #[arg(long, value_name = "ROLE", default_value = "postgres")]
    pub user: String,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub timeout: Duration,
}

fn parse_mapping(text: &str) -> Result<TablespaceMapping, String> {
    match text.split_once('=') {
        Some((old, new)) if old.starts_with('/') && new.starts_with('/') => {
            Ok(TablespaceMapping { old: PathBuf::from(old), new: PathBuf::from(new) })
        }
        _ => Err("it must be OLD=NEW, both absolute".to_owned()),
    }
}
