use std::collections::BTreeMap;

use jiff::Timestamp;
use seawall_core::{BackupId, Code, Result};
use seawall_repo::Line;
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::{Event, PinRole};

use super::{ANNOTATE, DAMAGED, DELETE_INTENT, HOLD, REASON, RELEASE, UNTIL, VERIFIED};
use crate::pinned::own_pin;

/// How many others may come first at the same time.
const TRIES: u32 = 16;

/// What is said of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// All that it needs was read and is whole.
    Verified,
    /// Something that it needs is gone or spoilt: the object, and what is wrong with it.
    Damaged(BTreeMap<String, String>),
    /// It stays.
    Hold { until: Option<Timestamp>, reason: Option<String> },
    /// The hold ends.
    Release,
    /// Notes by name; an empty one takes that of its name away.
    Annotate(BTreeMap<String, String>),
    /// It is to go.
    DeleteIntent,
}

impl Said {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Verified => VERIFIED,
            Self::Damaged(_) => DAMAGED,
            Self::Hold { .. } => HOLD,
            Self::Release => RELEASE,
            Self::Annotate(_) => ANNOTATE,
            Self::DeleteIntent => DELETE_INTENT,
        }
    }

    fn details(&self) -> BTreeMap<String, String> {
        match self {
            Self::Verified | Self::Release | Self::DeleteIntent => BTreeMap::new(),
            Self::Damaged(details) | Self::Annotate(details) => details.clone(),
            Self::Hold { until, reason } => {
                let until = until.map(|until| (UNTIL.to_owned(), until.to_string()));
                let reason = reason.clone().map(|reason| (REASON.to_owned(), reason));
                until.into_iter().chain(reason).collect()
            }
        }
    }
}

/// Publishes an event as the format asks: a pin, the head that announces it, the event, no pin.
///
/// # Errors
/// A store that fails, or that is read only.
pub(crate) async fn record(line: &Line, id: BackupId, said: &Said, now: Timestamp) -> Result<()> {
    let pin = own_pin(PinRole::Reader, said.kind(), vec![id.0]);
    let pin_path = line.paths().path(&LineObject::Pin(id.0, 0))?;
    match line.repository().create_record(&pin_path, &pin).await {
        // Another one may be about to say something of it too.
        Err(error) if error.code() == Code::ObjectExists => {}
        created => created?,
    }
    let recorded = commit(line, id, said, pin.host, now).await;
    line.unpin(id.0).await?;
    recorded
}

/// Takes the next number. What another one says who came first is not what is to be said here.
async fn commit(
    line: &Line,
    id: BackupId,
    said: &Said,
    host: String,
    now: Timestamp,
) -> Result<()> {
    let mut number = next_number(line, id).await?;
    let mut event = Event {
        kind: said.kind().to_owned(),
        time_us: now.as_microsecond(),
        host,
        details: said.details(),
        head: None,
    };
    let last = number.saturating_add(TRIES);
    loop {
        let path = line.paths().path(&LineObject::Event(id.0, number))?;
        event.head = Some(line.write_head(&path, now).await?);
        match line.repository().create_record(&path, &event).await {
            Err(error) if error.code() == Code::ObjectExists && number < last => number += 1,
            created => return created,
        }
    }
}

async fn next_number(line: &Line, id: BackupId) -> Result<u32> {
    let below = line.paths().below(&format!("events/{}", id.0))?;
    let numbers =
        line.repository().list(&below).await?.into_iter().filter_map(
            |path| match ObjectName::parse(&path) {
                Some(ObjectName::Line(_, _, LineObject::Event(_, number))) => Some(number),
                _ => None,
            },
        );
    Ok(numbers.max().map_or(0, |last| last + 1))
}
