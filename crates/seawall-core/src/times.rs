use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// An instant in UTC, to the second: `2026-01-02 14:29:59Z`.
#[must_use]
pub fn shown_utc(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A duration in the two units that matter: `3 h 12 min`.
#[must_use]
pub fn shown_duration(duration: Duration) -> String {
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

/// Seconds that were computed or told. What is no number, or too large for one, is not nothing.
#[must_use]
pub fn seconds_of(seconds: f64) -> Duration {
    if seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
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
            assert_eq!(shown_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn an_instant_is_shown_in_utc_to_the_second() {
        let time: Timestamp = "2026-01-02T15:29:59.5+01".parse().unwrap();
        assert_eq!(shown_utc(time), "2026-01-02 14:29:59Z");
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
