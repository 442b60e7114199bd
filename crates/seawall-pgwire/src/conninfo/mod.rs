//! Connection strings, as libpq reads them.

mod environment;
mod error;
mod keyvalue;
mod keywords;
mod passfile;
mod resolve;
mod service;
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
    keywords::find(keyword)
        .ok_or_else(|| ConninfoError::UnknownKeyword { keyword: keyword.to_owned() })
}

impl FromStr for Conninfo {
    type Err = ConninfoError;

    fn from_str(text: &str) -> Result<Self, ConninfoError> {
        match uri::strip_scheme(text) {
            Some(rest) => uri::parse(rest),
            None => keyvalue::parse(text),
        }
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
