use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::ByteSize;

/// How many bytes a second a job may move, and when: `none`, `50MB/s`,
/// `50MB/s 08:00-20:00 Europe/Berlin`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimit(Option<Limit>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    bytes_per_s: u64,
    window: Option<Window>,
}

/// Hours of every day; over midnight if it ends before it begins, all of them if it ends as it
/// begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    from: Time,
    to: Time,
    zone: TimeZone,
}

/// The text is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRateLimit(String);

impl fmt::Display for InvalidRateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not a rate such as 50MB/s, none, or 50MB/s 08:00-20:00 Europe/Berlin",
            self.0
        )
    }
}

impl std::error::Error for InvalidRateLimit {}

impl RateLimit {
    /// No limit, ever.
    pub const NONE: Self = Self(None);

    /// The limit at a moment, in bytes a second.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<u64> {
        let limit = self.0.as_ref()?;
        let Some(Window { from, to, zone }) = &limit.window else { return Some(limit.bytes_per_s) };
        let time = now.to_zoned(zone.clone()).time();
        let within =
            if from < to { *from <= time && time < *to } else { time >= *from || time < *to };
        within.then_some(limit.bytes_per_s)
    }
}

impl FromStr for RateLimit {
    type Err = InvalidRateLimit;

    fn from_str(text: &str) -> Result<Self, InvalidRateLimit> {
        let invalid = || InvalidRateLimit(text.to_owned());
        if text.trim() == "none" {
            return Ok(Self::NONE);
        }
        let mut words = text.split_whitespace();
        let rate = words.next().and_then(|word| word.strip_suffix("/s")).ok_or_else(invalid)?;
        let ByteSize(bytes_per_s) = rate.parse().map_err(|_| invalid())?;
        let window = words.next().map(|hours| window(hours, words.next())).transpose();
        let window = window.map_err(|()| invalid())?;
        if bytes_per_s == 0 || words.next().is_some() {
            return Err(invalid());
        }
        Ok(Self(Some(Limit { bytes_per_s, window })))
    }
}

/// `08:00-20:00` in a zone, or in the host's.
fn window(hours: &str, zone: Option<&str>) -> Result<Window, ()> {
    let (from, to) = hours.split_once('-').ok_or(())?;
    let time = |text: &str| match text {
        "24:00" => Ok(Time::midnight()),
        _ => Time::strptime("%H:%M", text).map_err(|_| ()),
    };
    let zone = match zone {
        Some(name) => TimeZone::get(name).map_err(|_| ())?,
        None => TimeZone::system(),
    };
    Ok(Window { from: time(from)?, to: time(to)?, zone })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(limit: &str, time: &str) -> Option<u64> {
        limit.parse::<RateLimit>().unwrap().at(time.parse().unwrap())
    }

    #[test]
    fn a_limit_holds_always_or_within_its_hours() {
        assert_eq!(at("none", "2026-07-01T12:00:00Z"), None);
        assert_eq!(at("50MB/s", "2026-07-01T12:00:00Z"), Some(50_000_000));
        let day = "4MiB/s 08:00-20:00 Europe/Berlin";
        // Two hours ahead in summer, one in winter.
        assert_eq!(at(day, "2026-07-01T06:00:00Z"), Some(4 << 20));
        assert_eq!(at(day, "2026-07-01T05:59:59Z"), None);
        assert_eq!(at(day, "2026-01-01T06:00:00Z"), None);
        assert_eq!(at(day, "2026-07-01T18:00:00Z"), None);
        let night = "1GB/s 22:00-06:00 UTC";
        assert_eq!(at(night, "2026-07-01T23:00:00Z"), Some(1_000_000_000));
        assert_eq!(at(night, "2026-07-01T05:00:00Z"), Some(1_000_000_000));
        assert_eq!(at(night, "2026-07-01T12:00:00Z"), None);
        assert_eq!(at("1GB/s 08:00-24:00 UTC", "2026-07-01T23:59:00Z"), Some(1_000_000_000));
        assert_eq!(at("1GB/s 08:00-24:00 UTC", "2026-07-01T07:59:00Z"), None);
        assert_eq!(at("1GB/s 00:00-00:00 UTC", "2026-07-01T12:00:00Z"), Some(1_000_000_000));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for text in [
            "",
            "50",
            "50MB",
            "MB/s",
            "0MB/s",
            "50MB/s 8-20",
            "50MB/s 08:00",
            "50MB/s 25:00-26:00",
            "50MB/s 08:00-20:00 Europe/Atlantis",
            "50MB/s 08:00-20:00 UTC daily",
            "none at all",
        ] {
            assert!(text.parse::<RateLimit>().is_err(), "{text}");
        }
    }
}
