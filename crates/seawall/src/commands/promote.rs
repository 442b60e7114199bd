//! `seawall promote DIR`: makes a restored server take writes.

use seawall_core::Result;
use seawall_engine::restore::{self, Promoted};

use crate::args::PromoteArgs;
use crate::context::absolute;
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::render::Style;
use crate::run;

/// What a person has to see to who lets a standby take over.
const OLD_PRIMARY: &str = "The old primary must not run any more: what is written there from now on \
     is lost to this server, and two primaries in one archive are two pasts. Then take a backup here: \
     `seawall backup`.";

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
        Promoted::Standby => {
            eprintln!("{shown} takes writes: it was a standby and is a primary now");
            eprintln!("{} {OLD_PRIMARY}", Style::of_stderr().yellow("note:"));
        }
        Promoted::Before => eprintln!("{shown} takes writes already; nothing was to be done"),
    }
    Ok(Outcome::Done)
}
