use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, InvalidByteSize};

/// The word for no limit.
const NONE: &str = "none";

/// How many bytes a second a job may move, and when: `none`, `50MB/s`,
/// `50MB/s 08:00-20:00 Europe/Berlin`. Serialised as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RateLimit(Option<Limit>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    bytes_per_s: u64,
    window: Option<Window>,
    /// As it was written.
    text: String,
}

/// Hours of every day; over midnight if it ends before it begins, all of them if it ends as it
/// begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    from: Time,
    to: Time,
    zone: TimeZone,
}

/// The text is no limit, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRateLimit {
    text: String,
    problem: String,
}

impl fmt::Display for InvalidRateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, problem } = self;
        write!(
            f,
            "\"{text}\" is no rate: {problem}; such as none, 50MB/s, or 50MB/s 08:00-20:00 Europe/Berlin"
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

impl From<RateLimit> for String {
    fn from(limit: RateLimit) -> Self {
        limit.0.map_or_else(|| NONE.to_owned(), |limit| limit.text)
    }
}

impl TryFrom<String> for RateLimit {
    type Error = InvalidRateLimit;

    fn try_from(text: String) -> Result<Self, InvalidRateLimit> {
        text.parse()
    }
}

impl FromStr for RateLimit {
    type Err = InvalidRateLimit;

    fn from_str(text: &str) -> Result<Self, InvalidRateLimit> {
        parse(text).map_err(|problem| InvalidRateLimit { text: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<RateLimit, String> {
    if text.trim() == NONE {
        return Ok(RateLimit::NONE);
    }
    let mut words = text.split_whitespace();
    let (rate, hours, zone) = (words.next().unwrap_or_default(), words.next(), words.next());
    if let Some(more) = words.next() {
        return Err(format!("{more} is a word too many"));
    }
    let size = rate.strip_suffix("/s").ok_or_else(|| format!("{rate} does not end in /s"))?;
    let ByteSize(bytes_per_s) = size.parse().map_err(|error: InvalidByteSize| error.to_string())?;
    if bytes_per_s == 0 {
        return Err("at 0 nothing would ever be done".to_owned());
    }
    let window = hours.map(|hours| window(hours, zone)).transpose()?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(RateLimit(Some(Limit { bytes_per_s, window, text })))
}

/// `08:00-20:00` in a zone, or in the host's.
fn window(hours: &str, zone: Option<&str>) -> Result<Window, String> {
    let (from, to) = hours.split_once('-').ok_or_else(|| format!("{hours} are no hours"))?;
    let time = |text: &str| match text {
        "24:00" => Ok(Time::midnight()),
        _ => Time::strptime("%H:%M", text).map_err(|_| format!("there is no time {text}")),
    };
    let zone = match zone {
        Some(name) => TimeZone::get(name).map_err(|_| format!("there is no time zone {name}"))?,
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
    fn a_limit_travels_as_it_was_written() {
        for text in ["none", "50MB/s", "4MiB/s 08:00-20:00 Europe/Berlin"] {
            let limit: RateLimit = text.parse().unwrap();
            let written = serde_json::to_string(&limit).unwrap();
            assert_eq!(written, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<RateLimit>(&written).unwrap(), limit);
        }
        assert!(serde_json::from_str::<RateLimit>("\"fast\"").is_err());
    }

    #[test]
    fn what_is_no_limit_is_refused_with_the_part_that_is_wrong() {
        for (text, problem) in [
            ("", "does not end in /s"),
            ("50", "50 does not end in /s"),
            ("50MB", "50MB does not end in /s"),
            ("50 MB/s", "50 does not end in /s"),
            ("MB/s", "MB"),
            ("0MB/s", "nothing would ever be done"),
            ("50MB/s 8-20", "there is no time 8"),
            ("50MB/s 08:00", "08:00 are no hours"),
            ("50MB/s 25:00-26:00", "there is no time 25:00"),
            ("50MB/s 08:00-20:00 Europe/Atlantis", "there is no time zone Europe/Atlantis"),
            ("50MB/s 08:00-20:00 UTC daily", "daily is a word too many"),
            ("none at all", "none does not end in /s"),
        ] {
            let error = text.parse::<RateLimit>().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
