use std::fmt;

use seawall_core::{Code, ExitClass};
use serde::Serialize;

/// Why something is not known to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotWhole {
    /// It, or something of it, is gone or spoilt.
    Damaged,
    /// It is of a format that this version does not read. Another one may.
    OtherFormat,
    /// It could not be read, as where a store does not answer: what it is nobody knows.
    Unread,
}

impl NotWhole {
    /// What an error says of the thing that it kept from being read.
    #[must_use]
    pub fn of(code: Code) -> Self {
        match code {
            Code::UnknownFormat => Self::OtherFormat,
            // A cluster of which nothing is where all of it ought to be.
            Code::NoSuchCluster => Self::Damaged,
            code if code.exit_class() == ExitClass::Integrity => Self::Damaged,
            _ => Self::Unread,
        }
    }

    /// The end of a sentence about the thing.
    #[must_use]
    pub const fn predicate(self) -> &'static str {
        match self {
            Self::Damaged => "is damaged",
            Self::OtherFormat => "is of another format",
            Self::Unread => "could not be read",
        }
    }
}

/// In a column.
impl fmt::Display for NotWhole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "damaged",
            Self::OtherFormat => "other format",
            Self::Unread => "not read",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_does_not_answer_makes_nothing_damaged_and_neither_does_another_format() {
        for (code, expected) in [
            (Code::ObjectDamaged, NotWhole::Damaged),
            (Code::ObjectMissing, NotWhole::Damaged),
            (Code::WalGap, NotWhole::Damaged),
            (Code::KeyEpochGone, NotWhole::Damaged),
            (Code::UnknownFormat, NotWhole::OtherFormat),
            (Code::StoreFailed, NotWhole::Unread),
            (Code::StoreForbidden, NotWhole::Unread),
            (Code::WrongKey, NotWhole::Unread),
        ] {
            assert_eq!(NotWhole::of(code), expected, "{code}");
        }
    }
}
