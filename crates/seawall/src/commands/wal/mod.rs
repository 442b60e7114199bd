//! `seawall wal`: the write-ahead log.

mod fetch;
mod list;
mod push;

use std::path::Path;

use seawall_core::Result;

use crate::args::WalCommand;
use crate::exit::Outcome;

pub use fetch::keep_server_recovering;
pub use list::gaps;

/// Runs the command.
///
/// # Errors
/// Those of the subcommand.
pub fn main(config: Option<&Path>, command: &WalCommand) -> Result<Outcome> {
    match command {
        WalCommand::Push(args) => push::main(config, args),
        WalCommand::Fetch(args) => fetch::main(config, args),
        WalCommand::List(args) => list::main(config, args),
    }
}
