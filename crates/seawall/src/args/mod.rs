//! The command line: names and help that scripts, tests and people rely on.

mod keep;
mod restore;
mod shared;
mod usage;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use seawall_core::{ByteSize, ClusterName};

use crate::config;

pub use keep::{AnnotateArgs, BackupWordArgs, DeleteArgs, HoldArgs, PruneArgs};
pub use restore::{DiscardArgs, PromoteArgs, RestoreArgs};
pub use shared::{ClusterArgs, JsonArgs, PriorityArgs, RepositoryArgs, ServerArgs, WorkArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::White.on_default().bold())
    .usage(AnsiColor::White.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

/// Protects PostgreSQL: every moment can be brought back, and it proves so
#[derive(Debug, Args)]
#[command(version, styles = STYLES, max_term_width = 100)]
#[command(disable_help_subcommand = true, infer_subcommands = false)]
#[command(
    after_help = "Every error has a code with a page in docs/errors of the source. Begin with `seawall \
                        demo`, or with `seawall init --help`."
)]
pub struct Cli {
    /// The configuration file [default: /etc/seawall/seawall.toml]
    #[arg(
        long,
        env = "SEAWALL_CONFIG",
        hide_env_values = true,
        value_name = "FILE",
        global = true
    )]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

impl CommandFactory for Cli {
    fn command() -> clap::Command {
        Self::augment_args(clap::Command::new("seawall"))
    }

    fn command_for_update() -> clap::Command {
        Self::augment_args_for_update(clap::Command::new("seawall"))
    }
}

/// Not derived, so that an error of the command line has a code as every other.
impl Parser for Cli {
    fn try_parse_from<I, T>(words: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(words);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(usage::with_code)
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set up a cluster's protection: configuration, repository, key, recovery kit
    Init(InitArgs),
    /// Prove that protection works: settings, privileges, keys, a WAL switch that arrives
    Check(CheckArgs),
    /// One line a cluster for monitoring; exits 0, 1 (warning) or 2 (critical)
    Status(StatusArgs),
    /// Back a cluster up
    Backup(BackupArgs),
    /// Sizes, recovery window, backups and running jobs
    Info(ViewArgs),
    /// The backups there are
    List(ViewArgs),
    /// One backup
    Show(ShowArgs),
    /// Keep one backup, whatever the retention
    Hold(HoldArgs),
    /// End a hold
    Release(BackupWordArgs),
    /// Make notes on one backup
    Annotate(AnnotateArgs),
    /// Say that one backup is to go
    Delete(DeleteArgs),
    /// What is kept by the retention, what goes, and why
    Prune(PruneArgs),
    /// Bring a cluster back, to any moment, into another directory
    Restore(Box<RestoreArgs>),
    /// Give a server that goes its own way a new line: after pg_upgrade, initdb, a snapshot put back
    Adopt(AdoptArgs),
    /// End the pause of a restored server, or promote a restored standby: it takes writes
    Promote(PromoteArgs),
    /// Stop and remove a restored clone
    Discard(DiscardArgs),
    /// Write-ahead log: for archive_command and restore_command, and what is archived
    #[command(subcommand)]
    Wal(WalCommand),
    /// Read and authenticate what a repository holds
    Verify(VerifyArgs),
    /// The keys that open a repository
    #[command(subcommand)]
    Key(KeyCommand),
    /// See it work on this machine in under two minutes
    Demo(DemoArgs),
    /// Run one job for another program: a request as JSON, events as JSON lines (docs/job.md)
    #[command(hide = true)]
    Job(JobArgs),
    /// Print a completion script
    #[command(hide = true)]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: Shell,
    },
    /// Install the manual pages
    Man {
        /// The directory to write them into
        #[arg(value_name = "DIR", default_value = "/usr/local/share/man/man1")]
        directory: PathBuf,
    },
}

impl Command {
    /// The repository the command is about; `None` for one that takes no flags for it.
    pub fn repository(&self) -> Option<&RepositoryArgs> {
        Some(match self {
            Self::Check(args) => &args.repository,
            Self::Status(args) => &args.repository,
            Self::Backup(args) => &args.repository,
            Self::Info(args) | Self::List(args) | Self::Wal(WalCommand::List(args)) => {
                &args.repository
            }
            Self::Show(args) => &args.repository,
            Self::Hold(args) => &args.backup.repository,
            Self::Release(args) => &args.repository,
            Self::Annotate(args) => &args.backup.repository,
            Self::Delete(args) => &args.backup.repository,
            Self::Prune(args) => &args.repository,
            Self::Restore(args) => &args.repository,
            Self::Adopt(args) => &args.repository,
            Self::Promote(args) => &args.repository,
            Self::Verify(args) => &args.repository,
            Self::Wal(WalCommand::Push(args)) => &args.repository,
            Self::Wal(WalCommand::Fetch(args)) => &args.repository,
            Self::Key(KeyCommand::Show(args)) => &args.repository,
            Self::Key(KeyCommand::Add(args)) => &args.repository,
            Self::Key(KeyCommand::Rotate(args)) => &args.repository,
            Self::Key(KeyCommand::Remove(args)) => &args.repository,
            Self::Key(KeyCommand::Kit(args)) => &args.repository,
            Self::Init(_)
            | Self::Discard(_)
            | Self::Demo(_)
            | Self::Job(_)
            | Self::Completions { .. }
            | Self::Man { .. } => return None,
        })
    }
}

/// `seawall init`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("recovery").required(true).args(["kit", "no_kit"]))]
#[command(
    after_help = "Running it again changes nothing and says what is there already. Run it as \
                        root, or as the user PostgreSQL runs as."
)]
pub struct InitArgs {
    /// The name to give the cluster
    pub cluster: ClusterName,
    /// Where the repository is or is to be: file:///srv/seawall, or the name of a configured one
    #[arg(long, env = "SEAWALL_REPO", hide_env_values = true, value_name = "URL")]
    pub repo: String,
    /// How to reach the server: a libpq connection string or URI [default: the local socket]
    #[arg(long, env = "SEAWALL_CONNECTION", hide_env_values = true, value_name = "CONNINFO")]
    pub connection: Option<String>,
    /// A file that holds the connection string, where a password has to be in it
    #[arg(long, value_name = "FILE", conflicts_with = "connection")]
    pub connection_file: Option<PathBuf>,
    /// Where the cluster's files are [default: what the server says]
    #[arg(long, env = "SEAWALL_DATA_DIRECTORY", hide_env_values = true, value_name = "DIR")]
    pub data_directory: Option<PathBuf>,
    /// The user files will belong to [default: the owner of the data directory]
    #[arg(long, env = "SEAWALL_OWNER", hide_env_values = true, value_name = "USER")]
    pub owner: Option<String>,
    /// The key of a repository that exists already
    #[arg(long, env = "SEAWALL_KEY", hide_env_values = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Write the recovery kit here: all that a restore needs besides the storage
    #[arg(long, value_name = "FILE")]
    pub kit: Option<PathBuf>,
    /// Write no recovery kit; the key file is then the only key
    #[arg(long)]
    pub no_kit: bool,
    /// Make the repository though one was there before: the old one is gone for good
    #[arg(long)]
    pub new_repository: bool,
}

/// `seawall adopt`
#[derive(Debug, Args)]
#[command(
    after_help = "For a server that is now the cluster and writes other WAL than the repository \
    has: after pg_upgrade or initdb, after a snapshot was put back, or when a restored clone takes \
    over. What was archived and backed up before stays restorable: name the backup with --backup."
)]
pub struct AdoptArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Show the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take the plan without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall check`
#[derive(Debug, Args)]
#[command(
    after_help = "Exits 0 if all is well, 6 with findings, 1 to 5 if it could not be checked."
)]
pub struct CheckArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// How long WAL may take to arrive
    #[arg(long, env = "SEAWALL_WAL_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    #[arg(default_value = "60s", value_parser = config::parse_duration)]
    pub wal_timeout: Duration,
    /// Let advice count as a finding too: exit status 6
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// How many seconds of commits may be at risk: a warning above, critical above ten times it
    #[arg(long, env = "SEAWALL_MAX_RPO", hide_env_values = true, value_name = "DURATION")]
    #[arg(default_value = "5m", value_parser = config::parse_duration)]
    pub max_rpo: Duration,
    /// How old the newest backup may be: a warning above, critical above twice it
    #[arg(long, env = "SEAWALL_MAX_AGE", hide_env_values = true, value_name = "DURATION")]
    #[arg(default_value = "26h", value_parser = config::parse_duration)]
    pub max_age: Duration,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Read and store everything, and lead on from no backup before
    #[arg(long)]
    pub full: bool,
    /// The backup to lead on from, instead of the newest that is of use: its id, a unique beginning
    /// of it, or `latest~1`
    #[arg(long, value_name = "BACKUP", conflicts_with = "full")]
    pub parent: Option<String>,
    /// A note to keep with the backup, as KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_annotation)]
    pub annotate: Vec<(String, String)>,
    /// Let PostgreSQL spread its checkpoint instead of making it at once
    #[arg(long)]
    pub spread_checkpoint: bool,
    /// How long WAL may take to arrive without any progress, and one of several repositories to
    /// answer
    #[arg(long, env = "SEAWALL_WAL_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    #[arg(default_value = "5m", value_parser = config::parse_duration)]
    pub wal_timeout: Duration,
    /// zstd, or zstd:1 to zstd:19
    #[arg(long, env = "SEAWALL_COMPRESSION", hide_env_values = true, value_name = "LEVEL")]
    #[arg(value_parser = config::parse_compression)]
    pub compression: Option<i32>,
    /// The size a pack is finished at
    #[arg(long, env = "SEAWALL_PACK_SIZE", hide_env_values = true, value_name = "SIZE")]
    #[arg(value_parser = config::parse_pack_size)]
    pub pack_size: Option<ByteSize>,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub priority: PriorityArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

fn parse_annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("it must be KEY=VALUE".to_owned()),
    }
}

/// `seawall info` and `seawall list`
#[derive(Debug, Args)]
pub struct ViewArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A backup: its id or a unique beginning of it, latest, latest~1
    #[arg(value_name = "ID")]
    pub backup: String,
    /// The cluster, where several are configured
    #[arg(long, env = "SEAWALL_CLUSTER", hide_env_values = true, value_name = "CLUSTER")]
    pub cluster: Option<ClusterName>,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall wal`
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// For archive_command: succeeds when the file is durable in every repository
    Push(PushArgs),
    /// For restore_command: exits 0 with the file, 1 if it is proven not to exist, else above 200
    Fetch(FetchArgs),
    /// Ranges, timelines and gaps of the archived WAL
    List(ViewArgs),
}

/// `seawall wal push`
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The file: %p
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The cluster, where several are configured
    #[arg(long, env = "SEAWALL_CLUSTER", hide_env_values = true, value_name = "CLUSTER")]
    pub cluster: Option<ClusterName>,
    /// By hand only: the file is from pg_wal of a server that is gone; a segment that was not full
    /// is archived up to its last whole record. Without this it is refused: in archive_command it
    /// would be a damaged one
    #[arg(long)]
    pub partial: bool,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

/// `seawall wal fetch`
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The file: %f
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where to put it: %p
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The cluster, where several are configured
    #[arg(long, env = "SEAWALL_CLUSTER", hide_env_values = true, value_name = "CLUSTER")]
    pub cluster: Option<ClusterName>,
    /// The server is a standby, which waits and asks again for what is not there yet
    #[arg(long)]
    pub standby: bool,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

/// `seawall verify`
#[derive(Debug, Args)]
#[command(
    after_help = "Exits 0 if everything read is whole, 4 if something is damaged or missing, 1 if nothing is and\n\
                  something could not be read, 6 if all is whole and archived WAL leads nowhere, as it has a hole\n\
                  behind the newest backup, or there is no backup."
)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Only what this backup needs: its id or a unique beginning of it, latest, latest~1
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// How much of the backups' data is read; WAL and all else is read whole
    #[arg(long, value_name = "P%", default_value = "100%", value_parser = parse_percent)]
    pub sample: u8,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub priority: PriorityArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse() {
        Ok(percent @ 0..=100) => Ok(percent),
        _ => Err("it must be 0% to 100%".to_owned()),
    }
}

/// `seawall job`
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The request [default: the first line of standard input]
    #[arg(long, value_name = "FILE")]
    pub request: Option<PathBuf>,
}

/// `seawall demo`
#[derive(Debug, Args)]
#[command(
    after_help = "A throwaway PostgreSQL with live traffic is backed up, loses a table, and is \
                        restored to just before that, proven row by row. Nothing else is touched."
)]
pub struct DemoArgs {
    /// Where the demo's files go [default: a directory below /tmp]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave servers and files for looking around
    #[arg(long)]
    pub keep: bool,
    /// The user to run PostgreSQL as, for root [default: postgres]
    #[arg(long, env = "SEAWALL_OWNER", hide_env_values = true, value_name = "USER")]
    pub owner: Option<String>,
}

/// `seawall key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// The key slots of a repository
    Show(KeyShowArgs),
    /// Let one more key open the repository
    Add(KeyAddArgs),
    /// Begin a new key for new data; what is there stays readable with the old one
    Rotate(KeyRotateArgs),
    /// Take a key slot away
    Remove(KeyRemoveArgs),
    /// Write a recovery kit
    Kit(KeyKitArgs),
}

/// `seawall key show`
#[derive(Debug, Args)]
pub struct KeyShowArgs {
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall key add`
#[derive(Debug, Args)]
pub struct KeyAddArgs {
    /// The key file to add; made if it does not exist
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What to call it
    #[arg(long, default_value = "key file")]
    pub label: String,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

/// `seawall key rotate`
#[derive(Debug, Args)]
pub struct KeyRotateArgs {
    /// Do not ask, even if other keys are locked out by it
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall key remove`
#[derive(Debug, Args)]
pub struct KeyRemoveArgs {
    /// The slot's id or a unique beginning of it, as `seawall key show` has it
    #[arg(value_name = "SLOT")]
    pub slot: String,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

/// `seawall key kit`
#[derive(Debug, Args)]
pub struct KeyKitArgs {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}
