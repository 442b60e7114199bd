use std::fmt;
use std::str::FromStr;

/// No component of an object's path ends in this: the filesystem store's unfinished files do.
pub const RESERVED_SUFFIX: &str = ".seawall-tmp";

/// Object stores allow keys of 1024 bytes; this leaves room for the prefix a store adds.
const MAX_PATH_BYTES: usize = 700;

/// Filesystems allow names of 255 bytes; some that encrypt names keep 143 of them (eCryptfs).
const MAX_COMPONENT_BYTES: usize = 140;

/// The text is not the path of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not an object path: {reason}", text.escape_default())]
pub struct InvalidObjectPath {
    text: String,
    reason: &'static str,
}

/// The name of an object in a store: components of `A-Z a-z 0-9 . _ -` joined by `/`, such as
/// `c/main/i/7300000000000000000-0/about`.
///
/// Relative to the store, never empty, without `.`, `..` and empty components, and short enough
/// for every store. Ordered by bytes, as listings are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Checks and wraps a path.
    ///
    /// # Errors
    /// [`InvalidObjectPath`] says which rule it breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidObjectPath> {
        let text = text.into();
        match fault_in_path(&text) {
            None => Ok(Self(text)),
            Some(reason) => Err(InvalidObjectPath { text, reason }),
        }
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with `relative`, one component or several, below it.
    ///
    /// # Errors
    /// [`InvalidObjectPath`] if that is not a path.
    pub fn join(&self, relative: &str) -> Result<Self, InvalidObjectPath> {
        Self::new(format!("{self}/{relative}"))
    }

    /// The components, from the store's root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }

    /// What the path is directly below.
    #[must_use]
    pub fn parent(&self) -> ObjectPrefix {
        ObjectPrefix(self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned())))
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectPath {
    type Err = InvalidObjectPath;

    fn from_str(text: &str) -> Result<Self, InvalidObjectPath> {
        Self::new(text)
    }
}

/// What objects can be listed below: the whole store, or a path seen as a directory.
///
/// It ends at a `/`: `a` holds `a/b` and does not hold `ab`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPrefix(Option<ObjectPath>);

impl ObjectPrefix {
    /// The whole store.
    #[must_use]
    pub const fn root() -> Self {
        Self(None)
    }

    /// Everything below a path.
    #[must_use]
    pub const fn below(path: ObjectPath) -> Self {
        Self(Some(path))
    }

    /// The path everything is below; `None` for the whole store.
    #[must_use]
    pub const fn path(&self) -> Option<&ObjectPath> {
        self.0.as_ref()
    }

    /// The path of what is called `relative` below the prefix.
    ///
    /// # Errors
    /// [`InvalidObjectPath`] if that is not a path.
    pub fn join(&self, relative: &str) -> Result<ObjectPath, InvalidObjectPath> {
        match &self.0 {
            None => ObjectPath::new(relative),
            Some(path) => path.join(relative),
        }
    }

    /// What is left of `path` below the prefix; `None` if it is elsewhere.
    #[must_use]
    pub fn strip<'a>(&self, path: &'a ObjectPath) -> Option<&'a str> {
        match &self.0 {
            None => Some(path.as_str()),
            Some(prefix) => path.as_str().strip_prefix(prefix.as_str())?.strip_prefix('/'),
        }
    }
}

impl fmt::Display for ObjectPrefix {
    /// With the `/` at its end; the whole store is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |path| write!(f, "{path}/"))
    }
}

/// Whether `name` may be one component of an object's path.
pub(crate) fn is_component(name: &str) -> bool {
    fault_in_component(name).is_none()
}

fn fault_in_path(text: &str) -> Option<&'static str> {
    if text.len() > MAX_PATH_BYTES {
        return Some("it is longer than 700 bytes");
    }
    text.split('/').find_map(fault_in_component)
}

fn fault_in_component(name: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        Some("a component is empty")
    } else if name.len() > MAX_COMPONENT_BYTES {
        Some("a component is longer than 140 bytes")
    } else if name == "." || name == ".." {
        Some("a component is . or ..")
    } else if !name.bytes().all(allowed) {
        Some("a component has other characters than A-Z a-z 0-9 . _ -")
    } else if name.ends_with(RESERVED_SUFFIX) {
        Some("a component ends in .seawall-tmp, which marks unfinished files")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_leave_the_store_or_confuse_one_are_refused() {
        let long_component = "x".repeat(MAX_COMPONENT_BYTES + 1);
        let long_path = vec!["x".repeat(MAX_COMPONENT_BYTES); 5].join("/");
        assert!(long_path.len() > MAX_PATH_BYTES);
        for text in [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/./b",
            "a b",
            "a\\b",
            "a\0b",
            "é",
            "a/b.seawall-tmp",
            "a.seawall-tmp/b",
            &long_component,
            &long_path,
        ] {
            assert!(ObjectPath::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_says_which_rule_was_broken() {
        let message = ObjectPath::new("a/../b").map_err(|e| e.to_string());
        assert_eq!(
            message,
            Err("\"a/../b\" is not an object path: a component is . or ..".to_owned())
        );
    }

    #[test]
    fn a_path_is_taken_apart_and_put_together() {
        let path = ObjectPath::new("c/main/about").unwrap();
        assert_eq!(path.file_name(), "about");
        assert_eq!(path.parent().to_string(), "c/main/");
        assert_eq!(path.parent().join("about"), Ok(path.clone()));
        assert_eq!(path.components().collect::<Vec<_>>(), ["c", "main", "about"]);
        let top = ObjectPath::new("top").unwrap();
        assert_eq!((top.file_name(), top.parent()), ("top", ObjectPrefix::root()));
        assert_eq!(ObjectPrefix::root().join("top"), Ok(top.clone()));
        assert!(top.join("../x").is_err());
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let prefix = ObjectPrefix::below(ObjectPath::new("a").unwrap());
        assert_eq!(prefix.strip(&ObjectPath::new("a/b/c").unwrap()), Some("b/c"));
        assert_eq!(prefix.strip(&ObjectPath::new("ab").unwrap()), None);
        assert_eq!(prefix.strip(&ObjectPath::new("a").unwrap()), None);
    }

    proptest! {
        #[test]
        fn a_valid_path_never_climbs(text in "[a./_-]{0,12}") {
            if let Ok(path) = ObjectPath::new(text.clone()) {
                prop_assert!(path.components().all(|c| !c.is_empty() && c != "." && c != ".."));
                prop_assert_eq!(path.parent().join(path.file_name()), Ok(path.clone()));
                prop_assert_eq!(path.as_str(), text);
            }
        }
    }
}
