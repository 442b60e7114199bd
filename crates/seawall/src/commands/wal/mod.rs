//! `seawall wal`: the write-ahead log.

mod list;

use std::path::Path;

use seawall_core::Result;

use crate::args::WalCommand;
use crate::exit::Outcome;

/// Runs the command.
///
/// # Errors
/// Those of the subcommand.
pub fn main(config: Option<&Path>, command: &WalCommand) -> Result<Outcome> {
    match command {
        WalCommand::List(args) => list::main(config, args),
    }
}
