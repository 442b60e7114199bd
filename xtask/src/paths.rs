//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;

/// The repository this was built from.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// What setup keeps outside the tree. The test kit looks in the same place
/// (`seawall_testkit::cache_directory`).
pub fn cache() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("SEAWALL_CACHE") {
        return Ok(chosen.into());
    }
    if Uid::effective().is_root() {
        return Ok("/var/cache/seawall".into());
    }
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("seawall"))
}

/// Where cargo installs the tools that are not on `PATH`.
pub fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}
