//! Why a repository's directory refuses access, and the one command that helps.
//!
//! Whoever follows a hint and runs the command again must not be sent back to where they were: the
//! user PostgreSQL runs as is the one a repository has to belong to, and only what is not so yet is
//! named.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use seawall_core::{Code, Error};

use crate::owner::Owner;
use crate::render::shell_quote;

/// Adds what helps to the error of a store that refused access. `server` is the user PostgreSQL
/// runs as, where that is known.
pub fn explain(error: Error, directory: &Path, server: Option<&Owner>) -> Error {
    if error.code() != Code::StoreForbidden {
        return error;
    }
    if is_read_only(&error) {
        return error.with_hint(read_only(directory));
    }
    let current = Owner::current();
    if let Some(barred) = barred(directory) {
        let barred = shown(&barred);
        return error.with_hint(format!(
            "{} may not pass through {barred}: `sudo chmod a+x {barred}`.",
            current.name()
        ));
    }
    let owner = Owner::of(directory).filter(|owner| !owner.is_root());
    if let Some(user) = server.or(owner.as_ref()).filter(|user| !user.is_current()) {
        return user.wrong_user().with_source(error);
    }
    let (name, directory_shown) = (current.name(), shown(directory));
    error.with_hint(match stranger(directory) {
        Some((path, whose)) => format!(
            "{} belongs to {whose}. Give the whole repository to the user PostgreSQL runs as: `sudo chown -R {name}: {directory_shown}`.",
            shown(&path)
        ),
        None => format!(
            "All of it belongs to {name} already, so its mode, the mount or an access list refuses: `ls -ld {directory_shown}; findmnt -T {directory_shown}; getfacl {directory_shown}`."
        ),
    })
}

/// What helps where a file that Seawall reads is not to be read by whom it runs as; `None` for
/// another trouble. Root becomes the server's user before it reads: the file has to be that user's.
pub fn unreadable(path: &Path, error: &io::Error) -> Option<String> {
    if error.kind() != ErrorKind::PermissionDenied {
        return None;
    }
    let user = Owner::current();
    let (name, file) = (user.name(), shown(path));
    let was_root = Owner::was_root();
    if !was_root && Owner::packaged().is_none_or(|server| server != user) {
        let reader = Owner::who_reads(path)?;
        return Some(format!("Run it as a user who may read it: `{}`.", reader.again()));
    }
    let sudo = if was_root { "" } else { "sudo " };
    if let Some(barred) = barred(path) {
        let copy = user.home().join(path.file_name()?);
        return Some(format!(
            "{name}, as whom this runs, may not pass through {}. Give that user a copy, and name it instead: `{sudo}install -o {name} -m 600 {file} {}`.",
            shown(&barred),
            shown(&copy)
        ));
    }
    let command = if Owner::of(path).is_some_and(|owner| owner.is_current()) {
        format!("{sudo}chmod u+r {file}")
    } else {
        format!("{sudo}chown {name}: {file}")
    };
    Some(format!("It must belong to {name}, as whom this runs, and be readable: `{command}`."))
}

/// What to do about a file system that nobody can write to.
pub fn read_only(path: &Path) -> String {
    format!("The file system is mounted read-only: `findmnt -T {}` shows it.", shown(path))
}

/// Whether the system said that a file system is read-only.
pub fn is_read_only(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let said = source.downcast_ref::<io::Error>().map(io::Error::kind);
        if said == Some(ErrorKind::ReadOnlyFilesystem) {
            return true;
        }
        cause = source.source();
    }
    false
}

fn shown(path: &Path) -> String {
    shell_quote(&path.display().to_string())
}

/// The first directory on the way that this user may not pass through.
fn barred(path: &Path) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let closed = |path: &&Path| accessat(CWD, *path, Access::EXEC_OK, AtFlags::EACCESS).is_err();
    above.into_iter().find(closed).map(Path::to_owned)
}

/// The first file that belongs to somebody else, and to whom.
fn stranger(directory: &Path) -> Option<(PathBuf, String)> {
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let owner = Owner::of(&path)?;
        if !owner.is_current() {
            return Some((path, owner.name().to_owned()));
        }
        if path.is_dir()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            open.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sentence;

    fn refused(kind: ErrorKind) -> Error {
        Error::new(Code::StoreForbidden, "cannot write").with_source(io::Error::from(kind))
    }

    fn hint(error: &Error) -> String {
        error.hint().map(sentence).unwrap_or_default()
    }

    #[test]
    fn a_repository_that_is_one_s_own_already_is_not_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let error = explain(refused(ErrorKind::PermissionDenied), directory.path(), None);
        assert!(!hint(&error).contains("chown") && hint(&error).contains("findmnt"), "{error:?}");
    }

    #[test]
    fn a_repository_of_somebody_else_is_given_to_the_server_s_user_or_used_as_them() {
        let foreign = Path::new("/proc/1/fd");
        let me = Owner::current();
        let nobody = Owner::named("nobody").unwrap();
        let error = explain(refused(ErrorKind::PermissionDenied), Path::new("/"), Some(&nobody));
        assert_eq!(error.code(), Code::WrongUser);
        assert!(hint(&error).starts_with("sudo -u nobody seawall"), "{error:?}");
        if !me.is_root() {
            let error = explain(refused(ErrorKind::PermissionDenied), Path::new("/"), Some(&me));
            assert!(hint(&error).contains("sudo chown -R"), "{error:?}");
            let error = explain(refused(ErrorKind::PermissionDenied), foreign, Some(&me));
            assert!(hint(&error).contains("may not pass through"), "{error:?}");
        }
    }

    #[test]
    fn a_file_system_mounted_read_only_is_called_that() {
        let error = explain(refused(ErrorKind::ReadOnlyFilesystem), Path::new("/srv"), None);
        assert!(hint(&error).contains("read-only"), "{error:?}");
    }
}
