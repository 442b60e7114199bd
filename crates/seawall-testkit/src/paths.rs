use std::env;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use crate::Owner;

/// Where `cargo xtask setup` puts servers and where cluster templates are kept.
///
/// `$SEAWALL_CACHE`; else `/var/cache/seawall` for root, whose home the servers' owner cannot
/// enter, and `${XDG_CACHE_HOME:-~/.cache}/seawall` for anybody else.
///
/// # Errors
/// None of the variables that tell it is set.
pub fn cache_directory() -> Result<PathBuf> {
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

/// A short-named directory that anybody may enter and the servers' owner may write, removed with
/// everything in it when dropped.
///
/// The name is short because a socket's path ends at 107 bytes (unix(7)).
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// Makes a new one.
    ///
    /// # Errors
    /// `/tmp` is not writable or the owner is missing.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let owner = Owner::of_servers()?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = PathBuf::from(format!("/tmp/seawall-test-{}-{number}", process::id()));
            match fs::DirBuilder::new().mode(0o755).create(&path) {
                // Left behind by an earlier process that had the same number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    made.with_context(|| format!("create {}", path.display()))?;
                    let directory = Self { path };
                    owner.chown(&directory.path)?;
                    return Ok(directory);
                }
            }
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it; nothing is created.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if env::var_os("SEAWALL_TEST_KEEP").is_some() {
            eprintln!("kept {}", self.path.display());
            return;
        }
        // A test has its verdict by now; what cannot be removed must not change it.
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}
