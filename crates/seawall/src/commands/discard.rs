//! `seawall discard DIR`: stops and removes a clone.

use seawall_core::{Result, ResultExt};
use seawall_engine::restore::Discard;

use crate::args::DiscardArgs;
use crate::commands::restore::log_file;
use crate::context::absolute;
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::render::confirm;
use crate::run;

/// Runs the command.
///
/// # Errors
/// [`seawall_core::Code::NotDiscardable`], [`seawall_core::Code::NotConfirmed`],
/// [`seawall_core::Code::OtherRestoreInterrupted`] while another command works there,
/// [`seawall_core::Code::LocalIo`], [`seawall_core::Code::WrongUser`].
pub fn main(args: &DiscardArgs) -> Result<Outcome> {
    let directory = absolute(&args.directory);
    let shown = directory.display();
    // The directory itself may have been made by root, where its owner cannot remove it.
    let acting = Owner::of(&directory).map(|owner| owner.act_as()).transpose()?;
    let discard = Discard::look(&directory)?;
    let server = if discard.is_running { ", on which a server runs" } else { "" };
    eprintln!("remove {shown}{server}");
    for tablespace in &discard.tablespaces {
        eprintln!("remove {}", tablespace.display());
    }
    for place in &discard.left {
        eprintln!("leave  {}, a tablespace that the restore did not put there", place.display());
    }
    let log = log_file(&directory);
    confirm("Remove?", args.yes)?;
    let stays = discard.is_mount_point;
    run::runtime()?.block_on(run::until_interrupted(discard.run()))?;
    drop(acting);
    if stays {
        eprintln!("{shown} is empty; it is a mount point, and stays");
        return Ok(Outcome::Done);
    }
    std::fs::remove_dir(&directory)
        .code(seawall_core::Code::LocalIo, || format!("{shown} is empty and stays"))?;
    eprintln!("{shown} is gone");
    if log.is_file() {
        eprintln!("leave  {}, the log of its server", log.display());
    }
    Ok(Outcome::Done)
}
