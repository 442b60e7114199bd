//! What repositories hold of a cluster, what its server says, and what follows from both.
//!
//! Everything is decided here once, for whoever tells it: the command line, metrics, a server.
//! `collect` reads, the rest judges what was read:
//!
//! ```text
//! repositories → survey → ClusterSurvey ┐
//!       server → Archiving::ask         ┴→ rpo_seconds, contradiction, health
//! ```
//!
//! The names in JSON are stable: some may be added, none renamed.

mod archiving;
mod backup;
mod choices;
mod cluster;
mod collect;
mod contradiction;
mod foreign;
mod health;
mod held_up;
mod jobs;
mod order;
mod repository;
mod rpo;
mod wal;
mod window;
mod word;

pub use archiving::{Archiving, ask_all};
pub use backup::{BackupCopy, BackupState, KnownBackup};
pub use choices::{Choices, CopyAt};
pub use cluster::ClusterSurvey;
pub use collect::{Depth, NamedRepository, Surveyed, survey, survey_all};
pub use contradiction::Contradiction;
pub use foreign::ForeignWal;
pub use health::{Health, Judged, Level, Remark, Thresholds, health};
pub use held_up::{ArchiverHold, HoldingRepository};
pub use jobs::{JobState, KnownJob};
pub use repository::stored_bytes;
pub use wal::{ArchivedWal, DamagedTimeline, WalGap};
pub(crate) use window::LineSeen;
pub use window::{RecoveryWindow, UnusableWal};
pub use word::{Candidate, FoundBackup, find_backup};
