//! What can be restored, before and afterwards.
//!
//! By names alone: a backup leads as far as the WAL behind its start goes on without a hole.

use std::collections::BTreeMap;

use seawall_core::{Lsn, TimelineId};
use seawall_pgdata::history::Ancestry;

use super::choose::Chosen;
use super::wal::opens_a_window;
use super::{BackupFacts, BackupName, Gap, Lost, Moment, Recovery, Seen, WalDecision, WalFate};
use crate::wal::LsnRange;

/// WAL of each timeline, sorted and disjoint.
type Archive = BTreeMap<TimelineId, Vec<LsnRange>>;

/// What can be restored on the timeline that is written, what is lost of it, and what is missing.
pub(super) fn compare(
    seen: &Seen<'_>,
    chosen: &Chosen,
    wal: &[WalDecision],
) -> (Recovery, Vec<Lost>, Vec<Gap>) {
    let kept: Vec<&BackupFacts> = chosen.kept(seen).map(|(backup, _)| backup).collect();
    let before = Restorable::of(seen, &seen.backups, &archived(seen));
    let after = Restorable::of(seen, &kept, &kept_wal(wal));
    let recovery = Recovery {
        earliest_before: before.earliest(),
        every_moment_before: before.every_moment(),
        earliest_after: after.earliest(),
        every_moment_after: after.every_moment(),
    };
    (recovery, lost(seen, &before, &after), gaps(seen, chosen))
}

fn archived(seen: &Seen<'_>) -> Archive {
    let wal = seen.facts.wal.iter();
    wal.map(|wal| (wal.timeline, wal.spans.ranges().to_vec())).collect()
}

fn kept_wal(wal: &[WalDecision]) -> Archive {
    let mut kept = Archive::new();
    for WalDecision { timeline, range, .. } in wal.iter().filter(|wal| wal.fate != WalFate::Go) {
        kept.entry(*timeline).or_default().push(*range);
    }
    for ranges in kept.values_mut() {
        *ranges = LsnRange::joined(std::mem::take(ranges));
    }
    kept
}

/// The log along an ancestry as far as it is archived, in order.
fn parts_along(ancestry: &Ancestry, archive: &Archive) -> Vec<LsnRange> {
    let mut parts: Vec<LsnRange> = Vec::new();
    for span in ancestry.spans() {
        let lived = LsnRange { start: span.begin, end: span.end.unwrap_or(Lsn(u64::MAX)) };
        let ranges = archive.get(&span.timeline).into_iter().flatten();
        for part in ranges.filter_map(|range| range.overlap(lived)) {
            match parts.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => parts.push(part),
            }
        }
    }
    parts
}

/// What some backups lead to with some WAL.
struct Restorable<'a> {
    /// Of each timeline, in order.
    ranges: BTreeMap<TimelineId, Vec<LsnRange>>,
    /// On the way to the timeline that is written: backups and how far each leads, in order.
    written: Vec<(&'a BackupFacts, LsnRange)>,
    /// Up to where that timeline is archived.
    end: Lsn,
}

impl<'a> Restorable<'a> {
    fn of(seen: &Seen<'a>, backups: &[&'a BackupFacts], archive: &Archive) -> Self {
        let mut restorable =
            Self { ranges: BTreeMap::new(), written: Vec::new(), end: Lsn::INVALID };
        for (timeline, ancestry) in &seen.timelines {
            let parts = parts_along(ancestry, archive);
            let whole = backups.iter().filter(|it| !it.is_damaged && seen.leads_on(*timeline, it));
            let led: Vec<(&BackupFacts, LsnRange)> =
                whole.filter_map(|it| Some((*it, leads_to(it, &parts)?))).collect();
            let own = ancestry.span(*timeline).map_or(Lsn::INVALID, |span| span.begin);
            let own = LsnRange { start: own, end: Lsn(u64::MAX) };
            let ranges = led.iter().filter_map(|(_, range)| range.overlap(own)).collect();
            restorable.ranges.insert(*timeline, LsnRange::joined(ranges));
            if Some(*timeline) == seen.written_timeline() {
                restorable.end = parts.last().map_or(Lsn::INVALID, |part| part.end);
                restorable.written = led;
            }
        }
        restorable
    }

    fn earliest(&self) -> Option<Moment> {
        self.written.first().map(|(backup, _)| moment(backup))
    }

    fn every_moment(&self) -> Option<Moment> {
        let to_the_end = self.written.iter().find(|(_, range)| range.end == self.end);
        to_the_end.map(|(backup, _)| moment(backup))
    }
}

/// From a backup's stop to where its WAL ends; `None` if what makes it consistent is not all there.
fn leads_to(backup: &BackupFacts, parts: &[LsnRange]) -> Option<LsnRange> {
    let span = backup.span;
    let after = parts.partition_point(|part| part.start <= span.start);
    let part = parts.get(after.checked_sub(1)?)?;
    (span.stop <= part.end).then_some(LsnRange { start: span.stop, end: part.end })
}

fn moment(backup: &BackupFacts) -> Moment {
    Moment { backup: BackupName(backup.id), at: backup.written }
}

fn lost(seen: &Seen<'_>, before: &Restorable<'_>, after: &Restorable<'_>) -> Vec<Lost> {
    let mut lost = Vec::new();
    for (timeline, ranges) in &before.ranges {
        let mut left = ranges.clone();
        for kept in after.ranges.get(timeline).into_iter().flatten() {
            kept.subtract_from(&mut left);
        }
        let own: Vec<&&BackupFacts> =
            seen.backups.iter().filter(|it| it.span.stop_timeline == *timeline).collect();
        lost.extend(left.into_iter().map(|range| Lost {
            timeline: *timeline,
            range,
            after: own.iter().rev().find(|it| it.span.stop <= range.start).map(|it| moment(it)),
            before: own.iter().find(|it| it.span.stop >= range.end).map(|it| moment(it)),
        }));
    }
    lost
}

/// What is missing behind the first backup from which on every moment is to be restorable.
fn gaps(seen: &Seen<'_>, chosen: &Chosen) -> Vec<Gap> {
    let opening = chosen.kept(seen).filter(|(_, why)| why.iter().any(opens_a_window));
    let roots: Vec<&BackupFacts> = opening.map(|(backup, _)| backup).collect();
    let archive = archived(seen);
    let mut gaps = Vec::new();
    for (timeline, ancestry) in &seen.timelines {
        let leading = roots.iter().filter(|root| seen.leads_on(*timeline, root));
        let Some(first) = leading.map(|root| root.span.start).min() else { continue };
        let begin = ancestry.span(*timeline).map_or(Lsn::INVALID, |span| span.begin).max(first);
        let mut position = begin;
        for range in archive.get(timeline).into_iter().flatten().filter(|it| it.end > begin) {
            if position < range.start {
                let range = LsnRange { start: position, end: range.start };
                gaps.push(Gap { timeline: *timeline, range });
            }
            position = position.max(range.end);
        }
        let left_at =
            seen.timelines.values().filter_map(|other| other.fork_lsn_of(*timeline)).max();
        if let Some(left_at) = left_at.filter(|left_at| position < *left_at) {
            let range = LsnRange { start: position, end: left_at };
            gaps.push(Gap { timeline: *timeline, range });
        }
    }
    gaps
}
