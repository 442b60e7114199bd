//! Facts about backups that are recorded beside them: what verifications found, holds, notes, the wish
//! that one goes (format.md, 10). Here they are written, and here they are read.

mod record;
mod standing;
#[cfg(test)]
mod tests;
mod verdict;

pub(crate) use record::{Said, record};
pub(crate) use standing::standing_of;
pub use standing::{Hold, Standing, Standings, standings};
pub use verdict::{FoundDamaged, Verdict};

/// All that is needed of a backup was read and is whole.
const VERIFIED: &str = "verified";
/// Something that it needs is gone or spoilt.
const DAMAGED: &str = "damaged";
/// It stays, whatever the retention.
const HOLD: &str = "hold";
/// The hold ends.
const RELEASE: &str = "release";
/// Notes; an empty one takes that of its name away.
const ANNOTATE: &str = "annotate";
/// It is to go.
const DELETE_INTENT: &str = "delete-intent";
/// Kinds that say nothing of whether a backup stays.
const OTHERS: [&str; 4] = ["drilled", "gap", "incident", "session-open"];

/// Of a hold: until when, as RFC 3339.
const UNTIL: &str = "until";
/// Of a hold: why.
const REASON: &str = "reason";
