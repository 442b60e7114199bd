//! What the heads say existed: does it exist still?

use std::collections::{BTreeMap, BTreeSet};

use seawall_core::{Code, Result, TimelineId, Ulid};
use seawall_repo::Line;
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::{Event, Head};
use seawall_store::ObjectPath;

use super::{Findings, Listed, name_of};

/// What a line has, by name.
#[derive(Debug, Default)]
struct Present {
    paths: BTreeSet<ObjectPath>,
    segments: BTreeMap<TimelineId, Vec<u64>>,
    pinned: BTreeSet<Ulid>,
    events: Vec<(Ulid, u32)>,
}

impl Present {
    fn of(line: &Line, objects: &[Listed]) -> Self {
        let mut present = Self::default();
        for object in objects {
            match &object.name {
                ObjectName::Line(cluster, id, what)
                    if cluster == line.cluster() && *id == line.id() =>
                {
                    match what {
                        LineObject::WalHot(range) => present
                            .segments
                            .entry(range.timeline)
                            .or_default()
                            .push(range.segment.0),
                        LineObject::Pin(id, _) => {
                            present.pinned.insert(*id);
                        }
                        LineObject::Event(subject, number) => {
                            present.events.push((*subject, *number));
                        }
                        _ => {}
                    }
                }
                ObjectName::Line(..) => continue,
                _ => {}
            }
            present.paths.insert(object.path.clone());
        }
        present
    }
}

/// Compares a line with its heads.
pub(super) async fn check(line: &Line, objects: &[Listed], findings: &mut Findings) -> Result<()> {
    let present = Present::of(line, objects);
    for id in line.heads().await? {
        let path = line.paths().path(&LineObject::Head(id))?;
        match line.repository().read_record::<Head>(&path).await {
            Ok(head) => check_head(line, &head, &present, findings)?,
            Err(error) => findings.error(&path, &error),
        }
    }
    // The other half of each pair: what a head announced names that head.
    for (subject, number) in &present.events {
        let path = line.paths().path(&LineObject::Event(*subject, *number))?;
        if let Ok(Event { head: Some(head), .. }) = line.repository().read_record(&path).await {
            require(line, &LineObject::Head(head), &present, findings);
        }
    }
    Ok(())
}

fn check_head(line: &Line, head: &Head, present: &Present, findings: &mut Findings) -> Result<()> {
    let mut names = Vec::new();
    for number in &head.formats {
        names.push(ObjectName::Format(*number).path()?);
    }
    for slot in &head.key_slots {
        names.push(ObjectName::Key(slot.number, slot.id).path()?);
    }
    let of_line = |object: LineObject| line.paths().path(&object);
    for event in &head.events {
        names.push(of_line(LineObject::Event(event.id, event.number))?);
    }
    for older in &head.heads {
        names.push(of_line(LineObject::Head(*older))?);
    }
    for backup in &head.backups {
        let id = seawall_core::BackupId(backup.id);
        names.push(of_line(LineObject::Backup(id, backup.number))?);
    }
    for history in &head.histories {
        let name = format!("history/{history}");
        names.extend(line.paths().below(&name)?.path().cloned());
    }
    names.push(of_line(LineObject::About)?);
    for path in names {
        if !present.paths.contains(&path) {
            vanished(&path, findings);
        }
    }
    check_next(head, present, findings);
    check_wal(line, head, present, findings);
    Ok(())
}

/// The object a head announces exists, unless its writer died in between: then its pin is left.
fn check_next(head: &Head, present: &Present, findings: &mut Findings) {
    let Ok(path) = ObjectPath::new(head.next.clone()) else { return };
    let explained = match ObjectName::parse(&path) {
        Some(ObjectName::Line(
            _,
            _,
            LineObject::Backup(seawall_core::BackupId(id), _) | LineObject::Event(id, _),
        )) => present.pinned.contains(&id),
        _ => false,
    };
    if !explained && !present.paths.contains(&path) {
        vanished(&path, findings);
    }
}

fn check_wal(line: &Line, head: &Head, present: &Present, findings: &mut Findings) {
    let none = Vec::new();
    for timeline in &head.wal {
        let segments = present.segments.get(&timeline.timeline).unwrap_or(&none);
        for span in &timeline.spans {
            let within = segments
                .iter()
                .filter(|segment| (span.first_segment.0..=span.last_segment.0).contains(segment));
            let left = within.count();
            if left < span.ranges as usize {
                let first = seawall_repo::layout::WalRangeName {
                    timeline: timeline.timeline,
                    segment: span.first_segment,
                    start: span.first_segment,
                };
                findings.add(
                    name_of(line, &LineObject::WalHot(first)),
                    Code::ObjectMissing,
                    format!(
                        "{} of the {} WAL objects from {} to the segment at {} on timeline {} are gone",
                        span.ranges as usize - left,
                        span.ranges,
                        span.first_segment,
                        span.last_segment,
                        timeline.timeline
                    ),
                );
            }
        }
    }
}

fn require(line: &Line, object: &LineObject, present: &Present, findings: &mut Findings) {
    if let Ok(path) = line.paths().path(object)
        && !present.paths.contains(&path)
    {
        vanished(&path, findings);
    }
}

fn vanished(path: &ObjectPath, findings: &mut Findings) {
    findings.add(path, Code::ObjectMissing, "it was in the repository and is gone");
}
