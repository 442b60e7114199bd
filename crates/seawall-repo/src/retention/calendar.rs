//! Which hour, day, week, month or year a moment is in.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Rule;

/// The period, as people write it. An hour that daylight saving repeats is two: it has its offset.
pub(super) fn period(rule: Rule, at: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    match rule {
        Rule::Hourly => at.strftime("%Y-%m-%d %H:00 %:z").to_string(),
        Rule::Daily => at.strftime("%Y-%m-%d").to_string(),
        Rule::Weekly => {
            let week = at.date().iso_week_date();
            format!("{}-W{:02}", week.year(), week.week())
        }
        Rule::Monthly => at.strftime("%Y-%m").to_string(),
        Rule::Yearly => at.strftime("%Y").to_string(),
    }
}
