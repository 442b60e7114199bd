//! What is to be kept: `retention`, of a cluster or of a repository.

use std::num::NonZeroU32;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use seawall_core::Result;
use seawall_repo::retention::{Keep, Policy};

use super::load::parse_duration;
use super::walk::{Keys, Section};

const RETENTION: Keys = Keys { known: &["last", "window", "age", "keep", "zone"], later: &[] };

const KEEP: Keys = Keys { known: &["hourly", "daily", "weekly", "monthly", "yearly"], later: &[] };

/// What a section says of it, if anything.
pub(super) fn retention(section: &Section<'_>) -> Result<Option<Policy>> {
    let Some(retention) = section.table("retention", RETENTION)? else { return Ok(None) };
    let policy = Policy {
        last: retention
            .count("last")?
            .map(|last| at_least_one(&retention, "last", last))
            .transpose()?,
        window: retention.parsed("window", parse_span)?,
        age: retention.parsed("age", parse_span)?,
        keep: keep(&retention)?,
        zone: retention.parsed("zone", parse_zone)?.unwrap_or(TimeZone::UTC),
    };
    if policy.is_none() {
        return Err(section.wrong(
            "retention",
            "it has no rule: last, window, age or keep; leave it out to keep everything",
        ));
    }
    if let (Some(window), Some(age)) = (policy.window, policy.age)
        && age <= window
    {
        return Err(retention.wrong(
            "age",
            "it must be longer than window: the backup that the window begins behind is older",
        ));
    }
    Ok(Some(policy))
}

fn keep(retention: &Section<'_>) -> Result<Keep> {
    let Some(keep) = retention.table("keep", KEEP)? else { return Ok(Keep::NONE) };
    let count = |key: &str| Ok::<u32, seawall_core::Error>(keep.count(key)?.unwrap_or(0));
    Ok(Keep {
        hourly: count("hourly")?,
        daily: count("daily")?,
        weekly: count("weekly")?,
        monthly: count("monthly")?,
        yearly: count("yearly")?,
    })
}

fn at_least_one(section: &Section<'_>, key: &str, count: u32) -> Result<NonZeroU32> {
    NonZeroU32::new(count).ok_or_else(|| section.wrong(key, "it must be 1 or more"))
}

fn parse_span(text: &str) -> std::result::Result<SignedDuration, String> {
    let span = parse_duration(text)?;
    if span.is_zero() {
        return Err("it must be longer than nothing".to_owned());
    }
    SignedDuration::try_from(span).map_err(|_| format!("\"{text}\" is too long"))
}

fn parse_zone(text: &str) -> std::result::Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| {
        format!("\"{text}\" is no time zone of this machine, such as Europe/Berlin or UTC")
    })
}
