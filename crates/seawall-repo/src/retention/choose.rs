//! Which backups stay, and why.

use std::collections::BTreeMap;

use jiff::Timestamp;
use seawall_core::TimelineId;

use super::calendar::period;
use super::{
    BackupDecision, BackupFacts, BackupFate, BackupName, GoReason, KeepReason, Policy, Seen,
};

/// What is decided of each backup, in the order of [`Seen::backups`].
#[derive(Debug)]
pub(super) struct Chosen {
    fates: Vec<BackupFate>,
}

impl Chosen {
    pub fn of(seen: &Seen<'_>, policy: &Policy) -> Self {
        let mut rules = Rules::new(seen, policy);
        rules.apply();
        let reasons = std::mem::take(&mut rules.reasons);
        let fates = reasons.into_iter().enumerate().map(|(index, why)| rules.fate(index, why));
        Self { fates: fates.collect() }
    }

    /// The backups that stay, with why, the farthest in the log last.
    pub fn kept<'a>(
        &'a self,
        seen: &'a Seen<'_>,
    ) -> impl Iterator<Item = (&'a BackupFacts, &'a [KeepReason])> {
        seen.backups.iter().zip(&self.fates).filter_map(|(backup, fate)| match fate {
            BackupFate::Keep(why) => Some((*backup, why.as_slice())),
            BackupFate::Go(_) => None,
        })
    }

    pub fn into_decisions(self, seen: &Seen<'_>) -> Vec<BackupDecision> {
        let read = seen.backups.iter().zip(self.fates).map(|(backup, fate)| BackupDecision {
            id: BackupName(backup.id),
            written: Some(backup.written),
            stored_bytes: Some(backup.stored_bytes),
            fate,
        });
        // Only those are left that somebody asked to go: else nothing is planned.
        let unread = seen.facts.unread.iter().map(|unread| BackupDecision {
            id: BackupName(unread.id),
            written: None,
            stored_bytes: None,
            fate: BackupFate::Go(GoReason::AskedFor),
        });
        read.chain(unread).collect()
    }
}

/// The rules at work.
struct Rules<'a> {
    seen: &'a Seen<'a>,
    policy: &'a Policy,
    /// By the index of the backup.
    reasons: Vec<Vec<KeepReason>>,
    /// Those that may take another one's place, the farthest in the log last.
    good: Vec<usize>,
    /// Of those, the ones that lead to the timeline that is written.
    good_written: Vec<usize>,
}

impl<'a> Rules<'a> {
    fn new(seen: &'a Seen<'a>, policy: &'a Policy) -> Self {
        let counts = |backup: &BackupFacts| backup.is_good() && !backup.is_asked_to_go();
        let all = seen.backups.iter().enumerate();
        let good: Vec<usize> =
            all.filter(|(_, backup)| counts(backup)).map(|(index, _)| index).collect();
        let mut rules = Self {
            seen,
            policy,
            reasons: vec![Vec::new(); seen.backups.len()],
            good,
            good_written: Vec::new(),
        };
        if let Some(written) = seen.written_timeline() {
            rules.good_written = rules.good_leading_to(written);
        }
        rules
    }

    fn apply(&mut self) {
        if self.policy.is_none() {
            self.keep_where(|_, _| true, &KeepReason::NoPolicy);
            return self.in_use();
        }
        self.last();
        self.window();
        self.by_calendar();
        if self.policy.is_age_alone() {
            self.keep_where(|_, _| true, &KeepReason::WithinAge);
        }
        self.newest_verified();
        let newest_good = self.good.last().copied();
        let waits = |index: usize, backup: &BackupFacts| {
            !backup.is_good() && newest_good.is_none_or(|good| index > good)
        };
        self.keep_where(waits, &KeepReason::NothingBetterSince);
        self.cut_by_age();
        // What follows holds whatever the age.
        self.newest_good();
        self.keep_where(|_, backup| backup.is_held, &KeepReason::Held);
        self.in_use();
    }

    fn backup(&self, index: usize) -> Option<&'a BackupFacts> {
        self.seen.backups.get(index).copied()
    }

    /// Keeps one, unless somebody asked for it to go.
    fn keep(&mut self, index: usize, why: KeepReason) {
        let is_asked_to_go = self.backup(index).is_some_and(BackupFacts::is_asked_to_go);
        if let Some(reasons) = self.reasons.get_mut(index).filter(|_| !is_asked_to_go) {
            reasons.push(why);
        }
    }

    fn keep_where(&mut self, of: impl Fn(usize, &BackupFacts) -> bool, why: &KeepReason) {
        for (index, backup) in self.seen.backups.iter().enumerate() {
            if of(index, backup) {
                self.keep(index, why.clone());
            }
        }
    }

    fn good_leading_to(&self, timeline: TimelineId) -> Vec<usize> {
        let leads = |index: &usize| {
            self.backup(*index).is_some_and(|backup| self.seen.leads_on(timeline, backup))
        };
        self.good.iter().copied().filter(leads).collect()
    }

    /// The newest good ones, and what is not good and not older than these.
    fn last(&mut self) {
        let Some(last) = self.policy.last else { return };
        let count = usize::try_from(last.get()).unwrap_or(usize::MAX);
        let of_line = self.good.iter().rev().take(count).copied();
        let oldest = of_line.clone().next_back();
        let mut newest: Vec<usize> =
            of_line.chain(self.good_written.iter().rev().take(count).copied()).collect();
        newest.sort_unstable();
        newest.dedup();
        newest.into_iter().for_each(|index| self.keep(index, KeepReason::Last));
        let between = |index: usize, backup: &BackupFacts| {
            !backup.is_good() && oldest.is_some_and(|oldest| index > oldest)
        };
        self.keep_where(between, &KeepReason::Last);
    }

    /// What ended within the window, and what its first moments are restored from.
    fn window(&mut self) {
        let Some(begins) = self.policy.window.map(|window| before(self.seen.facts.now, window))
        else {
            return;
        };
        self.keep_where(|_, backup| backup.written >= begins, &KeepReason::Window);
        let was_written = self.seen.facts.wal.iter().filter(|wal| wal.written >= begins);
        let mut timelines: Vec<TimelineId> = was_written.map(|wal| wal.timeline).collect();
        timelines.sort_unstable();
        timelines.dedup();
        for timeline in timelines {
            let ended_before = |index: &usize| {
                self.backup(*index).is_some_and(|backup| {
                    backup.written < begins && self.seen.leads_on(timeline, backup)
                })
            };
            let base = self.good.iter().rev().copied().find(ended_before);
            if let Some(base) = base {
                self.keep(base, KeepReason::BeforeWindow { timeline });
            }
        }
    }

    /// The first of each of the newest periods: of those that lead to the timeline that is written,
    /// and of those that were left. Which period is the newest is for the calendar to say, as servers
    /// that went on beside each other are one after the other in the log; which is the first, for the log.
    fn by_calendar(&mut self) {
        for (rule, count) in self.policy.keep.rules() {
            let mut began = BTreeMap::<String, Timestamp>::new();
            let mut firsts = BTreeMap::<(String, bool), usize>::new();
            for index in &self.good {
                let Some(backup) = self.backup(*index) else { continue };
                let of = period(rule, backup.written, &self.policy.zone);
                let leads_on = self.good_written.binary_search(index).is_ok();
                firsts.entry((of.clone(), leads_on)).or_insert(*index);
                let first = began.entry(of).or_insert(backup.written);
                *first = backup.written.min(*first);
            }
            let mut newest: Vec<Timestamp> = began.values().copied().collect();
            newest.sort_unstable_by(|one, other| other.cmp(one));
            let oldest = newest.into_iter().take(count).next_back();
            firsts.retain(|(of, _), _| began.get(of).copied() >= oldest);
            for ((of, _), index) in firsts {
                self.keep(index, KeepReason::First { period: rule, of });
            }
        }
    }

    fn newest_verified(&mut self) {
        let is_verified =
            |index: &usize| self.backup(*index).is_some_and(|backup| backup.is_verified);
        if let Some(newest) = self.good.iter().rev().copied().find(is_verified) {
            self.keep(newest, KeepReason::LastVerified);
        }
    }

    fn newest_good(&mut self) {
        let of_line = self.good.last().copied();
        let of_written = self.good_written.last().copied();
        if let Some(index) = of_line {
            self.keep(index, KeepReason::LastGood);
        }
        let written = self.seen.written_timeline();
        if let (Some(index), Some(timeline)) =
            (of_written.filter(|it| Some(*it) != of_line), written)
        {
            self.keep(index, KeepReason::LastGoodOfTimeline { timeline });
        }
    }

    fn cut_by_age(&mut self) {
        let Some(age) = self.policy.age else { return };
        let oldest = before(self.seen.facts.now, age);
        for (backup, reasons) in self.seen.backups.iter().zip(&mut self.reasons) {
            if backup.written < oldest {
                reasons.clear();
            }
        }
    }

    /// A job that runs goes on, whatever was asked for meanwhile.
    fn in_use(&mut self) {
        for pin in self.seen.facts.pins.iter().filter(|pin| pin.lives) {
            for (backup, reasons) in self.seen.backups.iter().zip(&mut self.reasons) {
                if pin.backups.contains(&backup.id) {
                    reasons.push(KeepReason::InUse { job: pin.id });
                }
            }
        }
    }

    fn fate(&self, index: usize, why: Vec<KeepReason>) -> BackupFate {
        let Some(backup) = self.backup(index).filter(|_| why.is_empty()) else {
            return BackupFate::Keep(why);
        };
        let is_old =
            self.policy.age.is_some_and(|age| backup.written < before(self.seen.facts.now, age));
        BackupFate::Go(if backup.is_asked_to_go() {
            GoReason::AskedFor
        } else if is_old {
            GoReason::TooOld
        } else if backup.is_good() {
            GoReason::NotNeeded
        } else {
            GoReason::NotGood
        })
    }
}

/// So long ago; before all times if there was none.
pub(super) fn before(now: Timestamp, age: jiff::SignedDuration) -> Timestamp {
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}
