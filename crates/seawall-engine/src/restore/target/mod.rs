mod abbreviations;
mod time;
mod written;

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
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

impl Target {
    /// The point that it names, whichever side of it is wanted.
    pub(in crate::restore) const fn point(&self) -> Option<&Point> {
        match self {
            Self::To(point) | Self::Before(point) => Some(point),
            Self::Latest | Self::BackupOnly => None,
        }
    }

    /// Whether a moment is past the time that is the target; the moment itself is with `To` and is not
    /// with `Before` (`recovery_target_inclusive`). `None` if the target is no time.
    pub(in crate::restore) fn is_past(&self, time: Timestamp) -> Option<bool> {
        match self {
            Self::To(Point::Time(wanted)) => Some(time > *wanted),
            Self::Before(Point::Time(wanted)) => Some(time >= *wanted),
            Self::To(_) | Self::Before(_) | Self::Latest | Self::BackupOnly => None,
        }
    }
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
    /// Reads what a user wrote: `lsn:0/5000148`, `xid:1004502`, `name:before_migration`, or a time:
    /// as RFC 3339 or PostgreSQL's log has it (`2026-01-02 14:29:59.5 CET`, `… +0545`), by the
    /// clocks of `zone` where none is named; `14:29`, `today 8:00`, `yesterday`, `now`,
    /// `5 minutes ago`. Words mean what they mean to PostgreSQL.
    ///
    /// # Errors
    /// [`Code::TargetInvalid`] for anything else, for a time that the clocks showed twice or never,
    /// and for an abbreviation of a zone that is another one to `zone` than to PostgreSQL.
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
            _ => time::read(text, zone, now)?.map(Self::Time).ok_or_else(|| not_a_time(text)),
        }
    }
}

/// How a point is written.
const EXAMPLES: &str = "Give a time such as `2026-01-02T14:29:59Z`, `2026-01-02 14:29:59.5`, \
     `yesterday 14:29` or `5 minutes ago`, or `lsn:0/5000148`, `xid:1004502` or \
     `name:before_upgrade`.";

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
    invalid(text).with_hint(EXAMPLES)
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

    fn moment(text: &str) -> String {
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
        for (text, utc) in [
            ("2026-01-02T14:29:59.5Z", "2026-01-02T14:29:59.5Z"),
            ("2026-01-02 14:29:59+02:00", "2026-01-02T12:29:59Z"),
            ("2026-01-02 14:29:59 +0545", "2026-01-02T08:44:59Z"),
            ("2026-01-02 14:29:59.5", "2026-01-02T13:29:59.5Z"),
            ("2026-01-02 14:29:59,123", "2026-01-02T13:29:59.123Z"),
            ("2026-01-02 9:29", "2026-01-02T08:29:00Z"),
            ("2026-01-02", "2026-01-01T23:00:00Z"),
            ("2026-01-02T14:29:59[America/New_York]", "2026-01-02T19:29:59Z"),
            ("2026-01-02 09:29:59 America/New_York", "2026-01-02T14:29:59Z"),
            ("2026-01-02 09:29:59-05:00 America/New_York", "2026-01-02T14:29:59Z"),
            ("2026-01-02 14:29:59 UTC", "2026-01-02T14:29:59Z"),
            ("2026-01-02 14:29:59 Z", "2026-01-02T14:29:59Z"),
            ("now", "2026-01-02T12:00:00Z"),
            ("5 minutes ago", "2026-01-02T11:55:00Z"),
            ("an hour ago", "2026-01-02T11:00:00Z"),
            ("90s ago", "2026-01-02T11:58:30Z"),
            ("1 day 2 hours ago", "2026-01-01T10:00:00Z"),
        ] {
            assert_eq!(moment(text), utc, "{text}");
        }
    }

    #[test]
    fn a_day_that_is_not_written_is_told_by_the_clock_that_is_meant() {
        for (text, utc) in [
            ("11:30", "2026-01-02T10:30:00Z"),
            ("8:00:30.25", "2026-01-02T07:00:30.25Z"),
            ("today 08:00", "2026-01-02T07:00:00Z"),
            ("today", "2026-01-01T23:00:00Z"),
            ("yesterday 8:00", "2026-01-01T07:00:00Z"),
            ("Yesterday", "2025-12-31T23:00:00Z"),
            // In Auckland it is the 3rd already, and in Honolulu still the 2nd.
            ("00:30 Pacific/Auckland", "2026-01-02T11:30:00Z"),
            ("01:30 HST", "2026-01-02T11:30:00Z"),
            ("01:30 +14", "2026-01-02T11:30:00Z"),
        ] {
            assert_eq!(moment(text), utc, "{text}");
        }
    }

    #[test]
    fn an_abbreviation_is_an_offset_whatever_the_season() {
        for (text, utc) in [
            ("2026-07-15 12:00:00 CET", "2026-07-15T11:00:00Z"),
            ("2026-07-15 12:00:00 cest", "2026-07-15T10:00:00Z"),
            ("2026-01-15 12:00:00 CEST", "2026-01-15T10:00:00Z"),
            ("2026-07-15 12:00:00 EST", "2026-07-15T17:00:00Z"),
            ("2026-07-15 12:00:00 MSK", "2026-07-15T09:00:00Z"),
            ("2026-10-25 02:30:00 CET", "2026-10-25T01:30:00Z"),
            ("2026-10-25 02:30:00 CEST", "2026-10-25T00:30:00Z"),
        ] {
            assert_eq!(moment(text), utc, "{text}");
        }
        // One that only the zone at hand has is that zone's, as it is to PostgreSQL 18.
        let jakarta = TimeZone::get("Asia/Jakarta").unwrap();
        let parsed = Point::parse("2026-07-15 12:00 WIB", &jakarta, now()).unwrap();
        assert_eq!(parsed, Point::Time("2026-07-15T05:00:00Z".parse().unwrap()));
        assert!(parse("2026-07-15 12:00 WIB").is_err());
    }

    /// The list says Israel and Central America; so did every PostgreSQL before 18.
    #[test]
    fn an_abbreviation_with_another_meaning_here_is_refused_with_both() {
        for (zone, text, here, list) in [
            ("Asia/Kolkata", "2026-07-15 12:00:00 IST", "+05:30", "+02:00"),
            ("Asia/Shanghai", "2026-07-15 12:00:00 CST", "+08:00", "-06:00"),
            ("Europe/Dublin", "2026-01-15 12:00:00 IST", "+01:00", "+02:00"),
        ] {
            let zone = TimeZone::get(zone).unwrap();
            let error = Point::parse(text, &zone, now()).unwrap_err();
            assert_eq!(error.code(), Code::TargetInvalid);
            let hint = format!("{:?}", error.hint());
            assert!(hint.contains(here) && hint.contains(list), "{text}: {hint}");
        }
    }

    #[test]
    fn what_is_not_a_point_is_refused_with_an_example() {
        for text in [
            "",
            "tomorrow",
            "lsn:5000148",
            "lsn:",
            "xid:",
            "xid:2",
            "xid:-1",
            "name:",
            "14",
            "2026-02-30 00:00:00",
            "2026-01-02 14:29:60",
            "-5 minutes ago",
            "in 5 minutes",
            "minutes ago",
            "2026-01-02 14:29:59 XYZ",
            "2026-01-02 14:29:59 UTC+3",
            "2026-01-02 09:29:59+05:00 America/New_York",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.code(), Code::TargetInvalid, "{text}");
            assert!(error.hint().is_some(), "{text}");
        }
    }

    #[test]
    fn the_part_of_a_time_that_is_not_understood_is_named() {
        for (text, part) in [
            ("5 mintues ago", "\"5 mintues\" is no span of time"),
            ("2026-02-30 12:00", "\"2026-02-30\" is no day"),
            ("2026-01-02 25:00", "\"25:00\" is no time of day"),
            ("14:5", "\"14:5\" is no time of day"),
            ("yesterday 14:5", "\"14:5\" is no time of day"),
            ("2026-01-02 14:29 é", "\"é\" is no zone or offset"),
            ("14:29 Nowhere/Land", "there is no time zone Nowhere/Land"),
        ] {
            let told = parse(text).unwrap_err().to_string();
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn a_position_or_a_number_alone_is_told_how_to_be_written() {
        for (text, word) in [("0/3000060", "`lsn:0/3000060`"), ("1004502", "`xid:1004502`")] {
            let error = parse(text).unwrap_err();
            assert!(format!("{:?}", error.hint()).contains(word), "{error:?}");
        }
    }

    #[test]
    fn local_times_that_clocks_showed_twice_or_never_are_refused_with_both_offsets() {
        for (text, offsets) in [
            (
                "2026-10-25 02:30:00",
                ["`2026-10-25 02:30:00+02:00` (2026-10-25 00:30:00Z)", "02:30:00+01:00"],
            ),
            ("2026-03-29 02:30", ["`2026-03-29 02:30:00+01:00`", "`2026-03-29 02:30:00+02:00`"]),
            ("2026-11-01 01:30 America/New_York", ["01:30:00-04:00", "01:30:00-05:00"]),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code(), Code::TargetInvalid);
            let hint = format!("{:?}", error.hint());
            assert!(offsets.iter().all(|offset| hint.contains(offset)), "{text}: {hint}");
        }
        assert_eq!(moment("2026-10-25T02:30:00+02:00"), "2026-10-25T00:30:00Z");
    }
}
