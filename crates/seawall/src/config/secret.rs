use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use seawall_core::{Code, Error, Result, ResultExt};

use super::exposure::{Exposed, look};
use crate::access;

/// No key file or kit is longer: what is, is another file.
const BYTES_MAX: u64 = 1 << 20;

/// Where a secret comes from; the secret itself is never in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file holds it.
    File(PathBuf),
    /// An environment variable holds it.
    Env(String),
    /// A shell command prints it.
    Command(String),
}

impl SecretSource {
    /// Gets the secret.
    ///
    /// # Errors
    /// [`Code::KeyUnreadable`] if it cannot be had; [`Code::KeyExposed`].
    pub fn resolve(&self, exposed: Exposed) -> Result<String> {
        match self {
            Self::File(path) => read_file(path, exposed),
            Self::Env(name) => std::env::var(name).code(Code::KeyUnreadable, || {
                format!("the secret's environment variable {name} cannot be read")
            }),
            Self::Command(command) => run(command),
        }
    }
}

/// Reads a file that holds a key.
///
/// # Errors
/// [`Code::KeyUnreadable`]; [`Code::KeyExposed`] if others can read it too.
pub fn read_file(path: &Path, exposed: Exposed) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path);
    if let Ok(file) = &file {
        look(file, path, exposed)?;
    }
    let read = file.and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| {
        let shown = path.display();
        let hint = access::unreadable(path, &error).unwrap_or_else(|| {
            format!(
                "See whether it is there: `ls -l {shown}`. If it is gone, a recovery kit opens the repository as well: `--kit FILE`."
            )
        });
        Error::new(Code::KeyUnreadable, format!("cannot read the key file {shown}"))
            .with_source(error)
            .with_hint(hint)
    })
}

fn run(command: &str) -> Result<String> {
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .code(Code::KeyUnreadable, || "cannot run the secret's command".to_owned())?;
    if !output.status.success() {
        // The command itself may hold a password.
        return Err(Error::new(
            Code::KeyUnreadable,
            format!("the secret's command failed ({})", output.status),
        )
        .with_hint("It is the `command` in the configuration: run it by hand, as the same user."));
    }
    String::from_utf8(output.stdout)
        .code(Code::KeyUnreadable, || "the secret's command did not print text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_gives_no_secret_even_if_it_printed_one() {
        let run =
            |command: &str| SecretSource::Command(command.to_owned()).resolve(Exposed::Refused);
        assert_eq!(run("echo hello").unwrap(), "hello\n");
        let failed = run("TOKEN=s3cret; echo hello; exit 3").unwrap_err();
        assert_eq!(failed.code(), Code::KeyUnreadable);
        assert!(!format!("{failed:?}").contains("s3cret"), "{failed:?}");
    }

    #[test]
    fn an_absent_key_file_is_named() {
        let absent =
            SecretSource::File("/nonexistent/key".into()).resolve(Exposed::Refused).unwrap_err();
        assert_eq!(absent.code(), Code::KeyUnreadable);
        assert!(absent.message().contains("/nonexistent/key"));
    }
}
