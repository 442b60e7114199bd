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

/// The value a line sets, without quotes. It is bytes: a file has no encoding.
pub(crate) fn value_of(line: &[u8]) -> Option<Vec<u8>> {
    let name = name_of(line)?;
    let rest = line.trim_ascii().get(name.len()..)?.trim_ascii_start();
    let rest = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
    let Some(inner) = rest.strip_prefix(b"'") else {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'#';
        return rest.split(ends).next().map(<[u8]>::to_vec);
    };
    let (mut value, mut bytes) = (Vec::new(), inner.iter().copied().peekable());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' if bytes.next_if_eq(&b'\'').is_none() => break,
            b'\\' => value.extend(bytes.next()),
            other => value.push(other),
        }
    }
    Some(value)
}

/// The path a line sets.
pub(crate) fn path_of(line: &[u8]) -> Option<PathBuf> {
    value_of(line).map(|value| PathBuf::from(OsString::from_vec(value)))
}

/// A value as configuration files quote it (`GUC_scanstr`): a backslash escapes there.
pub(crate) fn quoted(value: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in value {
        if matches!(byte, b'\\' | b'\'') {
            quoted.push(*byte);
        }
        quoted.push(*byte);
    }
    quoted.push(b'\'');
    quoted
}

/// What a line includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Include {
    /// A file, which may be missing if `optional`.
    File { path: PathBuf, optional: bool },
    /// Every `*.conf` of a directory.
    Directory(PathBuf),
}

/// What a line includes, if it does.
pub(crate) fn include_of(line: &[u8]) -> Option<Include> {
    let path = || path_of(line).filter(|path| !path.as_os_str().is_empty());
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
            (b"work_mem = 4MB # note\n".as_slice(), "work_mem", b"4MB".as_slice()),
            (b"\tdata_directory='/var/lib/pg'", "data_directory", b"/var/lib/pg"),
            (b"Include_Dir 'conf.d'\n", "include_dir", b"conf.d"),
            (b"my.setting=on", "my.setting", b"on"),
            (br"x = 'it''s a \\ and \' ' # 'no'", "x", br"it's a \ and ' "),
            (b"include = 'caf\xe9' # \xe9", "include", b"caf\xe9"),
        ] {
            assert_eq!(name_of(line).as_deref(), Some(name));
            assert_eq!(value_of(line).as_deref(), Some(value));
        }
        assert_eq!(name_of(b"# port = 1"), None);
        assert_eq!(name_of(b"\n"), None);
        let odd = b"it's \xe9 \\ ".as_slice();
        let line = [b"x = ".as_slice(), &quoted(odd)].concat();
        assert_eq!(value_of(&line).as_deref(), Some(odd));
    }

    #[test]
    fn includes_are_seen_in_every_form() {
        let file = |path: &str, optional| Some(Include::File { path: path.into(), optional });
        assert_eq!(include_of(b"include 'a.conf'"), file("a.conf", false));
        assert_eq!(include_of(b" INCLUDE_IF_EXISTS = b"), file("b", true));
        assert_eq!(include_of(b"include_dir='c'"), Some(Include::Directory("c".into())));
        assert_eq!(include_of(b"include_dir = ''"), None);
        assert_eq!(include_of(b"#include 'a'"), None);
    }
}
