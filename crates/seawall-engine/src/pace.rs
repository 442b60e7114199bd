//! Holding a job to a rate.

use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use seawall_core::RateLimit;

/// Lets the threads of a job move so many bytes a second between them.
#[derive(Debug)]
pub struct Pace {
    limit: RateLimit,
    /// When the bytes that were taken so far are paid for.
    free_at: Mutex<Instant>,
}

impl Pace {
    /// A pace that begins now.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until that many bytes may be moved.
    pub fn take(&self, bytes: u64) {
        if let Some(bytes_per_s) = self.limit.at(Timestamp::now()) {
            sleep(self.reserve(bytes, bytes_per_s, Instant::now()));
        }
    }

    /// How long to wait. What was not used up before is not made up for later: the disk is to have
    /// its rest.
    fn reserve(&self, bytes: u64, bytes_per_s: u64, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(now) + cost;
        *free_at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_in_time_and_rest_is_not_saved_up() {
        let pace = Pace::new(RateLimit::NONE);
        let start = *pace.free_at.lock().unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(pace.reserve(500, 1000, start), second / 2);
        // Another thread at the same time waits for both.
        assert_eq!(pace.reserve(1000, 1000, start), second * 3 / 2);
        assert_eq!(pace.reserve(1000, 1000, start + second), second * 3 / 2);
        assert_eq!(pace.reserve(1000, 1000, start + second * 100), second);
        let began = Instant::now();
        pace.take(u64::MAX);
        assert!(began.elapsed() < second, "there is no limit");
    }
}
