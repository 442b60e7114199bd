use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::RateLimit;

/// The longest anybody sleeps without looking again: the hours of a limit may end meanwhile, and a
/// job may be told to stop.
const NAP: Duration = Duration::from_millis(100);

/// Tells those who move bytes under one [`RateLimit`] how long each has to wait. It never sleeps
/// itself: threads and tasks do that in their own ways.
///
/// Ours and not the crate governor: its quotas have no hours, count at most 2³² cells and refuse
/// what is larger than a burst, where a pack simply takes its time.
#[derive(Debug)]
pub struct RateMeter {
    limit: RateLimit,
    /// When the bytes that were taken so far are paid for.
    free_at: Mutex<Instant>,
}

impl RateMeter {
    /// A meter that begins now.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, free_at: Mutex::new(Instant::now()) }
    }

    /// Takes that many bytes, and says until when that is to be waited for; `None` without a limit.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> Option<Instant> {
        let bytes_per_s = self.limit.at(Timestamp::now())?;
        Some(self.reserve_at(bytes, bytes_per_s, Instant::now()))
    }

    /// How long to sleep next, if at all, before asking again.
    #[must_use]
    pub fn nap(&self, until: Option<Instant>) -> Option<Duration> {
        let until = until.filter(|_| self.limit.at(Timestamp::now()).is_some())?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(NAP))
    }

    /// What was not used up before is not made up for later: the disk is to have its rest.
    fn reserve_at(&self, bytes: u64, bytes_per_s: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(now) + cost;
        *free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bytes_are_paid_for_in_time_and_rest_is_not_saved_up() {
        let meter = RateMeter::new(RateLimit::NONE);
        let start = *meter.free_at.lock().unwrap();
        assert_eq!(meter.reserve_at(500, 1000, start), start + SECOND / 2);
        // Another thread at the same time waits for both.
        assert_eq!(meter.reserve_at(1000, 1000, start), start + SECOND * 3 / 2);
        let later = start + SECOND * 100;
        assert_eq!(meter.reserve_at(1000, 1000, later), later + SECOND);
        assert_eq!(meter.reserve(u64::MAX), None, "there is no limit");
    }
}
