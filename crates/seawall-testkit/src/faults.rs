//! Things that go wrong, made to order.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::run;
use crate::{Owner, TestDir};

/// A small filesystem of its own, to be filled up. Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    // Before the directory it is mounted in.
    mount: Mount,
    _directory: TestDir,
}

#[derive(Debug)]
struct Mount(PathBuf);

impl SmallDisk {
    /// Mounts a tmpfs of `mib` MiB that the servers' owner may write.
    ///
    /// # Errors
    /// Mounting is not permitted: not root, or root of a container without `CAP_SYS_ADMIN`. What
    /// that means for a test is the caller's decision; passing in silence is not one.
    pub fn mount(mib: u32) -> Result<Self> {
        let directory = TestDir::new()?;
        let owner = Owner::of_servers()?;
        let path = directory.join("disk");
        owner.create_dir(&path, 0o755)?;
        let ids = format!("uid={},gid={}", owner.uid(), owner.gid());
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0755,{ids}"), "tmpfs"]);
        run(command.arg(&path), None, Duration::from_secs(10))?.success().context("mount tmpfs")?;
        Ok(Self { mount: Mount(path), _directory: directory })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a server that a failing test left behind may still hold a file.
        let mut command = Command::new("umount");
        run(command.arg("-l").arg(&self.0), None, Duration::from_secs(10)).ok();
    }
}

/// Flips the lowest bit of the byte at `offset_bytes`.
///
/// # Errors
/// The file ends before it.
pub fn flip_bit(file: &Path, offset_bytes: u64) -> Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open(file);
    let opened = opened.with_context(|| format!("open {}", file.display()))?;
    let mut byte = [0];
    opened.read_exact_at(&mut byte, offset_bytes).context("no byte there")?;
    opened.write_all_at(&byte.map(|byte| byte ^ 1), offset_bytes)?;
    Ok(())
}

/// Cuts a file off.
///
/// # Errors
/// It is not longer than that, so that nothing would be damaged.
pub fn truncate(file: &Path, length_bytes: u64) -> Result<()> {
    let opened = OpenOptions::new().write(true).open(file);
    let opened = opened.with_context(|| format!("open {}", file.display()))?;
    ensure!(opened.metadata()?.len() > length_bytes, "{} is no longer", file.display());
    opened.set_len(length_bytes)?;
    Ok(())
}

/// Numbers that look random and are the same for the same seed (SplitMix64), so that a round of
/// faults can be played again.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        match self.next_u64().checked_rem(limit) {
            Some(number) => number,
            None => 0,
        }
    }

    /// A duration shorter than `longest`, for a kill at a random moment.
    pub fn delay(&mut self, longest: Duration) -> Duration {
        let limit = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(limit))
    }
}
