//! Times as people have them in hand: typed, read off a clock, copied from PostgreSQL's log.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, Timestamp};
use seawall_core::{Code, Error, Result};

use super::written::{Day, Misread, Written, ZoneOf};
use super::{EXAMPLES, abbreviations};

/// How many changes of the clocks ahead an abbreviation is looked for.
const CHANGES_AHEAD: usize = 4;

/// The moment a text means; `None` if it is not a time. `zone` is that of the clock at hand, and
/// `now` what it shows.
///
/// # Errors
/// [`Code::TargetInvalid`] for words that mean more than one moment, or none.
pub(super) fn read(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Option<Timestamp>> {
    if text.eq_ignore_ascii_case("now") {
        return Ok(Some(now));
    }
    if let Some(span) = text.strip_suffix(" ago") {
        let wanted = "span of time, as in 5 minutes";
        let misread = || not_understood(text, Misread { part: span.trim(), wanted });
        return time_ago(span, zone, now).map(Some).ok_or_else(misread);
    }
    let written = match Written::read(text) {
        Ok(written) => written,
        Err(None) => return Ok(None),
        Err(Some(misread)) => return Err(not_understood(text, misread)),
    };
    let reader = Reader { text, zone, now, written };
    reader.moment().map(Some)
}

fn not_understood(text: &str, Misread { part, wanted }: Misread<'_>) -> Error {
    let what = format!("\"{text}\" is not a point to restore to: \"{part}\" is no {wanted}");
    Error::new(Code::TargetInvalid, what).with_hint(EXAMPLES)
}

/// `5 minutes`, `an hour`: what they come to depends on the zone where they are days.
fn time_ago(span: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let span = span.trim();
    let one = ["a ", "an "].iter().find_map(|article| span.strip_prefix(article));
    let span: Span = match one {
        Some(unit) => format!("1 {unit}").parse().ok()?,
        None => span.parse().ok()?,
    };
    let then = now.to_zoned(zone.clone()).checked_sub(span).ok()?.timestamp();
    (then <= now).then_some(then)
}

/// What was written, by whom and when.
struct Reader<'a> {
    text: &'a str,
    zone: &'a TimeZone,
    now: Timestamp,
    written: Written<'a>,
}

impl Reader<'_> {
    fn moment(&self) -> Result<Timestamp> {
        let today = self.now.to_zoned(self.zone.clone()).date();
        let date = match self.written.day {
            Day::Date(date) => date,
            Day::Today => today,
            Day::Yesterday => today.yesterday().map_err(|_| self.is_no_moment())?,
            // The day of the place whose clock shows it.
            Day::Unsaid => {
                let zone = self.place(today.to_datetime(self.written.time))?;
                self.now.to_zoned(zone).date()
            }
        };
        let civil = date.to_datetime(self.written.time);
        let moment = self.at(civil, &self.place(civil)?)?;
        if let ZoneOf::Both(offset, name) = self.written.place {
            let zone = self.zone_named(name)?;
            if zone.to_offset(moment) != offset {
                return Err(self
                    .invalid(&format!("the clocks of {name} show another offset then"))
                    .with_hint("Leave out the offset, or the zone."));
            }
        }
        Ok(moment)
    }

    /// The zone of the clock that shows `civil`.
    fn place(&self, civil: DateTime) -> Result<TimeZone> {
        match self.written.place {
            ZoneOf::Local => Ok(self.zone.clone()),
            ZoneOf::Offset(offset) | ZoneOf::Both(offset, _) => Ok(TimeZone::fixed(offset)),
            ZoneOf::Named(name) => self.meaning(name, civil),
        }
    }

    /// What a word behind a time means. PostgreSQL 18 takes an abbreviation for one of the session's
    /// zone before it looks into its list; up to 17 the list alone counts. Where they differ, nobody
    /// knows which one is meant.
    fn meaning(&self, word: &str, civil: DateTime) -> Result<TimeZone> {
        let local = self.local_meaning(word, civil);
        match (abbreviations::zone(word), local) {
            (None, None) => self.zone_named(word),
            (None, Some(offset)) => Ok(TimeZone::fixed(offset)),
            (Some(zone), None) => Ok(zone),
            (Some(zone), Some(offset)) => {
                if offset_at(&zone, civil) == Some(offset) {
                    return Ok(zone);
                }
                let mut meanings = vec![offset];
                meanings.extend(offset_at(&zone, civil));
                let name = self.zone.iana_name().unwrap_or("this machine");
                Err(self.invalid(&format!(
                    "{word} is one thing in the zone of {name} and another one in PostgreSQL's list of abbreviations"
                ))
                .with_hint(one_of(civil, &meanings)))
            }
        }
    }

    /// The offset of the clock at hand while it calls its time by this name: now, or before, or
    /// soon.
    fn local_meaning(&self, word: &str, civil: DateTime) -> Option<Offset> {
        let moment = self.zone.to_ambiguous_timestamp(civil).compatible().ok()?;
        let is = |name: &str| name.eq_ignore_ascii_case(word);
        let now = self.zone.to_offset_info(moment);
        if is(now.abbreviation()) {
            return Some(now.offset());
        }
        let before = self.zone.preceding(moment).find(|change| is(change.abbreviation()));
        let ahead = || {
            let mut ahead = self.zone.following(moment).take(CHANGES_AHEAD);
            ahead.find(|change| is(change.abbreviation()))
        };
        before.or_else(ahead).map(|change| change.offset())
    }

    fn zone_named(&self, name: &str) -> Result<TimeZone> {
        TimeZone::get(name).map_err(|_| {
            self.invalid(&format!("there is no time zone {name}")).with_hint(
                "Give the time with its offset, as in `2026-01-02 14:29:59+02:00`, or with the name of a zone, as in `2026-01-02 14:29:59 Europe/Berlin`.",
            )
        })
    }

    /// The moment at which the clocks of `zone` show `civil`.
    fn at(&self, civil: DateTime, zone: &TimeZone) -> Result<Timestamp> {
        let ambiguous = zone.to_ambiguous_timestamp(civil);
        let (how_often, offsets) = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                return ambiguous.unambiguous().map_err(|_| self.is_no_moment());
            }
            AmbiguousOffset::Fold { before, after } => ("twice", [before, after]),
            AmbiguousOffset::Gap { before, after } => ("never", [before, after]),
        };
        let name = zone.iana_name().unwrap_or("this machine");
        let what = format!("the clocks of {name} were changed then and showed that {how_often}");
        Err(self.invalid(&what).with_hint(one_of(civil, &offsets)))
    }

    fn is_no_moment(&self) -> Error {
        self.invalid("it lies outside of what can be counted")
    }

    fn invalid(&self, why: &str) -> Error {
        Error::new(Code::TargetInvalid, format!("\"{}\" is not one moment: {why}", self.text))
    }
}

fn offset_at(zone: &TimeZone, civil: DateTime) -> Option<Offset> {
    zone.to_ambiguous_timestamp(civil).unambiguous().ok().map(|moment| zone.to_offset(moment))
}

/// The ways to write a time so that it is one moment.
fn one_of(civil: DateTime, offsets: &[Offset]) -> String {
    let shown = |offset: &Offset| {
        let moment = offset.to_timestamp(civil).ok()?;
        let written = moment.to_zoned(TimeZone::fixed(*offset));
        let utc = moment.to_zoned(TimeZone::UTC);
        Some(format!(
            "`{}` ({})",
            written.strftime("%Y-%m-%d %H:%M:%S%.f%:z"),
            utc.strftime("%Y-%m-%d %H:%M:%S%.fZ")
        ))
    };
    let ways: Vec<String> = offsets.iter().filter_map(shown).collect();
    format!("Give the time with its offset: {}.", ways.join(" or "))
}
