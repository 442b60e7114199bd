use anyhow::{Context, Result};
use seawall_testkit::SeawallBin;

use crate::command::{capture, cargo, step};

/// Builds `seawall` as a release is built.
pub fn release() -> Result<SeawallBin> {
    let build = ["build", "--release", "--locked", "--package", "seawall"];
    step("building seawall", cargo()?.args(build))?;
    let metadata = capture(cargo()?.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    let target = target.context("cargo metadata names no target directory")?;
    SeawallBin::at(format!("{target}/release/seawall"))
}
