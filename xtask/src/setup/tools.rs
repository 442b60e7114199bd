//! Cargo's own extensions: looked for on `PATH`, built into the cache where they are not.

use std::fs;

use anyhow::{Context, Result};

use super::works;
use crate::command::{cargo, step};
use crate::paths;

/// Name and version of what is built when there is none.
const TOOLS: [(&str, &str); 2] = [("cargo-nextest", "0.9.143"), ("cargo-deny", "0.20.2")];

pub fn install() -> Result<()> {
    TOOLS.iter().try_for_each(|(tool, version)| build(tool, version))
}

/// Builds one of cargo's extensions, unless it is there.
pub fn build(tool: &str, version: &str) -> Result<()> {
    let root = paths::tools()?;
    if works(tool) || root.join("bin").join(tool).is_file() {
        return Ok(());
    }
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let mut command = cargo()?;
    // From elsewhere: the repository's toolchain and configuration are its own affair.
    command.current_dir(&root).args(["install", "--quiet", "--locked", "--root"]).arg(&root);
    // These tools wait for the disk: what optimising them takes is never won back.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command.args([tool, "--version", version]);
    step(&format!("building {tool} {version}, once"), &mut command)
}
