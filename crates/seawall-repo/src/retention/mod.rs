//! What is kept, and why: one pure planner (ADR 14).
//!
//! ```text
//! facts (names, commits, events, pins) ┐
//!                               policy ┴→ plan → each backup, each stretch of WAL: stays or goes
//! ```
//!
//! Nothing here reads a store, a clock or a configuration, and nothing deletes.

mod calendar;
mod choose;
mod facts;
mod plan;
mod policy;
mod restorable;
mod wal;

use std::collections::BTreeMap;

use seawall_core::TimelineId;
use seawall_pgdata::history::Ancestry;

pub use facts::{
    BackupFacts, BackupSpan, LineFacts, PinFacts, TimelineWal, UnreadBackup, WalSpans,
};
pub use plan::{
    BackupDecision, BackupFate, BackupName, Gap, GoReason, KeepReason, LinePlan, Lost, Moment,
    Recovery, Refused, Unknown, WalDecision, WalFate, WalReason,
};
pub use policy::{Keep, Policy, Rule};

use choose::Chosen;

/// Plans what of one line stays and goes.
///
/// # Errors
/// What is not known: then nothing is decided.
pub fn plan(facts: &LineFacts, policy: &Policy) -> Result<LinePlan, Refused> {
    let seen = Seen::of(facts)?;
    let chosen = Chosen::of(&seen, policy);
    let wal = wal::decide(&seen, policy, &chosen);
    let (recovery, lost, gaps) = restorable::compare(&seen, &chosen, &wal);
    let backups = chosen.into_decisions(&seen);
    Ok(LinePlan { backups, wal, recovery, lost, gaps })
}

/// The facts of a line, in order, once they are known to fit together.
#[derive(Debug)]
struct Seen<'a> {
    facts: &'a LineFacts,
    /// Every timeline there is, with its ancestors.
    timelines: BTreeMap<TimelineId, Ancestry>,
    /// The backups that can be read, the farthest in the log last.
    backups: Vec<&'a BackupFacts>,
}

impl<'a> Seen<'a> {
    fn of(facts: &'a LineFacts) -> Result<Self, Refused> {
        let mut unknown = facts.unknown.clone();
        let unread = facts.unread.iter().filter(|unread| !unread.is_asked_to_go());
        unknown.extend(
            unread.map(|unread| Unknown::Commit { id: unread.id, why: unread.why.clone() }),
        );
        let mut timelines: BTreeMap<TimelineId, Ancestry> =
            facts.timelines.iter().map(|ancestry| (ancestry.tip(), ancestry.clone())).collect();
        // The first timeline has no history that could tell of it.
        if facts.backups.iter().any(|backup| backup.span.stop_timeline == TimelineId(1)) {
            timelines.entry(TimelineId(1)).or_insert_with(|| Ancestry::root(TimelineId(1)));
        }
        for wal in facts.wal.iter().filter(|wal| !timelines.contains_key(&wal.timeline)) {
            let why = "it has WAL and no history".to_owned();
            unknown.push(Unknown::History { timeline: wal.timeline, why });
        }
        for backup in facts.backups.iter().filter(|backup| !backup.is_asked_to_go()) {
            let span = &backup.span;
            let fits = timelines.get(&span.stop_timeline).is_some_and(|ancestry| {
                ancestry.contains(span.stop_timeline, span.stop)
                    && ancestry.contains(span.start_timeline, span.start)
                    && span.start <= span.stop
            });
            if !fits {
                unknown.push(Unknown::Place { id: backup.id });
            }
        }
        if !unknown.is_empty() {
            return Err(Refused { unknown });
        }
        let mut backups: Vec<&BackupFacts> = facts.backups.iter().collect();
        backups.sort_by_key(|backup| (backup.span.stop_timeline, backup.span.stop, backup.id));
        Ok(Self { facts, timelines, backups })
    }

    /// The timeline that is written now: numbers of timelines only grow.
    fn written_timeline(&self) -> Option<TimelineId> {
        self.timelines.keys().next_back().copied()
    }

    /// Whether a timeline leads on from where a backup stopped.
    fn leads_on(&self, timeline: TimelineId, backup: &BackupFacts) -> bool {
        let ancestry = self.timelines.get(&timeline);
        ancestry.is_some_and(|it| it.contains(backup.span.stop_timeline, backup.span.stop))
    }
}
