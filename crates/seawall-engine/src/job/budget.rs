use std::num::NonZeroUsize;
use std::thread;

use serde::{Deserialize, Serialize};

/// What a job holds beside its workers: lists, maps and the manifest, part by part.
const JOB_BYTES: usize = 32 << 20;

/// What a job may use of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Threads that move data; `None` for one for each CPU. The memory may be enough for fewer.
    pub threads: Option<NonZeroUsize>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Heaps the C library may keep beside each other, for the program the job runs in. Every thread
    /// would get one of its own, and each keeps what once passed through it; what passes here are
    /// buffers of megabytes, and few of them at a time, so that threads hardly wait for each other.
    pub heaps: u16,
}

impl Default for Budget {
    fn default() -> Self {
        Self { threads: None, memory_bytes: 128 << 20, heaps: 2 }
    }
}

impl Budget {
    /// As many workers as wanted, as far as the memory lets when each takes `worker_bytes`; at least
    /// one.
    #[must_use]
    pub fn workers(&self, worker_bytes: usize) -> usize {
        let all = || thread::available_parallelism().map_or(1, usize::from);
        let affordable = self.memory().saturating_sub(JOB_BYTES) / worker_bytes;
        self.threads.map_or_else(all, usize::from).min(affordable.max(1))
    }

    /// What is left of it beside so many bytes of memory.
    #[must_use]
    pub fn without(&self, bytes: usize) -> Self {
        let memory_bytes = self.memory_bytes.saturating_sub(bytes as u64);
        Self { memory_bytes, ..self.clone() }
    }

    /// The memory, as it is counted here.
    #[must_use]
    pub fn memory(&self) -> usize {
        usize::try_from(self.memory_bytes).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_the_workers_and_leaves_one() {
        let workers = |threads: usize, memory_bytes: u64| {
            let threads = NonZeroUsize::new(threads);
            Budget { threads, memory_bytes, ..Budget::default() }.workers(24 << 20)
        };
        assert_eq!(workers(4, 128 << 20), 4);
        assert_eq!(workers(64, 256 << 20), 9);
        assert_eq!(workers(64, 64 << 20), 1);
        assert_eq!(workers(64, 0), 1);
        let threads = NonZeroUsize::new(64);
        let budget = Budget { threads, memory_bytes: 256 << 20, ..Budget::default() };
        assert_eq!(budget.without(24 << 20).workers(24 << 20), 8);
        assert_eq!(budget.without(usize::MAX).workers(24 << 20), 1);
    }
}
