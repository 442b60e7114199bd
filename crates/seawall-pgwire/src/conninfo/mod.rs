//! Connection strings, as libpq reads them.

mod environment;
mod error;
mod keyvalue;
mod keywords;
mod passfile;
mod resolve;
mod service;
mod shown;
#[cfg(test)]
mod tests;
mod uri;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

pub use environment::Environment;
pub use error::ConninfoError;
pub use passfile::PassfileWarning;
pub use shown::{masked_conninfo, quote_conninfo_value};

use keywords::{Keyword, Support};

/// The options a connection string spells out, before service files, environment and defaults.
///
/// Parsed with [`FromStr`] from `host=db dbname=app` or `postgresql://db/app`; completed with
/// [`resolve`](Conninfo::resolve).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conninfo {
    values: BTreeMap<&'static str, Zeroizing<String>>,
}

impl Conninfo {
    /// Sets an option, whatever it was.
    ///
    /// # Errors
    /// [`ConninfoError::UnknownKeyword`], or [`ConninfoError::Unsupported`] for what libpq knows
    /// and Seawall does not do.
    pub fn set(&mut self, keyword: &str, value: impl Into<String>) -> Result<(), ConninfoError> {
        let keyword = known(keyword)?;
        let value = value.into();
        if let Support::Only(supported) = keyword.support
            && !supported.contains(&value.as_str())
        {
            return Err(ConninfoError::Unsupported { keyword: keyword.name, supported });
        }
        self.values.insert(keyword.name, Zeroizing::new(value));
        Ok(())
    }

    /// The value of an option that was set.
    #[must_use]
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword).map(|value| value.as_str())
    }

    /// Whether a password or another secret is spelled out.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.values.iter().any(|(keyword, value)| keywords::is_secret(keyword) && !value.is_empty())
    }

    /// Sets an option that is not set yet.
    fn set_default(
        &mut self,
        keyword: &str,
        value: impl Into<String>,
    ) -> Result<(), ConninfoError> {
        if self.values.contains_key(known(keyword)?.name) {
            return Ok(());
        }
        self.set(keyword, value)
    }
}

fn known(keyword: &str) -> Result<&'static Keyword, ConninfoError> {
    keywords::find(keyword).ok_or_else(|| ConninfoError::UnknownKeyword {
        keyword: shown::harmless_keyword(keyword).map(str::to_owned),
    })
}

impl FromStr for Conninfo {
    type Err = ConninfoError;

    fn from_str(text: &str) -> Result<Self, ConninfoError> {
        match uri::strip_scheme(text) {
            Some(rest) => uri::parse(rest),
            None if uri::has_scheme(text) => Err(ConninfoError::UnknownScheme),
            None => keyvalue::parse(text),
        }
    }
}

/// A keyword/value string without passwords and other secrets.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (keyword, value) in &self.values {
            if !keywords::is_secret(keyword) {
                write!(f, "{space}{keyword}={}", quote_conninfo_value(value))?;
                space = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.values.iter().map(|(keyword, value)| {
            let secret = keywords::find(keyword).is_some_and(Keyword::is_secret);
            (keyword, if secret { "hidden" } else { value.as_str() })
        });
        f.debug_map().entries(shown).finish()
    }
}
