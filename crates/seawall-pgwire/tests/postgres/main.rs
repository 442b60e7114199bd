//! The client against a real PostgreSQL server, which each test starts for itself.

mod hosts;
mod server;
mod session;
mod tls;
