use proptest::prelude::*;
use seawall_core::{Code, Hint, Ulid, WalSegmentSize, Xid};
use seawall_pgdata::wal::XactEndKind;

use super::*;
use crate::restore::{
    CoveredSpan, Fact, Point, RecordPlace, Target, UnreadableWal, WalCoverage, XactFact,
};
use crate::restored::Stop;
use planner::record_position;

mod plan_text;

const T1: TimelineId = TimelineId(1);
const T2: TimelineId = TimelineId(2);

/// A log of records of 64 bytes, one a hundredth of a second, LSNs from 0x1000000 on.
const BASE: u64 = 0x100_0000;

fn lsn(record: u64) -> Lsn {
    Lsn(BASE + record * 64)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_319_200 + second).unwrap()
}

fn place(record: u64) -> RecordPlace {
    RecordPlace { lsn: lsn(record), end: Lsn(lsn(record).0 + 61) }
}

fn xact(record: u64, xid: Xid, second: i64, kind: XactEndKind) -> Fact {
    let place = place(record);
    Fact::Xact(XactFact {
        place,
        xid,
        time: at(second),
        kind,
        subxids: vec![xid + 1000],
        database: None,
        drops_relations: false,
    })
}

fn commit(record: u64, xid: Xid, second: i64) -> Fact {
    xact(record, xid, second, XactEndKind::Commit)
}

fn mark(record: u64, second: i64) -> Fact {
    Fact::TimeMark { lsn: lsn(record), time: at(second) }
}

fn restore_point(record: u64, name: &str, second: i64) -> Fact {
    Fact::RestorePoint { place: place(record), name: name.to_owned(), time: at(second) }
}

fn backup_id(n: u64) -> BackupId {
    BackupId(Ulid::from_parts(1_767_319_200_000 + n * 60_000, u128::from(n)))
}

/// A backup from record `start` to just before record `stop`.
fn backup(n: u64, start: u64, stop: u64) -> BackupFacts {
    BackupFacts {
        id: backup_id(n),
        generation: 0,
        start_lsn: lsn(start),
        start_timeline: T1,
        stop_lsn: lsn(stop),
        stop_timeline: T1,
        finished_at: at(stop as i64),
        page_errors: 0,
        found_damaged: None,
        cluster_bytes: 1 << 20,
    }
}

/// Records `first` to `last`, both whole.
fn span(first: u64, last: u64) -> CoveredSpan {
    CoveredSpan { start: lsn(first), end: lsn(last + 1), last_record: Some(place(last)) }
}

fn covered(spans: Vec<CoveredSpan>) -> WalCoverage {
    WalCoverage { spans, unreadable: Vec::new() }
}

fn input(target: Target) -> PlanInput {
    PlanInput {
        target,
        backup: None,
        backups: vec![backup(1, 0, 10), backup(2, 50, 60)],
        unusable: Vec::new(),
        ancestry: Ancestry::root(T1),
        wal: covered(vec![span(0, 100)]),
        record_at_target: None,
        segment_size: WalSegmentSize::DEFAULT,
    }
}

fn decide(input: PlanInput, facts: &[Fact]) -> seawall_core::Result<Decision> {
    let planner = Planner::new(input)?;
    let mut resolver = planner.resolver();
    for fact in facts.iter().filter(|fact| fact.lsn() >= planner.scan_from()) {
        resolver.feed(fact);
        if resolver.is_settled() {
            break;
        }
    }
    planner.decide(resolver)
}

/// Checkpoints of both backups, and a commit every ten records.
fn history() -> Vec<Fact> {
    let mut facts = vec![mark(1, 1), mark(51, 51)];
    facts.extend((1..10).map(|n| commit(n * 10 + 5, 700 + n as Xid, n as i64 * 10 + 5)));
    facts.sort_by_key(Fact::lsn);
    facts
}

fn to_time(second: i64) -> Target {
    Target::To(Point::Time(at(second)))
}

fn refused(result: seawall_core::Result<Decision>, code: Code) -> String {
    let error = result.expect_err("the plan should be refused");
    assert_eq!(error.code(), code, "{error:?}");
    assert!(error.hint().is_some_and(|hint| *hint != Hint::default()), "{error:?}");
    format!("{error:?}")
}

#[test]
fn a_time_stops_before_the_first_transaction_that_ended_later() {
    let decision = decide(input(to_time(44)), &history()).unwrap();
    assert_eq!(decision.stop, Stop::Before { lsn: lsn(45) });
    assert_eq!(decision.wal_end, place(45).end);
    assert_eq!(decision.backup.id, backup_id(1));
    assert_eq!(decision.last_commit_kept.unwrap().xid, 703);
    assert_eq!(decision.first_commit_left_out.unwrap().xid, 704);
}

#[test]
fn the_moment_itself_is_kept_by_to_and_left_out_by_before() {
    let to = decide(input(to_time(45)), &history()).unwrap();
    assert_eq!(to.stop, Stop::Before { lsn: lsn(55) });
    let before = decide(input(Target::Before(Point::Time(at(45)))), &history()).unwrap();
    assert_eq!(before.stop, Stop::Before { lsn: lsn(45) });
}

#[test]
fn a_rollback_stops_a_time_target_as_it_stops_postgres() {
    let facts = [mark(1, 1), xact(20, 700, 20, XactEndKind::AbortPrepared), commit(21, 701, 30)];
    let decision = decide(input(to_time(15)), &facts).unwrap();
    assert_eq!(decision.stop, Stop::Before { lsn: lsn(20) });
    assert_eq!(decision.first_commit_left_out.unwrap().xid, 701);
}

#[test]
fn e61_a_time_later_than_everything_archived_is_refused_and_says_how_far_it_reaches() {
    let text = refused(decide(input(to_time(1000)), &history()), Code::TargetUnreachable);
    assert!(text.contains(&at(95).to_string()), "{text}");
    let (switch, latest) = (text.find("SELECT pg_catalog.pg_switch_wal();"), text.find("--latest"));
    assert!(switch.is_some() && switch < latest, "the newest commits come first: {text}");
    // The last commit's own second: more transactions of that second may be on their way.
    refused(decide(input(to_time(95)), &history()), Code::TargetUnreachable);
}

#[test]
fn a_checkpoint_proves_that_nothing_else_happened_before_a_time() {
    let mut facts = history();
    facts.push(mark(98, 200));
    let decision = decide(input(to_time(150)), &facts).unwrap();
    assert_eq!(decision.stop, Stop::After { lsn: lsn(100), end: lsn(101) });
    assert_eq!(decision.wal_end, place(100).end);
    assert_eq!(decision.backup.id, backup_id(2));
    assert_eq!(decision.first_commit_left_out, None);
}

#[test]
fn e61_a_time_before_the_first_backup_is_refused_and_names_the_earliest_moment() {
    // Not one transaction lies between the backup and the moment wanted: the log after the backup
    // looks just like that of an idle night.
    let facts = [mark(1, 1), commit(40, 700, 40)];
    let text = refused(decide(input(to_time(-3600)), &facts), Code::TargetUnreachable);
    assert!(text.contains(&lsn(10).to_string()), "{text}");
    let idle = decide(input(to_time(20)), &facts).unwrap();
    assert_eq!(idle.stop, Stop::Before { lsn: lsn(40) });
    // A transaction that ended while the backup ran.
    let during = [mark(1, 1), commit(5, 700, 5), commit(40, 701, 40)];
    refused(decide(input(to_time(3)), &during), Code::TargetUnreachable);
}

#[test]
fn a_checkpoints_second_does_not_prove_which_part_of_it_came_first() {
    let facts = [mark(1, 1), commit(40, 700, 40)];
    let within = Timestamp::from_millisecond(at(1).as_millisecond() + 500).unwrap();
    let decision = decide(input(Target::To(Point::Time(within))), &facts);
    refused(decision, Code::TargetUnreachable);
}

#[test]
fn an_lsn_keeps_the_record_that_begins_there_and_before_does_not() {
    let mut to = input(Target::To(Point::Lsn(lsn(70))));
    to.record_at_target = Some(place(70));
    assert_eq!(decide(to, &history()).unwrap().stop, Stop::Before { lsn: lsn(71) });
    // In the middle of record 70: record 71 is the first that begins there or later.
    let mut within = input(Target::To(Point::Lsn(Lsn(lsn(70).0 + 8))));
    within.record_at_target = Some(place(71));
    assert_eq!(decide(within, &history()).unwrap().stop, Stop::Before { lsn: lsn(72) });
    let mut before = input(Target::Before(Point::Lsn(Lsn(lsn(69).0 + 8))));
    before.record_at_target = Some(place(70));
    let before = decide(before, &history()).unwrap();
    assert_eq!(before.stop, Stop::Before { lsn: lsn(70) });
    assert_eq!(before.last_commit_kept.unwrap().xid, 706);
}

#[test]
fn the_last_archived_record_is_reached_inclusively() {
    let mut last = input(Target::To(Point::Lsn(lsn(100))));
    last.record_at_target = Some(place(100));
    let expected = Stop::After { lsn: lsn(100), end: lsn(101) };
    assert_eq!(decide(last, &history()).unwrap().stop, expected);
    // What pg_current_wal_insert_lsn() said when everything so far is archived.
    let now = decide(input(Target::To(Point::Lsn(lsn(101)))), &history()).unwrap();
    assert_eq!(now.stop, expected);
    let beyond = input(Target::To(Point::Lsn(lsn(102))));
    refused(decide(beyond, &history()), Code::TargetUnreachable);
}

#[test]
fn an_insert_position_behind_a_page_header_is_the_end_of_the_page_before() {
    let size = WalSegmentSize::DEFAULT;
    assert_eq!(record_position(Lsn(0x200_0000), size), Lsn(0x200_0028));
    assert_eq!(record_position(Lsn(0x200_2000), size), Lsn(0x200_2018));
    assert_eq!(record_position(Lsn(0x200_2008), size), Lsn(0x200_2008));
}

#[test]
fn a_transaction_is_found_by_its_number_or_a_subtransactions() {
    for xid in [704, 1704, (3 << 32) + 704] {
        let to = decide(input(Target::To(Point::Xid(xid))), &history()).unwrap();
        assert_eq!(to.stop, Stop::Before { lsn: lsn(46) }, "{xid}");
        assert_eq!(to.last_commit_kept.unwrap().xid, 704);
        let before = decide(input(Target::Before(Point::Xid(xid))), &history()).unwrap();
        assert_eq!(before.stop, Stop::Before { lsn: lsn(45) });
        assert_eq!(before.first_commit_left_out.unwrap().xid, 704);
    }
    let unknown = decide(input(Target::To(Point::Xid(9))), &history());
    refused(unknown, Code::TargetUnreachable);
}

#[test]
fn a_transaction_that_was_rolled_back_is_told() {
    let facts = [mark(1, 1), xact(30, 700, 30, XactEndKind::Abort), commit(31, 701, 31)];
    let decision = decide(input(Target::To(Point::Xid(700))), &facts).unwrap();
    assert!(decision.warnings.iter().any(|it| it.contains("rolled back")), "{decision:?}");
}

#[test]
fn a_restore_point_is_found_by_its_name_and_two_of_a_name_are_refused() {
    let mut facts = history();
    facts.insert(4, restore_point(42, "nightly", 42));
    let to = decide(input(Target::To(Point::Name("nightly".to_owned()))), &facts).unwrap();
    assert_eq!(to.stop, Stop::Before { lsn: lsn(43) });
    facts.push(restore_point(99, "nightly", 99));
    let twice = decide(input(Target::To(Point::Name("nightly".to_owned()))), &facts);
    let text = refused(twice, Code::TargetInvalid);
    assert!(text.contains(&lsn(99).to_string()), "{text}");
}

#[test]
fn latest_ends_inclusively_at_the_last_record_from_the_newest_backup() {
    let decision = decide(input(Target::Latest), &history()).unwrap();
    assert_eq!(decision.stop, Stop::After { lsn: lsn(100), end: lsn(101) });
    assert_eq!(decision.backup.id, backup_id(2));
    assert_eq!(decision.last_commit_kept.unwrap().xid, 709);
}

#[test]
fn backup_only_stops_where_the_backup_is_consistent_and_needs_the_record_after_it() {
    let mut backup_only = input(Target::BackupOnly);
    let planner = Planner::new(backup_only.clone()).unwrap();
    assert_eq!(planner.end_of_backup(), Some(lsn(60)));
    backup_only.record_at_target = Some(place(60));
    let decision = decide(backup_only, &history()).unwrap();
    assert_eq!(decision.stop, Stop::Consistent { lsn: lsn(60) });
    assert_eq!(decision.wal_end, place(60).end);
    assert_eq!(decision.last_commit_kept.unwrap().xid, 705);
    assert_eq!(decision.first_commit_left_out.unwrap().xid, 706);
}

#[test]
fn backup_only_ends_after_the_last_record_where_none_follows_the_backup() {
    let mut ends_with_backup = input(Target::BackupOnly);
    ends_with_backup.wal.spans = vec![span(0, 59)];
    let decision = decide(ends_with_backup, &history()[..6]).unwrap();
    assert_eq!(decision.stop, Stop::After { lsn: lsn(59), end: lsn(60) });
    assert_eq!(decision.wal_end, place(59).end);
}

#[test]
fn backup_only_goes_with_the_timeline_that_left_at_its_very_end() {
    let history_file = format!("1\t{}\tx\n", lsn(60));
    let mut forked = input(Target::BackupOnly);
    forked.ancestry = Ancestry::parse(T2, history_file.as_bytes()).unwrap();
    forked.record_at_target = Some(place(60));
    let decision = decide(forked, &history()).unwrap();
    assert_eq!(decision.stop, Stop::Consistent { lsn: lsn(60) });
    // The record that follows the backup is the new timeline's first.
    assert_eq!((decision.timeline, decision.wal_end), (T2, place(60).end));
}

#[test]
fn a_backup_without_page_errors_is_preferred_and_the_other_is_told() {
    let mut with_errors = input(Target::Latest);
    with_errors.backups[1].page_errors = 3;
    let decision = decide(with_errors.clone(), &history()).unwrap();
    assert_eq!(decision.backup.id, backup_id(1));
    assert_eq!(decision.warnings.len(), 1);
    with_errors.backup = Some(backup_id(2));
    let chosen = decide(with_errors, &history()).unwrap();
    assert_eq!(chosen.backup.id, backup_id(2));
    assert!(chosen.warnings[0].contains("3 damaged pages"), "{chosen:?}");
}

#[test]
fn a_backup_that_was_found_damaged_is_the_last_choice_and_told() {
    let found = |what: &str| Some(FoundDamaged { at: at(90), what: what.to_owned() });
    let mut input = input(Target::Latest);
    input.backups[1].found_damaged = found("pack/a: gone");
    let older = decide(input.clone(), &history()).unwrap();
    assert_eq!(older.backup.id, backup_id(1));
    assert!(older.warnings[0].contains("not used: a verification found it damaged"), "{older:?}");
    assert!(older.warnings[0].contains("pack/a: gone"), "{older:?}");
    // Page errors are the database's own: such a backup can be restored.
    input.backups[0].page_errors = 1;
    assert_eq!(decide(input.clone(), &history()).unwrap().backup.id, backup_id(1));

    // Only the damaged one leads to the end.
    let mut behind_a_hole = input.clone();
    behind_a_hole.wal.spans = vec![span(0, 40), span(45, 100)];
    let damaged = decide(behind_a_hole, &history()).unwrap();
    assert_eq!(damaged.backup.id, backup_id(2));
    assert!(damaged.warnings[0].contains("no other leads to this target"), "{damaged:?}");
    assert!(damaged.warnings[0].contains(&format!("`--backup {}`", backup_id(1))), "{damaged:?}");
    input.backups[0].found_damaged = found("pack/b: gone");
    let all = decide(input.clone(), &history()).unwrap();
    assert_eq!(all.backup.id, backup_id(2));
    assert!(all.warnings[0].contains("so was every other"), "{all:?}");
    let chosen = PlanInput { backup: Some(backup_id(1)), ..input };
    let chosen = decide(chosen, &history()).unwrap();
    assert_eq!(chosen.backup.id, backup_id(1));
    assert!(chosen.warnings[0].contains("pack/b: gone"), "{chosen:?}");
}

#[test]
fn a_chosen_backup_is_honoured_or_refused_with_the_reason() {
    let with = |n, target| PlanInput { backup: Some(backup_id(n)), ..input(target) };
    let older = decide(with(1, Target::Latest), &history()).unwrap();
    assert_eq!(older.backup.id, backup_id(1));
    let text = refused(decide(with(2, to_time(44)), &history()), Code::TargetUnreachable);
    assert!(text.contains("earlier than the first backup"), "{text}");
    refused(decide(with(9, Target::Latest), &history()), Code::NoSuchBackup);
    let mut damaged = with(9, Target::Latest);
    damaged.unusable.push((backup_id(9), crate::verify::NotWhole::Damaged));
    refused(decide(damaged, &history()), Code::ObjectDamaged);
}

#[test]
fn a_time_within_a_hole_is_not_taken_for_the_quiet_time_behind_it() {
    // Nothing is committed between the hole and the end of the backup behind it: what was committed
    // in the hole, before and after the time wanted, is in that backup.
    let facts = [mark(1, 1), commit(15, 701, 15), mark(71, 71), commit(85, 702, 85)];
    for target in [to_time(60), Target::Before(Point::Time(at(60)))] {
        let mut holed = input(target);
        holed.wal.spans = vec![span(0, 49), span(70, 100)];
        holed.backups = vec![backup(1, 0, 10), backup(3, 70, 80)];
        refused(decide(holed.clone(), &facts), Code::WalGap);
        let behind = PlanInput { target: to_time(72), ..holed.clone() };
        assert_eq!(decide(behind, &facts).unwrap().backup.id, backup_id(3), "a checkpoint tells");
        // No transaction ended behind it at all.
        refused(decide(holed, &facts[..3]), Code::WalGap);
    }
}

#[test]
fn a_hole_in_the_wal_is_named_when_it_is_in_the_way() {
    let mut holed = input(Target::Latest);
    holed.wal.spans = vec![span(0, 69), span(80, 100)];
    let text = refused(decide(holed.clone(), &history()), Code::WalGap);
    assert!(text.contains(&format!("from LSN {} to {}", lsn(70), lsn(80))), "{text}");
    // Before the hole everything is fine.
    holed.target = to_time(60);
    assert_eq!(decide(holed.clone(), &history()).unwrap().stop, Stop::Before { lsn: lsn(65) });
    // Inside it, or just behind it.
    holed.target = Target::To(Point::Lsn(lsn(75)));
    refused(decide(holed.clone(), &history()), Code::WalGap);
    // A backup behind it leads on.
    holed.target = Target::Latest;
    holed.backups.push(backup(3, 82, 90));
    assert_eq!(decide(holed, &history()).unwrap().backup.id, backup_id(3));
}

#[test]
fn no_wal_is_needed_behind_the_record_at_which_replay_stops() {
    let point = |name: &str| Point::Name(name.to_owned());
    let mut facts = history();
    facts.insert(4, restore_point(42, "rp", 42));
    for target in [Target::To(point("rp")), Target::To(Point::Xid(704)), Target::BackupOnly] {
        let mut wanted = input(target.clone());
        wanted.record_at_target = backup_2_ends(&target);
        let mut decision = decide(wanted, &facts).unwrap();
        let at = decision.stop.position();
        if target != Target::BackupOnly {
            assert_eq!(decision.stop_record_at, Some(at), "{target:?}");
            decision.set_stop_record(RecordPlace { lsn: at, end: Lsn(at.0 + 61) });
        }
        assert_eq!(decision.wal_end, Lsn(at.0 + 61), "{target:?}");
    }
    let mut before = input(Target::Before(Point::Lsn(lsn(70))));
    before.record_at_target = Some(place(70));
    let before = decide(before, &facts).unwrap();
    assert_eq!((before.wal_end, before.stop_record_at), (place(70).end, None));
}

/// `wal_level` became `minimal` with record 30, between the backups.
fn history_with_minimal() -> Vec<Fact> {
    let mut facts = history();
    facts.push(Fact::Minimal { lsn: lsn(30) });
    facts.sort_by_key(Fact::lsn);
    facts
}

#[test]
fn what_was_written_with_wal_level_minimal_is_never_restored_from_an_older_backup() {
    let facts = history_with_minimal();
    for target in [
        to_time(44),
        Target::To(Point::Xid(703)),
        Target::Before(Point::Xid(704)),
        Target::To(Point::Lsn(lsn(40))),
        Target::Before(Point::Lsn(Lsn(lsn(30).0 + 1))),
    ] {
        let text = refused(decide(input(target), &facts), Code::WalMinimal);
        assert!(text.contains(&format!("--before lsn:{}", lsn(30))), "{text}");
        assert!(text.contains(&backup_id(2).to_string()), "the backup that holds it: {text}");
    }
    // Up to it, and from the backup that was made after it.
    let mut up_to_it = input(Target::Before(Point::Lsn(lsn(30))));
    up_to_it.record_at_target = Some(place(30));
    assert_eq!(decide(up_to_it, &facts).unwrap().stop, Stop::Before { lsn: lsn(30) });
    assert_eq!(decide(input(to_time(24)), &facts).unwrap().backup.id, backup_id(1));
    for target in [Target::Latest, to_time(74)] {
        assert_eq!(decide(input(target.clone()), &facts).unwrap().backup.id, backup_id(2));
        let mut older = input(target);
        older.backup = Some(backup_id(1));
        refused(decide(older, &facts), Code::WalMinimal);
    }
}

#[test]
fn with_minimal_wal_between_a_backup_with_page_errors_is_better_than_an_older_one() {
    for target in [Target::Latest, to_time(74), Target::To(Point::Lsn(lsn(80)))] {
        let mut with = input(target);
        with.backups[1].page_errors = 3;
        assert_eq!(decide(with.clone(), &history()).unwrap().backup.id, backup_id(1));
        let decision = decide(with, &history_with_minimal()).unwrap();
        assert_eq!(decision.backup.id, backup_id(2));
        assert!(decision.warnings.iter().any(|it| it.contains("damaged page")), "{decision:?}");
    }
}

/// What follows the newest backup, where it is asked for.
fn backup_2_ends(target: &Target) -> Option<RecordPlace> {
    (*target == Target::BackupOnly).then(|| place(60))
}

/// Records 70 to 79 are in an object that cannot be read.
fn unreadable() -> UnreadableWal {
    UnreadableWal { start: lsn(70), end: lsn(80), why: "object x is damaged".to_owned() }
}

#[test]
fn wal_that_cannot_be_read_is_in_the_way_only_of_what_needs_it() {
    let mut facts = history();
    facts.retain(|fact| !(lsn(70)..lsn(80)).contains(&fact.lsn()));
    facts.push(Fact::Unreadable(unreadable()));
    facts.push(restore_point(42, "rp", 42));
    facts.sort_by_key(Fact::lsn);
    // Its footer can be read, or not even that.
    for spans in [vec![span(0, 100)], vec![span(0, 69), span(80, 100)]] {
        let with = |target| {
            let is_hole = spans.len() > 1;
            let unreadable = if is_hole { vec![unreadable()] } else { Vec::new() };
            let wal = WalCoverage { spans: spans.clone(), unreadable };
            decide(
                PlanInput { wal, record_at_target: backup_2_ends(&target), ..input(target) },
                &facts,
            )
        };
        let earlier = with(Target::BackupOnly).unwrap();
        assert_eq!(earlier.first_commit_left_out.unwrap().xid, 706);
        assert_eq!(with(to_time(44)).unwrap().stop, Stop::Before { lsn: lsn(45) });
        for target in [Target::Latest, to_time(74), to_time(90), Target::To(Point::Xid(709))] {
            let text = refused(with(target), Code::ObjectDamaged);
            assert!(text.contains("object x is damaged"), "{text}");
        }
        // There may be another one of the name; by its place it is a single one.
        let text = refused(with(Target::To(Point::Name("rp".to_owned()))), Code::ObjectDamaged);
        assert!(text.contains(&format!("--to lsn:{}", lsn(42))), "{text}");
        let mut by_place = input(Target::To(Point::Lsn(lsn(42))));
        by_place.record_at_target = Some(place(42));
        assert_eq!(decide(by_place, &facts).unwrap().stop, Stop::Before { lsn: lsn(43) });
        let text = refused(with(Target::To(Point::Xid(707))), Code::TargetUnreachable);
        assert!(text.contains("object x is damaged"), "{text}");
    }
}

#[test]
fn what_cannot_be_read_at_the_end_is_not_the_end_of_the_archive() {
    let last = UnreadableWal { start: lsn(101), end: lsn(101), why: "object x".to_owned() };
    let mut facts = history();
    facts.push(Fact::Unreadable(last.clone()));
    let with = |target| {
        let wal = WalCoverage { spans: vec![span(0, 100)], unreadable: vec![last.clone()] };
        decide(PlanInput { wal, record_at_target: backup_2_ends(&target), ..input(target) }, &facts)
    };
    refused(with(Target::Latest), Code::ObjectDamaged);
    refused(with(Target::To(Point::Lsn(lsn(120)))), Code::ObjectDamaged);
    let text = refused(with(to_time(120)), Code::TargetUnreachable);
    assert!(text.contains("object x"), "{text}");
    let earlier = with(Target::BackupOnly).unwrap();
    assert!(earlier.warnings.iter().any(|it| it.contains("object x")), "{earlier:?}");
}

#[test]
fn a_backup_whose_own_wal_is_missing_is_not_used() {
    let mut holed = input(Target::Latest);
    holed.wal.spans = vec![span(0, 54), span(56, 100)];
    holed.backup = Some(backup_id(2));
    let text = refused(decide(holed, &history()), Code::WalGap);
    assert!(text.contains(&lsn(50).to_string()), "{text}");
}

#[test]
fn without_any_backup_there_is_nothing_to_start_from() {
    let none = PlanInput { backups: Vec::new(), ..input(Target::Latest) };
    refused(decide(none, &history()), Code::NoSuchBackup);
}

#[test]
fn a_backup_of_an_abandoned_branch_is_refused_and_an_ancestors_is_used() {
    let history_file = format!("1\t{}\tx\n", lsn(55));
    let mut forked = input(Target::Latest);
    forked.ancestry = Ancestry::parse(T2, history_file.as_bytes()).unwrap();
    // Backup 2 ended at record 60 on timeline 1, which timeline 2 left at record 55.
    let decision = decide(forked.clone(), &history()).unwrap();
    assert_eq!((decision.backup.id, decision.timeline), (backup_id(1), T2));
    forked.target = to_time(44);
    assert_eq!(
        decide(forked.clone(), &history()).unwrap().timeline,
        T1,
        "it stops before the fork"
    );
    forked.backup = Some(backup_id(2));
    let text = refused(decide(forked, &history()), Code::TargetUnreachable);
    assert!(text.contains("--timeline 1"), "{text}");
}

/// What a random log holds.
#[derive(Debug, Clone)]
struct RandomLog {
    facts: Vec<Fact>,
    backups: Vec<BackupFacts>,
    records: u64,
}

fn random_log() -> impl Strategy<Value = RandomLog> {
    let commits = proptest::collection::vec((0u8..4, -3i64..3), 1..60);
    let starts = proptest::collection::btree_set(0u64..60, 1..4);
    (commits, starts).prop_map(|(steps, starts)| {
        let mut facts = Vec::new();
        let mut clock = 0;
        for (index, (kind, drift)) in steps.iter().enumerate() {
            let record = index as u64;
            clock += 2 + drift;
            let xid = 700 + index as Xid;
            facts.push(match kind {
                0 => commit(record, xid, clock),
                1 => xact(record, xid, clock, XactEndKind::Abort),
                2 => xact(record, xid, clock, XactEndKind::CommitPrepared),
                _ => mark(record, clock),
            });
        }
        let records = steps.len() as u64;
        let backups = starts
            .into_iter()
            .filter(|start| start + 3 <= records)
            .enumerate()
            .map(|(n, start)| backup(n as u64, start, start + 3))
            .collect();
        RandomLog { facts, backups, records }
    })
}

/// What should be kept of the log, by its words: `None` if it cannot be reached.
fn naive_time_cut(log: &RandomLog, wanted: Timestamp, inclusive: bool) -> Option<u64> {
    let first = log.backups.iter().map(|backup| backup.start_lsn).min()?;
    let facts: Vec<&Fact> = log.facts.iter().filter(|fact| fact.lsn() >= first).collect();
    let later = |time: Timestamp| time > wanted || (!inclusive && time == wanted);
    let ends_later = |fact: &&&Fact| {
        matches!(fact, Fact::Xact(_)) && fact.time().is_some_and(|time| later(time.0))
    };
    if !facts.iter().any(|fact| fact.time().is_some_and(|time| later(time.0))) {
        return None;
    }
    let cut = facts.iter().find(ends_later).map(|fact| fact.lsn());
    let before_cut = |fact: &&&Fact| cut.is_none_or(|cut| fact.lsn() < cut);
    if !facts.iter().filter(before_cut).any(|fact| fact.time().is_some_and(|time| !later(time.1))) {
        return None;
    }
    let kept = cut.map_or(log.records, |cut| (cut.0 - BASE) / 64);
    let reachable = log.backups.iter().any(|backup| backup.stop_lsn <= lsn(kept));
    reachable.then_some(kept)
}

proptest! {
    #[test]
    fn time_targets_agree_with_a_naive_reading_of_the_log(
        log in random_log(), second in -5i64..140, inclusive: bool,
    ) {
        prop_assume!(!log.backups.is_empty());
        let point = Point::Time(at(second));
        let target = if inclusive { Target::To(point) } else { Target::Before(point) };
        let input = PlanInput {
            backups: log.backups.clone(),
            wal: covered(vec![span(0, log.records - 1)]),
            ..input(target)
        };
        let decision = decide(input, &log.facts);
        match naive_time_cut(&log, at(second), inclusive) {
            None => prop_assert_eq!(decision.unwrap_err().code(), Code::TargetUnreachable),
            Some(kept) => {
                let decision = decision.unwrap();
                prop_assert_eq!(decision.stop.kept_until(), lsn(kept));
                let exclusive = matches!(decision.stop, Stop::Before { .. });
                prop_assert_eq!(exclusive, kept < log.records, "exclusive only if a record follows");
                let newest = log.backups.iter().rfind(|it| it.stop_lsn <= lsn(kept));
                prop_assert_eq!(&decision.backup, newest.unwrap());
                let commits = |keep: bool| log.facts.iter().filter_map(move |fact| match fact {
                    Fact::Xact(xact) if xact.kind.is_commit() && (xact.place.lsn < lsn(kept)) == keep => Some(xact.xid),
                    _ => None,
                });
                let first = log.backups[0].start_lsn;
                let kept_xid = commits(true).rfind(|xid| lsn(u64::from(xid - 700)) >= first);
                prop_assert_eq!(decision.last_commit_kept.map(|it| it.xid), kept_xid);
                prop_assert_eq!(decision.first_commit_left_out.map(|it| it.xid), commits(false).next());
            }
        }
    }

    #[test]
    fn transactions_are_kept_or_left_out_exactly(log in random_log(), pick in 0u64..60, keep: bool) {
        prop_assume!(!log.backups.is_empty());
        let first = log.backups[0].start_lsn;
        let point = Point::Xid(700 + pick);
        let target = if keep { Target::To(point) } else { Target::Before(point) };
        let input = PlanInput {
            backups: log.backups.clone(),
            wal: covered(vec![span(0, log.records - 1)]),
            ..input(target)
        };
        let kept = if keep { pick + 1 } else { pick };
        let known = log.facts.iter().any(|fact| match fact {
            Fact::Xact(xact) => u64::from(xact.xid) == 700 + pick && fact.lsn() >= first,
            _ => false,
        });
        let reachable = log.backups.iter().any(|backup| backup.stop_lsn <= lsn(kept));
        match decide(input, &log.facts) {
            Ok(decision) => {
                prop_assert!(known && reachable);
                prop_assert_eq!(decision.stop.kept_until(), lsn(kept));
            }
            Err(error) => {
                prop_assert!(!known || !reachable);
                prop_assert_eq!(error.code(), Code::TargetUnreachable);
            }
        }
    }
}
