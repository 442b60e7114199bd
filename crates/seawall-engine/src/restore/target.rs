use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use seawall_core::{Code, Error, Lsn, Result};

/// How far a restore goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All WAL that is archived.
    Latest,
    /// Only as far as the backup needs to be consistent.
    BackupOnly,
    /// Up to a point, which is included.
    To(Point),
    /// Up to a point, which is left out.
    Before(Point),
}

/// A point in the history of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// A moment by the server's clock: the first transaction that ended later decides.
    Time(Timestamp),
    /// A position in the log: the first record that starts there or later.
    Lsn(Lsn),
    /// A transaction, by the lower 32 bits of its number.
    Xid(u64),
    /// A restore point.
    Name(String),
}

impl Point {
    /// Reads what a user wrote: `lsn:0/5000148`, `xid:1004502`, `name:before_migration`, an
    /// RFC 3339 time, a local time such as `2026-01-02 14:29:59.5`, or `5 minutes ago`.
    ///
    /// # Errors
    /// [`Code::TargetInvalid`] for anything else, and for a local time that the clocks of `zone`
    /// showed twice or never.
    pub fn parse(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Self> {
        let text = text.trim();
        match text.split_once(':') {
            Some(("lsn", lsn)) => lsn.parse().map(Self::Lsn).map_err(|error| {
                invalid(text).with_source(error).with_hint("Write it as in `lsn:0/5000148`.")
            }),
            Some(("xid", xid)) => match xid.parse() {
                // Numbers below 3 are not given to transactions (FirstNormalTransactionId).
                Ok(xid) if xid >= 3 => Ok(Self::Xid(xid)),
                _ => Err(invalid(text).with_hint("Write it as in `xid:1004502`.")),
            },
            // A restore point's name has at most 63 bytes (MAXFNAMELEN, xlog_internal.h).
            Some(("name", name)) if !name.is_empty() && name.len() < 64 => {
                Ok(Self::Name(name.to_owned()))
            }
            Some(("name", _)) => Err(invalid(text).with_hint(
                "A restore point's name has 1 to 63 bytes, as in `name:before_upgrade`.",
            )),
            _ => time(text, zone, now).map(Self::Time),
        }
    }
}

fn time(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Timestamp> {
    if let Some(ago) = text.strip_suffix(" ago") {
        return time_ago(ago, zone, now).ok_or_else(|| not_a_time(text));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Some(utc) = [" UTC", " utc", " Z"].iter().find_map(|zone| text.strip_suffix(zone)) {
        let time = utc.parse::<DateTime>().and_then(|time| time.to_zoned(TimeZone::UTC));
        return time.map(|time| time.timestamp()).map_err(|_| not_a_time(text));
    }
    if text.contains('[') {
        return text.parse::<Zoned>().map(|time| time.timestamp()).map_err(|_| not_a_time(text));
    }
    // As plans show times.
    if let Some((moment, name)) = text.rsplit_once(' ')
        && let Ok(named) = TimeZone::get(name)
    {
        return match moment.parse::<Timestamp>() {
            Ok(_) => {
                let both = format!("{moment}[{name}]").parse::<Zoned>();
                both.map(|time| time.timestamp()).map_err(|_| not_a_time(text))
            }
            Err(_) => time(moment, &named, now),
        };
    }
    let local: DateTime = text.parse().map_err(|_| not_a_time(text))?;
    let resolved = zone.to_ambiguous_zoned(local);
    if resolved.is_ambiguous() {
        let utc = |shift: Result<Zoned, jiff::Error>| {
            shift.map_or_else(|_| "?".to_owned(), |time| time.timestamp().to_string())
        };
        let (earlier, later) = (utc(resolved.clone().earlier()), utc(resolved.later()));
        return Err(Error::new(
            Code::TargetInvalid,
            format!("the clocks were changed at \"{text}\", so it is not one moment"),
        )
        .with_hint(format!("Give the time with its offset, such as `{earlier}` or `{later}`.")));
    }
    resolved.unambiguous().map(|time| time.timestamp()).map_err(|_| not_a_time(text))
}

fn time_ago(span: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let span: Span = span.trim().parse().ok()?;
    let then = now.to_zoned(zone.clone()).checked_sub(span).ok()?.timestamp();
    (then <= now).then_some(then)
}

fn invalid(text: &str) -> Error {
    Error::new(Code::TargetInvalid, format!("\"{text}\" is not a point to restore to"))
}

fn not_a_time(text: &str) -> Error {
    if text.contains('/') && text.parse::<Lsn>().is_ok() {
        return invalid(text).with_hint(format!("If it is an LSN, write `lsn:{text}`."));
    }
    if text.parse::<u64>().is_ok() {
        return invalid(text).with_hint(format!("If it is a transaction, write `xid:{text}`."));
    }
    invalid(text).with_hint(
        "Give a time such as `2026-01-02T14:29:59Z`, `2026-01-02 14:29:59.5` or `5 minutes ago`, \
         or `lsn:0/5000148`, `xid:1004502` or `name:before_upgrade`.",
    )
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the end of the archive"),
            Self::BackupOnly => f.write_str("the end of the backup"),
            Self::To(point) => write!(f, "up to and with {point}"),
            Self::Before(point) => write!(f, "just before {point}"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{time}"),
            Self::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
            Self::Name(name) => write!(f, "restore point \"{name}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn parse(text: &str) -> Result<Point> {
        Point::parse(text, &berlin(), now())
    }

    fn time(text: &str) -> String {
        match parse(text).unwrap() {
            Point::Time(time) => time.to_string(),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn every_way_to_name_a_point_is_read() {
        assert_eq!(parse("lsn:2A/5000148").unwrap(), Point::Lsn(Lsn(0x2A_0500_0148)));
        assert_eq!(parse("xid:1004502").unwrap(), Point::Xid(1_004_502));
        assert_eq!(parse("xid:8589934600").unwrap(), Point::Xid(8_589_934_600));
        assert_eq!(parse("name:a: b").unwrap(), Point::Name("a: b".to_owned()));
        assert_eq!(time("2026-01-02T14:29:59.5Z"), "2026-01-02T14:29:59.5Z");
        assert_eq!(time("2026-01-02 14:29:59+02:00"), "2026-01-02T12:29:59Z");
        assert_eq!(time("2026-01-02 14:29:59.5"), "2026-01-02T13:29:59.5Z");
        assert_eq!(time("2026-01-02T14:29:59[America/New_York]"), "2026-01-02T19:29:59Z");
        for new_york in
            ["2026-01-02 09:29:59 America/New_York", "2026-01-02 09:29:59-05:00 America/New_York"]
        {
            assert_eq!(time(new_york), "2026-01-02T14:29:59Z", "{new_york}");
        }
        for utc in ["2026-01-02 14:29:59Z", "2026-01-02 14:29:59 UTC", "2026-01-02 14:29:59 Z"] {
            assert_eq!(time(utc), "2026-01-02T14:29:59Z", "{utc}");
        }
        assert_eq!(time("5 minutes ago"), "2026-01-02T11:55:00Z");
        assert_eq!(time("1 day 2 hours ago"), "2026-01-01T10:00:00Z");
    }

    #[test]
    fn what_is_not_a_point_is_refused_with_an_example() {
        for text in [
            "",
            "yesterday",
            "lsn:5000148",
            "lsn:",
            "xid:",
            "xid:2",
            "xid:-1",
            "name:",
            "14:30",
            "2026-02-30 00:00:00",
            "-5 minutes ago",
            "in 5 minutes",
            "minutes ago",
            "2026-01-02 14:29:59 XYZ",
            "2026-01-02 09:29:59+05:00 America/New_York",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.code(), Code::TargetInvalid, "{text}");
            assert!(error.hint().is_some(), "{text}");
        }
    }

    #[test]
    fn a_position_or_a_number_alone_is_told_how_to_be_written() {
        for (text, word) in [("0/3000060", "`lsn:0/3000060`"), ("1004502", "`xid:1004502`")] {
            let error = parse(text).unwrap_err();
            assert!(error.hint().is_some_and(|hint| hint.contains(word)), "{error:?}");
        }
    }

    #[test]
    fn local_times_that_clocks_showed_twice_or_never_are_refused() {
        let twice = parse("2026-10-25 02:30:00").unwrap_err();
        assert_eq!(twice.code(), Code::TargetInvalid);
        let hint = twice.hint().unwrap_or_default();
        assert!(hint.contains("2026-10-25T00:30:00Z"), "{hint}");
        assert!(hint.contains("2026-10-25T01:30:00Z"), "{hint}");
        let never = parse("2026-03-29 02:30:00").unwrap_err();
        assert_eq!(never.code(), Code::TargetInvalid);
        assert_eq!(time("2026-10-25T02:30:00+02:00"), "2026-10-25T00:30:00Z");
    }
}
