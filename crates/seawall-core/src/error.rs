use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Code, ExitClass, Hint, Key, Retry};

/// A result whose error can be shown to a user.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error that crosses crate boundaries and reaches a person.
///
/// `message` says what was tried and failed, lower-case, without a full stop. The hint is a sentence
/// with the exact action or SQL that helps. The source chain says why. Pairs name what it is about,
/// for programs. All of it can be serialised; causes come back as their texts.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: String,
    hint: Option<Hint>,
    retry: Retry,
    pairs: BTreeMap<Key, String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error; `message` is lower-case and has no full stop.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            hint: None,
            retry: code.retry(),
            pairs: BTreeMap::new(),
            source: None,
        }))
    }

    /// Adds the sentence that tells the user what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says whether to try again, where that is known better than by the code.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Says what it is about. What was said nearer to the failure stays.
    #[must_use]
    pub fn with_pair(mut self, key: Key, value: impl fmt::Display) -> Self {
        self.0.pairs.entry(key).or_insert_with(|| value.to_string());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts what was being done in front of the message; code, hint and cause stay.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// The stable code, which has a page in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The process exit status this error asks for.
    #[must_use]
    pub fn exit_class(&self) -> ExitClass {
        self.0.code.exit_class()
    }

    /// What failed, without its causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&Hint> {
        self.0.hint.as_ref()
    }

    /// Whether the same request may succeed when it is made again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// What it is about.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<Key, String> {
        &self.0.pairs
    }

    /// Message and causes in one line: `a: b: c`.
    #[must_use]
    pub fn chain(&self) -> String {
        let causes = self.causes().map(|cause| format!(": {cause}"));
        std::iter::once(self.0.message.clone()).chain(causes).collect()
    }

    /// Its causes, the nearest first.
    fn causes(&self) -> impl Iterator<Item = String> {
        let all = std::iter::successors(StdError::source(self), |cause| (*cause).source());
        all.map(ToString::to_string)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.chain())?;
        self.hint().map_or(Ok(()), |hint| write!(f, " (hint: {hint:?})"))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// An error as it travels.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Travelling {
    code: Code,
    message: String,
    causes: Vec<String>,
    hint: Option<Hint>,
    retry: Retry,
    pairs: BTreeMap<Key, String>,
}

/// A cause that came from elsewhere: its text is left of it.
#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Inner { code, message, hint, retry, pairs, source: _ } = &*self.0;
        Travelling {
            code: *code,
            message: message.clone(),
            causes: self.causes().collect(),
            hint: hint.clone(),
            retry: *retry,
            pairs: pairs.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Travelling { code, message, causes, hint, retry, pairs } =
            Travelling::deserialize(deserializer)?;
        let cause = causes
            .into_iter()
            .rev()
            .fold(None, |source, text| Some(Box::new(Cause { text, source })));
        let source = cause.map(|cause| cause as Box<dyn StdError + Send + Sync>);
        Ok(Self(Box::new(Inner { code, message, hint, retry, pairs, source })))
    }
}

/// Gives the error of a lower layer a code and says what was being done.
pub trait ResultExt<T> {
    /// The cause is kept as the source. `message` is lower-case and has no full stop.
    ///
    /// # Errors
    /// The same failure, as an [`Error`].
    fn code(self, code: Code, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: StdError + Send + Sync + 'static> ResultExt<T> for std::result::Result<T, E> {
    fn code(self, code: Code, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::new(code, message()).with_source(source))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{Action, hint};

    #[test]
    fn the_chain_reads_from_what_to_why() {
        let io = io::Error::other("disk on fire");
        let error = Err::<(), _>(io)
            .code(Code::StoreFailed, || "writing pack".to_owned())
            .map_err(|error| error.context("backing up main"));
        let text = error.err().map(|error| error.chain());
        assert_eq!(text.as_deref(), Some("backing up main: writing pack: disk on fire"));
    }

    /// A cause of a cause.
    fn deep() -> Error {
        let disk = Error::new(Code::LocalIo, "cannot write").with_source(io::Error::other("EIO"));
        Error::new(Code::StoreFailed, "writing c/main/about failed")
            .with_source(disk)
            .with_hint(hint!["Look; then ", Action::Backup { cluster: None }, "."])
            .with_pair(Key::Object, "c/main/about")
            .with_retry(Retry::Never)
    }

    #[test]
    fn an_error_travels_whole() {
        for error in [deep(), Error::new(Code::Interrupted, "interrupted")] {
            let written = serde_json::to_string(&error).unwrap();
            let read: Error = serde_json::from_str(&written).unwrap();
            assert_eq!(read.code(), error.code());
            assert_eq!(read.chain(), error.chain());
            assert_eq!(read.hint(), error.hint());
            assert_eq!(read.retry(), error.retry());
            assert_eq!(read.pairs(), error.pairs());
            assert_eq!(serde_json::to_string(&read).unwrap(), written);
        }
        assert_eq!(deep().chain(), "writing c/main/about failed: cannot write: EIO");
    }

    #[test]
    fn an_error_of_a_later_version_is_refused() {
        let mut written = serde_json::to_value(deep()).unwrap();
        for (field, value) in [("code", "SW9999"), ("code", "0201"), ("retry", "perhaps")] {
            let was = std::mem::replace(&mut written[field], value.into());
            let read: Result<Error, _> = serde_json::from_value(written.clone());
            assert!(read.is_err(), "{field} {value}");
            written[field] = was;
        }
        assert!(serde_json::from_value::<Error>(written).is_ok());
    }

    #[test]
    fn what_is_said_nearest_to_the_failure_stays() {
        let error = Error::new(Code::StoreFailed, "no").with_pair(Key::Path, "/a");
        let error = error.with_pair(Key::Path, "/b").with_pair(Key::Host, "db1:5432");
        let pairs: Vec<&str> = error.pairs().values().map(String::as_str).collect();
        assert_eq!(pairs, ["/a", "db1:5432"]);
        assert_eq!(error.retry(), Retry::Later);
    }
}
