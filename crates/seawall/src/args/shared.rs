use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use seawall_core::{ByteSize, ClusterName, RateLimit};

use crate::config;
use crate::context::{absolute, is_url};
use seawall_engine::job::{Budget, Priority};

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub struct ClusterArgs {
    /// The cluster, where several are configured
    #[arg(value_name = "CLUSTER", env = "SEAWALL_CLUSTER", hide_env_values = true)]
    pub cluster: Option<ClusterName>,
}

/// Which repository, and what opens it.
#[derive(Debug, Clone, Default, Args)]
pub struct RepositoryArgs {
    /// The repository, by name or URL
    #[arg(long, env = "SEAWALL_REPO", hide_env_values = true, value_name = "NAME|URL")]
    pub repo: Option<String>,
    /// The repository's key; with a URL as --repo no configuration is needed
    #[arg(long, env = "SEAWALL_KEY", hide_env_values = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// A recovery kit, instead of configuration, --repo and --key
    #[arg(long, env = "SEAWALL_KIT", hide_env_values = true, value_name = "FILE")]
    #[arg(conflicts_with_all = ["repo", "key"])]
    pub kit: Option<PathBuf>,
}

impl RepositoryArgs {
    /// The flags that stand in for a configuration, for a command that is typed next; none where the
    /// configuration says enough.
    pub fn again(&self, config: Option<&Path>) -> Vec<String> {
        let mut flags = Vec::new();
        let mut add = |flag: &str, value: String| flags.extend([flag.to_owned(), value]);
        let shown = |path: &Path| absolute(path).display().to_string();
        if let Some(kit) = &self.kit {
            add("--kit", shown(kit));
        } else if let Some(config) = config {
            add("--config", shown(config));
        } else if let (Some(repo), Some(key)) = (&self.repo, &self.key)
            && is_url(repo)
        {
            add("--repo", repo.clone());
            add("--key", shown(key));
        }
        flags
    }
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long, env = "SEAWALL_JSON", hide_env_values = true)]
    pub json: bool,
}

/// Where the cluster is, instead of what the configuration says.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// How to reach the server: a libpq connection string or URI
    #[arg(long, env = "SEAWALL_CONNECTION", hide_env_values = true, value_name = "CONNINFO")]
    pub connection: Option<String>,
    /// Where the cluster's files are
    #[arg(long, env = "SEAWALL_DATA_DIRECTORY", hide_env_values = true, value_name = "DIR")]
    pub data_directory: Option<PathBuf>,
}

/// How much of the machine a job may use.
#[derive(Debug, Clone, Default, Args)]
pub struct WorkArgs {
    /// CPU workers: auto or a number
    #[arg(long, env = "SEAWALL_JOBS", hide_env_values = true, value_name = "N")]
    #[arg(value_parser = |text: &str| config::parse_jobs(text).map(Jobs))]
    pub jobs: Option<Jobs>,
    /// Memory budget, such as 256MiB
    #[arg(long, env = "SEAWALL_MEMORY", hide_env_values = true, value_name = "SIZE")]
    #[arg(value_parser = config::parse_memory)]
    pub memory: Option<ByteSize>,
    /// Bytes to read or write a second, such as 50MB/s; none
    #[arg(long, env = "SEAWALL_RATE_LIMIT", hide_env_values = true, value_name = "RATE")]
    #[arg(value_parser = config::parse_rate_limit)]
    pub rate_limit: Option<RateLimit>,
}

/// How a job that runs beside a database stands among the machine's programs.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct PriorityArgs {
    /// normal, or low: behind all other programs (nice 19)
    #[arg(long, env = "SEAWALL_PRIORITY", hide_env_values = true, value_name = "PRIORITY")]
    #[arg(value_parser = config::parse_priority)]
    pub priority: Option<Priority>,
}

impl WorkArgs {
    /// What the flags say, or else the configuration.
    pub fn budget(&self, config: &config::Config) -> Budget {
        Budget {
            threads: self.jobs.map_or(config.jobs, |jobs| jobs.0),
            memory_bytes: self.memory.unwrap_or(config.memory).0,
            ..Budget::default()
        }
    }

    /// How fast the flags, or else the configuration, let a job move the cluster's bytes.
    pub fn rate(&self, config: &config::Config) -> RateLimit {
        self.rate_limit.as_ref().unwrap_or(&config.rate_limit).clone()
    }
}

impl PriorityArgs {
    /// What the flag says, or else the configuration.
    pub fn or(self, config: &config::Config) -> Priority {
        self.priority.unwrap_or(config.priority)
    }
}

/// A number of workers; `None` is one for each CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jobs(pub Option<NonZeroUsize>);
