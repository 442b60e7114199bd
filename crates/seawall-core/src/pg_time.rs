use std::fmt;

use jiff::Timestamp;

/// Microseconds from 1970-01-01 to 2000-01-01, both UTC (`POSTGRES_EPOCH_JDATE`, timestamp.h).
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A time as WAL records carry it: microseconds since 2000-01-01 UTC (`TimestampTz`).
///
/// The server's clock wrote it. Nothing is ordered by it; it is for people and for time targets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// The same instant as a civil timestamp; held at the ends of what one can hold.
    #[must_use]
    pub fn to_timestamp(self) -> Timestamp {
        let unix_us = self.0.saturating_add(POSTGRES_EPOCH_US);
        Timestamp::from_microsecond(unix_us).unwrap_or(if unix_us < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }

    /// The instant rounded down to PostgreSQL's microseconds.
    #[must_use]
    pub fn from_timestamp(time: Timestamp) -> Self {
        let us = time.as_nanosecond().div_euclid(1000) - i128::from(POSTGRES_EPOCH_US);
        Self(i64::try_from(us).unwrap_or(if us < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl fmt::Display for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_timestamp(), f)
    }
}

impl fmt::Debug for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_the_year_2000() {
        assert_eq!(PgTimestamp(0).to_string(), "2000-01-01T00:00:00Z");
        assert_eq!(PgTimestamp(1_500_000).to_string(), "2000-01-01T00:00:01.5Z");
        let before = PgTimestamp(-1);
        assert_eq!(PgTimestamp::from_timestamp(before.to_timestamp()), before);
    }
}
