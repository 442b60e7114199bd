//! Building `seawall` itself.

use anyhow::{Context, Result};
use seawall_testkit::SeawallBin;

use crate::command::{capture, cargo, step};

/// Builds `seawall` as a release is built.
pub fn release() -> Result<SeawallBin> {
    build("release", "building seawall as it is released")
}

/// Builds `seawall` for the demo: in half the time.
pub fn demo() -> Result<SeawallBin> {
    build("demo", "building seawall; the first time it takes two to three minutes on two cores")
}

fn build(profile: &str, what: &str) -> Result<SeawallBin> {
    let build = ["build", "--profile", profile, "--locked", "--package", "seawall"];
    step(what, cargo()?.args(build))?;
    let metadata = capture(cargo()?.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    let target = target.context("cargo metadata names no target directory")?;
    SeawallBin::at(format!("{target}/{profile}/seawall"))
}
