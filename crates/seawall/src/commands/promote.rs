//! `seawall promote DIR`: ends the pause of a restored server.

use seawall_core::Result;
use seawall_engine::restore::{self, Promoted};

use crate::args::PromoteArgs;
use crate::context::absolute;
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::run;

/// Runs the command.
///
/// # Errors
/// [`seawall_core::Code::RestoredServerFailed`], [`seawall_core::Code::WrongUser`], and
/// [`seawall_core::Code::Usage`] if there is no data directory.
pub fn main(args: &PromoteArgs) -> Result<Outcome> {
    let directory = absolute(&args.directory);
    if let Some(owner) = Owner::of(&directory) {
        owner.become_for_good()?;
    }
    let promote = restore::promote(&directory, &args.user, args.timeout);
    let shown = directory.display();
    match run::runtime()?.block_on(run::until_interrupted(promote))? {
        Promoted::Now => eprintln!("{shown} takes writes"),
        Promoted::Before => eprintln!("{shown} takes writes already; nothing was to be done"),
    }
    Ok(Outcome::Done)
}
