//! `seawall promote DIR`: ends the pause of a restored server.

use seawall_core::Result;
use seawall_engine::restore;

use crate::args::PromoteArgs;
use crate::context::absolute;
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::run;

/// Runs the command.
///
/// # Errors
/// [`seawall_core::Code::RestoredServerFailed`], [`seawall_core::Code::WrongUser`].
pub fn main(args: &PromoteArgs) -> Result<Outcome> {
    let directory = absolute(&args.directory);
    if let Some(owner) = Owner::of(&directory) {
        owner.become_for_good()?;
    }
    let promote = restore::promote(&directory, &args.user, args.timeout);
    run::runtime(1)?.block_on(run::until_interrupted(promote))?;
    eprintln!("{} takes writes", directory.display());
    Ok(Outcome::Done)
}
