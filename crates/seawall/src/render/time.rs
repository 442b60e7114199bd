use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// An instant in UTC, to the second: `2026-01-02 14:29:59Z`.
pub fn utc(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// An instant in UTC, in the local zone and in the server's, each once.
pub fn zones(time: Timestamp, server: Option<&TimeZone>) -> String {
    let mut shown = vec![precise(time, &TimeZone::UTC)];
    for zone in [Some(&TimeZone::system()), server].into_iter().flatten() {
        let text = precise(time, zone);
        let same = zone.to_offset(time) == jiff::tz::Offset::UTC || shown.contains(&text);
        if !same {
            shown.push(text);
        }
    }
    shown.join(" = ")
}

fn precise(time: Timestamp, zone: &TimeZone) -> String {
    let zoned = time.to_zoned(zone.clone());
    if zone.to_offset(time) == jiff::tz::Offset::UTC {
        return zoned.strftime("%Y-%m-%d %H:%M:%S%.fZ").to_string();
    }
    let name = zone.iana_name().map_or_else(String::new, |name| format!(" {name}"));
    format!("{}{name}", zoned.strftime("%Y-%m-%d %H:%M:%S%.f%:z"))
}

/// How long ago something was: `3 h 12 min`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    duration(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Seconds that were computed or told. What is no number, or too large for one, is not nothing.
pub fn seconds_of(seconds: f64) -> Duration {
    if seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// A duration in the two units that matter.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{:.1} s", duration.as_secs_f64()),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_two_units_that_matter() {
        for (millis, text) in [
            (800, "0.8 s"),
            (12_100, "12 s"),
            (61_000, "1 min 1 s"),
            (7_500_000, "2 h 5 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_time_is_shown_in_every_zone_once() {
        let time: Timestamp = "2026-01-02T14:29:59.5Z".parse().unwrap();
        assert_eq!(utc(time), "2026-01-02 14:29:59Z");
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let shown = zones(time, Some(&berlin));
        assert!(shown.starts_with("2026-01-02 14:29:59.5Z"), "{shown}");
        assert!(shown.contains("2026-01-02 15:29:59.5+01:00 Europe/Berlin"), "{shown}");
        assert_eq!(shown.matches("Berlin").count(), 1);
    }

    #[test]
    fn what_is_no_number_of_seconds_is_too_long() {
        assert_eq!(seconds_of(1.5), Duration::from_millis(1500));
        assert_eq!(seconds_of(-1.0), Duration::ZERO, "a clock was set back");
        for endless in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(seconds_of(endless), Duration::MAX);
        }
    }
}
