use std::num::NonZeroU32;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use serde::Serialize;

/// What is to be kept of a cluster in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many.
    pub last: Option<NonZeroU32>,
    /// Every moment of so long ago.
    pub window: Option<SignedDuration>,
    /// Nothing older than that.
    pub age: Option<SignedDuration>,
    /// By the calendar.
    pub keep: Keep,
    /// Whose calendar it is.
    pub zone: TimeZone,
}

impl Policy {
    /// Keeps everything.
    #[must_use]
    pub const fn none() -> Self {
        Self { last: None, window: None, age: None, keep: Keep::NONE, zone: TimeZone::UTC }
    }

    /// Whether it has no rule: nothing goes then.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.last.is_none() && self.window.is_none() && self.age.is_none() && self.keep.is_none()
    }

    /// Whether `age` is the only rule.
    #[must_use]
    pub(super) fn is_age_alone(&self) -> bool {
        self.last.is_none() && self.window.is_none() && self.keep.is_none() && self.age.is_some()
    }
}

/// How many periods keep their first backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks: from Monday on.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

impl Keep {
    /// None by the calendar.
    pub const NONE: Self = Self { hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

    /// Whether there is no rule in it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The rules there are, with how many periods of each count.
    pub(super) fn rules(&self) -> impl Iterator<Item = (Rule, usize)> {
        let all = [
            (Rule::Hourly, self.hourly),
            (Rule::Daily, self.daily),
            (Rule::Weekly, self.weekly),
            (Rule::Monthly, self.monthly),
            (Rule::Yearly, self.yearly),
        ];
        let counted = all.into_iter().filter(|(_, count)| *count > 0);
        // More periods than fit in memory are all there are.
        counted.map(|(rule, count)| (rule, usize::try_from(count).unwrap_or(usize::MAX)))
    }
}

/// A rule of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// The first of an hour.
    Hourly,
    /// The first of a day.
    Daily,
    /// The first of an ISO week.
    Weekly,
    /// The first of a month.
    Monthly,
    /// The first of a year.
    Yearly,
}

impl Rule {
    /// Its name in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}
