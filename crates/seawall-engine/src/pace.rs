//! Holding a job to a rate, and ending it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use seawall_core::{Code, Error, RateLimit, RateMeter, Result};

/// Lets the threads of a job move so many bytes a second between them, until they are to stop.
#[derive(Debug)]
pub struct Pace {
    meter: RateMeter,
    stopped: AtomicBool,
}

impl Pace {
    /// A pace that begins now.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        Self { meter: RateMeter::new(limit), stopped: AtomicBool::new(false) }
    }

    /// Waits until that many bytes may be moved.
    ///
    /// # Errors
    /// As [`Self::refuse_stopped`].
    pub fn take(&self, bytes: u64) -> Result<()> {
        let free_at = self.meter.reserve(bytes);
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
        let free_at = self.meter.reserve(bytes);
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

    /// How long to sleep next, if at all.
    fn nap(&self, until: Option<Instant>) -> Result<Option<Duration>> {
        self.refuse_stopped()?;
        Ok(self.meter.nap(until))
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
    fn who_waits_for_hours_stops_at_once() {
        let pace = Arc::new(Pace::new("1kB/s".parse().unwrap()));
        let waiting = Arc::clone(&pace);
        let thread = thread::spawn(move || waiting.take(1 << 30));
        thread::sleep(SECOND / 10);
        let began = Instant::now();
        drop(StopWhenDropped(pace));
        let error = thread.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Interrupted);
        assert!(began.elapsed() < SECOND * 10, "{:?}", began.elapsed());
    }
}
