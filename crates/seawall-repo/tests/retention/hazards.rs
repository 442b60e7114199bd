//! Hazards by their names, and cases that are easy to get wrong.

use seawall_core::{BackupId, Lsn, TimelineId, Ulid};
use seawall_repo::retention::{
    BackupFate, GoReason, Keep, KeepReason, Policy, Unknown, UnreadBackup, WalFate, WalReason, plan,
};
use seawall_repo::wal::LsnRange;

use super::world::{SEGMENT, World, days, goes, last, why, window};

const T1: TimelineId = TimelineId(1);

/// WAL, a backup, and so on for so many days.
fn world_of_days(count: usize) -> World {
    let mut world = World::new("2026-01-01T00:00:00Z");
    (0..count).for_each(|_| _ = world.day());
    world.write(2 * SEGMENT, true);
    world
}

#[test]
fn e44_wal_that_a_kept_backup_or_the_window_needs_is_not_expired() {
    let mut world = world_of_days(20);
    world.wait_hours(1);
    let policy = Policy { keep: Keep { monthly: 1, ..Keep::NONE }, ..window(5) };
    let plan = world.plan(&policy);
    // The first of the month, the one before the window, and all behind it.
    assert_eq!(world.kept(&plan), [0, 14, 15, 16, 17, 18, 19]);
    assert_eq!(why(&plan, &world.backups[14]), [KeepReason::BeforeWindow { timeline: T1 }]);
    let first = world.backups[0].span;
    let going: Vec<LsnRange> = plan.going_wal().map(|(_, range)| range).collect();
    let segment = |lsn: Lsn| lsn.0 / SEGMENT * SEGMENT;
    let expected = [
        LsnRange { start: Lsn(SEGMENT), end: Lsn(segment(first.start)) },
        LsnRange {
            start: Lsn(segment(Lsn(first.stop.0 - 1)) + SEGMENT),
            end: Lsn(segment(world.backups[14].span.start)),
        },
    ];
    assert_eq!(going, expected);
    let lost = plan.lost.as_slice();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0].after.map(|it| it.backup.0), Some(world.backups[0].id));
    assert_eq!(lost[0].before.map(|it| it.backup.0), Some(world.backups[14].id));
    let moment = |index: usize| Some(world.backups[index].written);
    assert_eq!(plan.recovery.every_moment_before.map(|it| it.at), moment(0));
    assert_eq!(plan.recovery.every_moment_after.map(|it| it.at), moment(14));
    assert_eq!(plan.recovery.earliest_after.map(|it| it.at), moment(0));
}

#[test]
fn e44_the_timeline_that_was_left_keeps_its_window_too() {
    let mut world = world_of_days(6);
    let at = world.backups[2].span.stop;
    world.promote(T1, at);
    world.write(SEGMENT, true);
    // Restored three days back: what was written since is on the other timeline.
    let plan = world.plan(&window(10));
    assert_eq!(world.kept(&plan).len(), 6);
    let first = world.backups[0].span.start;
    assert!(plan.going_wal().all(|(_, range)| range.end <= first));
    world.wait_hours(24 * 11);
    world.day();
    let plan = world.plan(&window(5));
    // The line's newest before is behind: of what is written, backup 2 leads here.
    assert_eq!(world.kept(&plan), [2, 6]);
    // As long as it opens the window, it does so on both.
    let after = LsnRange { start: Lsn(at.0 + 2 * SEGMENT), end: Lsn(at.0 + 3 * SEGMENT) };
    assert!(!goes(&plan, T1, after));
    (0..6).for_each(|_| _ = world.day());
    let plan = world.plan(&window(5));
    assert_eq!(world.kept(&plan).first(), Some(&6));
    assert!(goes(&plan, T1, after));
}

#[test]
fn e44_a_server_that_was_restored_keeps_the_backup_it_comes_from() {
    // Restored from the oldest, and not backed up since.
    let mut world = world_of_days(8);
    world.promote(T1, world.backups[0].span.stop);
    world.write(SEGMENT, true);
    let plan = world.plan(&last(2));
    assert_eq!(world.kept(&plan), [0, 6, 7]);
    let timeline = TimelineId(2);
    assert!(why(&plan, &world.backups[0]).contains(&KeepReason::LastGoodOfTimeline { timeline }));
    assert!(plan.going_wal().all(|(of, _)| of == T1));
}

#[test]
fn e45_lines_are_planned_apart_and_the_newest_is_not_the_one_with_the_greater_number() {
    // After pg_upgrade the LSNs begin anew, behind those of the old line.
    let old = world_of_days(5);
    let mut new = World::new("2026-01-06T00:00:00Z");
    new.day();
    for policy in [last(1), window(1), Policy { age: Some(days(1)), ..Policy::none() }] {
        let mut old = old.clone();
        old.now = new.now + days(400);
        assert_eq!(old.kept_with(&policy), [4], "the last good one of the old line stays");
        assert_eq!(new.kept_with(&policy), [0]);
    }
}

#[test]
fn e45_a_reset_timeline_is_newer_though_its_lsn_is_lower() {
    let mut world = world_of_days(6);
    world.promote(T1, world.backups[1].span.stop);
    let newest = world.day();
    let plan = world.plan(&last(1));
    assert_eq!(world.kept(&plan), [newest]);
    // Nor do names or clocks decide: the newest has the lowest id, and the oldest time.
    world.backups[newest].id = BackupId(Ulid(0));
    world.backups[newest].written = world.backups[0].written;
    assert_eq!(world.kept_with(&last(1)), [newest]);
}

#[test]
fn e46_a_hold_outlives_every_rule_and_stops_no_other_from_going() {
    let policies = [
        last(2),
        window(2),
        Policy { age: Some(days(2)), ..Policy::none() },
        Policy { age: Some(days(2)), ..last(4) },
        Policy { keep: Keep { daily: 2, ..Keep::NONE }, ..Policy::none() },
    ];
    for policy in policies {
        let mut world = world_of_days(8);
        let before = world.kept_with(&policy);
        assert!(!before.contains(&0) && !before.contains(&3));
        for held in [0, 3] {
            world.backups[held].is_held = true;
            // Asked for after it was held, by somebody who did not see that.
            world.backups[held].delete_asked = held == 3;
        }
        let with: Vec<usize> = [&[0, 3], before.as_slice()].concat();
        let plan = world.plan(&policy);
        assert_eq!(world.kept(&plan), with, "{policy:?}");
        assert_eq!(why(&plan, &world.backups[0]), [KeepReason::Held]);
        // Its own WAL stays, and no other's.
        let span = world.backups[0].span;
        assert!(!goes(&plan, T1, LsnRange { start: span.start, end: span.stop }));
        let behind = Lsn(span.stop.0 + SEGMENT);
        assert!(goes(&plan, T1, LsnRange { start: behind, end: Lsn(behind.0 + 8) }));
        for held in [0, 3] {
            world.backups[held].is_held = false;
        }
        let plan = world.plan(&policy);
        assert_eq!(world.kept(&plan), before, "released");
        assert_eq!(plan.backups[3].fate, BackupFate::Go(GoReason::AskedFor));
    }
}

#[test]
fn e47_what_is_not_good_displaces_nothing() {
    let mut world = world_of_days(6);
    world.backups[5].is_damaged = true;
    world.backups[4].has_page_errors = true;
    // Two good ones, and the two that nothing good has replaced.
    assert_eq!(world.kept_with(&last(2)), [2, 3, 4, 5]);
    assert_eq!(world.kept_with(&window(0)), [3, 4, 5]);
    let daily = Policy { keep: Keep { daily: 2, ..Keep::NONE }, ..Policy::none() };
    assert_eq!(world.kept_with(&daily), [2, 3, 4, 5]);
    let aged = Policy { age: Some(days(0)), ..Policy::none() };
    world.wait_hours(1);
    assert_eq!(world.kept_with(&aged), [3]);
    world.day();
    let plan = world.plan(&last(2));
    assert_eq!(world.kept(&plan), [3, 4, 5, 6], "within the last two");
    world.day();
    let plan = world.plan(&last(2));
    assert_eq!(world.kept(&plan), [6, 7]);
    assert_eq!(plan.backups[5].fate, BackupFate::Go(GoReason::NotGood));
}

#[test]
fn the_last_verified_one_stays_with_its_wal_until_age_ends_it() {
    let mut world = world_of_days(9);
    world.backups[2].is_verified = true;
    let plan = world.plan(&last(1));
    assert_eq!(world.kept(&plan), [2, 8]);
    assert_eq!(why(&plan, &world.backups[2]), [KeepReason::LastVerified]);
    assert_eq!(plan.recovery.every_moment_after.map(|it| it.backup.0), Some(world.backups[2].id));
    let aged = Policy { age: Some(days(3)), ..last(1) };
    assert_eq!(world.kept_with(&aged), [8]);
    world.backups[8].is_verified = true;
    assert_eq!(world.kept_with(&last(1)), [8]);
}

#[test]
fn one_that_was_asked_for_goes_and_counts_no_more() {
    let mut world = world_of_days(5);
    world.backups[4].delete_asked = true;
    let plan = world.plan(&last(2));
    assert_eq!(world.kept(&plan), [2, 3]);
    // The newest can be restored all the same: from the one before, and WAL.
    assert!(
        plan.lost.iter().all(|lost| lost.range.end <= world.backups[2].span.stop),
        "{:?}",
        plan.lost
    );
    let without_policy = world.plan(&Policy::none());
    assert_eq!(world.kept(&without_policy), [0, 1, 2, 3]);
    assert!(without_policy.going_wal().next().is_none());
    (0..5).for_each(|index| world.backups[index].delete_asked = true);
    let plan = world.plan(&last(2));
    assert!(world.kept(&plan).is_empty());
    assert!(plan.wal.iter().all(|it| it.fate == WalFate::Keep(vec![WalReason::NoBackupYet])));
}

#[test]
fn a_hole_is_told_and_what_lies_behind_it_stays() {
    let mut world = world_of_days(3);
    let hole = world.end();
    world.write(SEGMENT, false);
    world.write(SEGMENT, true);
    let plan = world.plan(&last(2));
    let gap = LsnRange { start: hole, end: Lsn(hole.0 + SEGMENT) };
    assert_eq!(plan.gaps.iter().map(|gap| gap.range).collect::<Vec<_>>(), [gap]);
    assert_eq!(plan.recovery.every_moment_before, None, "what is archived last leads nowhere");
    assert!(!goes(&plan, T1, LsnRange { start: gap.end, end: world.end() }));
    // A later backup closes the case; the hole stays in what is told until nothing spans it.
    world.day();
    let plan = world.plan(&last(2));
    assert_eq!(plan.recovery.every_moment_after.map(|it| it.backup.0), Some(world.backups[3].id));
    assert_eq!(plan.gaps.len(), 1);
    world.day();
    assert_eq!(world.plan(&last(2)).gaps, []);
}

#[test]
fn a_line_without_a_backup_keeps_its_wal() {
    let mut world = World::new("2026-01-01T00:00:00Z");
    world.write(5 * SEGMENT, true);
    world.wait_hours(24 * 100);
    let plan = world.plan(&Policy { age: Some(days(1)), ..window(1) });
    assert!(plan.keeps_all());
}

#[test]
fn whatever_is_not_known_keeps_all_from_being_decided() {
    let world = world_of_days(3);
    let refusal = |change: &dyn Fn(&mut seawall_repo::retention::LineFacts)| {
        let mut facts = world.facts();
        change(&mut facts);
        plan(&facts, &last(1)).unwrap_err().unknown
    };
    let id = BackupId(Ulid(99));
    let unread = UnreadBackup { id, why: "cut".to_owned(), is_held: false, delete_asked: false };
    assert_eq!(
        refusal(&|facts| facts.unread.push(unread.clone())),
        [Unknown::Commit { id, why: "cut".to_owned() }]
    );
    let event = Unknown::Event { why: "cut".to_owned() };
    let told = refusal(&|facts| facts.unknown.push(event.clone()));
    assert_eq!(told.as_slice(), std::slice::from_ref(&event));
    // WAL of a timeline that nobody knows, and a backup where its timeline never was.
    let lost = refusal(&|facts| facts.wal[0].timeline = TimelineId(7));
    assert!(
        matches!(lost.as_slice(), [Unknown::History { timeline: TimelineId(7), .. }]),
        "{lost:?}"
    );
    let elsewhere = refusal(&|facts| facts.backups[1].span.stop_timeline = TimelineId(3));
    assert_eq!(elsewhere, [Unknown::Place { id: world.backups[1].id }]);
    // The way out of one that cannot be read: it is asked to go.
    let mut facts = world.facts();
    facts.unread.push(UnreadBackup { delete_asked: true, ..unread.clone() });
    let decided = plan(&facts, &last(1)).unwrap();
    assert_eq!(
        decided.backups.last().map(|it| it.fate.clone()),
        Some(BackupFate::Go(GoReason::AskedFor))
    );
    facts.unread[0].is_held = true;
    assert!(plan(&facts, &last(1)).is_err());
}

#[test]
fn the_first_segment_of_a_timeline_keeps_what_its_parent_wrote_of_it() {
    let mut world = world_of_days(2);
    world.write(SEGMENT / 4, true);
    let fork = world.end();
    assert_ne!(fork.0 % SEGMENT, 0);
    world.promote(T1, fork);
    let newest = world.backup();
    world.write(SEGMENT, true);
    let plan = world.plan(&last(1));
    assert_eq!(world.kept(&plan), [newest]);
    let begin = Lsn(fork.0 / SEGMENT * SEGMENT);
    assert!(!goes(&plan, T1, LsnRange { start: begin, end: fork }));
    assert!(goes(&plan, T1, LsnRange { start: Lsn(begin.0 - SEGMENT), end: begin }));
}
