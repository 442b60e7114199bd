//! Completion scripts and manual pages, made from the command line's own description.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use seawall_core::{Code, Result, ResultExt};

use crate::args::Cli;
use crate::exit::Outcome;
use crate::render::Out;

/// `seawall completions SHELL`
///
/// # Errors
/// Those of standard output.
pub fn completions(shell: Shell) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "seawall", &mut script);
    Out.text(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}

/// `seawall man DIR`
///
/// # Errors
/// [`Code::LocalIo`]
pub fn man(directory: &Path) -> Result<Outcome> {
    let failed = || format!("cannot write manual pages into {}", directory.display());
    std::fs::create_dir_all(directory).code(Code::LocalIo, failed)?;
    clap_mangen::generate_to(Cli::command(), directory).code(Code::LocalIo, failed)?;
    Ok(Outcome::Done)
}
