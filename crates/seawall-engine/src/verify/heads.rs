//! What the heads say existed: does it exist still?

use std::collections::{BTreeMap, BTreeSet};

use seawall_core::{BackupId, Code, Result, TimelineId, Ulid};
use seawall_repo::layout::{LineObject, ObjectName, WalRangeName};
use seawall_repo::records::{Event, Head, WalOfTimeline};
use seawall_repo::wal::LsnRange;
use seawall_repo::{Condemnations, Line};
use seawall_store::ObjectPath;

use super::{Findings, Listed};

/// What a line has, by name.
#[derive(Debug, Default)]
struct Present {
    paths: BTreeSet<ObjectPath>,
    /// The WAL of each timeline.
    wal: BTreeMap<TimelineId, Vec<LsnRange>>,
    pinned: BTreeSet<Ulid>,
    events: Vec<(Ulid, u32)>,
    heads: Vec<Ulid>,
    /// Key epochs that have a slot.
    epochs: BTreeSet<u32>,
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
                        LineObject::WalHot(name) => {
                            let range = LsnRange { start: name.start, end: name.end };
                            present.wal.entry(name.timeline).or_default().push(range);
                        }
                        LineObject::WalCold(name) => {
                            let range = LsnRange { start: name.start, end: name.end };
                            present.wal.entry(name.timeline).or_default().push(range);
                        }
                        LineObject::Pin(id, _) => {
                            present.pinned.insert(*id);
                        }
                        LineObject::Event(subject, number) => {
                            present.events.push((*subject, *number));
                        }
                        LineObject::Head(id) => present.heads.push(*id),
                        _ => {}
                    }
                }
                ObjectName::Line(..) => continue,
                ObjectName::Key(epoch, _) => _ = present.epochs.insert(*epoch),
                ObjectName::Format(_) | ObjectName::Epoch(_) => {}
                // It goes when the slot is deleted.
                ObjectName::Removal(..) => continue,
            }
            present.paths.insert(object.path.clone());
        }
        for ranges in present.wal.values_mut() {
            *ranges = LsnRange::joined(std::mem::take(ranges));
        }
        present
    }
}

/// The heads of a line.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Those that were listed with everything else, oldest first.
    listed: Vec<(Ulid, Result<Head>)>,
    /// Those that another one stands for: it says what there was when it was written, and they go.
    replaced: BTreeSet<Ulid>,
    /// What a head lists that stands for those before: the head that announced it may be gone.
    vouched: BTreeSet<ObjectPath>,
}

impl Heads {
    /// Reads those that were listed with `objects`, and those that came since and stand for others.
    pub async fn of(line: &Line, objects: &[Listed]) -> Result<Self> {
        let listed: BTreeSet<Ulid> = Present::of(line, objects).heads.into_iter().collect();
        let mut heads = Self::default();
        let all: BTreeSet<Ulid> = line.heads().await?.into_iter().chain(listed.clone()).collect();
        for id in all {
            let path = line.paths().path(&LineObject::Head(id))?;
            let head = line.repository().read_record::<Head>(&path).await;
            if let Ok(head) = &head
                && head.replaces == Some(true)
            {
                heads.replaced.extend(&head.heads);
                heads.vouched.extend(objects_of(line, head)?);
            }
            if listed.contains(&id) {
                heads.listed.push((id, head));
            }
        }
        Ok(heads)
    }

    /// Whether the head that announced an object may be gone: another one stands for it.
    pub fn vouch_for(&self, object: &ObjectPath) -> bool {
        self.vouched.contains(object)
    }
}

/// The commits and events a head lists.
fn objects_of(line: &Line, head: &Head) -> Result<Vec<ObjectPath>> {
    let events = head.events.iter().map(|it| LineObject::Event(it.id, it.number));
    let backups = head.backups.iter().map(|it| LineObject::Backup(BackupId(it.id), it.number));
    events.chain(backups).map(|object| line.paths().path(&object)).collect()
}

/// Compares a line with the heads that were listed with it; a newer one tells of newer objects. What
/// was decided to be deleted is not missed.
pub(super) async fn check(
    line: &Line,
    objects: &[Listed],
    heads: &Heads,
    condemned: &Condemnations,
    findings: &mut Findings,
) -> Result<()> {
    let present = Present::of(line, objects);
    let mut missing = BTreeSet::new();
    for (id, head) in heads.listed.iter().filter(|(id, _)| !heads.replaced.contains(id)) {
        match head {
            Ok(head) => {
                missing.extend(missing_of(line, head, heads, &present)?);
                check_wal(line, head, &present, condemned, findings)?;
            }
            Err(error) => findings.error(line.paths().path(&LineObject::Head(*id))?, error),
        }
    }
    // The other half of each pair: what a head announced names that head.
    for (subject, number) in &present.events {
        let path = line.paths().path(&LineObject::Event(*subject, *number))?;
        if let Ok(Event { head: Some(head), .. }) = line.repository().read_record(&path).await
            && !heads.vouch_for(&path)
        {
            missing.insert(line.paths().path(&LineObject::Head(head))?);
        }
    }
    for path in missing.difference(&present.paths) {
        if is_decided(path, condemned) {
            continue;
        }
        // Names are listed one after another: it may have been added behind the listing's back.
        match line.store().stat(path).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                findings.add(path, Code::ObjectMissing, "it was in the repository and is gone");
            }
            Err(error) => findings.error(path, &error.into()),
        }
    }
    Ok(())
}

fn is_decided(path: &ObjectPath, condemned: &Condemnations) -> bool {
    match ObjectName::parse(path) {
        Some(ObjectName::Line(_, _, object)) => condemned.is_decided(&object),
        _ => false,
    }
}

/// What a head says existed and a listing does not show.
fn missing_of(
    line: &Line,
    head: &Head,
    heads: &Heads,
    present: &Present,
) -> Result<Vec<ObjectPath>> {
    let of_line = |object: LineObject| line.paths().path(&object);
    let mut names = vec![of_line(LineObject::About)?];
    for number in &head.formats {
        names.push(ObjectName::Format(*number).path()?);
    }
    // Slots come and go one by one, and the last of an epoch stays.
    for slot in head.key_slots.iter().filter(|slot| !present.epochs.contains(&slot.number)) {
        names.push(ObjectName::Key(slot.number, slot.id).path()?);
    }
    // The first begins with the repository.
    let epochs: BTreeSet<u32> = head.key_slots.iter().map(|slot| slot.number).collect();
    for epoch in epochs.into_iter().filter(|epoch| *epoch > 1) {
        names.push(ObjectName::Epoch(epoch).path()?);
    }
    names.extend(objects_of(line, head)?);
    for older in head.heads.iter().filter(|older| !heads.replaced.contains(older)) {
        names.push(of_line(LineObject::Head(*older))?);
    }
    for history in &head.histories {
        names.extend(line.paths().below(&format!("history/{history}"))?.path().cloned());
    }
    names.extend(announced(head, present));
    names.retain(|path| !present.paths.contains(path));
    Ok(names)
}

/// The object a head announces, unless a pin tells that its writer died in between.
fn announced(head: &Head, present: &Present) -> Option<ObjectPath> {
    let path = ObjectPath::new(head.next.clone()).ok()?;
    let explained = match ObjectName::parse(&path) {
        Some(ObjectName::Line(_, _, LineObject::Backup(BackupId(id), _)))
        | Some(ObjectName::Line(_, _, LineObject::Event(id, _))) => present.pinned.contains(&id),
        _ => false,
    };
    (!explained).then_some(path)
}

/// WAL that a head says was there: each byte has to be in some object still, or in one that was
/// decided to be deleted.
fn check_wal(
    line: &Line,
    head: &Head,
    present: &Present,
    condemned: &Condemnations,
    findings: &mut Findings,
) -> Result<()> {
    let decided = condemned.0.iter().filter(|one| one.is_decided);
    let decided: Vec<WalRangeName> = decided.flat_map(|one| one.objects.wal()).collect();
    for WalOfTimeline { timeline, spans } in &head.wal {
        for span in spans {
            let mut gone = vec![LsnRange::from(span)];
            for there in present.wal.get(timeline).into_iter().flatten() {
                there.subtract_from(&mut gone);
            }
            for name in decided.iter().filter(|name| name.timeline == *timeline) {
                LsnRange { start: name.start, end: name.end }.subtract_from(&mut gone);
            }
            for range in gone {
                let below = line.paths().below(&format!("wal/hot/{:08X}", timeline.0))?;
                let what = format!(
                    "WAL from {range} on timeline {timeline} was in the repository and is gone"
                );
                findings.add(below, Code::ObjectMissing, what);
            }
        }
    }
    Ok(())
}
