use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use seawall_core::{Code, Error};
use url::Url;

/// Bytes of a path that are written as `%xx` in a `file://` URL (RFC 3986, section 3.3).
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Kinds of store that are known by name and not built into this version.
const NOT_BUILT: [&str; 5] = ["s3", "azure", "gcs", "sftp", "seawall+https"];

/// The text is not the URL of a store that can be opened.
///
/// It never repeats what may be a secret: the text itself is not shown, only its scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidStoreUrl(String);

impl From<InvalidStoreUrl> for Error {
    fn from(error: InvalidStoreUrl) -> Self {
        Self::new(Code::StoreUrlInvalid, error.0).with_hint(
            "Use file:///absolute/path or just /absolute/path; other kinds of store are not \
             supported by this version.",
        )
    }
}

/// Where a store is. Shown to people, so it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// A local directory: `file:///var/lib/seawall` or just `/var/lib/seawall`.
    Directory(StoreDirectory),
    /// The memory of a test. No text names it.
    #[cfg(any(test, feature = "testing"))]
    Memory,
}

/// The directory of a store: absolute, and not the root of the filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreDirectory(PathBuf);

impl StoreDirectory {
    /// Checks and wraps a path.
    ///
    /// # Errors
    /// [`InvalidStoreUrl`] if the path is relative, is `/` itself or has `..` in it.
    pub fn new(path: &Path) -> Result<Self, InvalidStoreUrl> {
        let refuse = |why: &str| Err(InvalidStoreUrl(format!("store {path:?} {why}")));
        if !path.is_absolute() {
            return refuse("is not an absolute path");
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return refuse("has a zero byte in it");
        }
        let mut directory = PathBuf::new();
        for component in path.components() {
            if component == Component::ParentDir {
                return refuse("has .. in it, which may not mean what it says behind a link");
            }
            directory.push(component);
        }
        if directory.parent().is_none() {
            return refuse("is the root of the filesystem");
        }
        Ok(Self(directory))
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl StoreUrl {
    /// The URL of a directory.
    ///
    /// # Errors
    /// Those of [`StoreDirectory::new`].
    pub fn from_directory(path: &Path) -> Result<Self, InvalidStoreUrl> {
        StoreDirectory::new(path).map(Self::Directory)
    }

    /// The directory on this machine that the store is, if it is one: for whoever makes such a
    /// directory, keeps others out of it, or tells people about it.
    #[must_use]
    pub fn as_directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory.path()),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory => None,
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => {
                let path = directory.path().as_os_str().as_bytes();
                write!(f, "file://{}", percent_encode(path, ESCAPED))
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory => f.write_str("memory"),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        let refuse = |why: String| Err(InvalidStoreUrl(why));
        if text.starts_with('/') {
            return Self::from_directory(Path::new(text));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("store URL has no scheme and is not an absolute path".to_owned());
        };
        let scheme = scheme.to_ascii_lowercase();
        if NOT_BUILT.contains(&scheme.as_str()) {
            return refuse(format!("stores of the kind \"{scheme}\" are not supported yet"));
        }
        if scheme != "file" {
            return refuse(format!("\"{}\" is not a kind of store", scheme.escape_default()));
        }
        let no_path = "file:// URL has no absolute path: three slashes are needed";
        let host_end = rest.find('/').ok_or_else(|| InvalidStoreUrl(no_path.to_owned()))?;
        let (host, path) = rest.split_at(host_end);
        if !(host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
            return refuse("file:// URL names a host; a store is a local directory".to_owned());
        }
        // The parser's verdict on syntax; the path is taken from the text, which it would rewrite.
        match Url::parse(text) {
            Err(error) => return refuse(format!("store URL cannot be read: {error}")),
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                return refuse("file:// URL has a ? or #: write them as %3F and %23".to_owned());
            }
            Ok(_) => {}
        }
        let bytes: Vec<u8> = percent_decode_str(path).collect();
        Self::from_directory(&PathBuf::from(std::ffi::OsString::from_vec(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_directory_is_named_by_path_or_url() {
        for (text, shown) in [
            ("/srv/backup", "file:///srv/backup"),
            ("/srv//backup/", "file:///srv/backup"),
            ("file:///srv/backup", "file:///srv/backup"),
            ("FILE://localhost/srv", "file:///srv"),
            ("file:///srv/my%20backup", "file:///srv/my%20backup"),
            ("/srv/my backup#1", "file:///srv/my%20backup%231"),
        ] {
            let url: Result<StoreUrl, _> = text.parse();
            assert_eq!(url.map(|url| url.to_string()).as_deref(), Ok(shown), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_directory_here_is_refused() {
        for text in [
            "",
            "srv/backup",
            "./backup",
            "/",
            "file:///",
            "file://",
            "file://host/srv",
            "file:///srv/../etc",
            "/srv/../etc",
            "file:///srv?x=1",
            "file:///srv/%00",
            "ftp://host/srv",
            "memory",
        ] {
            assert!(text.parse::<StoreUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_store_of_a_later_version_is_refused_by_name_and_without_its_password() {
        let refused = "sftp://me:hunter2@host/srv".parse::<StoreUrl>();
        let error = Error::from(refused.unwrap_err());
        assert_eq!(error.code(), Code::StoreUrlInvalid);
        assert_eq!(error.message(), "stores of the kind \"sftp\" are not supported yet");
        assert!(format!("{:?}", error.hint()).contains("file:///"));
        for scheme in NOT_BUILT {
            let error = format!("{scheme}://k:hunter2@x/y").parse::<StoreUrl>().unwrap_err();
            assert!(error.to_string().contains("not supported yet"), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_back(name in "[^/\0]{1,20}") {
            if let Ok(url) = StoreUrl::from_directory(&Path::new("/srv").join(name)) {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
