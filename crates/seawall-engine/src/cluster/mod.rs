//! A running cluster, seen over SQL and in its data directory.

mod control;
mod files;
mod server;
mod session;

pub use control::{read_control, read_control_bytes};
pub use files::{FileKind, Found, ScanOptions, scan};
pub use server::{ExternalConfig, Server, ServerFacts};
pub use session::{BackupSession, Stopped};
