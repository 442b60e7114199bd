//! The verbs: what Seawall does with a cluster and a repository.
//!
//! Each verb plans first, as a pure function of what it saw, and then does what the plan says.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A number that is cut says something else: what gets narrower is converted with a check.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod adopt;
mod as_bytes;
mod as_text;
pub mod backup;
pub mod check;
pub mod cluster;
mod config_text;
mod delivery;
mod durable;
pub mod events;
mod host;
pub mod job;
pub mod line_note;
pub mod lines;
pub mod liveness;
pub mod mark;
pub mod named_twice;
mod pace;
mod pinned;
pub mod prune;
pub mod restore;
pub mod restored;
pub mod retention;
mod stored;
pub mod survey;
pub mod verify;
pub mod wal;
pub mod whereabouts;

pub use pace::Crew;
