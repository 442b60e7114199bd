use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_pgwire::Conninfo;

use super::exposure::too_open;
use crate::access;

/// How a cluster's server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionSource {
    /// A libpq connection string or URI.
    Text(String),
    /// A file that holds one, and nothing else: where a password has to be in it.
    File(PathBuf),
}

impl ConnectionSource {
    /// The connection string. `config` is the file that names it.
    ///
    /// # Errors
    /// [`Code::ConfigUnreadable`] if a file cannot be read, or if others can read a password.
    pub fn read(&self, config: &Path) -> Result<String> {
        match self {
            Self::Text(text) => {
                if self.has_secret() {
                    refuse_exposed(config)?;
                }
                Ok(text.clone())
            }
            Self::File(path) => {
                refuse_exposed(path)?;
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let hint = access::unreadable(path, &error);
                    let hint =
                        hint.unwrap_or_else(|| format!("Look at it: `ls -l {}`.", path.display()));
                    let what = format!("cannot read the connection file {}", path.display());
                    Error::new(Code::ConfigUnreadable, what).with_source(error).with_hint(hint)
                })?;
                Ok(text.trim().to_owned())
            }
        }
    }

    /// Whether a password is spelled out where it is used.
    pub fn has_secret(&self) -> bool {
        match self {
            Self::Text(text) => {
                text.parse::<Conninfo>().is_ok_and(|conninfo| conninfo.has_secret())
            }
            Self::File(_) => false,
        }
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Self::Text(connection) => text(connection),
            Self::File(path) => format!("{{ file = {} }}", text(&path.display().to_string())),
        }
    }
}

fn refuse_exposed(path: &Path) -> Result<()> {
    let Some(open) = too_open(path) else { return Ok(()) };
    let what = format!("{} holds a password, and others can read it: {open}", path.display());
    Err(Error::new(Code::ConfigUnreadable, what).with_hint(format!(
        "Take it from them: `{}`. And set another password, since this one may be known.",
        open.close(path)
    )))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_that_others_can_read_is_refused_with_what_helps() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("seawall.toml");
        let file = directory.path().join("connection");
        fs::write(&config, "").unwrap();
        fs::write(&file, "host=h password=hunter2\n").unwrap();
        let text = |text: &str| ConnectionSource::Text(text.to_owned());
        let secret = [text("host=h password=hunter2"), ConnectionSource::File(file.clone())];
        for mode in [0o644, 0o660, 0o604] {
            for path in [&config, &file] {
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            for source in &secret {
                let error = source.read(&config).unwrap_err();
                let hint = format!("{:?}", error.hint());
                assert!(hint.contains("chmod"), "{mode:o}: {hint}");
                assert!(!format!("{} {hint}", error.chain()).contains("hunter2"));
            }
            assert!(text("host=h").read(&config).is_ok());
        }
        for path in [&config, &file] {
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        }
        for source in &secret {
            assert_eq!(source.read(&config).unwrap(), "host=h password=hunter2");
        }
    }
}
