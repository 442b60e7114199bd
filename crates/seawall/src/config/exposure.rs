//! Files with secrets that others can read.

use std::fmt;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use seawall_core::{Action, Code, Error, Hint, Result, ResultExt, hint};

use crate::render::{shell_quote, warn};

/// What becomes of a secret that others can read or replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposed {
    /// It is refused, with the command that helps.
    Refused,
    /// It is told: refusing would stop an archiver or a recovery that worked.
    Told,
}

/// How a key that others have read stops opening what is written from then on; the middle of a
/// sentence.
pub fn replace_key() -> Hint {
    hint![
        "another key has to take its place, since a rotation with this one shuts nobody out: ",
        Action::AddKey,
        ", that FILE into the configuration, ",
        Action::RotateToKey,
        ", `seawall key kit KIT-FILE`, and `seawall key remove SLOT` for the old key's slots"
    ]
}

/// How a file with a secret is too open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOpen {
    mode: u32,
    /// The bits that others may keep.
    allowed: u32,
}

impl TooOpen {
    /// As with PostgreSQL's own keys, only its owner may read a secret, and the group too where it
    /// is root's (`check_ssl_key_file_permissions`, be-secure-common.c).
    fn of(metadata: &Metadata) -> Option<Self> {
        // A pipe, as from a shell's `<(…)`, is nobody else's.
        if !metadata.is_file() {
            return None;
        }
        let allowed = if metadata.uid() == 0 { 0o640 } else { 0o600 };
        let mode = metadata.mode() & 0o7777;
        // Whoever may only run it learns nothing.
        (mode & 0o066 & !allowed != 0).then_some(Self { mode, allowed })
    }

    /// The command that closes the file.
    pub fn close(self, path: &Path) -> String {
        let rights = if self.allowed == 0o640 { "g-w,o=" } else { "go=" };
        format!("chmod {rights} {}", shell_quote(&path.display().to_string()))
    }

    /// What others can do, in one word.
    const fn others_can(self) -> &'static str {
        if self.mode & 0o044 & !self.allowed == 0 { "replace" } else { "read" }
    }
}

impl fmt::Display for TooOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its mode is {:04o}", self.mode)
    }
}

/// How a file at a path is too open for a secret; `None` also if it cannot be looked at, which
/// whoever reads it is told.
pub fn too_open(path: &Path) -> Option<TooOpen> {
    TooOpen::of(&std::fs::metadata(path).ok()?)
}

/// Looks at the rights of an open file with a key or a recovery kit.
///
/// # Errors
/// [`Code::KeyExposed`]
pub fn look(file: &File, path: &Path, exposed: Exposed) -> Result<()> {
    let unreadable = || format!("cannot look at the key file {}", path.display());
    let metadata = file.metadata().code(Code::KeyUnreadable, unreadable)?;
    let Some(open) = TooOpen::of(&metadata) else { return Ok(()) };
    let shown = path.display();
    let what =
        format!("{shown} opens the backups, and others can {} it: {open}", open.others_can());
    let quoted = shell_quote(&shown.to_string());
    let close = format!(
        "Close it: `{}`; where that changes nothing, use a copy: `install -m 600 {quoted} ~/seawall.key`. If somebody may have read it, ",
        open.close(path)
    );
    let error = Error::new(Code::KeyExposed, what).with_hint(hint![close, replace_key(), "."]);
    match exposed {
        Exposed::Refused => Err(error),
        Exposed::Told => {
            warn(&error);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_its_owners_and_of_roots_group_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of_root = file.as_file().metadata().unwrap().uid() == 0;
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o700, true),
            (0o640, of_root),
            (0o604, false),
            (0o644, false),
            (0o660, false),
            (0o602, false),
        ] {
            set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let looked = look(file.as_file(), file.path(), Exposed::Refused);
            assert_eq!(looked.is_ok(), fine, "{mode:o}");
            if let Err(error) = looked {
                assert_eq!(error.code(), Code::KeyExposed);
                assert!(format!("{:?}", error.hint()).contains("`chmod g"), "{error:?}");
            }
            look(file.as_file(), file.path(), Exposed::Told).unwrap();
        }
    }
}
