//! What verifications have found of backups, as it is recorded in the repository.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use seawall_core::{BackupId, Result};
use seawall_repo::Line;
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::Event;

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
        write!(f, "at {}: {}", self.at.strftime("%Y-%m-%d %H:%M:%SZ"), self.what)
    }
}

impl Verdict {
    /// What an event says of the backup it is about.
    fn of(event: &Event) -> Option<Self> {
        let at = Timestamp::from_microsecond(event.time_us).unwrap_or_default();
        match event.kind.as_str() {
            "verified" => Some(Self::Whole { at }),
            "damaged" => {
                let details = event.details.iter();
                let told: Vec<String> =
                    details.map(|(object, problem)| format!("{object}: {problem}")).collect();
                Some(Self::Damaged(FoundDamaged { at, what: told.join("; ") }))
            }
            _ => None,
        }
    }
}

/// What became of the backups of a line that were verified.
///
/// # Errors
/// Damage of an event, or a store that fails.
pub async fn verdicts(line: &Line) -> Result<BTreeMap<BackupId, Verdict>> {
    let mut verdicts = BTreeMap::new();
    for path in line.repository().list(&line.paths().below("events")?).await? {
        let Some(ObjectName::Line(_, _, LineObject::Event(subject, _))) = ObjectName::parse(&path)
        else {
            continue;
        };
        let event: Event = line.repository().read_record(&path).await?;
        // Listed in order, so that the last one stays.
        if let Some(verdict) = Verdict::of(&event) {
            verdicts.insert(BackupId(subject), verdict);
        }
    }
    Ok(verdicts)
}
