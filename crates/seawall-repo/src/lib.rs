//! The repository, format 1: `docs/format.md` is the specification and this crate its hand.
//!
//! Objects are sealed in an [`envelope`], under keys from a [`keys::Keyring`], at the names of
//! [`layout`]. Data lies in [`pack`]s, [`map`]s say which frame holds which block, [`manifest`]s list
//! files, and a small commit makes a backup of them. WAL lies in ranges ([`wal`]). [`Repository`] and [`Line`]
//! tie them to a store. The crate is asynchronous where it touches the store and knows no runtime.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// A number that is cut says something else: what gets narrower is converted with a check.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod cbor;
mod condemned;
pub mod envelope;
mod epochs;
mod error;
pub mod hash;
mod heads;
pub mod keys;
pub mod layout;
mod line;
pub mod manifest;
pub mod map;
mod objects;
pub mod pack;
pub mod records;
mod repository;
pub mod retention;
mod varint;
pub mod wal;

pub use condemned::{Condemnations, Condemned};
pub use error::Damage;
pub use line::{Attempt, BackupSummary, Line, Named};
pub use objects::{Needed, ObjectSet};
pub use repository::{CreateOptions, READS_AT_ONCE, Repository, new_ulid};
