//! Giving way to the other programs of the machine.

use rustix::process::setpriority_process;
use serde::{Deserialize, Serialize};

/// The lowest there is, see setpriority(2).
///
/// The I/O priority follows from it: the lowest of the class best-effort (ioprio_set(2)). The idle
/// class would not be gentle: a read around the page cache keeps writers of the same file waiting
/// (ext4), and in that class it may wait for seconds itself.
const NICEST: i32 = 19;

/// How a job stands among the programs of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// As whoever started it.
    #[default]
    Normal,
    /// Behind all others.
    Low,
}

impl Priority {
    /// Takes the priority for this thread and those it will start. A job that cannot have a lower
    /// one is still done, and says so.
    pub fn take(self) {
        if self == Self::Low
            && let Err(error) = setpriority_process(None, NICEST)
        {
            tracing::warn!("cannot lower the priority, this job runs as any other: {error}");
        }
    }
}
