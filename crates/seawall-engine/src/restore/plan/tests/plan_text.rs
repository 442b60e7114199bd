//! What a plan says to people and to programs.

use jiff::SignedDuration;

use super::*;
use crate::restored::{
    CommitPlace, LeftBehind, LivingServer, Mode, Removal, Removals, Removed, RequiredParameters,
    RestorePlan, TargetAction,
};

fn removal(removed: Removed, xid: Xid) -> Removal {
    Removal {
        removed,
        xid,
        lsn: lsn(u64::from(xid) - 100),
        time: Some(at(i64::from(xid) - 100)),
        database: Some(16_384),
        database_name: Some("shop".to_owned()),
        before: format!("xid:{xid}"),
    }
}

fn whole_plan() -> RestorePlan {
    let decision = decide(input(to_time(44)), &history()).unwrap();
    RestorePlan {
        cluster: "main".parse().unwrap(),
        line: "7300000000000000000-0".parse().unwrap(),
        mode: Mode::Clone,
        target: to_time(44).to_string(),
        backup: PlannedBackup::from(&decision.backup),
        timeline: decision.timeline,
        path: path_to(&Ancestry::root(T1), decision.timeline),
        stop: decision.stop,
        wal_end: decision.wal_end,
        last_commit_kept: decision.last_commit_kept,
        first_commit_left_out: decision.first_commit_left_out,
        removals: Removals {
            kept: vec![removal(Removed::Relations, 140)],
            looked_from: lsn(0),
            left_out: vec![removal(Removed::Database, 146)],
            looked_to: lsn(90),
            reached_end: true,
        },
        left_behind: Vec::new(),
        left_out_databases: Vec::new(),
        ignores_invalid_pages: false,
        required: RequiredParameters::default(),
        settings: Vec::new(),
        then: TargetAction::Pause,
        asked_at: Some(at(107)),
        server: None,
        onto: None,
        warnings: vec!["Newer backup x is not used: it has page errors.".into()],
    }
}

#[test]
fn a_plan_reads_well() {
    insta::assert_snapshot!(format!("{:?}", whole_plan().text()));
}

/// The last seconds of a server that is lost are on its disk, if anywhere.
#[test]
fn a_plan_to_the_end_tells_how_old_that_is_and_where_more_may_be() {
    let plan = RestorePlan { first_commit_left_out: None, ..whole_plan() };
    let last = plan.last_commit_kept.expect("a commit is kept").time;
    let plan = RestorePlan { asked_at: Some(last + SignedDuration::from_secs(312)), ..plan };
    let text = format!("{:?}", plan.text());
    assert!(
        text.contains("leaves out    nothing that is archived and ends 312 s before"),
        "{text}"
    );
    assert!(text.contains("PushPartialWal"), "{text}");
}

/// The newest drop of a server that runs may not be archived yet.
#[test]
fn a_plan_beside_a_living_server_tells_what_that_has_not_archived() {
    let (archived_to, written_to) = (lsn(100), lsn(120));
    let server = LivingServer { timeline: T1, written_to, archived_to, is_ahead: true };
    let plan = RestorePlan { first_commit_left_out: None, ..whole_plan() };
    let plan = RestorePlan { server: Some(server), ..plan };
    let text = format!("{:?}", plan.text());
    let said = format!("not archived  LSN {archived_to} to {written_to} of the server, which runs");
    assert!(text.contains(&said), "{text}");
    assert!(text.contains("pg_switch_wal()") && !text.contains("PushPartialWal"), "{text}");
    let server = LivingServer { is_ahead: false, ..server };
    let text = format!("{:?}", RestorePlan { server: Some(server), ..plan }.text());
    assert!(!text.contains("not archived  "), "{text}");
    assert!(text.contains("which is all that the server wrote"), "{text}");
}

#[test]
fn a_plan_tells_what_other_timelines_have_and_never_that_it_leaves_out_nothing() {
    let last = CommitPlace { xid: 709, lsn: lsn(95), time: at(95) };
    let left = LeftBehind {
        timeline: T1,
        after: lsn(70),
        commits: 3,
        perhaps_more: false,
        last_commit: Some(last),
    };
    let plan = RestorePlan { left_behind: vec![left], first_commit_left_out: None, ..whole_plan() };
    let text = format!("{:?}", plan.text());
    let line = format!(
        "leaves out    timeline 1 after LSN {}: 3 commits, the last at 2026-01-02 02:01:35Z; `--latest --timeline 1` keeps them",
        lsn(70)
    );
    assert!(text.contains(&line), "{text}");
    assert!(!text.contains("nothing that is archived"), "{text}");
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["left_behind"][0]["commits"], 3, "{json}");
}

#[test]
fn a_plan_is_json_and_reads_back() {
    let plan = whole_plan();
    let json = serde_json::to_string_pretty(&plan).unwrap();
    assert_eq!(serde_json::from_str::<RestorePlan>(&json).unwrap(), plan);
    insta::assert_snapshot!(json);
}
