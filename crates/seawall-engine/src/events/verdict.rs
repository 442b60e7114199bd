use std::fmt;

use jiff::Timestamp;
use seawall_core::shown_utc;
use seawall_repo::records::Event;

use super::{DAMAGED, VERIFIED};

/// What the last verification of a backup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All that it needs was read and is whole.
    Whole {
        /// When that was.
        at: Timestamp,
    },
    /// Something that it needs is gone or spoilt.
    Damaged(FoundDamaged),
}

/// Something that a backup needs, and that a verification found gone or spoilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDamaged {
    /// When that was.
    pub at: Timestamp,
    /// The object, and what is wrong with it.
    pub what: String,
}

impl fmt::Display for FoundDamaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", shown_utc(self.at), self.what)
    }
}

impl Verdict {
    /// What an event says of the backup it is about.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let at = Timestamp::from_microsecond(event.time_us).unwrap_or_default();
        match event.kind.as_str() {
            VERIFIED => Some(Self::Whole { at }),
            DAMAGED => {
                let details = event.details.iter();
                let told: Vec<String> =
                    details.map(|(object, problem)| format!("{object}: {problem}")).collect();
                Some(Self::Damaged(FoundDamaged { at, what: told.join("; ") }))
            }
            _ => None,
        }
    }
}
