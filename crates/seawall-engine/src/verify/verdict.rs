//! What verifications have found of backups, as it is recorded in the repository.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use seawall_core::{BackupId, Error, Result, Ulid, shown_utc};
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
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Of each of which it is known.
    pub known: BTreeMap<BackupId, Verdict>,
    /// Why it is not known of another.
    pub unread: Option<Error>,
}

/// Reads what became of the backups of a line that were verified. A note that cannot be read leaves it
/// unknown of the one that it is about: an older one may say something else.
pub async fn verdicts(line: &Line) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let events = match events_of(line).await {
        Ok(events) => events,
        Err(error) => return Verdicts { unread: Some(error), ..verdicts },
    };
    let last = events.into_iter().map(|(subject, numbers)| last_verdict(line, subject, numbers));
    let last: Vec<_> = stream::iter(last).buffered(READS_AT_ONCE).collect().await;
    for last in last {
        match last {
            Ok(verdict) => verdicts.known.extend(verdict),
            Err(error) => _ = verdicts.unread.get_or_insert(error),
        }
    }
    verdicts
}

/// The numbers of the events there are, by what they are about.
async fn events_of(line: &Line) -> Result<BTreeMap<Ulid, Vec<u32>>> {
    let mut events: BTreeMap<Ulid, Vec<u32>> = BTreeMap::new();
    for path in line.repository().list(&line.paths().below("events")?).await? {
        if let Some(ObjectName::Line(_, _, LineObject::Event(subject, number))) =
            ObjectName::parse(&path)
        {
            events.entry(subject).or_default().push(number);
        }
    }
    Ok(events)
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
