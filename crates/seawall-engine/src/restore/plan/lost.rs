//! Timelines whose history is damaged or missing: nobody knows where they began.

use std::cmp::Reverse;

use seawall_core::{BackupId, Error, Hint, Result, TimelineId, hint};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{Ancestries, DamagedHistory};

use super::BackupFacts;

/// What a person should know of a timeline that cannot be looked at.
pub fn warning_of_lost(lost: &DamagedHistory) -> Hint {
    let timeline = lost.timeline;
    format!("What timeline {timeline} has and this one has not cannot be told: the history of timeline {timeline} is {}.", lost.word()).into()
}

/// Refuses to follow the newest of the timelines that are known where one that is not may be newer.
pub(super) fn refuse_newer(all: &Ancestries, newest: Option<TimelineId>) -> Result<()> {
    let newer = all.lost().find(|lost| newest.is_none_or(|newest| lost.timeline > newest));
    newer.map_or(Ok(()), |lost| Err(undecided(all, lost)))
}

/// Refuses to follow the timeline `newest` without being told to where one that is not known may be
/// meant as much, by the rules of [`super::choose_timeline`]. A backup that is named leads to none
/// that is older than its own.
pub(super) fn refuse_rivals(
    all: &Ancestries,
    newest: Option<TimelineId>,
    named: Option<BackupId>,
    backups: &[BackupFacts],
) -> Result<()> {
    let named = backups.iter().find(|backup| Some(backup.id) == named);
    let may_lead_to =
        |lost: &&DamagedHistory| named.is_none_or(|named| named.stop_timeline <= lost.timeline);
    let last_of = |timeline: TimelineId| {
        let own = backups.iter().filter(|backup| backup.stop_timeline == timeline);
        own.map(|backup| backup.finished_at).max()
    };
    // It parted before the newest began: numbers ascend along every way, and it is no ancestor, or the
    // newest one's history would tell its own.
    let is_settled = |lost: &DamagedHistory, newest: TimelineId| {
        let ours = last_of(newest);
        let is_of_it = named.is_some_and(|named| named.stop_timeline == lost.timeline);
        let is_older = lost.timeline < newest && last_of(lost.timeline) <= ours;
        is_older && ours.is_some() && !is_of_it
    };
    let mut rivals = all.lost().filter(may_lead_to);
    let rival = rivals.find(|lost| newest.is_none_or(|newest| !is_settled(lost, newest)));
    rival.map_or(Ok(()), |lost| Err(undecided(all, lost)))
}

/// The error of a choice that would be a guess.
fn undecided(all: &Ancestries, lost: &DamagedHistory) -> Error {
    let error = lost.error();
    let mut known: Vec<TimelineId> = all.known.iter().map(Ancestry::tip).collect();
    known.sort_by_key(|timeline| Reverse(*timeline));
    let known: Vec<String> = known.iter().map(|it| format!("`--timeline {it}`")).collect();
    let choice = match known.as_slice() {
        [] => Hint::default(),
        known => format!("If another is meant, name it: {}. Else: ", known.join(", ")).into(),
    };
    let way_out = error.hint().cloned().unwrap_or_default();
    error
        .context(format_args!("timeline {} may be the one to restore", lost.timeline))
        .with_hint(hint![choice, way_out])
}
