use serde::{Deserialize, Serialize};

/// Whether the same request may succeed when it is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Not until somebody changes something: a setting, a disk, what was asked for.
    Never,
    /// It may pass by itself: a store or a server that is away, WAL that is on its way.
    Later,
    /// At once: what was in the way is over, and nothing has to be waited for.
    Now,
}
