//! A year and more of dailies, by the calendar of a place where clocks are changed.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use seawall_repo::retention::{Keep, Policy};

use super::world::World;

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn by_calendar(keep: Keep) -> Policy {
    Policy { keep, zone: berlin(), ..Policy::none() }
}

/// Days on which a backup is made, at half past two in the night where there is such a time.
fn nights(from: Date, count: usize) -> Vec<Timestamp> {
    let half_past_two = |day: Date| day.at(2, 30, 0, 0).to_zoned(berlin()).unwrap().timestamp();
    from.series(1.day()).take(count).map(half_past_two).collect()
}

/// Makes and prunes every night.
fn live(nights: &[Timestamp], policy: &Policy) -> World {
    let mut world = World::new("2027-01-01T00:00:00Z");
    for night in nights {
        world.now = *night;
        world.write(1 << 20, true);
        world.backup();
        world.prune(policy);
    }
    world
}

fn day_of(at: Timestamp) -> Date {
    at.to_zoned(berlin()).date()
}

/// What is promised, worked out day by day: the newest periods that have a backup, the first of each.
fn promised<K: Ord + Copy>(days: &[Date], count: usize, key: impl Fn(Date) -> K) -> BTreeSet<Date> {
    let newest: BTreeSet<K> = days
        .iter()
        .map(|day| key(*day))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .rev()
        .take(count)
        .collect();
    let first = |period: K| days.iter().copied().find(|day| key(*day) == period).unwrap();
    newest.into_iter().map(first).collect()
}

#[test]
fn a_year_of_dailies_over_clock_changes_and_leap_days_keeps_what_is_promised() {
    let keep = Keep { hourly: 0, daily: 7, weekly: 5, monthly: 12, yearly: 3 };
    // From a Thursday; 2028 has a leap day, and ISO week 1 of 2029 begins on its first day.
    let from = Date::constant(2027, 12, 2);
    for length in [1, 6, 31, 88, 89, 90, 116, 117, 332, 333, 396, 430] {
        let nights = nights(from, length);
        let world = live(&nights, &by_calendar(keep));
        let days: Vec<Date> = nights.iter().map(|night| day_of(*night)).collect();
        let mut expected = promised(&days, 7, |day| day);
        expected.extend(promised(&days, 5, |day| {
            let week = day.iso_week_date();
            (week.year(), week.week())
        }));
        expected.extend(promised(&days, 12, |day| (day.year(), day.month())));
        expected.extend(promised(&days, 3, Date::year));
        let kept: BTreeSet<Date> = world.backups.iter().map(|it| day_of(it.written)).collect();
        assert_eq!(kept, expected, "after {length} nights");
    }
}

#[test]
fn the_first_of_a_period_stands_from_day_to_day() {
    let policy = by_calendar(Keep { weekly: 2, ..Keep::NONE });
    let nights = nights(Date::constant(2026, 3, 2), 30);
    let mut chosen = BTreeSet::new();
    for length in 1..=nights.len() {
        let world = live(&nights[..length], &policy);
        chosen.extend(
            world
                .backups
                .iter()
                .map(|it| day_of(it.written))
                .filter(|day| *day != day_of(nights[length - 1])),
        );
    }
    // Mondays, and the newest of each night, which is the last good one.
    let mondays: BTreeSet<Date> = chosen
        .iter()
        .copied()
        .filter(|day| day.weekday() == jiff::civil::Weekday::Monday)
        .collect();
    assert_eq!(chosen, mondays);
}

#[test]
fn an_hour_that_comes_twice_is_two_and_one_that_is_left_out_is_none() {
    let hourly = |from: &str, count: i32| {
        let from: Timestamp = from.parse().unwrap();
        let hours: Vec<Timestamp> =
            (0..count).map(|hour| from + jiff::SignedDuration::from_hours(hour.into())).collect();
        live(&hours, &by_calendar(Keep { hourly: 4, ..Keep::NONE })).backups.len()
    };
    // 00:30 to 03:30 UTC: in October 02:30, 02:30 again, 03:30, 04:30.
    assert_eq!(hourly("2026-10-25T00:30:00Z", 4), 4);
    assert_eq!(hourly("2026-10-25T00:30:00Z", 5), 4);
    // In March 01:30, 03:30, 04:30, 05:30.
    assert_eq!(hourly("2026-03-29T00:30:00Z", 4), 4);
}

#[test]
fn the_calendar_is_that_of_the_zone() {
    // 23:30 UTC on the 31st is the 1st in Berlin.
    let nights: Vec<Timestamp> =
        ["2026-05-31T20:00:00Z", "2026-05-31T23:30:00Z", "2026-06-02T00:00:00Z"]
            .map(|at| at.parse().unwrap())
            .to_vec();
    let keep = Keep { monthly: 1, ..Keep::NONE };
    let local = live(&nights, &by_calendar(keep));
    assert_eq!(local.backups[0].written, nights[1]);
    let utc = live(&nights, &Policy { keep, ..Policy::none() });
    assert_eq!(utc.backups[0].written, nights[2]);
}

#[test]
fn where_backups_stop_nothing_goes() {
    let policy = by_calendar(Keep { daily: 3, monthly: 2, ..Keep::NONE });
    let mut world = live(&nights(Date::constant(2026, 1, 20), 30), &policy);
    let count = world.backups.len();
    world.wait_hours(24 * 3650);
    world.prune(&policy);
    assert_eq!(world.backups.len(), count);
}
