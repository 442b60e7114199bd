//! Restores of a real cluster, judged by PostgreSQL and by a ledger of what was acknowledged.

mod delta;
mod file_copies;
mod house;
mod interrupted;
mod long_backup;
mod places;
mod removals;
mod started;
mod targets;
