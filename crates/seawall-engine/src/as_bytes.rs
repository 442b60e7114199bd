//! Paths and names in JSON: text where they are UTF-8, else their bytes in hex. They are bytes, and
//! what is read back has to be what was written.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

impl From<&OsStr> for Written {
    fn from(value: &OsStr) -> Self {
        match value.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes { hex: hex::encode(value.as_bytes()) },
        }
    }
}

impl Written {
    fn read<E: serde::de::Error>(self) -> Result<OsString, E> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Bytes { hex } => hex::decode(hex).map(OsString::from_vec).map_err(E::custom),
        }
    }
}

/// One path.
pub mod path {
    use std::path::{Path, PathBuf};

    use super::*;

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Written::from(path.as_os_str()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Written::deserialize(deserializer)?.read().map(PathBuf::from)
    }

    /// For people and scripts, who get what can be shown of it.
    pub fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&path.display())
    }
}

/// Several names.
pub mod names {
    use super::*;

    pub fn serialize<S: Serializer>(names: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(|name| Written::from(name.as_os_str())))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<OsString>, D::Error> {
        let written: Vec<Written> = Vec::deserialize(deserializer).map_err(D::Error::custom)?;
        written.into_iter().map(Written::read).collect()
    }
}
