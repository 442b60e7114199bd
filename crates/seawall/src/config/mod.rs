//! The configuration file: where it is, what it may say, what it means.

mod connection;
mod exposure;
mod load;
mod retention;
mod secret;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use seawall_core::{ByteSize, ClusterName, RateLimit};
use seawall_engine::check::FindingId;
use seawall_repo::retention::Policy;
use seawall_store::StoreUrl;

use seawall_engine::job::Priority;

pub use connection::ConnectionSource;
pub use exposure::{Exposed, replace_key};
pub use load::{
    DEFAULT_COMPRESSION_LEVEL, parse_compression, parse_duration, parse_jobs, parse_memory,
    parse_pack_size, parse_priority, parse_rate_limit,
};
pub use load::{DEFAULT_PATH, load, load_if_any, named_clusters, parse};
pub use secret::{SecretSource, read_file as read_key_text};

/// The memory budget unless told otherwise.
pub const DEFAULT_MEMORY: ByteSize = ByteSize(128 << 20);

/// The size a pack is finished at unless told otherwise.
pub const DEFAULT_PACK_SIZE: ByteSize = ByteSize(seawall_engine::job::PACK_BYTES);

/// What the configuration file says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file; `None` when a command runs without one.
    pub path: Option<PathBuf>,
    /// CPU workers; `None` is one for each CPU.
    pub jobs: Option<NonZeroUsize>,
    /// The memory budget of a pipeline.
    pub memory: ByteSize,
    /// How fast a job may move a cluster's bytes.
    pub rate_limit: RateLimit,
    /// How backups and verifications stand among the programs of the machine.
    pub priority: Priority,
    /// The clusters, by name.
    pub clusters: BTreeMap<ClusterName, ClusterConfig>,
    /// The repositories, by name.
    pub repositories: BTreeMap<String, RepositoryConfig>,
}

impl Config {
    /// What a command without a configuration file works with.
    pub const fn none() -> Self {
        Self {
            path: None,
            jobs: None,
            memory: DEFAULT_MEMORY,
            rate_limit: RateLimit::NONE,
            priority: Priority::Normal,
            clusters: BTreeMap::new(),
            repositories: BTreeMap::new(),
        }
    }

    /// The clusters that have a repository of that name.
    pub fn clusters_in(&self, repository: &str) -> Vec<ClusterName> {
        let names = self.clusters.iter();
        names
            .filter(|(_, cluster)| cluster.repositories.iter().any(|name| name == repository))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What is to be kept of a cluster in a repository; without a word of it, everything.
    pub fn retention(&self, cluster: &ClusterName, repository: &str) -> Policy {
        let of_repository = self.repositories.get(repository).and_then(|it| it.retention.as_ref());
        let of_cluster = || self.clusters.get(cluster).and_then(|it| it.retention.as_ref());
        of_repository.or_else(of_cluster).cloned().unwrap_or_else(Policy::none)
    }

    /// The file's name as messages show it.
    pub fn shown_path(&self) -> String {
        self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH)).display().to_string()
    }
}

/// A `[cluster.NAME]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// How its server is reached.
    pub connection: Option<ConnectionSource>,
    /// Where the cluster's files are on this machine.
    pub data_directory: Option<PathBuf>,
    /// How its files are read.
    pub source: Source,
    /// The names of its repositories, in the order given.
    pub repositories: Vec<String>,
    /// Findings of `check` that are known, and why they stay.
    pub acknowledge: BTreeMap<FindingId, String>,
    /// What is to be kept of it; everything, if that is not said.
    pub retention: Option<Policy>,
}

/// How a cluster's files are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// The best way there is: beside the database.
    #[default]
    Auto,
    /// Beside the database.
    Files,
}

/// A `[repository.NAME]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// Where its key comes from.
    pub key: SecretSource,
    /// The zstd level new data is compressed with.
    pub compression_level: i32,
    /// The size a pack is finished at.
    pub pack_size: ByteSize,
    /// What is to be kept here, whatever clusters say.
    pub retention: Option<Policy>,
}
