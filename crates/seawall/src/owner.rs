//! Operating system users: whose files are touched, and becoming that user.
//!
//! A repository, its key and a data directory belong to the user PostgreSQL runs as. Root becomes
//! that user before it touches them; anybody else must be that user.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::{Gid, ResUid, Uid, User};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use seawall_core::{Code, Error, Result, ResultExt};

use crate::masking::masked;
use crate::render::shell_quote;

const ROOT: Uid = Uid::from_raw(0);

/// Whether this process was root and became another user for good. Hints say `sudo` to all others.
static WAS_ROOT: AtomicBool = AtomicBool::new(false);

/// The user servers run as where packages made them.
const PACKAGED: &str = "postgres";

/// A user of this machine.
#[derive(Debug, Clone, Eq)]
pub struct Owner {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

/// Users are told apart by their numbers alone: one without an entry in the user database has whatever
/// group the file has by which it was found.
impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid
    }
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
        WAS_ROOT.store(true, Ordering::Relaxed);
        let failed = || format!("cannot become the user {}", self.name);
        nix::unistd::setgid(self.gid).code(Code::WrongUser, failed)?;
        nix::unistd::setuid(self.uid).code(Code::WrongUser, failed)
    }

    /// Makes this process act as the user until the guard is dropped. Only the saved ids stay
    /// root's: a program that is run meanwhile has none of them, since `execve` copies the effective
    /// ids over them, and so is the user's altogether. With another real id it would be taken for one
    /// with raised privileges, which finds none of its libraries by `$ORIGIN` (ld.so(8)).
    ///
    /// # Errors
    /// [`Code::WrongUser`] with the command to type.
    pub fn act_as(&self) -> Result<Acting> {
        if self.is_current() {
            return Ok(Acting { back: None });
        }
        self.require_root()?;
        let failed = || format!("cannot act as the user {}", self.name);
        let root = Root {
            gid: nix::unistd::getegid(),
            groups: nix::unistd::getgroups().code(Code::WrongUser, failed)?,
        };
        // Undoes what of it was done if a step fails.
        let acting = Acting { back: Some(root.clone()) };
        self.groups()?;
        nix::unistd::setresgid(self.gid, self.gid, root.gid).code(Code::WrongUser, failed)?;
        nix::unistd::setresuid(self.uid, self.uid, ROOT).code(Code::WrongUser, failed)?;
        Ok(acting)
    }

    /// Whether this process is root, or was and can be again.
    pub fn may_be_root() -> bool {
        nix::unistd::getresuid().map_or(true, |ResUid { real, effective, saved }| {
            [real, effective, saved].iter().any(|uid| uid.is_root())
        })
    }

    /// Whether root began this process, whoever it is now.
    pub fn was_root() -> bool {
        WAS_ROOT.load(Ordering::Relaxed) || Self::may_be_root()
    }

    /// Gives a file or directory to the user; for root. Where the file system lets nobody change
    /// owners, as FAT and many network mounts do, it is enough that the user can use it as it is.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn give(&self, path: &Path) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        let given =
            std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()));
        given.or_else(|error| self.use_ungiven(path, error))
    }

    /// Gives an open file to the user, as [`Owner::give`] does. `path` is what it is called.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn give_open(&self, file: &File, path: &Path) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        let given =
            std::os::unix::fs::fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()));
        given.or_else(|error| self.use_ungiven(path, error))
    }

    /// Whether a path that cannot be given will do.
    fn use_ungiven(&self, path: &Path, error: io::Error) -> Result<()> {
        let (refused, unsupported) = (io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported);
        let cannot_give = error.kind() == refused || error.kind() == unsupported;
        if cannot_give && self.can_use(path)? {
            tracing::info!("{} stays whose it is: {error}", path.display());
            return Ok(());
        }
        let (shown, name) = (path.display(), &self.name);
        let failed = Error::new(Code::LocalIo, format!("cannot give {shown} to {name}"));
        let failed = failed.with_source(error);
        Err(if cannot_give {
            let place = shell_quote(&shown.to_string());
            failed.with_hint(format!(
                "Its file system lets nobody change owners (`findmnt -T {place}`), and {name} cannot use what root makes there: mount it so that all is {name}'s (uid=…, gid=…), or run this as that user: `{}`.",
                self.again()
            ))
        } else {
            failed
        })
    }

    /// Whether the user may do with a path what its owner does.
    fn can_use(&self, path: &Path) -> Result<bool> {
        let needs = if path.is_dir() {
            Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK
        } else {
            Access::READ_OK
        };
        let _acting = self.act_as()?;
        Ok(accessat(CWD, path, needs, AtFlags::EACCESS).is_ok())
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
            arguments.map(|argument| shell_quote(&masked(&argument))).collect();
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
    back: Option<Root>,
}

/// What else root was before it acted as somebody else.
#[derive(Debug, Clone)]
struct Root {
    gid: Gid,
    groups: Vec<Gid>,
}

impl Drop for Acting {
    fn drop(&mut self) {
        let Some(Root { gid, groups }) = &self.back else { return };
        let returned = nix::unistd::setresuid(ROOT, ROOT, ROOT)
            .and_then(|()| nix::unistd::setresgid(*gid, *gid, *gid))
            .and_then(|()| nix::unistd::setgroups(groups));
        if let Err(error) = returned {
            tracing::error!("cannot act as root again: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The ids of a program that is run now: real, effective, saved, of files.
    fn ids_of_a_child(kind: &str) -> Vec<String> {
        let output = Command::new("/bin/cat").arg("/proc/self/status").output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_program_run_meanwhile_is_the_users_altogether_and_root_comes_back() {
        if !Owner::current().is_root() {
            assert!(!Owner::may_be_root());
            return;
        }
        let groups = nix::unistd::getgroups().unwrap();
        let nobody = Owner::named("nobody").unwrap();
        let acting = nobody.act_as().unwrap();
        assert_eq!(Owner::current(), nobody);
        assert!(Owner::may_be_root());
        let (uid, gid) = (nobody.uid.to_string(), nobody.gid.to_string());
        assert_eq!(ids_of_a_child("Uid:"), [uid.as_str(); 4]);
        assert_eq!(ids_of_a_child("Gid:"), [gid.as_str(); 4]);
        drop(acting);
        assert!(Owner::current().is_root());
        assert_eq!(ids_of_a_child("Uid:"), ["0"; 4]);
        assert_eq!(nix::unistd::getgroups().unwrap(), groups);
    }
}
