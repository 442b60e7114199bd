use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use seawall_core::{seconds_of, shown_duration as duration, shown_utc as utc};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_every_zone_once() {
        let time: Timestamp = "2026-01-02T14:29:59.5Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let shown = zones(time, Some(&berlin));
        assert!(shown.starts_with("2026-01-02 14:29:59.5Z"), "{shown}");
        assert!(shown.contains("2026-01-02 15:29:59.5+01:00 Europe/Berlin"), "{shown}");
        assert_eq!(shown.matches("Berlin").count(), 1);
    }
}
