//! The client against servers that speak the protocol wrongly on purpose: whatever they do, it ends
//! in bounded time and memory, with an error.

mod endless;
mod fake;
mod login;
mod session;
mod text;
mod tls;
