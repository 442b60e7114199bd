//! For tests only: real PostgreSQL clusters, faults, and oracles that can fail.
//!
//! Everything here is synchronous and reports trouble as [`anyhow::Error`]: a test passes it on
//! with `?` and the reader gets the whole story, server log included.
//!
//! * [`PgCluster`] starts a throwaway server, or one on a restored directory.
//! * [`SeawallBin`] runs the built `seawall`, as root or as the servers' [`Owner`].
//! * [`Ledger`] keeps writers committing and knows afterwards what a restore must contain.
//! * [`oracles`] asks PostgreSQL's own tools whether a cluster is whole.
//! * [`pages`] compares two data directories page by page.
//! * [`faults`] and [`cgroup`] make disks full, bits flip and memory short.
//! * [`TestClock`] sets the clock that a program sees.
//! * [`edges`] kills a program exactly before a call that makes something durable or visible.
//!
//! Files live under `/tmp/seawall-test-*` and go when the test ends; set `SEAWALL_TEST_KEEP` to
//! keep them.

pub mod cgroup;
mod clock;
mod cluster;
pub mod edges;
pub mod faults;
pub mod ledger;
pub mod oracles;
mod owner;
pub mod pages;
mod paths;
mod pg_bin;
pub mod process;
mod psql;
mod seawall_bin;

pub use clock::TestClock;
pub use cluster::{PgCluster, PgClusterBuilder, PgOpenBuilder, StopMode};
pub use ledger::Ledger;
pub use owner::Owner;
pub use paths::{TestDir, cache_directory};
pub use pg_bin::PgBin;
pub use process::Output;
pub use psql::{PgConnection, PsqlSession};
pub use seawall_bin::{Invocation, SeawallBin};
