//! Looking at a line: who holds what, and what is there.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, Error, ExitClass, Result};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::{Pin, PinRole};
use seawall_repo::wal::LsnRange;
use seawall_repo::{Attempt, Condemnations, Line, Named, ObjectSet, READS_AT_ONCE};
use seawall_store::{MAX_PAGE_OBJECTS, ObjectInfo, ObjectPrefix};

use super::foreign::unknown;
use super::marks::{Marks, Needs, WalNeed};
use super::{Going, Gone};
use crate::events::standings;
use crate::liveness::{Life, life_of};
use crate::pinned::Pinned;

/// So long after its last sign of life a dead attempt keeps what it finished, for whoever resumes it.
// By number in docs/adr/0015-how-things-go.md and docs/format.md (§10).
const RESUMABLE: SignedDuration = SignedDuration::from_hours(24);

/// A writer's first record is written before its first object, as far as clocks of seconds can tell.
const WRITER_BEGINS: SignedDuration = SignedDuration::from_secs(60);

/// What was found of a line.
#[derive(Debug)]
pub(super) struct Look {
    pub marks: Marks,
    /// When the look began, by the clock of the store.
    pub now: Timestamp,
    /// Attempts that are given up from now on.
    pub fenced: Vec<BackupId>,
    /// Pins of readers and collectors that died.
    pub dead: Vec<BackupId>,
    /// Every commit and tombstone that is there, by its generations.
    pub generations: BTreeMap<BackupId, Vec<u32>>,
}

/// What goes now.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub objects: ObjectSet,
    pub gone: Gone,
}

/// What pins keep.
#[derive(Debug, Default)]
struct Held {
    needs: Needs,
    backups: BTreeSet<BackupId>,
    attempts: BTreeSet<BackupId>,
    oldest_writer: Option<Timestamp>,
    fenced: Vec<BackupId>,
    dead: Vec<BackupId>,
}

impl Look {
    /// Lists pins, and only then commits: a writer commits, and then takes its pin away.
    pub async fn take(line: &Line, own: &Pinned, going: &Going) -> Result<Self> {
        let now = own.began().await?;
        let held = Held::of(line, own.id(), now).await?;
        let mut generations: BTreeMap<BackupId, Vec<u32>> = BTreeMap::new();
        for (id, generation) in line.generations_there().await? {
            generations.entry(id).or_default().push(generation);
        }
        let mut goes = going.backups.clone();
        goes.retain(|id| generations.contains_key(id) && !held.backups.contains(id));
        for id in held_by_people(line, &goes, now).await? {
            goes.remove(&id);
        }
        let newest = generations.iter().filter_map(|(id, of_it)| Some((*id, *of_it.last()?)));
        let oldest_writer = held.oldest_writer.unwrap_or(now).min(now);
        let mut wal: BTreeMap<_, Vec<LsnRange>> = BTreeMap::new();
        for (timeline, range) in &going.wal {
            wal.entry(*timeline).or_default().push(*range);
        }
        let wal = wal.into_iter().map(|(timeline, ranges)| (timeline, LsnRange::joined(ranges)));
        let mut marks = Marks {
            going: goes,
            pinned: held.backups,
            newest: newest.collect(),
            tombstones: BTreeSet::new(),
            attempts: held.attempts,
            kept: held.needs,
            wal: wal.collect(),
            horizon: oldest_writer - WRITER_BEGINS,
        };
        let all = generations.iter().flat_map(|(id, all)| all.iter().map(|n| (*id, *n)));
        let stay: Vec<_> = all.filter(|(id, n)| marks.stays(*id, *n)).collect();
        let tombstones = read(line, stay, &marks.pinned, &mut marks.kept, |_, error| Err(error));
        marks.tombstones = tombstones.await?;
        Ok(Self { marks, now, fenced: held.fenced, dead: held.dead, generations })
    }

    /// What commits need that do not stay, and that nobody has decided to delete. One that is
    /// damaged goes, and nobody knows what it needed.
    pub async fn there(&self, line: &Line, decided: &Condemnations) -> Result<Needs> {
        let all = self.generations.iter().flat_map(|(id, all)| all.iter().map(|n| (*id, *n)));
        let there = all.filter(|(id, n)| {
            !self.marks.tombstones.contains(id)
                && !self.marks.stays(*id, *n)
                && !decided.is_decided(&LineObject::Backup(*id, *n))
        });
        let mut needs = Needs::default();
        let damaged = |_, error: Error| match error.exit_class() {
            ExitClass::Integrity => Ok(()),
            _ => Err(error),
        };
        read(line, there.collect(), &BTreeSet::new(), &mut needs, damaged).await?;
        Ok(needs)
    }

    /// Lists everything that is there, and gives what nobody needs and nothing condemns yet.
    pub async fn scan(&self, line: &Line, condemned: &Condemnations) -> Result<Scanned> {
        let (mut scanned, all) = (Scanned::default(), line.paths().all());
        let mut after = None;
        loop {
            let page = line.store().list(&all, after.as_ref(), MAX_PAGE_OBJECTS).await?;
            let mut goes = Vec::new();
            for ObjectInfo { path, size_bytes, modified } in page.objects {
                let Some(ObjectName::Line(_, _, object)) = ObjectName::parse(&path) else {
                    return Err(unknown(path));
                };
                if self.marks.is_garbage(&object, modified) && !condemned.contains(&object) {
                    scanned.gone.add(&object, size_bytes);
                    goes.push(object);
                }
            }
            scanned.objects.extend(goes);
            after = page.next;
            if after.is_none() {
                return Ok(scanned);
            }
        }
    }

    /// How much of what goes is there still.
    pub async fn sizes(&self, line: &Line, goes: &ObjectSet) -> Result<Gone> {
        let mut gone = Gone::default();
        if goes.is_empty() {
            return Ok(gone);
        }
        for below in ["backup", "manifest", "map", "pack", "wal/hot", "events"] {
            let below = line.paths().below(below)?;
            for_each(line, &below, |object, size_bytes| {
                if goes.contains(&object) {
                    gone.add(&object, size_bytes);
                }
            })
            .await?;
        }
        Ok(gone)
    }
}

impl Gone {
    fn add(&mut self, object: &LineObject, bytes: u64) {
        match object {
            LineObject::Backup(id, 0) => self.backups.push(id.to_string()),
            LineObject::WalHot(_) => self.wal.add(bytes),
            _ => {}
        }
        self.all.add(bytes);
    }
}

async fn for_each(
    line: &Line,
    below: &ObjectPrefix,
    mut each: impl FnMut(LineObject, u64),
) -> Result<()> {
    let mut after = None;
    loop {
        let page = line.store().list(below, after.as_ref(), MAX_PAGE_OBJECTS).await?;
        for ObjectInfo { path, size_bytes, .. } in page.objects {
            if let Some(ObjectName::Line(_, _, object)) = ObjectName::parse(&path) {
                each(object, size_bytes);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Reads what commits need. Gives the tombstones among them; `failed` says what a commit means that
/// cannot be read.
async fn read(
    line: &Line,
    commits: Vec<(BackupId, u32)>,
    pinned: &BTreeSet<BackupId>,
    needs: &mut Needs,
    failed: impl Fn(BackupId, Error) -> Result<()>,
) -> Result<BTreeSet<BackupId>> {
    let mut tombstones = BTreeSet::new();
    let read = commits.into_iter().map(async |(id, n)| (id, line.named_by(id, n).await));
    let mut read = stream::iter(read).buffered(READS_AT_ONCE);
    while let Some((id, named)) = read.next().await {
        match named {
            Ok(Some(Named { info, packs, maps, manifests })) => {
                needs.backups.insert(id);
                needs.wal.push(match pinned.contains(&id) {
                    true => WalNeed::onwards(&info),
                    false => WalNeed::of(&info),
                });
                packs.iter().for_each(|pack| needs.parts.pack(pack.id));
                maps.iter().for_each(|map| needs.parts.map(map.id));
                manifests.iter().for_each(|manifest| needs.parts.manifest(manifest.id));
            }
            Ok(None) => _ = tombstones.insert(id),
            Err(error) => failed(id, error.context("nothing was deleted"))?,
        }
    }
    Ok(tombstones)
}

impl Held {
    async fn of(line: &Line, own: BackupId, now: Timestamp) -> Result<Self> {
        let mut held = Self::default();
        let pins = line.pins().await?;
        // After the pins: what has ended since is among the commits.
        let ended: BTreeSet<BackupId> =
            line.generations_there().await?.into_iter().map(|(id, _)| id).collect();
        for pin in pins {
            if pin.id != own {
                held.add(line, &pin, ended.contains(&pin.id), now).await?;
            }
        }
        Ok(held)
    }

    async fn add(&mut self, line: &Line, pin: &Attempt, ended: bool, now: Timestamp) -> Result<()> {
        let newest = line.record(pin, pin.newest_record).await?;
        let Some(written) = line.record_written(pin, pin.newest_record).await? else {
            // Its holder has ended, and published or gave up what it did.
            return Ok(());
        };
        // One that cannot be read may be a writer's.
        let role = newest.as_ref().map_or(PinRole::Writer, |newest| newest.role);
        if role == PinRole::Writer && ended {
            return Ok(());
        }
        let life = life_of(line, pin, now).await?;
        match (role, life) {
            (PinRole::Reader | PinRole::Collector, Life::Ended) => self.dead.push(pin.id),
            (PinRole::Collector, Life::Runs) => return Err(running(line, newest.as_ref())),
            (PinRole::Writer, Life::Ended) if now.duration_since(written) >= RESUMABLE => {
                if self.fence(line, pin.id).await? {
                    return Ok(());
                }
            }
            (PinRole::Reader, Life::Runs) => self.list(line, pin).await?,
            (PinRole::Writer, _) => {
                self.attempts.insert(pin.id);
                let began = line.record_written(pin, pin.first_record).await?.unwrap_or(written);
                self.oldest_writer = Some(self.oldest_writer.map_or(began, |it| it.min(began)));
                self.list(line, pin).await?;
            }
        }
        Ok(())
    }

    /// Whether it is fenced now; else it has committed meanwhile.
    async fn fence(&mut self, line: &Line, id: BackupId) -> Result<bool> {
        let why = "it died, and nobody went on with it for a day";
        match line.fence(id, Timestamp::now(), why).await {
            Ok(()) => {
                self.fenced.push(id);
                Ok(true)
            }
            Err(error) if error.code() == Code::ObjectExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What all records of a pin list.
    async fn list(&mut self, line: &Line, pin: &Attempt) -> Result<()> {
        let numbers = pin.first_record..=pin.newest_record;
        let records = numbers.map(async |number| {
            let path = line.paths().path(&LineObject::Pin(pin.id.0, number))?;
            match line.repository().read_record::<Pin>(&path).await {
                Ok(record) => Ok(Some(record)),
                Err(error) if error.code() == Code::ObjectMissing => Ok(None),
                Err(error) => Err(error.context("nothing was deleted")),
            }
        });
        let mut records = stream::iter(records).buffered(READS_AT_ONCE);
        while let Some(record) = records.try_next().await? {
            let Some(record) = record else { continue };
            self.backups.extend(record.backups.into_iter().map(BackupId));
            let parts = &mut self.needs.parts;
            record.packs.iter().for_each(|pack| parts.pack(pack.id));
            record.maps.iter().for_each(|map| parts.map(map.id));
            record.manifests.iter().for_each(|manifest| parts.manifest(manifest.id));
        }
        Ok(())
    }
}

fn running(line: &Line, newest: Option<&Pin>) -> Error {
    let who = newest.map_or_else(
        || "an unknown host".to_owned(),
        |newest| format!("{} (process {})", newest.host, newest.process_id),
    );
    let what = format!("{} is being pruned by {who}", line.cluster());
    Error::new(Code::PruneRunning, what).with_hint(
        "Wait for it to end, then prune again; what it condemns or deletes need not be done twice.",
    )
}

/// Those that somebody holds: whoever planned may not have seen it.
async fn held_by_people(
    line: &Line,
    backups: &BTreeSet<BackupId>,
    now: Timestamp,
) -> Result<Vec<BackupId>> {
    if backups.is_empty() {
        return Ok(Vec::new());
    }
    let standings = standings(line).await;
    if let Some(error) = standings.undecided {
        return Err(error.context("nothing was deleted"));
    }
    let is_held = |id: &&BackupId| {
        standings.known.get(*id).is_some_and(|standing| standing.hold_at(now).is_some())
    };
    Ok(backups.iter().filter(is_held).copied().collect())
}
