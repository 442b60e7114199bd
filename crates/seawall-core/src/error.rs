use std::error::Error as StdError;
use std::fmt;

use crate::{Code, ExitClass};

/// A result whose error can be shown to a user.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error that crosses crate boundaries and reaches a person.
///
/// `message` says what was tried and failed, lower-case, without a full stop. `hint` is a sentence
/// with the exact command or SQL that helps. The source chain says why.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error; `message` is lower-case and has no full stop.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { code, message: message.into(), hint: None, source: None }))
    }

    /// Adds the sentence that tells the user what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
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
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Message and causes in one line: `a: b: c`.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.0.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
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
        self.hint().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
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
    use super::*;

    #[test]
    fn the_chain_reads_from_what_to_why() {
        let io = std::io::Error::other("disk on fire");
        let error = Err::<(), _>(io)
            .code(Code::StoreFailed, || "writing pack".to_owned())
            .map_err(|error| error.context("backing up main"));
        let text = error.err().map(|error| error.chain());
        assert_eq!(text.as_deref(), Some("backing up main: writing pack: disk on fire"));
    }
}
