//! Holding a job to a rate, and ending it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use seawall_core::{Code, Error, RateLimit, Result};

/// The longest a thread sleeps without looking whether it is to stop.
const NAP: Duration = Duration::from_millis(100);

/// Lets the threads of a job move so many bytes a second between them, until they are to stop.
#[derive(Debug)]
pub struct Pace {
    limit: RateLimit,
    /// When the bytes that were taken so far are paid for.
    free_at: Mutex<Instant>,
    stopped: AtomicBool,
}

impl Pace {
    /// A pace that begins now.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, free_at: Mutex::new(Instant::now()), stopped: AtomicBool::new(false) }
    }

    /// Waits until that many bytes may be moved.
    ///
    /// # Errors
    /// As [`Self::refuse_stopped`].
    pub fn take(&self, bytes: u64) -> Result<()> {
        let free_at = self.reserve(bytes);
        while let Some(nap) = self.nap(free_at)? {
            thread::sleep(nap);
        }
        Ok(())
    }

    /// As [`Self::take`], without keeping the thread.
    ///
    /// # Errors
    /// As [`Self::refuse_stopped`].
    pub async fn wait(&self, bytes: u64) -> Result<()> {
        let free_at = self.reserve(bytes);
        while let Some(nap) = self.nap(free_at)? {
            tokio::time::sleep(nap).await;
        }
        Ok(())
    }

    /// Stops the job's threads where they next take bytes or ask.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the job goes on.
    ///
    /// # Errors
    /// [`Code::Interrupted`] when it is to stop.
    pub fn refuse_stopped(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            Err(Error::new(Code::Interrupted, "the job was stopped"))
        } else {
            Ok(())
        }
    }

    /// How long to sleep next, if at all. The hours of a limit may end meanwhile.
    fn nap(&self, until: Option<Instant>) -> Result<Option<Duration>> {
        self.refuse_stopped()?;
        let until = until.filter(|_| self.limit.at(Timestamp::now()).is_some());
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        Ok(left.filter(|left| !left.is_zero()).map(|left| left.min(NAP)))
    }

    /// Until when to wait; `None` without a limit.
    fn reserve(&self, bytes: u64) -> Option<Instant> {
        let bytes_per_s = self.limit.at(Timestamp::now())?;
        Some(self.reserve_at(bytes, bytes_per_s, Instant::now()))
    }

    /// What was not used up before is not made up for later: the disk is to have its rest.
    fn reserve_at(&self, bytes: u64, bytes_per_s: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(now) + cost;
        *free_at
    }
}

/// Stops the threads of a job that nobody waits for any more.
pub struct StopWhenDropped(pub Arc<Pace>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bytes_are_paid_for_in_time_and_rest_is_not_saved_up() {
        let pace = Pace::new(RateLimit::NONE);
        let start = *pace.free_at.lock().unwrap();
        assert_eq!(pace.reserve_at(500, 1000, start), start + SECOND / 2);
        // Another thread at the same time waits for both.
        assert_eq!(pace.reserve_at(1000, 1000, start), start + SECOND * 3 / 2);
        let later = start + SECOND * 100;
        assert_eq!(pace.reserve_at(1000, 1000, later), later + SECOND);
        let began = Instant::now();
        pace.take(u64::MAX).unwrap();
        assert!(began.elapsed() < SECOND, "there is no limit");
    }

    #[test]
    fn who_waits_for_hours_stops_at_once() {
        let pace = Arc::new(Pace::new("1kB/s".parse().unwrap()));
        let waiting = Arc::clone(&pace);
        let thread = thread::spawn(move || waiting.take(1 << 30));
        thread::sleep(NAP);
        let began = Instant::now();
        drop(StopWhenDropped(pace));
        let error = thread.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Interrupted);
        assert!(began.elapsed() < SECOND * 10, "{:?}", began.elapsed());
    }
}
