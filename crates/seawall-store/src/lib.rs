//! Object storage under a repository.
//!
//! [`Store`] is the whole of what a repository asks of storage: objects are created once, read,
//! listed in byte order and deleted. There is no rename, no append and no overwrite, so that a
//! local directory, an object store, an SFTP server and a gateway can all keep the same promises;
//! a conformance suite holds every adapter to them.
//!
//! [`open`] gives the store behind a [`StoreUrl`]. [`Retrying`], [`Limited`], [`TimeLimited`] and
//! [`Metered`] are stores in front of another one. [`direct`] is for whoever moves large files on local disks.
//!
//! # Features
//! `suite` adds the conformance suite, `testing` adds stores that fail on purpose, are far away or
//! in memory.

#![deny(clippy::indexing_slicing)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// A number that is cut says something else: what gets narrower is converted with a check.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod call;
mod credentials;
pub mod direct;
mod error;
pub mod fs;
mod layer;
mod open;
mod path;
mod store;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod url;

pub use call::Call;
pub use credentials::Credentials;
pub use error::{ObjectPlace, StoreError};
pub use layer::{Counts, Limited, Limits, Metered, RetryPolicy, Retrying, TimeLimited};
pub use open::{OpenOptions, open, open_or_create};
pub use path::{InvalidObjectPath, ObjectPath, ObjectPrefix, RESERVED_SUFFIX};
pub use store::{
    ListPage, MAX_PAGE_OBJECTS, MAX_READ_BYTES, ObjectEnd, ObjectInfo, ObjectWriter, Store,
};
pub use url::{InvalidStoreUrl, StoreDirectory, StoreUrl};
