//! Years of backups and a million objects of WAL.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use seawall_core::{BackupId, Lsn, TimelineId, Ulid};
use seawall_pgdata::history::Ancestry;
use seawall_repo::retention::{
    BackupFacts, BackupSpan, Keep, LineFacts, Policy, TimelineWal, WalSpans, plan,
};
use seawall_repo::wal::LsnRange;

use super::world::{days, last, segment_size, window};

const BACKUPS: u64 = 10_000;
const OBJECTS: u64 = 1_000_000;
const TIMELINES: u32 = 20;

/// The most memory this process has used.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Twenty timelines, each forked off the one before at its end; a hole every thousand objects.
fn facts() -> LineFacts {
    let now = "2036-01-01T00:00:00Z".parse().unwrap();
    let (per_backup, bytes) = (OBJECTS / BACKUPS, 1 << 20);
    let lsn = |object: u64| Lsn((object + 1) * bytes);
    let timeline_of = |object: u64| {
        TimelineId(1 + u32::try_from(object * u64::from(TIMELINES) / OBJECTS).unwrap())
    };
    let fork = |timeline: u32| lsn(OBJECTS * u64::from(timeline) / u64::from(TIMELINES));
    let mut timelines = vec![Ancestry::root(TimelineId(1))];
    let mut history = String::new();
    for timeline in 1..TIMELINES {
        history.push_str(&format!("{timeline}\t{}\tno recovery target\n", fork(timeline)));
        timelines.push(Ancestry::parse(TimelineId(timeline + 1), history.as_bytes()).unwrap());
    }
    let mut wal: Vec<TimelineWal> = Vec::new();
    for object in (0..OBJECTS).filter(|object| object % 1000 != 999) {
        let timeline = timeline_of(object);
        if wal.last().is_none_or(|of| of.timeline != timeline) {
            let spans = WalSpans::default();
            wal.push(TimelineWal { timeline, spans, written: now, objects: 0, stored_bytes: 0 });
        }
        let of = wal.last_mut().unwrap();
        of.spans.add(LsnRange { start: lsn(object), end: lsn(object + 1) });
        of.objects += 1;
    }
    let backup = |index: u64| {
        let object = index * per_backup + 1;
        let timeline = timeline_of(object);
        let hours_ago = i64::try_from(BACKUPS - index).unwrap() * 8;
        BackupFacts {
            id: BackupId(Ulid(u128::from(index))),
            span: BackupSpan {
                start_timeline: timeline,
                start: lsn(object),
                stop_timeline: timeline,
                stop: Lsn(lsn(object).0 + 4096),
            },
            written: now - SignedDuration::from_hours(hours_ago),
            has_page_errors: index.is_multiple_of(97),
            is_doubted: false,
            is_damaged: index.is_multiple_of(89),
            is_verified: index.is_multiple_of(7),
            is_held: index.is_multiple_of(83),
            delete_asked: index.is_multiple_of(79),
            stored_bytes: 1000,
        }
    };
    LineFacts {
        now,
        segment_size: segment_size(),
        timelines,
        backups: (0..BACKUPS).map(backup).collect(),
        unread: Vec::new(),
        pins: Vec::new(),
        wal,
        unknown: Vec::new(),
    }
}

#[test]
fn ten_thousand_backups_and_a_million_objects_are_planned_in_seconds() {
    let began = Instant::now();
    let facts = facts();
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let keep = Keep { hourly: 2000, daily: 4000, weekly: 600, monthly: 120, yearly: 10 };
    let policies = [
        Policy { keep, zone: zone.clone(), ..window(14) },
        Policy { keep, zone, age: Some(days(3000)), ..last(5000) },
        window(3650),
        Policy::none(),
    ];
    for policy in policies {
        let plan = plan(&facts, &policy).unwrap();
        assert_eq!(plan.backups.len(), 10_000);
        assert!(plan.going().count() > 0, "some were asked for");
    }
    let (took, peak) = (began.elapsed(), peak_bytes());
    println!("four plans: {took:?}, peak {} MiB", peak >> 20);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(peak < 150_000_000, "{peak} bytes");
}
