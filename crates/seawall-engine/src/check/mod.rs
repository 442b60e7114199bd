//! Whether a cluster is protected: facts are collected first, and then judged by a pure function.

mod arrival;
mod collect;
mod facts;
mod finding_id;
mod findings;
mod protection;

pub use collect::{Candidate, CheckRequest, collect};
pub use facts::{Arrival, Facts, RepositoryFacts, Settings, Trouble, WalDirectory};
pub use finding_id::FindingId;
pub use findings::{Finding, Severity, acknowledge, findings, proven};
pub use protection::Protection;
