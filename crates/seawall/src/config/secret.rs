use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use seawall_core::{Code, Error, Result, ResultExt};

use crate::owner::Owner;

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
    /// [`Code::KeyUnreadable`] if it cannot be had.
    pub fn resolve(&self) -> Result<String> {
        match self {
            Self::File(path) => read_file(path),
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
/// [`Code::KeyUnreadable`]
pub fn read_file(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .code(Code::KeyUnreadable, || format!("cannot read the key file {}", path.display()))
        .map_err(|error| {
            let denied = std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<std::io::Error>())
                .is_some_and(|source| source.kind() == std::io::ErrorKind::PermissionDenied);
            if let Some(reader) = Owner::who_reads(path).filter(|_| denied) {
                let again = reader.again();
                return error
                    .with_hint(format!("Run it as a user who may read the key: `{again}`."));
            }
            let path = path.display();
            error.with_hint(format!(
                "See whether it is there and whose it is: `ls -l {path}`. Run Seawall as that user; \
                 if it is gone, a recovery kit opens the repository as well: `--kit FILE`."
            ))
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
        return Err(Error::new(
            Code::KeyUnreadable,
            format!("the secret's command failed ({}): {command}", output.status),
        ));
    }
    String::from_utf8(output.stdout)
        .code(Code::KeyUnreadable, || "the secret's command did not print text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_gives_no_secret_even_if_it_printed_one() {
        let ok = SecretSource::Command("echo hello".to_owned()).resolve();
        assert_eq!(ok.unwrap(), "hello\n");
        let failed = SecretSource::Command("echo hello; exit 3".to_owned()).resolve();
        assert_eq!(failed.unwrap_err().code(), Code::KeyUnreadable);
    }

    #[test]
    fn an_absent_key_file_is_named() {
        let absent = SecretSource::File("/nonexistent/key".into()).resolve().unwrap_err();
        assert_eq!(absent.code(), Code::KeyUnreadable);
        assert!(absent.message().contains("/nonexistent/key"));
    }
}
