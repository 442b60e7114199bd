//! PostgreSQL's bytes: bytes in, structs out.
//!
//! Nothing here does I/O. Input is never trusted: a parser returns an error or a value, and never
//! panics. A PostgreSQL major this crate does not know is refused; a new one enters in [`version`].

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// A number that is cut says something else: what gets narrower is converted with a check.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod backup_label;
pub mod backup_manifest;
pub mod checksum;
pub mod control;
mod cursor;
mod decimal;
pub mod exclusion;
pub mod history;
pub mod own_places;
pub mod page;
pub mod relation_path;
pub mod tablespace_map;
pub mod version;
pub mod wal;

pub use cursor::{Cursor, Truncated};
pub use version::PgMajor;
