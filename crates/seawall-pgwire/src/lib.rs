//! PostgreSQL's wire protocol: the one PostgreSQL client of Seawall.
//!
//! [`Conninfo`] and [`Environment`] read connection strings, service and password files as libpq
//! does and give a [`Config`]; [`Connection`] is a session that runs simple queries. Below them a
//! message layer frames protocol 3.0 and knows nothing of sessions.
//!
//! Nothing a server sends is trusted. The length of messages and results and the time of every
//! question are limited by [`Limits`]; malformed messages are errors; and its text, whether error,
//! setting or value, comes without control characters, so that it can be shown. Values of which
//! every byte counts are got as bytes.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod auth;
mod cancel;
mod config;
mod connect;
mod connection;
mod conninfo;
mod error;
mod hints;
mod message;
mod query;
mod quote;
mod rows;
mod scram;
mod server_message;
mod sessions;
mod startup;
mod tls;
mod transport;
mod value;
mod vet;

pub use cancel::CancelToken;
pub use config::{Config, Host, Limits};
pub use connection::{Connection, Timed, TransactionStatus};
pub use conninfo::{
    Conninfo, ConninfoError, Environment, PassfileWarning, masked_conninfo, quote_conninfo_value,
};
pub use error::{FailedAttempt, PgError, ServerError};
pub use quote::{quote_ident, quote_literal};
pub use rows::{ResultSet, Row};
pub use sessions::Sessions;
pub use value::FromText;
