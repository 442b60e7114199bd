//! What is in a directory that a restore goes onto.

use serde::{Deserialize, Serialize};

/// Paths that are kept of a list by name.
const NAMED_MAX: usize = 200;

/// What a restore finds in a directory that it goes onto.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onto {
    /// Files that the backup has too, which will be compared.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the backup lacks and PostgreSQL would take for its own, or what is in the place of
    /// something else: it is removed.
    pub removed: Listed,
    /// What the backup lacks and is nobody's but the user's: it stays.
    pub stays: Listed,
}

/// Paths, relative to the data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// How many; a directory with all that is in it is one.
    pub count: u64,
    /// Room that they take on the disk, in bytes.
    pub bytes: u64,
    /// The first of them, as they are shown.
    pub paths: Vec<String>,
}

impl Listed {
    pub(crate) fn add(&mut self, path: String, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        if self.paths.len() < NAMED_MAX {
            self.paths.push(path);
        }
    }
}
