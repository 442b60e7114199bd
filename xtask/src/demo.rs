//! `cargo xtask demo`: from a checkout to the demo in one command.

use std::process::Command;

use anyhow::Result;

use crate::command::run;
use crate::{seawall_build, setup};

pub fn main(arguments: &[&str]) -> Result<()> {
    setup::main(&[])?;
    let seawall = seawall_build::demo()?;
    run(Command::new(seawall.path()).arg("demo").args(arguments))
}
