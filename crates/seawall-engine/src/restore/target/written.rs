//! A time as it was typed, or copied from a log, taken apart.

use jiff::civil::{Date, Time};
use jiff::tz::Offset;

/// What stands in a text, before anybody knows what zone and which day it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written<'a> {
    pub day: Day,
    pub time: Time,
    pub place: ZoneOf<'a>,
}

/// Which day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Day {
    Date(Date),
    Today,
    Yesterday,
    /// Only a time of day is given.
    Unsaid,
}

/// Whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZoneOf<'a> {
    /// The clock at hand.
    Local,
    /// One that is so far ahead of UTC.
    Offset(Offset),
    /// An abbreviation, or the name of a zone.
    Named(&'a str),
    /// The name of a zone, and how far its clock is ahead of UTC then.
    Both(Offset, &'a str),
}

/// The most that PostgreSQL takes for an offset: 15:59:59 (`MAX_TZDISP_HOUR`, timestamp.h).
const MAX_OFFSET_HOURS: i32 = 15;

/// What is wrong with a text that begins as a time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misread<'a> {
    /// The part that is not understood.
    pub part: &'a str,
    /// What it should be.
    pub wanted: &'static str,
}

impl<'a> Written<'a> {
    /// Takes a text apart.
    ///
    /// # Errors
    /// The part that is not understood; none if it is no time at all.
    pub(super) fn read(text: &'a str) -> Result<Self, Option<Misread<'a>>> {
        let text = without_process(text);
        let mut rest = Rest(text);
        let misread = |part: &'a str, wanted| Some(Misread { part: part.trim(), wanted });
        let first = text.split([' ', 'T', 't']).next().unwrap_or(text);
        let (day, is_basic) = rest.day().ok_or_else(|| {
            let is_date = first.starts_with(|first: char| first.is_ascii_digit());
            misread(first, "day, as in 2026-01-02").filter(|_| is_date)
        })?;
        let at = rest.0;
        let time = match day {
            Day::Unsaid => rest.time(false).ok_or_else(|| {
                misread(first, "time of day, as in 14:29:59.5").filter(|_| first.contains(':'))
            })?,
            _ if rest.begins_time() => {
                rest.time(is_basic).ok_or(misread(at, "time of day, as in 14:29:59.5"))?
            }
            // `yesterday`, `2026-01-02 UTC`: its first moment.
            _ if rest.0.is_empty() || rest.0.starts_with(char::is_whitespace) => Time::midnight(),
            _ => return Err(misread(at, "time of day, as in 14:29:59.5")),
        };
        let at = rest.0;
        let place = rest.place().ok_or(misread(at, "zone or offset, as in UTC or +02:00"))?;
        Ok(Self { day, time, place })
    }
}

/// A line of PostgreSQL's log goes on with the process behind the time (`log_line_prefix`, `%m [%p]`).
fn without_process(text: &str) -> &str {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.strip_suffix(']').and_then(|text| text.rsplit_once(" [")) {
        Some((time, process)) if number(process) => time.trim_end(),
        _ => text,
    }
}

/// What is not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Whether what follows is as wanted; it is passed over then.
    fn skip(&mut self, wanted: char) -> bool {
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let found = self.0.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word));
        if found {
            self.0 = self.0.get(word.len()..).unwrap_or_default();
        }
        found
    }

    /// All digits that follow, however many.
    fn digits(&mut self) -> &'a str {
        let end = self.0.find(|next: char| !next.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        digits
    }

    /// A number of so many digits.
    fn number<T: std::str::FromStr>(&mut self, min: usize, max: usize) -> Option<T> {
        let digits = self.digits();
        let fits = (min..=max).contains(&digits.len());
        digits.parse().ok().filter(|_| fits)
    }

    /// The day, and whether it is written without hyphens, as then the time may be without colons.
    fn day(&mut self) -> Option<(Day, bool)> {
        if self.skip_word("today") {
            return Some((Day::Today, false));
        }
        if self.skip_word("yesterday") {
            return Some((Day::Yesterday, false));
        }
        let text = self.0;
        let digits = self.digits();
        if digits.len() == 8 {
            let year = digits.get(..4)?.parse().ok()?;
            let (month, day) = (digits.get(4..6)?.parse().ok()?, digits.get(6..)?.parse().ok()?);
            return Some((Day::Date(Date::new(year, month, day).ok()?), true));
        }
        if !self.skip('-') {
            self.0 = text;
            return Some((Day::Unsaid, false));
        }
        let year = digits.parse().ok().filter(|_| digits.len() == 4)?;
        let month = self.number(1, 2)?;
        let day = self.skip('-').then(|| self.number(1, 2)).flatten()?;
        Some((Day::Date(Date::new(year, month, day).ok()?), false))
    }

    /// Whether a time of day follows a day; what divides them is passed over then.
    fn begins_time(&mut self) -> bool {
        let text = self.0;
        self.0 = self.0.trim_start();
        let divided = (self.skip('T') || self.skip('t')) || self.0.len() < text.len();
        let begins = divided && self.0.starts_with(|next: char| next.is_ascii_digit());
        if !begins {
            self.0 = text;
        }
        begins
    }

    /// `8:00`, `08:00:00`, with a fraction after a point or, as some logs have it, a comma.
    fn time(&mut self, may_be_basic: bool) -> Option<Time> {
        let digits = self.digits();
        if may_be_basic && matches!(digits.len(), 4 | 6) {
            let two = |from: usize| digits.get(from..from + 2)?.parse().ok();
            let second = if digits.len() == 6 { two(4)? } else { 0 };
            return Time::new(two(0)?, two(2)?, second, self.fraction()?).ok();
        }
        let hour = digits.parse().ok().filter(|_| matches!(digits.len(), 1 | 2))?;
        let minute = self.skip(':').then(|| self.number(2, 2)).flatten()?;
        let (mut second, mut nanosecond) = (0, 0);
        if self.skip(':') {
            second = self.number(2, 2)?;
            nanosecond = self.fraction()?;
        }
        Time::new(hour, minute, second, nanosecond).ok()
    }

    /// Nanoseconds.
    fn fraction(&mut self) -> Option<i32> {
        if !(self.skip('.') || self.skip(',')) {
            return Some(0);
        }
        let digits = self.digits();
        if !(1..=9).contains(&digits.len()) {
            return None;
        }
        format!("{digits:0<9}").parse().ok()
    }

    fn place(&mut self) -> Option<ZoneOf<'a>> {
        self.0 = self.0.trim();
        if self.0.is_empty() {
            return Some(ZoneOf::Local);
        }
        if !self.0.starts_with(['+', '-']) {
            return self.name().map(ZoneOf::Named);
        }
        let offset = self.offset()?;
        self.0 = self.0.trim_start();
        if self.0.is_empty() {
            return Some(ZoneOf::Offset(offset));
        }
        self.name().map(|name| ZoneOf::Both(offset, name))
    }

    /// `+02`, `+0200`, `+02:00`, and the seconds that some zones once had.
    fn offset(&mut self) -> Option<Offset> {
        let sign = if self.skip('-') { -1 } else { 1 };
        self.skip('+');
        let digits = self.digits();
        let number = |digits: &str| digits.parse::<i32>().ok();
        let (hours, mut minutes, mut seconds) = match digits.len() {
            1 | 2 => (number(digits)?, 0, 0),
            3 | 4 => {
                let (hours, minutes) = digits.split_at(digits.len() - 2);
                (number(hours)?, number(minutes)?, 0)
            }
            _ => return None,
        };
        if digits.len() <= 2 && self.skip(':') {
            minutes = self.number(2, 2)?;
            if self.skip(':') {
                seconds = self.number(2, 2)?;
            }
        }
        let possible = hours <= MAX_OFFSET_HOURS && minutes < 60 && seconds < 60;
        let seconds = sign * (hours * 3600 + minutes * 60 + seconds);
        Offset::from_seconds(seconds).ok().filter(|_| possible)
    }

    /// `Europe/Berlin`, `[Europe/Berlin]`, `CEST`.
    fn name(&self) -> Option<&'a str> {
        let bracketed = self.0.strip_prefix('[').map(|name| name.strip_suffix(']'));
        let name = bracketed.unwrap_or(Some(self.0))?;
        let possible = |next: char| next.is_ascii_alphanumeric() || "/_+-".contains(next);
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
        (begins && name.chars().all(possible)).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_whole_or_not_at_all() {
        let read = |text: &'static str| Written::read(text).ok();
        let noon = Time::constant(12, 0, 0, 0);
        let date = Day::Date(Date::constant(2026, 1, 2));
        let written = |day, place| Some(Written { day, time: noon, place });
        assert_eq!(read("2026-01-02 12:00"), written(date, ZoneOf::Local));
        assert_eq!(read("20260102T1200"), written(date, ZoneOf::Local));
        assert_eq!(read("12:00:00 CET"), written(Day::Unsaid, ZoneOf::Named("CET")));
        assert_eq!(read("Yesterday 12:00"), written(Day::Yesterday, ZoneOf::Local));
        let offset = Offset::from_seconds(20_700).unwrap();
        assert_eq!(read("today 12:00 +0545"), written(Day::Today, ZoneOf::Offset(offset)));
        let both = ZoneOf::Both(offset, "Asia/Kathmandu");
        assert_eq!(read("2026-01-02T12:00+05:45[Asia/Kathmandu]"), written(date, both));
        assert_eq!(read("2026-01-02 12:00 [4711]"), written(date, ZoneOf::Local));
        assert_eq!(read("2026-01-02 12:00 CET [4711]"), written(date, ZoneOf::Named("CET")));
        for (text, part) in [
            ("2026-02-30 12:00", Some("2026-02-30")),
            ("2026-02-30T12:00", Some("2026-02-30")),
            ("20260230 12:00", Some("20260230")),
            ("26-01-02 12:00", Some("26-01-02")),
            ("25:00 UTC", Some("25:00")),
            ("14:5", Some("14:5")),
            ("2026-01-02 25:00", Some("25:00")),
            ("2026-01-02 12:00 [123] LOG", Some("[123] LOG")),
            ("yesterday 12:00 é", Some("é")),
            ("tomorrow", None),
        ] {
            let misread = Written::read(text).unwrap_err();
            assert_eq!(misread.map(|misread| misread.part), part, "{text}");
        }
        for text in [
            "",
            "12",
            "1200",
            "yesterdays 12:00",
            "2026-01-02 12",
            "2026-01-02 1200",
            "2026-01-0212:00",
            "2026-01-02T",
            "2026-01-02 12:0",
            "2026-01-02 12:00:60",
            "2026-01-02 12:00:00.",
            "2026-01-02 12:00:00.1234567891",
            "2026-01-02 24:00",
            "26-01-02 12:00",
            "2026-13-02 12:00",
            "2026-01-02 12:00 [123] LOG",
            "2026-01-02 12:00 +02:60",
            "2026-01-02 12:00 +16",
            "2026-01-02 12:00 +",
            "2026-01-02 12:00 [Europe/Berlin",
            "2026-01-02 12:00 Europe/Berlin x",
            "2026-01-02 12:00 é",
            "é",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
