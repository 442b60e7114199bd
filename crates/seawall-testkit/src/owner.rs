use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};

/// The OS user that servers run as: PostgreSQL refuses to run as root.
#[derive(Debug, Clone)]
pub struct Owner {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
    switches: bool,
}

impl Owner {
    /// Root hands servers to `postgres`, or else to `seawall-test` (`cargo xtask setup` creates
    /// it); anybody else runs them as himself.
    ///
    /// # Errors
    /// Root finds neither user.
    pub fn of_servers() -> Result<Self> {
        let me = Uid::effective();
        let user = if me.is_root() {
            let candidates = ["postgres", "seawall-test"];
            let found =
                candidates.into_iter().find_map(|name| User::from_name(name).ok().flatten());
            found.context("no user postgres or seawall-test: run cargo xtask setup as root")?
        } else {
            User::from_uid(me)?.with_context(|| format!("user {me} has no passwd entry"))?
        };
        Ok(Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
            switches: me.is_root(),
        })
    }

    /// The user's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's numeric id.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The user's primary group.
    #[must_use]
    pub const fn gid(&self) -> u32 {
        self.gid
    }

    /// Whether a command of this owner runs under another user than the test itself.
    #[must_use]
    pub const fn is_another_user(&self) -> bool {
        self.switches
    }

    /// A command that runs as this user, in `/`, with no supplementary groups if it switches.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if self.switches {
            // std drops root's supplementary groups itself when a uid is given.
            command.uid(self.uid).gid(self.gid);
            command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        }
        command
    }

    /// Gives one file or directory to the owner; nothing to do when the test runs as the owner.
    ///
    /// # Errors
    /// The path does not exist.
    pub fn chown(&self, path: &Path) -> Result<()> {
        if self.switches {
            chown(path, Some(self.uid), Some(self.gid))
                .with_context(|| format!("chown {}", path.display()))?;
        }
        Ok(())
    }

    /// Gives a whole tree to the owner; symlinks themselves change hands, not what they point at.
    ///
    /// # Errors
    /// `chown` could not.
    pub fn chown_all(&self, path: &Path) -> Result<()> {
        if self.switches {
            let ids = format!("{}:{}", self.uid, self.gid);
            let status = Command::new("chown").args(["-hR", &ids]).arg(path).status()?;
            if !status.success() {
                bail!("chown -hR {ids} {} failed", path.display());
            }
        }
        Ok(())
    }

    /// Makes a directory that belongs to the owner.
    ///
    /// # Errors
    /// It exists already, or its parent does not.
    pub fn create_dir(&self, path: &Path, mode: u32) -> Result<()> {
        DirBuilder::new()
            .mode(mode)
            .create(path)
            .with_context(|| format!("create {}", path.display()))?;
        self.chown(path)
    }

    /// Makes a symlink that belongs to the owner.
    ///
    /// # Errors
    /// It exists already.
    pub fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        symlink(target, link).with_context(|| format!("symlink {}", link.display()))?;
        if self.switches {
            std::os::unix::fs::lchown(link, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }
}
