//! Deleting what nobody needs, and nothing else, whatever happens meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crashes;
mod house;
mod model;
mod rules;
#[path = "../../../seawall/tests/support/sweep.rs"]
mod sweep;
