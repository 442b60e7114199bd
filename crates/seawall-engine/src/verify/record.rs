//! Noting in the repository which backups were found whole.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seawall_core::{BackupId, Code, Lsn, Result, TimelineId};
use seawall_repo::Line;
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::{Event, Pin, PinRole, Record};
use seawall_store::ObjectPath;

use super::backups::Checked;
use super::{Findings, subject};
use crate::host::{Host, Process};

/// Adds a `verified` event to every backup without a finding, of which all was read and `proven`.
/// Returns their ids.
pub(super) async fn record(
    line: &Line,
    checked: Checked,
    proven: &BTreeSet<ObjectPath>,
    findings: &Findings,
    now: Timestamp,
) -> Result<Vec<String>> {
    let found: BTreeSet<&str> = findings.0.iter().map(|(object, ..)| object.as_str()).collect();
    let mut verified = Vec::new();
    for (id, objects) in checked.whole {
        let whole = !found.contains(subject(id).as_str())
            && objects.iter().all(|path| proven.contains(path) && !found.contains(path.as_str()));
        if !whole {
            continue;
        }
        commit(line, id, now).await?;
        verified.push(id.to_string());
    }
    Ok(verified)
}

/// Publishes the event as the format asks: a pin, the head that announces it, the event, no pin.
async fn commit(line: &Line, id: BackupId, now: Timestamp) -> Result<()> {
    let number = next_number(line, id).await?;
    let path = line.paths().path(&LineObject::Event(id.0, number))?;
    let host = Host::this();
    let pin = Pin {
        role: PinRole::Reader,
        host: host.name.clone(),
        boot_id: host.boot_id,
        process_id: std::process::id(),
        time_us: now.as_microsecond(),
        purpose: "verify".to_owned(),
        start_lsn: Lsn::INVALID,
        start_timeline: TimelineId(0),
        copied_until: Lsn::INVALID,
        packs: Vec::new(),
        maps: Vec::new(),
        entries: Vec::new(),
        backups: vec![id.0],
        process_started: Process::this().started,
        namespaces: host.namespaces,
    };
    let pin_path = line.paths().path(&LineObject::Pin(id.0, 0))?;
    // Another verification may be about to say the same.
    create(line, &pin_path, &pin).await?;
    let head = line.write_head(&path, now).await?;
    let event = Event {
        kind: "verified".to_owned(),
        time_us: now.as_microsecond(),
        host: host.name,
        details: BTreeMap::new(),
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
