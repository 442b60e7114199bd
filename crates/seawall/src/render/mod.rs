//! What people see: data on standard output, everything else on standard error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

mod command;
mod confirm;
mod error;
mod out;
mod progress;
mod style;
mod table;
mod time;

pub use command::{command, fix, keep_flags, sentence};
pub use confirm::{confirm, typed};
pub use error::{render_error, report, warn};
pub use out::Out;
pub use progress::Display;
pub use style::Style;
pub use table::{Align, table};
pub use time::{age, duration, seconds_of, utc, zones};

/// `text` as one word of a POSIX shell.
pub fn shell_quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A word as [`shell_quote`] has it. Bytes that are no text are written out, as bash, ksh and zsh
/// read them: what is shown can be typed.
pub fn shell_word(word: &OsStr) -> String {
    word.to_str().map_or_else(|| seawall_core::shell_escaped(word.as_bytes()), shell_quote)
}

/// A word as [`shell_quote`] has it, for a shell that is given the bytes themselves.
pub fn shell_bytes(word: &OsStr) -> Vec<u8> {
    if let Some(text) = word.to_str() {
        return shell_quote(text).into_bytes();
    }
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_survive_the_shell() {
        let word = OsStr::from_bytes(b"it's caf\xe9");
        let shown = format!("printf %s {}", shell_word(word));
        let output = std::process::Command::new("bash").args(["-c", &shown]).output().unwrap();
        assert_eq!(output.stdout, word.as_bytes(), "{shown}");
        let given = [b"printf %s ".as_slice(), &shell_bytes(word)].concat();
        let script = OsStr::from_bytes(&given);
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(output.stdout, word.as_bytes());
        assert_eq!(shell_word(OsStr::new("a b")), "'a b'");
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_quote("/usr/bin/seawall"), "/usr/bin/seawall");
        assert_eq!(shell_quote("a b"), "'a b'");
        assert_eq!(shell_quote("it's"), "'it'\\''s'");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote("$HOME"), "'$HOME'");
    }
}
