//! `seawall promote DIR`: makes a restored server take writes.

use std::path::Path;

use seawall_core::Result;
use seawall_engine::restore::{self, Promoted, RestoreState};

use super::restore::{DEFAULT_ROLE, login};
use crate::args::PromoteArgs;
use crate::config::{self, Config};
use crate::context::absolute;
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::render::Style;
use crate::{postgres, run};

/// What a person has to see to who lets a standby take over.
const OLD_PRIMARY: &str = "The old primary must not run any more: what is written there from now on \
     is lost to this server, and two primaries in one archive are two pasts. Then take a backup here: \
     `seawall backup`.";

/// Runs the command.
///
/// # Errors
/// [`seawall_core::Code::RestoredServerFailed`], [`seawall_core::Code::WrongUser`], and
/// [`seawall_core::Code::Usage`] if there is no data directory.
pub fn main(config: Option<&Path>, args: &PromoteArgs) -> Result<Outcome> {
    let directory = absolute(&args.directory);
    let config = config::load_if_any(config)?.unwrap_or_else(Config::none);
    if let Some(owner) = Owner::of(&directory) {
        owner.become_for_good()?;
    }
    let login = login_of(&config, &directory, args.user.as_deref())?;
    let promote = restore::promote(&directory, &login, args.timeout);
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

/// Which cluster's connection it is, the restored directory tells.
fn login_of(config: &Config, directory: &Path, role: Option<&str>) -> Result<restore::Login> {
    let owner = Owner::current();
    match RestoreState::read(directory)? {
        Some(state) => login(config, state.cluster(), role, &owner),
        None => postgres::login("", role.unwrap_or(DEFAULT_ROLE), &owner),
    }
}
