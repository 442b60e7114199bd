use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path on the machine that a job runs on. Paths are bytes: one that is no text is serialised as
/// its bytes, every other as text.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalPath(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes(Vec<u8>),
}

impl<P: Into<PathBuf>> From<P> for LocalPath {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

impl AsRef<Path> for LocalPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Debug for LocalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for LocalPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match self.0.to_str() {
            Some(text) => Written::Text(text.to_owned()),
            None => Written::Bytes(self.0.as_os_str().as_bytes().to_owned()),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LocalPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into(),
            Written::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_no_text_come_back_as_they_were() {
        for bytes in [b"/srv/caf\xc3\xa9".as_slice(), b"/srv/caf\xe9"] {
            let path = LocalPath::from(OsString::from_vec(bytes.to_owned()));
            let written = serde_json::to_string(&path).unwrap();
            let read: LocalPath = serde_json::from_str(&written).unwrap();
            assert_eq!(read, path, "{written}");
        }
    }
}
