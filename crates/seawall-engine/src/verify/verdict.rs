//! What verifications have found of backups, as it is recorded in the repository.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use seawall_core::{BackupId, Result, Ulid, shown_utc};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::Event;
use seawall_repo::{Line, READS_AT_ONCE};

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
    let mut events: BTreeMap<Ulid, Vec<u32>> = BTreeMap::new();
    for path in line.repository().list(&line.paths().below("events")?).await? {
        if let Some(ObjectName::Line(_, _, LineObject::Event(subject, number))) =
            ObjectName::parse(&path)
        {
            events.entry(subject).or_default().push(number);
        }
    }
    let last = events.into_iter().map(|(subject, numbers)| last_verdict(line, subject, numbers));
    let last: Vec<_> = stream::iter(last).buffered(READS_AT_ONCE).try_collect().await?;
    Ok(last.into_iter().flatten().collect())
}

/// The verdict of a subject's newest event that has one. `numbers` are in order.
async fn last_verdict(
    line: &Line,
    subject: Ulid,
    numbers: Vec<u32>,
) -> Result<Option<(BackupId, Verdict)>> {
    for number in numbers.into_iter().rev() {
        let path = line.paths().path(&LineObject::Event(subject, number))?;
        let event: Event = line.repository().read_record(&path).await?;
        if let Some(verdict) = Verdict::of(&event) {
            return Ok(Some((BackupId(subject), verdict)));
        }
    }
    Ok(None)
}
