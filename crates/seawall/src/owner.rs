//! Operating system users: whose files are touched, and becoming that user.
//!
//! A repository, its key and a data directory belong to the user PostgreSQL runs as. Root becomes
//! that user before it touches them; anybody else must be that user.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};
use seawall_core::{Code, Error, Result, ResultExt};

/// The user servers run as where packages made them.
const PACKAGED: &str = "postgres";

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

impl Owner {
    /// The user of that name.
    ///
    /// # Errors
    /// [`Code::WrongUser`] if there is none.
    pub fn named(name: &str) -> Result<Self> {
        let user = User::from_name(name)
            .code(Code::WrongUser, || format!("cannot look up the user {name}"))?;
        user.map(Self::from).ok_or_else(|| {
            Error::new(Code::WrongUser, format!("there is no user {name} on this machine"))
                .with_hint("Name the user PostgreSQL runs as; `getent passwd` lists the users.")
        })
    }

    /// Whoever owns a file or directory; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|file| Self::with_uid(file.uid(), file.gid()))
    }

    /// The user this process acts as.
    pub fn current() -> Self {
        Self::with_uid(Uid::effective().as_raw(), Gid::effective().as_raw())
    }

    /// The user of PostgreSQL's packages, where there is one.
    pub fn packaged() -> Option<Self> {
        Self::named(PACKAGED).ok()
    }

    /// The user of that number; `gid` is for one without an entry.
    pub fn numbered(uid: u32, gid: u32) -> Self {
        Self::with_uid(uid, gid)
    }

    /// A user without an entry in the user database, as in some containers, goes by its number.
    fn with_uid(uid: u32, gid: u32) -> Self {
        let uid = Uid::from_raw(uid);
        User::from_uid(uid).ok().flatten().map_or_else(
            || Self {
                name: uid.to_string(),
                uid,
                gid: Gid::from_raw(gid),
                home: PathBuf::from("/"),
            },
            Self::from,
        )
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the user's `.pgpass` is.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Whether it is root, as whom PostgreSQL does not run.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Whether it is the user this process acts as.
    pub fn is_current(&self) -> bool {
        self.uid == Uid::effective()
    }

    /// Makes this process the user's, for good. Root can do so; others must be that user already.
    ///
    /// # Errors
    /// [`Code::WrongUser`] with the command to type.
    pub fn become_for_good(&self) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        self.require_root()?;
        self.groups()?;
        let failed = || format!("cannot become the user {}", self.name);
        nix::unistd::setgid(self.gid).code(Code::WrongUser, failed)?;
        nix::unistd::setuid(self.uid).code(Code::WrongUser, failed)
    }

    /// Makes this process act as the user until the guard is dropped.
    ///
    /// # Errors
    /// [`Code::WrongUser`] with the command to type.
    pub fn act_as(&self) -> Result<Acting> {
        if self.is_current() {
            return Ok(Acting { back: None });
        }
        self.require_root()?;
        let back = Self::current();
        self.groups()?;
        let failed = || format!("cannot act as the user {}", self.name);
        nix::unistd::setegid(self.gid).code(Code::WrongUser, failed)?;
        nix::unistd::seteuid(self.uid).code(Code::WrongUser, failed)?;
        Ok(Acting { back: Some(back) })
    }

    /// Gives a file or directory to the user; for root.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn give(&self, path: &Path) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
            .code(Code::LocalIo, || format!("cannot give {} to {}", path.display(), self.name))
    }

    /// Gives an open file to the user; for root.
    ///
    /// # Errors
    /// Those of `fchown`.
    pub fn give_open(&self, file: &File) -> io::Result<()> {
        if self.is_current() {
            return Ok(());
        }
        std::os::unix::fs::fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    fn groups(&self) -> Result<()> {
        let name = CString::new(self.name.as_str()).unwrap_or_default();
        nix::unistd::initgroups(&name, self.gid)
            .code(Code::WrongUser, || format!("cannot take the groups of the user {}", self.name))
    }

    fn require_root(&self) -> Result<()> {
        if Uid::effective().is_root() { Ok(()) } else { Err(self.wrong_user()) }
    }

    /// Who may read a file that this process may not: its owner, or the packages' user.
    pub fn who_reads(path: &Path) -> Option<Self> {
        let owner = Self::of(path).filter(|owner| !owner.is_root());
        owner.or_else(Self::packaged).filter(|owner| !owner.is_current())
    }

    /// This very command line, run by the user.
    pub fn again(&self) -> String {
        let arguments = std::env::args().skip(1);
        let words: Vec<String> =
            arguments.map(|argument| crate::render::shell_quote(&argument)).collect();
        format!("sudo -u {} seawall {}", self.name, words.join(" "))
    }

    /// What stands before a command that this user has to run, where `typist` types it.
    pub fn sudo(&self, typist: &Self) -> String {
        if self.uid == typist.uid { String::new() } else { format!("sudo -u {} ", self.name) }
    }

    /// The error of somebody else who tries.
    pub fn wrong_user(&self) -> Error {
        Error::new(
            Code::WrongUser,
            format!(
                "this is for the user {}, whom the files belong to, and not for {}",
                self.name,
                Self::current().name
            ),
        )
        .with_hint(self.again())
    }
}

impl From<User> for Owner {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir }
    }
}

/// While it lives, the process acts as another user.
#[derive(Debug)]
#[must_use]
pub struct Acting {
    back: Option<Owner>,
}

impl Drop for Acting {
    fn drop(&mut self) {
        let Some(back) = &self.back else { return };
        let returned = nix::unistd::seteuid(back.uid)
            .and_then(|()| nix::unistd::setegid(back.gid))
            .and_then(|()| nix::unistd::setgroups(&[back.gid]));
        if let Err(error) = returned {
            tracing::error!("cannot act as {} again: {error}", back.name);
        }
    }
}
