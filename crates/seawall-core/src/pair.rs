use serde::{Deserialize, Serialize};

/// What a fact that goes with an error is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The name of a cluster.
    Cluster,
    /// The URL of a repository.
    Repository,
    /// The path of an object in a repository.
    Object,
    /// A path on the machine the job runs on.
    Path,
    /// A PostgreSQL server: host and port, or its socket.
    Host,
}
