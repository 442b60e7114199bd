//! What holds of every past, whatever happened in it.

use std::num::NonZeroU32;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use seawall_core::{Lsn, TimelineId};
use seawall_repo::retention::{BackupFate, Keep, KeepReason, PinFacts, Policy};
use seawall_repo::wal::LsnRange;

use super::world::{SEGMENT, World, days, goes, stays, why};

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    Write {
        bytes: u64,
        is_archived: bool,
    },
    Backup {
        page_errors: bool,
        damaged: bool,
        verified: bool,
    },
    Wait {
        hours: i64,
    },
    /// A server is restored to somewhere in the past and promoted.
    Promote {
        timeline: u32,
        share: u64,
    },
    /// Another server goes on, as an old primary does that nobody stopped.
    GoOn {
        timeline: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let share = 0..100_u64;
    prop_oneof![
        4 => (1..(3 * SEGMENT / 8), prop::bool::weighted(0.92))
            .prop_map(|(words, is_archived)| Step::Write { bytes: words * 8, is_archived }),
        5 => (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.3))
            .prop_map(|(page_errors, damaged, verified)| Step::Backup { page_errors, damaged, verified }),
        4 => (1..72_i64).prop_map(|hours| Step::Wait { hours }),
        1 => (0..4_u32, share).prop_map(|(timeline, share)| Step::Promote { timeline, share }),
        1 => (0..4_u32).prop_map(|timeline| Step::GoOn { timeline }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let count = || 0..4_u32;
    let keep = (count(), count(), count(), count(), count()).prop_map(
        |(hourly, daily, weekly, monthly, yearly)| Keep { hourly, daily, weekly, monthly, yearly },
    );
    let keep = prop_oneof![Just(Keep::NONE), keep];
    let of_days = |most: i64| prop::option::of(1..most);
    (prop::option::of(1..4_u32), of_days(15), prop::option::weighted(0.2, 16..40_i64), keep)
        .prop_map(|(last, window, age, keep)| Policy {
            last: last.and_then(NonZeroU32::new),
            window: window.map(days),
            age: age.map(days),
            keep,
            zone: TimeZone::UTC,
        })
        .prop_filter("a policy", |policy| !policy.is_none())
}

fn apply(world: &mut World, step: Step) {
    let nth = |world: &World, nth: u32| {
        let all: Vec<TimelineId> = world.timelines.keys().copied().collect();
        all[usize::try_from(nth).unwrap() % all.len()]
    };
    match step {
        Step::Write { bytes, is_archived } => world.write(bytes, is_archived),
        Step::Wait { hours } => world.wait_hours(hours),
        Step::Backup { page_errors, damaged, verified } => {
            let index = world.backup();
            let backup = &mut world.backups[index];
            (backup.has_page_errors, backup.is_damaged) = (page_errors, damaged);
            backup.is_verified = verified && !damaged;
        }
        Step::Promote { timeline, share } => {
            let from = nth(world, timeline);
            let (past, end) = world.timelines[&from].clone();
            let begin = past.last().map_or(Lsn(SEGMENT), |(_, at)| *at);
            let at = Lsn((begin.0 + end.bytes_since(begin) / 100 * share) & !7);
            if at > begin && world.timelines.len() < 6 {
                world.promote(from, at);
            }
        }
        Step::GoOn { timeline } => world.on = nth(world, timeline),
    }
}

fn world_of(steps: &[Step]) -> World {
    let mut world = World::new("2026-01-01T00:00:00Z");
    steps.iter().for_each(|step| apply(&mut world, *step));
    world
}

fn story() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_byte_of_wal_stays_or_goes_and_none_twice(steps in story(), policy in policy()) {
        let world = world_of(&steps);
        let plan = world.plan(&policy);
        for wal in world.facts().wal {
            let decided: Vec<LsnRange> =
                plan.wal.iter().filter(|it| it.timeline == wal.timeline).map(|it| it.range).collect();
            let bytes: u64 = decided.iter().map(|range| range.len_bytes()).sum();
            let there: u64 = wal.spans.ranges().iter().map(|range| range.len_bytes()).sum();
            prop_assert_eq!(bytes, there);
            prop_assert_eq!(LsnRange::joined(decided), wal.spans.ranges());
        }
    }

    #[test]
    fn nothing_that_stays_needs_wal_that_goes(steps in story(), policy in policy()) {
        let world = world_of(&steps);
        let plan = world.plan(&policy);
        for index in world.kept(&plan) {
            let span = world.backups[index].span;
            let ancestry = world.ancestry(span.stop_timeline);
            // A restored server asks for whole segments, from that of the start on.
            let mut at = Lsn(span.start.0 / SEGMENT * SEGMENT);
            while at < span.stop {
                let wrote = ancestry.timeline_at(at);
                let until = ancestry.fork_lsn_of(wrote).unwrap_or(span.stop).min(span.stop);
                prop_assert!(stays(&plan, wrote, LsnRange { start: at, end: until }), "{index}");
                at = until;
            }
        }
    }

    #[test]
    fn every_moment_of_the_window_can_be_restored_if_it_could(
        steps in story(),
        mut policy in policy(),
        of_days in 1..15_i64,
    ) {
        policy.window = Some(days(of_days));
        policy.age = None;
        let world = world_of(&steps);
        let plan = world.plan(&policy);
        let kept = world.kept(&plan);
        let begins = world.now - days(of_days);
        let good = |index: &usize| world.backups[*index].is_good();
        for piece in world.pieces.iter().filter(|piece| piece.at >= begins) {
            let (timeline, to) = (piece.timeline, piece.range.end);
            let could = (0..world.backups.len()).filter(good).any(|index| {
                world.leads_to(&world.backups[index], timeline, to, |_| true)
            });
            let can = kept.iter().copied().filter(good).any(|index| {
                let is_there = |piece: &super::world::Piece| !goes(&plan, piece.timeline, piece.range);
                world.leads_to(&world.backups[index], timeline, to, is_there)
            });
            prop_assert_eq!(can, could, "timeline {} to {}", timeline, to);
        }
    }

    #[test]
    fn the_newest_commits_can_be_restored_whatever_the_policy(
        steps in story(),
        policy in policy(),
    ) {
        let world = world_of(&steps);
        let plan = world.plan(&policy);
        let kept = world.kept(&plan);
        let newest = *world.timelines.keys().next_back().unwrap();
        for piece in world.pieces.iter().filter(|piece| piece.timeline == newest) {
            let good = world.backups.iter().filter(|it| it.is_good());
            let newest_good = good
                .filter(|it| world.ancestry(newest).contains(it.span.stop_timeline, it.span.stop))
                .max_by_key(|it| (it.span.stop_timeline, it.span.stop));
            let Some(newest_good) = newest_good else { continue };
            let to = piece.range.end;
            if world.leads_to(newest_good, newest, to, |_| true) {
                let is_kept = kept.iter().any(|index| world.backups[*index].id == newest_good.id);
                prop_assert!(is_kept);
                let is_there = |piece: &super::world::Piece| !goes(&plan, piece.timeline, piece.range);
                prop_assert!(world.leads_to(newest_good, newest, to, is_there));
            }
        }
    }

    #[test]
    fn the_last_so_many_good_ones_stay(steps in story(), count in 1..5_usize) {
        let world = world_of(&steps);
        let policy = super::world::last(u32::try_from(count).unwrap());
        let kept = world.kept_with(&policy);
        let mut good: Vec<usize> =
            (0..world.backups.len()).filter(|index| world.backups[*index].is_good()).collect();
        good.sort_by_key(|index| {
            let span = world.backups[*index].span;
            (span.stop_timeline, span.stop)
        });
        for index in good.iter().rev().take(count) {
            prop_assert!(kept.contains(index));
        }
        let newest = *world.timelines.keys().next_back().unwrap();
        let ancestry = world.ancestry(newest);
        let leading = good.iter().rev().filter(|index| {
            let span = world.backups[**index].span;
            ancestry.contains(span.stop_timeline, span.stop)
        });
        for index in leading.take(count) {
            prop_assert!(kept.contains(index), "on the timeline that is written");
        }
    }

    #[test]
    fn time_brings_no_backup_back(
        steps in story(),
        later in prop::collection::vec(step(), 0..20),
        hours in 0..2000_i64,
        policy in policy(),
    ) {
        let mut world = world_of(&steps);
        let before = world.kept_with(&policy);
        world.on = *world.timelines.keys().next_back().unwrap();
        for step in later {
            // What is verified again is news, as is another server.
            match step {
                Step::Promote { .. } | Step::GoOn { .. } => {}
                Step::Backup { page_errors, damaged, .. } => {
                    apply(&mut world, Step::Backup { page_errors, damaged, verified: false });
                }
                Step::Write { .. } | Step::Wait { .. } => apply(&mut world, step),
            }
        }
        let count = world.backups.len();
        world.wait_hours(hours);
        let after = world.kept_with(&policy);
        let old = after.iter().filter(|index| **index < count);
        let made_later = |index: &&usize| **index >= world_of(&steps).backups.len();
        for index in old.filter(|index| !made_later(index)) {
            prop_assert!(before.contains(index), "{index} came back");
        }
    }

    #[test]
    fn what_is_pruned_once_is_what_is_pruned_in_steps(steps in story(), policy in policy()) {
        let mut world = world_of(&steps);
        world.prune(&policy);
        let left = world.backups.len();
        let again = world.plan(&policy);
        prop_assert_eq!(world.kept(&again).len(), left, "a second run has nothing to do");
        prop_assert!(world.pieces.iter().all(|piece| !goes(&again, piece.timeline, piece.range)));
    }

    #[test]
    fn a_hold_keeps_one_and_moves_no_other(
        steps in story(),
        policy in policy(),
        which in 0..40_usize,
    ) {
        let mut world = world_of(&steps);
        let Some(which) = which.checked_rem(world.backups.len()) else { return Ok(()) };
        let before = world.kept_with(&policy);
        world.backups[which].is_held = true;
        let mut expected = before;
        expected.push(which);
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(world.kept_with(&policy), expected);
    }

    #[test]
    fn age_is_the_most(steps in story(), mut policy in policy(), of_days in 1..20_i64) {
        policy.age = Some(days(of_days));
        let mut world = world_of(&steps);
        if let Some(backup) = world.backups.first_mut() {
            backup.is_held = true;
        }
        let plan = world.plan(&policy);
        for backup in &world.backups {
            let reasons = why(&plan, backup);
            let holds = |why: &KeepReason| {
                matches!(
                    why,
                    KeepReason::Held | KeepReason::LastGood | KeepReason::LastGoodOfTimeline { .. }
                )
            };
            if backup.written < world.now - days(of_days) {
                prop_assert!(reasons.iter().all(holds), "{:?}", reasons);
            }
        }
    }

    #[test]
    fn what_a_running_job_uses_stays_and_a_dead_one_keeps_nothing(
        steps in story(),
        policy in policy(),
        which in 0..40_usize,
    ) {
        let mut world = world_of(&steps);
        let Some(which) = which.checked_rem(world.backups.len()) else { return Ok(()) };
        let before = world.plan(&policy);
        let used = world.backups[which].clone();
        let pin = PinFacts {
            id: used.id.0,
            lives: false,
            from: Some((used.span.start_timeline, used.span.start)),
            backups: vec![used.id],
        };
        world.pins = vec![pin.clone()];
        prop_assert_eq!(&world.plan(&policy), &before);
        world.pins = vec![PinFacts { lives: true, ..pin }];
        world.backups[which].delete_asked = true;
        let plan = world.plan(&policy);
        prop_assert!(world.kept(&plan).contains(&which));
        let timeline = used.span.start_timeline;
        for piece in world.pieces.iter().filter(|it| it.timeline == timeline && it.range.end > used.span.start) {
            prop_assert!(!goes(&plan, timeline, piece.range));
        }
    }

    #[test]
    fn without_a_policy_nothing_goes(steps in story()) {
        let world = world_of(&steps);
        let plan = world.plan(&Policy::none());
        prop_assert!(plan.keeps_all());
        prop_assert!(plan.lost.is_empty());
        prop_assert!(plan.backups.iter().all(|it| it.fate == BackupFate::Keep(vec![KeepReason::NoPolicy])));
    }

    /// What is told to be lost is what cannot be restored afterwards, byte by byte.
    #[test]
    fn what_becomes_unrestorable_is_told(steps in story(), policy in policy()) {
        let world = world_of(&steps);
        let plan = world.plan(&policy);
        let kept = world.kept(&plan);
        let whole = |index: &usize| !world.backups[*index].is_damaged;
        for piece in &world.pieces {
            let (timeline, to) = (piece.timeline, piece.range.end);
            let could = (0..world.backups.len())
                .filter(whole)
                .any(|index| world.leads_to(&world.backups[index], timeline, to, |_| true));
            let is_there = |part: &super::world::Piece| !goes(&plan, part.timeline, part.range);
            let can = kept
                .iter()
                .copied()
                .filter(whole)
                .any(|index| world.leads_to(&world.backups[index], timeline, to, is_there));
            let of_timeline = || plan.lost.iter().filter(|lost| lost.timeline == timeline);
            let is_within = of_timeline().any(|lost| lost.range.start < to && to < lost.range.end);
            prop_assert!(!is_within || could, "timeline {} to {} could not be before", timeline, to);
            // The moment of a backup is told as that backup.
            let is_stop = world.backups.iter().any(|backup| backup.span.stop == to);
            if could && !can && !is_stop {
                let is_told =
                    of_timeline().any(|lost| lost.range.start <= to && to <= lost.range.end);
                prop_assert!(is_told, "timeline {} to {} is lost, and nobody says so", timeline, to);
            }
        }
    }
}
