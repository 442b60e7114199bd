//! `cargo xtask demo`: from a checkout to the demo in one command.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{capture, cargo, run, step};
use crate::setup;

pub fn main(arguments: &[&str]) -> Result<()> {
    setup::main(&[])?;
    let build = ["build", "--release", "--locked", "--package", "seawall"];
    step("building seawall", cargo()?.args(build))?;
    let metadata = capture(cargo()?.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    let target = target.context("cargo metadata names no target directory")?;
    run(Command::new(format!("{target}/release/seawall")).arg("demo").args(arguments))
}
