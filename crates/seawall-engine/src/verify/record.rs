//! Noting in the repository which backups were found whole, and which damaged.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seawall_core::{BackupId, Code, Error, Result};
use seawall_repo::Line;
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::{Event, PinRole, Record};
use seawall_store::ObjectPath;

use super::backups::{Checked, broken};
use super::{Findings, name_of, subject};
use crate::pinned::own_pin;

/// What was found of backups, and whether it is recorded.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The backups without any finding, of which all was read.
    pub whole: Vec<String>,
    /// Why it is not recorded, or not of all.
    pub failure: Option<Error>,
}

/// Adds a `damaged` event to every backup of which something was found gone or spoilt, and a
/// `verified` event to every one without any finding, of which all was read and `proven`; `None` if
/// not all was to be read.
pub(super) async fn record(
    line: &Line,
    checked: Checked,
    proven: Option<&BTreeSet<ObjectPath>>,
    findings: &Findings,
    now: Timestamp,
) -> Recorded {
    let mut recorded = Recorded::default();
    for (id, said) in judged(line, checked, proven, findings) {
        if said.0 == VERIFIED {
            recorded.whole.push(id.to_string());
        }
        if recorded.failure.is_none() {
            recorded.failure = commit(line, id, &said, now).await.err();
        }
    }
    recorded
}

/// What is to be said of each backup.
fn judged(
    line: &Line,
    checked: Checked,
    proven: Option<&BTreeSet<ObjectPath>>,
    findings: &Findings,
) -> Vec<(BackupId, Said)> {
    let found: BTreeSet<&str> = findings.listed.keys().map(|(object, _)| object.as_str()).collect();
    let mut judged = Vec::new();
    for id in checked.broken {
        let name = broken(&name_of(line, &LineObject::Backup(id, 0)), id);
        if let Some(problem) = findings.damaged.get(&name) {
            judged.push((id, damaged(&name, problem)));
        }
    }
    for (id, objects) in checked.whole {
        let about = subject(id);
        let names =
            || std::iter::once(about.as_str()).chain(objects.iter().map(ObjectPath::as_str));
        let problem = names().find_map(|name| Some((name, findings.damaged.get(name)?)));
        if let Some((name, problem)) = problem {
            judged.push((id, damaged(name, problem)));
            continue;
        }
        let was_read =
            proven.is_some_and(|proven| objects.iter().all(|path| proven.contains(path)));
        if was_read && !names().any(|name| found.contains(name)) {
            judged.push((id, (VERIFIED, BTreeMap::new())));
        }
    }
    judged
}

/// The kind of an event that says that a backup is whole.
const VERIFIED: &str = "verified";

/// What an event says: its kind, and details.
type Said = (&'static str, BTreeMap<String, String>);

fn damaged(object: &str, problem: &str) -> Said {
    ("damaged", BTreeMap::from([(object.to_owned(), problem.to_owned())]))
}

/// Publishes the event as the format asks: a pin, the head that announces it, the event, no pin.
async fn commit(line: &Line, id: BackupId, (kind, details): &Said, now: Timestamp) -> Result<()> {
    let number = next_number(line, id).await?;
    let path = line.paths().path(&LineObject::Event(id.0, number))?;
    let pin = own_pin(PinRole::Reader, "verify", vec![id.0]);
    let pin_path = line.paths().path(&LineObject::Pin(id.0, 0))?;
    // Another verification may be about to say the same.
    create(line, &pin_path, &pin).await?;
    let head = line.write_head(&path, now).await?;
    let event = Event {
        kind: (*kind).to_owned(),
        time_us: now.as_microsecond(),
        host: pin.host,
        details: details.clone(),
        head: Some(head),
    };
    create(line, &path, &event).await?;
    line.unpin(id.0).await
}

/// Creates a record, unless there is one.
async fn create<R: Record>(line: &Line, path: &ObjectPath, record: &R) -> Result<()> {
    match line.repository().create_record(path, record).await {
        Err(error) if error.code() == Code::ObjectExists => Ok(()),
        created => created,
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
