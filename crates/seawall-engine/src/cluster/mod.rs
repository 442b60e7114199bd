//! A running cluster, seen over SQL and in its data directory.

mod archiver;
mod bytes;
mod control;
mod essentials;
mod files;
mod links;
mod own_files;
mod own_trees;
mod postmaster;
mod rights;
mod server;
mod session;
mod survey;
mod tablespace_links;
mod unreadable;

pub use archiver::{Archiver, is_push_of};
pub use control::{read_control, read_control_bytes};
pub(crate) use essentials::prove_essentials;
pub use files::{FileKind, FoundPath, ScanOptions, scan};
pub(crate) use files::{is_lost_and_found, modified_us};
pub use links::{LinkRules, stays_inside};
pub use own_files::prove_own_files;
pub use own_trees::prove_tablespaces;
pub(crate) use postmaster::ServerProcess;
pub use postmaster::{Listening, PostmasterFile};
pub use rights::{MissingRights, least_role};
pub(crate) use server::segment_size_of;
pub use server::{ConfigFile, Server, ServerFacts};
pub use session::{BackupSession, Stopped};
pub use survey::{ClusterLink, Survey, survey};
pub use tablespace_links::TablespaceLinks;
pub use unreadable::Unreadable;
