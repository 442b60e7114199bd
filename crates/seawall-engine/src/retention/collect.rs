use std::collections::BTreeMap;

use futures_util::future::{try_join, try_join3};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use seawall_core::{BackupId, Code, Error, ExitClass, Result};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::PinRole;
use seawall_repo::retention::{
    BackupFacts, BackupSpan, LineFacts, PinFacts, TimelineWal, Unknown, UnreadBackup, WalSpans,
};
use seawall_repo::wal::{TimelineCoverage, WalArchive};
use seawall_repo::{Attempt, BackupSummary, Line, READS_AT_ONCE};
use seawall_store::ObjectPrefix;

use crate::events::{Standing, Standings, Verdict, standings};
use crate::liveness::{Life, life_of};

/// What may stand in a repository, and what in a line.
const ROOT: [&str; 5] = ["c", "epochs", "format", "keys", "removals"];
const LINE: [&str; 12] = [
    "about", "backup", "events", "gc", "head", "history", "manifest", "map", "names", "pack",
    "pin", "wal",
];
/// Of these every name is looked at; those of packs and WAL whoever deletes them looks at.
const SMALL: [&str; 7] = ["backup", "events", "gc", "head", "history", "names", "pin"];

/// Collects what is known of a line. `now` is the time of the store's clock, as far as it is known: it
/// is not before anything that is there.
///
/// # Errors
/// A store that fails. What is damaged is among the facts.
pub async fn facts(line: &Line, now: Timestamp) -> Result<LineFacts> {
    let archive = WalArchive::open(line.clone()).await?;
    let (all, timelines) = try_join(archive.ancestries(), archive.timelines()).await?;
    let lost = all.lost().map(|lost| Unknown::History {
        timeline: lost.timeline,
        why: format!("its history is {}", lost.word()),
    });
    let mut facts = LineFacts {
        now,
        segment_size: archive.segment_size(),
        unknown: lost.collect(),
        timelines: all.known,
        backups: Vec::new(),
        unread: Vec::new(),
        pins: Vec::new(),
        wal: Vec::new(),
    };
    for timeline in timelines {
        facts.wal.extend(wal_of(archive.timeline_coverage(timeline).await?));
    }
    facts.unknown.extend(strange_names(line).await?);
    // A backup is committed, then its records go: who looks at them first misses none.
    add_pins(line, &mut facts).await?;
    add_backups(line, &mut facts).await?;
    let written = facts.backups.iter().map(|backup| backup.written);
    let newest = written.chain(facts.wal.iter().map(|wal| wal.written)).max();
    facts.now = facts.now.max(newest.unwrap_or(now));
    Ok(facts)
}

/// `None` where there is none.
fn wal_of(coverage: TimelineCoverage) -> Option<TimelineWal> {
    let TimelineCoverage { timeline, ranges, objects, stored_bytes, written } = coverage;
    Some(TimelineWal {
        timeline,
        spans: WalSpans::of(ranges),
        written: written?,
        objects,
        stored_bytes,
    })
}

async fn strange_names(line: &Line) -> Result<Vec<Unknown>> {
    let (store, paths) = (line.store(), line.paths());
    let (root, own) =
        try_join(store.list_children(&ObjectPrefix::root()), store.list_children(&paths.all()))
            .await?;
    let known = |known: &[&str], name: &String| known.contains(&name.as_str());
    let root = root.into_iter().filter(|name| !known(&ROOT, name));
    let own = own.into_iter().filter(|name| !known(&LINE, name));
    let own = own.map(|name| format!("c/{}/i/{}/{name}", line.cluster(), line.id()));
    let mut strange: Vec<Unknown> = root.chain(own).map(|path| Unknown::Name { path }).collect();
    for directory in SMALL {
        let names = line.repository().list(&paths.below(directory)?).await?;
        let unknown = names.into_iter().filter(|path| ObjectName::parse(path).is_none());
        strange.extend(unknown.map(|path| Unknown::Name { path: path.to_string() }));
    }
    Ok(strange)
}

async fn add_backups(line: &Line, facts: &mut LineFacts) -> Result<()> {
    let events = async { Ok::<_, Error>(standings(line).await) };
    let (written, condemned, standings) =
        try_join3(line.commits_written(), line.condemnations(), events).await?;
    let condemned = condemned.decided();
    let read = line.all_backups_as(|summary| known(&summary, &standings, &written, facts.now));
    for (generation, backup) in read.await? {
        let of = |id| condemned.is_decided(&LineObject::Backup(id, generation));
        match backup? {
            // It was decided before that it goes.
            Known::Read(backup) if of(backup.id) => {}
            Known::Read(backup) => facts.backups.push(backup),
            Known::Unread(unread) => facts.unread.push(unread),
        }
    }
    let undecided = standings.undecided.or(standings.unread);
    facts.unknown.extend(undecided.map(|error| Unknown::Event { why: error.chain() }));
    Ok(())
}

enum Known {
    Read(BackupFacts),
    Unread(UnreadBackup),
}

/// What a commit and the events tell, and its generation. A store that does not answer tells nothing.
fn known(
    summary: &BackupSummary,
    standings: &Standings,
    written: &BTreeMap<BackupId, Timestamp>,
    now: Timestamp,
) -> (u32, Result<Known>) {
    let id = summary.id;
    let nothing = Standing::default();
    let standing = standings.of(id).unwrap_or(&nothing);
    let is_held = standing.hold_at(now).is_some();
    let delete_asked = standing.delete_asked_at.is_some();
    let info = match &summary.info {
        Ok(info) => info,
        Err(error) => {
            let is_of_another = error.code() == Code::UnknownFormat;
            if error.exit_class() != ExitClass::Integrity && !is_of_another {
                return (0, Err(Error::new(error.code(), error.chain())));
            }
            let why = error.chain();
            return (0, Ok(Known::Unread(UnreadBackup { id, why, is_held, delete_asked })));
        }
    };
    let backup = BackupFacts {
        id,
        span: BackupSpan {
            start_timeline: info.start_timeline,
            start: info.start_lsn,
            stop_timeline: info.stop_timeline,
            stop: info.stop_lsn,
        },
        // It was committed after its commits were listed: it is as new as can be.
        written: written.get(&id).copied().unwrap_or(now),
        has_page_errors: info.page_error_count > 0,
        is_doubted: info.incidents.as_ref().is_some_and(|incidents| incidents.unmarked > 0),
        is_damaged: matches!(standing.verdict, Some(Verdict::Damaged(_))),
        is_verified: matches!(standing.verdict, Some(Verdict::Whole { .. })),
        is_held,
        delete_asked,
        stored_bytes: info.stored_bytes,
    };
    (info.generation, Ok(Known::Read(backup)))
}

/// What jobs that have not ended use. A backup that is committed needs its records no more.
async fn add_pins(line: &Line, facts: &mut LineFacts) -> Result<()> {
    let now = facts.now;
    let pins = line.pins().await?.into_iter().map(|pin| pin_of(line, pin, now));
    let pins: Vec<_> = stream::iter(pins).buffered(READS_AT_ONCE).try_collect().await?;
    for pin in pins.into_iter().flatten() {
        match pin {
            Ok(pin) => facts.pins.push(pin),
            Err(unknown) => facts.unknown.push(unknown),
        }
    }
    Ok(())
}

/// `None` for one that is gone, or whose work is published.
async fn pin_of(
    line: &Line,
    pin: Attempt,
    now: Timestamp,
) -> Result<Option<std::result::Result<PinFacts, Unknown>>> {
    let lives = life_of(line, &pin, now).await? == Life::Runs;
    let Some(record) = line.record(&pin, pin.newest_record).await? else {
        // Gone, or not to be read: then what it uses is not known.
        let is_there = line.record_written(&pin, pin.newest_record).await?.is_some();
        let unknown = (lives && is_there).then_some(Err(Unknown::Job { id: pin.id.0 }));
        return Ok(unknown);
    };
    if record.role == PinRole::Writer && line.has_ended(pin.id).await? {
        return Ok(None);
    }
    let from = record.start_lsn.is_valid().then_some((record.start_timeline, record.start_lsn));
    let backups = record.backups.into_iter().map(BackupId).collect();
    Ok(Some(Ok(PinFacts { id: pin.id.0, lives, from, backups })))
}
