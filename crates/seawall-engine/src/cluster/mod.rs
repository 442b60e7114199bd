//! A running cluster, seen over SQL and in its data directory.

mod archiver;
mod control;
mod files;
mod own_files;
mod postmaster;
mod server;
mod session;
mod tablespace_links;

pub use archiver::{Archiver, is_push_of};
pub use control::{read_control, read_control_bytes};
pub use files::{FileKind, Found, ScanOptions, scan};
pub use own_files::prove_own_files;
pub use postmaster::PostmasterFile;
pub use server::{ExternalConfig, Server, ServerFacts};
pub use session::{BackupSession, Stopped};
pub use tablespace_links::TablespaceLinks;
