//! The password file, `~/.pgpass` (`passwordFromFile`, fe-connect.c).

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use seawall_core::Secret;
use zeroize::Zeroizing;

/// Why a password file was left unused; the connection is tried without it, as libpq does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassfileWarning {
    /// It is a directory, a pipe or a device.
    NotAPlainFile(PathBuf),
    /// Group or others can access it.
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        problem: String,
    },
}

impl PassfileWarning {
    /// The reason, behind the name of the file.
    pub(crate) fn why(&self) -> String {
        match self {
            Self::NotAPlainFile(_) => "is ignored: not a plain file".to_owned(),
            Self::TooOpen { mode, .. } => {
                format!("is ignored: its mode is {mode:04o}, and 0600 or less is required")
            }
            Self::Unreadable { problem, .. } => format!("is ignored: {problem}"),
        }
    }
}

impl fmt::Display for PassfileWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotAPlainFile(path)
        | Self::TooOpen { path, .. }
        | Self::Unreadable { path, .. }) = self;
        write!(f, "password file \"{}\" {}", path.display(), self.why())
    }
}

/// The lines of a password file.
#[derive(Default)]
pub(super) struct Passfile(Zeroizing<Vec<u8>>);

/// What a line must match.
pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

impl Passfile {
    /// Reads the file. A missing one is an empty one.
    pub(super) fn read(path: &Path) -> Result<Self, PassfileWarning> {
        let unreadable = |error: io::Error| PassfileWarning::Unreadable {
            path: path.to_owned(),
            problem: error.to_string(),
        };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unreadable(error)),
        };
        if !metadata.is_file() {
            return Err(PassfileWarning::NotAPlainFile(path.to_owned()));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(PassfileWarning::TooOpen { path: path.to_owned(), mode });
        }
        std::fs::read(path).map(|bytes| Self(Zeroizing::new(bytes))).map_err(unreadable)
    }

    /// The password of the first line that matches.
    pub(super) fn password(&self, login: &Login<'_>) -> Option<Secret> {
        self.0.split(|byte| *byte == b'\n').find_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                return None;
            }
            let rest = match_field(line, login.host)?;
            let rest = match_field(rest, &login.port.to_string())?;
            let rest = match_field(rest, login.dbname)?;
            let rest = match_field(rest, login.user)?;
            Some(Secret::new(last_field(rest)))
        })
    }
}

/// What follows the first field of `line` if it is `*` or, escapes undone, `value`.
fn match_field<'a>(line: &'a [u8], value: &str) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut value = value.bytes();
    let mut rest = line;
    loop {
        let (first, tail) = rest.split_first()?;
        let wanted = value.next();
        if *first == b':' && wanted.is_none() {
            return Some(tail);
        }
        let (byte, tail) = if *first == b'\\' { tail.split_first()? } else { (first, tail) };
        if Some(*byte) != wanted {
            return None;
        }
        rest = tail;
    }
}

/// The password, escapes undone: it ends at an unescaped `:`.
fn last_field(field: &[u8]) -> Vec<u8> {
    let mut password = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(bytes.next().unwrap_or(b'\\')),
            byte => password.push(byte),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(file: &str, login: (&str, u16, &str, &str)) -> Option<String> {
        let (host, port, dbname, user) = login;
        let passfile = Passfile(Zeroizing::new(file.as_bytes().to_vec()));
        passfile
            .password(&Login { host, port, dbname, user })
            .map(|password| String::from_utf8_lossy(password.as_bytes()).into_owned())
    }

    #[test]
    fn the_first_line_that_matches_wins() {
        let file = "# comment\n\nother:5432:app:joe:no\n*:5433:*:*:port\ndb:*:app:joe:one\n\
                    *:*:*:*:last\r\n";
        assert_eq!(lookup(file, ("db", 5432, "app", "joe")).as_deref(), Some("one"));
        assert_eq!(lookup(file, ("db", 5433, "app", "joe")).as_deref(), Some("port"));
        assert_eq!(lookup(file, ("x", 1, "y", "z")).as_deref(), Some("last"));
        assert_eq!(lookup("db:5432:app:joe:one", ("db", 5432, "app", "jo")), None);
    }

    #[test]
    fn a_star_is_a_wildcard_only_alone() {
        assert_eq!(lookup("d*:*:*:*:x", ("db", 1, "a", "b")), None);
        assert_eq!(lookup("d*:*:*:*:x", ("d*", 1, "a", "b")).as_deref(), Some("x"));
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let file = r"\:\:1:5432:a\\b:joe:p\:w\\\d:ignored";
        assert_eq!(lookup(file, ("::1", 5432, r"a\b", "joe")).as_deref(), Some(r"p:w\d"));
        assert_eq!(lookup(r"*:*:*:*:end\", ("h", 1, "d", "u")).as_deref(), Some(r"end\"));
    }

    fn escape(text: &str) -> String {
        text.replace('\\', "\\\\").replace(':', "\\:")
    }

    proptest! {
        #[test]
        fn whatever_is_escaped_is_found(
            host in "[^\n\r#]{1,12}", db in "[^\n\r]{1,12}", user in "[^\n\r]{1,12}",
            password in "[^\n\r]{0,12}", port in 1..=u16::MAX,
        ) {
            let fields = [&host, &port.to_string(), &db, &user, &password].map(|f| escape(f));
            let found = lookup(&fields.join(":"), (&host, port, &db, &user));
            prop_assert_eq!(found, Some(password));
        }

        #[test]
        fn nothing_in_a_file_makes_it_panic(file in any::<Vec<u8>>()) {
            let passfile = Passfile(Zeroizing::new(file));
            let login = Login { host: "h", port: 1, dbname: "d", user: "u" };
            let _ = passfile.password(&login);
        }
    }
}
