use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, Lsn, TimelineId, Ulid};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{Ancestries, DamagedHistory};
use seawall_store::ObjectPath;

use super::{BackupFacts, Branch, Chosen, choose_timeline};
use crate::restore::TimelineChoice::{Current, Id, Latest};
use crate::restored::{CommitPlace, LeftBehind};

fn ancestry(timeline: u32, history: &str) -> Ancestry {
    let timeline = TimelineId(timeline);
    if history.is_empty() {
        return Ancestry::root(timeline);
    }
    Ancestry::parse(timeline, history.as_bytes()).unwrap()
}

/// One timeline after the other.
fn in_a_row() -> [Ancestry; 3] {
    [
        ancestry(1, ""),
        ancestry(2, "1\t0/5000000\tx\n"),
        ancestry(3, "1\t0/5000000\tx\n2\t0/7000000\tx\n"),
    ]
}

/// Two timelines that left the first.
fn side_by_side() -> [Ancestry; 3] {
    [ancestry(1, ""), ancestry(2, "1\t0/5000000\tx\n"), ancestry(3, "1\t0/4000000\tx\n")]
}

fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

fn backup(timeline: u32, stop_lsn: u64, minute: i64) -> BackupFacts {
    BackupFacts {
        id: BackupId(Ulid(u128::from(stop_lsn))),
        generation: 0,
        start_lsn: Lsn(stop_lsn - 0x100),
        start_timeline: TimelineId(timeline),
        stop_lsn: Lsn(stop_lsn),
        stop_timeline: TimelineId(timeline),
        finished_at: at(minute),
        page_errors: 0,
        found_damaged: None,
        cluster_bytes: 0,
    }
}

/// A timeline whose last commit was at `last`, where the one followed had its first at `first`.
fn branch(timeline: u32, last: Option<i64>, first: Option<i64>) -> Branch {
    let commit = |minute| CommitPlace { xid: 700, lsn: Lsn(0x600_0000), time: at(minute) };
    Branch {
        left: LeftBehind {
            timeline: TimelineId(timeline),
            after: Lsn(0x500_0000),
            commits: last.map_or(0, |_| 2),
            perhaps_more: false,
            last_commit: last.map(commit),
        },
        first_commit_followed: first.map(at),
    }
}

fn whole(known: &[Ancestry]) -> Ancestries {
    Ancestries { known: known.to_vec(), damaged: Vec::new() }
}

fn current(ancestries: &[Ancestry]) -> Chosen {
    choose_timeline(Current, None, &whole(ancestries), &[]).unwrap()
}

fn doubts(chosen: &Chosen, branches: &[Branch], backups: &[BackupFacts]) -> Vec<u32> {
    chosen.doubts(branches, backups).iter().map(|branch| branch.left.timeline.0).collect()
}

#[test]
fn the_newest_timeline_is_followed_and_one_can_be_chosen() {
    assert_eq!(current(&in_a_row()[..1]).ancestry.tip(), TimelineId(1));
    assert_eq!(current(&in_a_row()).ancestry.tip(), TimelineId(3));
    let all = whole(&side_by_side());
    for (choice, expected) in [(Id(TimelineId(1)), 1), (Latest, 3)] {
        let chosen = choose_timeline(choice, None, &all, &[]).unwrap();
        assert_eq!(chosen.ancestry.tip(), TimelineId(expected));
        assert!(chosen.rivals.is_empty(), "who chooses is not asked");
    }
    let unknown = choose_timeline(Id(TimelineId(9)), None, &all, &[]).unwrap_err();
    assert_eq!(unknown.code(), Code::TargetUnreachable);
    let nothing = choose_timeline(Current, None, &whole(&[]), &[]).unwrap_err();
    assert_eq!(nothing.code(), Code::TargetUnreachable);
}

#[test]
fn a_new_timeline_without_anything_of_its_own_does_not_win_over_commits() {
    let chosen = current(&in_a_row()[..2]);
    assert_eq!(doubts(&chosen, &[branch(1, Some(9), None)], &[]), [1]);
    assert_eq!(doubts(&chosen, &[branch(1, None, None)], &[]), [0; 0], "nothing is left behind");
    let explicit = choose_timeline(Id(TimelineId(2)), None, &whole(&in_a_row()), &[]).unwrap();
    assert_eq!(doubts(&explicit, &[branch(1, Some(9), None)], &[]), [0; 0]);
}

#[test]
fn one_server_after_the_other_is_an_ordinary_restore_and_both_at_once_is_not() {
    let chosen = current(&in_a_row()[..2]);
    assert_eq!(doubts(&chosen, &[branch(1, Some(9), Some(10))], &[]), [0; 0]);
    assert_eq!(doubts(&chosen, &[branch(1, Some(11), Some(10))], &[]), [1]);
    // A backup was taken between the mistake and the restore; or of a server that went on.
    let left = |minute| [backup(1, 0x600_0000, minute)];
    assert_eq!(doubts(&chosen, &[branch(1, Some(8), Some(10))], &left(9)), [0; 0]);
    assert_eq!(doubts(&chosen, &[branch(1, Some(8), Some(10))], &left(11)), [1]);
    assert_eq!(doubts(&chosen, &[branch(1, None, None)], &left(9)), [1]);
    let on_the_way = [backup(1, 0x400_0000, 20)];
    assert_eq!(doubts(&chosen, &[branch(1, None, None)], &on_the_way), [0; 0]);
}

#[test]
fn a_backup_of_the_newest_timeline_settles_it_until_there_is_a_later_one_beside_it() {
    let chosen = current(&in_a_row()[..2]);
    let both_alive = [branch(1, Some(30), Some(10))];
    let ours = backup(2, 0x580_0000, 20);
    assert_eq!(doubts(&chosen, &both_alive, std::slice::from_ref(&ours)), [0; 0]);
    let before = [backup(1, 0x600_0000, 9), ours.clone()];
    assert_eq!(doubts(&chosen, &both_alive, &before), [0; 0]);
    let after = [backup(1, 0x600_0000, 25), ours.clone()];
    assert_eq!(doubts(&chosen, &both_alive, &after), [1]);
    // The first restore was settled long ago; a second one is as doubtful as the first was.
    let chosen = current(&in_a_row());
    let branches = [branch(1, Some(9), Some(10)), branch(2, Some(40), None)];
    assert_eq!(doubts(&chosen, &branches, &[ours]), [2]);
}

#[test]
fn branches_side_by_side_are_settled_by_a_backup_only() {
    let chosen = current(&side_by_side());
    let branches = [branch(1, None, None), branch(2, Some(5), Some(9))];
    assert_eq!(doubts(&chosen, &branches, &[]), [2]);
    assert_eq!(doubts(&chosen, &branches, &[backup(3, 0x480_0000, 10)]), [0; 0]);
    assert_eq!(
        doubts(&chosen, &[branch(2, None, None)], &[]),
        [0; 0],
        "a drill that wrote nothing"
    );
}

#[test]
fn timelines_that_no_history_connects_are_told_apart_by_nothing() {
    let all = whole(&[ancestry(1, ""), ancestry(2, "")]);
    let ours = backup(2, 0x580_0000, 20);
    for named in [None, Some(ours.id)] {
        let chosen = choose_timeline(Current, named, &all, std::slice::from_ref(&ours)).unwrap();
        assert_eq!(chosen.ancestry.tip(), TimelineId(2));
        let branches = [branch(1, Some(9), Some(10))];
        assert_eq!(doubts(&chosen, &branches, std::slice::from_ref(&ours)), [1]);
    }
}

/// The timelines that are known, and one whose history is damaged.
fn with_lost(known: &[Ancestry], lost: u32) -> Ancestries {
    let lost = DamagedHistory {
        timeline: TimelineId(lost),
        told_by: None,
        object: ObjectPath::new("history").unwrap(),
        code: Code::ObjectDamaged,
        why: "a byte is wrong".to_owned(),
        way_out: "Put it back.".into(),
    };
    Ancestries { known: known.to_vec(), damaged: vec![lost] }
}

#[test]
fn a_timeline_whose_history_is_damaged_is_no_hindrance_to_one_that_is_chosen() {
    for lost in [1, 2, 4] {
        let known: Vec<_> = side_by_side().into_iter().filter(|it| it.tip().0 != lost).collect();
        let all = with_lost(&known, lost);
        let chosen = choose_timeline(Id(TimelineId(3)), None, &all, &[]).unwrap();
        assert_eq!(chosen.ancestry.tip(), TimelineId(3));
        let refused = choose_timeline(Id(TimelineId(lost)), None, &all, &[]).unwrap_err();
        assert_eq!(refused.code(), Code::ObjectDamaged);
        let latest = choose_timeline(Latest, None, &all, &[]);
        assert_eq!(latest.is_ok(), lost < 3, "{lost}: {latest:?}");
    }
}

#[test]
fn what_may_be_the_timeline_that_is_meant_is_not_passed_over() {
    let decide = |lost, backups: &[BackupFacts], named| {
        let known: Vec<_> = side_by_side().into_iter().filter(|it| it.tip().0 != lost).collect();
        choose_timeline(Current, named, &with_lost(&known, lost), backups)
    };
    let refused = decide(4, &[backup(3, 0x480_0000, 10)], None).unwrap_err();
    assert_eq!(refused.code(), Code::ObjectDamaged, "it is newer");
    let hint = format!("{:?}", refused.hint());
    assert!(hint.contains("--timeline 3") && hint.contains("Put it back"), "{hint}");
    assert!(decide(2, &[], None).is_err(), "neither has a backup");
    let (ours, theirs) = (backup(3, 0x480_0000, 10), backup(2, 0x580_0000, 20));
    let settled = decide(2, std::slice::from_ref(&ours), None).unwrap();
    assert_eq!(settled.ancestry.tip(), TimelineId(3));
    assert!(decide(2, &[ours.clone(), theirs.clone()], None).is_err(), "a later one beside it");
    // A backup leads to no timeline that is older than its own.
    let backups = [ours.clone(), theirs.clone()];
    assert_eq!(decide(2, &backups, Some(ours.id)).unwrap().ancestry.tip(), TimelineId(3));
    assert!(decide(2, &backups, Some(theirs.id)).is_err(), "it is of that timeline");
    let earlier = BackupFacts { finished_at: at(5), ..theirs.clone() };
    assert!(
        decide(2, &[ours.clone(), earlier], Some(theirs.id)).is_err(),
        "and so is an older one"
    );
    let nothing = choose_timeline(Current, None, &with_lost(&[], 2), &[]).unwrap_err();
    assert_eq!(nothing.code(), Code::ObjectDamaged, "it is all there is");
}

#[test]
fn what_can_be_chosen_is_told_with_its_place_and_its_last_commit() {
    let chosen = current(&in_a_row()[..2]);
    let (left, own) = (branch(1, Some(9), None), branch(2, None, None));
    let error = chosen.ambiguous(&own.left, &[&left]);
    assert_eq!(error.code(), Code::TimelineAmbiguous);
    assert!(error.message().contains("1, 2"), "{error}");
    let hint = format!("{:?}", error.hint());
    for part in ["--timeline 1", "--timeline 2", "0/5000000", "2 commits", "1970-01-01 00:09:00Z"] {
        assert!(hint.contains(part), "no {part} in {hint}");
    }
}

#[test]
fn a_named_backup_implies_the_timelines_it_leads_to() {
    let all = whole(&side_by_side());
    let backups = [backup(1, 0x300_0000, 1), backup(2, 0x580_0000, 8), backup(3, 0x480_0000, 9)];
    let choose =
        |index: usize| choose_timeline(Current, Some(backups[index].id), &all, &backups).unwrap();
    let second = choose(1);
    assert_eq!((second.ancestry.tip(), second.rivals.len()), (TimelineId(2), 0));
    let common = choose(0);
    assert_eq!((common.ancestry.tip(), common.rivals.len()), (TimelineId(3), 2));
    let missing = Some(BackupId(Ulid(9)));
    let missing = choose_timeline(Current, missing, &all, &backups).unwrap();
    assert_eq!(missing.ancestry.tip(), TimelineId(3), "that there is no such backup is told later");
}
