//! One module for each verb.

pub mod adopt;
pub mod backup;
pub mod check;
pub mod demo;
pub mod discard;
pub mod info;
pub mod init;
pub mod job;
pub mod key;
pub mod list;
mod living;
pub mod papers;
pub mod promote;
pub mod restore;
pub mod show;
pub mod status;
pub mod verify;
pub mod wal;
