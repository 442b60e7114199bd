//! Stores for tests: one that fails on purpose, one that is far away, one that is in memory.

mod faulty;
mod latency;
mod memory;

pub use crate::call::Call;
pub use faulty::{Fault, Faulty};
pub use latency::Latency;
pub use memory::MemoryStore;
