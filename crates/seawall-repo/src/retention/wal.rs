//! Which WAL stays, and for what.

use std::collections::{BTreeMap, BTreeSet};

use seawall_core::{Lsn, TimelineId, WalSegment, WalSegmentSize};
use seawall_pgdata::history::Ancestry;

use super::choose::Chosen;
use super::{BackupFacts, BackupName, KeepReason, Policy, Seen, WalDecision, WalFate, WalReason};
use crate::wal::LsnRange;

/// Stretches of each timeline that are needed, in no order, with what for.
type Needs = BTreeMap<TimelineId, Vec<(LsnRange, WalReason)>>;

/// Decides of all WAL that is archived.
pub(super) fn decide(seen: &Seen<'_>, policy: &Policy, chosen: &Chosen) -> Vec<WalDecision> {
    let mut needs = Needs::new();
    if policy.is_none() {
        need_all(seen, &mut needs, WalReason::NoPolicy);
    } else if chosen.kept(seen).next().is_none() {
        need_all(seen, &mut needs, WalReason::NoBackupYet);
    } else {
        behind_backups(seen, chosen, &mut needs);
        behind_jobs(seen, &mut needs);
        within_backups(seen, chosen, &mut needs);
    }
    let mut wal: Vec<_> = seen.facts.wal.iter().collect();
    wal.sort_by_key(|wal| wal.timeline);
    let mut decisions = Vec::new();
    for of in wal {
        let needed = needs.remove(&of.timeline).unwrap_or_default();
        let sweep = Sweep::of(needed);
        for range in of.spans.ranges() {
            sweep.divide(*range, of.timeline, &mut decisions);
        }
    }
    decisions
}

/// Whether what follows a backup that is kept for that can be restored too. One of the calendar, or
/// one that is held or in use, is one moment.
pub(super) fn opens_a_window(why: &KeepReason) -> bool {
    match why {
        KeepReason::NoPolicy
        | KeepReason::LastGood
        | KeepReason::LastGoodOfTimeline { .. }
        | KeepReason::LastVerified
        | KeepReason::Last
        | KeepReason::Window
        | KeepReason::BeforeWindow { .. }
        | KeepReason::WithinAge
        | KeepReason::NothingBetterSince => true,
        KeepReason::Held | KeepReason::InUse { .. } | KeepReason::First { .. } => false,
    }
}

fn need_all(seen: &Seen<'_>, needs: &mut Needs, why: WalReason) {
    let all = LsnRange { start: Lsn::INVALID, end: Lsn(u64::MAX) };
    for wal in &seen.facts.wal {
        needs.entry(wal.timeline).or_default().push((all, why));
    }
}

/// Of each timeline, what follows the first backup that leads there and opens a window. The WAL of
/// the timeline that is written stays while none does.
fn behind_backups(seen: &Seen<'_>, chosen: &Chosen, needs: &mut Needs) {
    let roots: Vec<&BackupFacts> = chosen
        .kept(seen)
        .filter(|(_, why)| why.iter().any(opens_a_window))
        .map(|(backup, _)| backup)
        .collect();
    for timeline in seen.timelines.keys().copied() {
        let leading = roots.iter().filter(|root| seen.leads_on(timeline, root));
        if let Some(first) = leading.min_by_key(|root| root.span.start) {
            let why = WalReason::Behind { backup: BackupName(first.id) };
            along(seen, timeline, first.span.start, Lsn(u64::MAX), why, needs);
        } else if Some(timeline) == seen.written_timeline() {
            let all = LsnRange { start: Lsn::INVALID, end: Lsn(u64::MAX) };
            needs.entry(timeline).or_default().push((all, WalReason::NoBackupYet));
        }
    }
}

/// From where a running job began, on every timeline that leads on from there.
fn behind_jobs(seen: &Seen<'_>, needs: &mut Needs) {
    let living = seen.facts.pins.iter().filter(|pin| pin.lives);
    for (job, (began_on, from)) in living.filter_map(|pin| Some((pin.id, pin.from?))) {
        let why = WalReason::InUse { job };
        for (timeline, ancestry) in &seen.timelines {
            if ancestry.contains(began_on, from) {
                along(seen, *timeline, from, Lsn(u64::MAX), why, needs);
            }
        }
        // One that is the first of its timeline to tell of it.
        if !seen.timelines.contains_key(&began_on) {
            let range = LsnRange { start: from, end: Lsn(u64::MAX) };
            needs.entry(began_on).or_default().push((range, why));
        }
    }
}

/// What each backup that stays is made consistent with.
fn within_backups(seen: &Seen<'_>, chosen: &Chosen, needs: &mut Needs) {
    for (backup, _) in chosen.kept(seen) {
        let why = WalReason::Within { backup: BackupName(backup.id) };
        let span = backup.span;
        let end = segment_end(span.stop_timeline, span.stop, seen.facts.segment_size);
        along(seen, span.stop_timeline, span.start, end, why, needs);
    }
}

/// Needs the log of a timeline and its ancestors from the segment of `from` on.
fn along(
    seen: &Seen<'_>,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
    why: WalReason,
    needs: &mut Needs,
) {
    let size = seen.facts.segment_size;
    let from = segment_start(timeline, from, size);
    for span in seen.timelines.get(&timeline).into_iter().flat_map(Ancestry::spans) {
        // What was stored before the history begins with the segment.
        let begin = segment_start(span.timeline, span.begin, size);
        let lived = LsnRange { start: begin, end: span.end.unwrap_or(Lsn(u64::MAX)) };
        if let Some(range) = lived.overlap(LsnRange { start: from, end: to }) {
            needs.entry(span.timeline).or_default().push((range, why));
        }
    }
}

fn segment_start(timeline: TimelineId, lsn: Lsn, size: WalSegmentSize) -> Lsn {
    WalSegment::containing(timeline, lsn, size).start()
}

/// The end of the segment that has the byte before `end`.
fn segment_end(timeline: TimelineId, end: Lsn, size: WalSegmentSize) -> Lsn {
    WalSegment::containing(timeline, Lsn(end.0.saturating_sub(1)), size).end()
}

/// What one timeline is needed for, cut where anything begins or ends.
struct Sweep {
    /// Sorted; the last ends where all does.
    parts: Vec<(LsnRange, Vec<WalReason>)>,
}

impl Sweep {
    /// A backup's own WAL is not told apart where all of it is kept for what follows another one.
    fn of(mut needs: Vec<(LsnRange, WalReason)>) -> Self {
        let is_own = |why: &WalReason| matches!(why, WalReason::Within { .. });
        let wide = needs.iter().filter(|(_, why)| !is_own(why)).map(|(range, _)| *range);
        let wide = LsnRange::joined(wide.collect());
        let is_covered = |range: &LsnRange| {
            let after = wide.partition_point(|one| one.start <= range.start);
            let before = after.checked_sub(1).and_then(|at| wide.get(at));
            before.is_some_and(|one| range.end <= one.end)
        };
        needs.retain(|(range, why)| !is_own(why) || !is_covered(range));
        let mut edges: Vec<(Lsn, bool, WalReason)> = Vec::new();
        for (range, why) in needs {
            edges.extend([(range.start, true, why), (range.end, false, why)]);
        }
        edges.sort_unstable();
        let mut active = BTreeMap::<WalReason, usize>::new();
        let mut parts: Vec<(LsnRange, Vec<WalReason>)> = Vec::new();
        let mut at = Lsn::INVALID;
        for (lsn, begins, why) in edges {
            if at < lsn && !active.is_empty() {
                parts.push((LsnRange { start: at, end: lsn }, active.keys().copied().collect()));
            }
            at = lsn;
            let count = active.entry(why).or_default();
            if begins {
                *count += 1;
            } else {
                *count = count.saturating_sub(1);
            }
            if *count == 0 {
                active.remove(&why);
            }
        }
        Self { parts }
    }

    /// What becomes of each part of a stretch that is archived.
    fn divide(&self, range: LsnRange, timeline: TimelineId, into: &mut Vec<WalDecision>) {
        let mut at = range.start;
        let mut add = |start: Lsn, end: Lsn, fate: WalFate| {
            if start >= end {
                return;
            }
            match into.last_mut() {
                Some(last)
                    if last.timeline == timeline
                        && last.range.end == start
                        && last.fate == fate
                        && start > range.start =>
                {
                    last.range.end = end;
                }
                _ => into.push(WalDecision { timeline, range: LsnRange { start, end }, fate }),
            }
        };
        let first = self.parts.partition_point(|(part, _)| part.end <= range.start);
        for (part, why) in self.parts.iter().skip(first) {
            let Some(both) = part.overlap(range) else { break };
            add(at, both.start, WalFate::Go);
            let why: BTreeSet<WalReason> = why.iter().copied().collect();
            add(both.start, both.end, WalFate::Keep(why.into_iter().collect()));
            at = both.end;
        }
        add(at, range.end, WalFate::Go);
    }
}
