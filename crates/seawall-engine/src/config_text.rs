//! The text of PostgreSQL's configuration files, line by line (guc-file.l).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The name a line sets, in lower case; `None` for comments and empty lines.
pub(crate) fn name_of(line: &[u8]) -> Option<String> {
    let text = line.trim_ascii_start();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    let end = text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len());
    let name = std::str::from_utf8(text.get(..end)?).ok()?;
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// The value a line sets, without quotes; `None` if it cannot be read simply.
pub(crate) fn value_of(line: &[u8]) -> Option<String> {
    let name = name_of(line)?;
    let text = std::str::from_utf8(line).ok()?.trim();
    let rest = text.get(name.len()..)?.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let Some(inner) = rest.strip_prefix('\'') else {
        return rest.split(|c: char| c.is_whitespace() || c == '#').next().map(str::to_owned);
    };
    let (mut value, mut characters) = (String::new(), inner.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '\'' if characters.next_if_eq(&'\'').is_none() => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    Some(value)
}

/// A value as configuration files quote it (`GUC_scanstr`): a backslash escapes there.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// What a line includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Include {
    /// A file, which may be missing if `optional`.
    File { path: String, optional: bool },
    /// Every `*.conf` of a directory.
    Directory(String),
}

/// What a line includes, if it does.
pub(crate) fn include_of(line: &[u8]) -> Option<Include> {
    let path = || value_of(line).filter(|path| !path.is_empty());
    match name_of(line)?.as_str() {
        "include" => Some(Include::File { path: path()?, optional: false }),
        "include_if_exists" => Some(Include::File { path: path()?, optional: true }),
        "include_dir" => path().map(Include::Directory),
        _ => None,
    }
}

/// What PostgreSQL reads of an included directory, in order (`GetConfFilesInDir`, conffiles.c, 16).
///
/// # Errors
/// Those of reading the directory.
pub(crate) fn conf_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.as_bytes().ends_with(b".conf") && !name.as_bytes().starts_with(b".") {
            names.push(name.into_vec());
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(OsString::from_vec(name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_read_as_postgres_reads_them() {
        for (line, name, value) in [
            (b"work_mem = 4MB # note\n".as_slice(), "work_mem", "4MB"),
            (b"\tdata_directory='/var/lib/pg'", "data_directory", "/var/lib/pg"),
            (b"Include_Dir 'conf.d'\n", "include_dir", "conf.d"),
            (b"my.setting=on", "my.setting", "on"),
            (br"x = 'it''s a \\ and \' ' # 'no'", "x", r"it's a \ and ' "),
        ] {
            assert_eq!(name_of(line).as_deref(), Some(name));
            assert_eq!(value_of(line).as_deref(), Some(value));
        }
        assert_eq!(name_of(b"# port = 1"), None);
        assert_eq!(name_of(b"\n"), None);
        let odd = r"it's a \ ";
        assert_eq!(value_of(format!("x = {}", quoted(odd)).as_bytes()).as_deref(), Some(odd));
    }

    #[test]
    fn includes_are_seen_in_every_form() {
        let file = |path: &str, optional| Some(Include::File { path: path.to_owned(), optional });
        assert_eq!(include_of(b"include 'a.conf'"), file("a.conf", false));
        assert_eq!(include_of(b" INCLUDE_IF_EXISTS = b"), file("b", true));
        assert_eq!(include_of(b"include_dir='c'"), Some(Include::Directory("c".to_owned())));
        assert_eq!(include_of(b"include_dir = ''"), None);
        assert_eq!(include_of(b"#include 'a'"), None);
    }
}
