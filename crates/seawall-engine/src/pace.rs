//! Holding a job to a rate, and ending it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use seawall_core::{Code, Error, RateLimit, RateMeter, Result};
use tokio::sync::watch;

/// What the threads of a job share, whatever it does: the rate at which they move bytes, and that
/// whoever ends the job waits for them.
#[derive(Debug, Clone)]
pub struct Crew {
    meter: Arc<RateMeter>,
    /// How many threads are at work.
    members: Arc<watch::Sender<usize>>,
}

impl Crew {
    /// A crew that moves bytes at that rate between all its threads.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        Self { meter: Arc::new(RateMeter::new(limit)), members: Arc::default() }
    }

    /// One more thread, or whatever else is waited for, which keeps what is returned as long as it
    /// works.
    #[must_use]
    pub fn member(&self) -> Member {
        let members = Arc::clone(&self.members);
        members.send_modify(|members| *members += 1);
        Member(members)
    }

    /// Waits until no thread of it is left. They end by themselves when what they work for is
    /// dropped.
    pub async fn ended(&self) {
        // This has the sender itself: it cannot be gone.
        let _ = self.members.subscribe().wait_for(|members| *members == 0).await;
    }
}

impl Default for Crew {
    fn default() -> Self {
        Self::new(RateLimit::NONE)
    }
}

/// A thread that is waited for, until this is dropped.
#[derive(Debug)]
pub struct Member(Arc<watch::Sender<usize>>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.send_modify(|members| *members -= 1);
    }
}

/// Lets the threads of one piece of a job move so many bytes a second between them, until they are
/// to stop.
#[derive(Debug)]
pub struct Pace {
    crew: Crew,
    stopped: AtomicBool,
}

impl Pace {
    /// A pace that begins now.
    #[must_use]
    pub fn new(crew: &Crew) -> Self {
        Self { crew: crew.clone(), stopped: AtomicBool::new(false) }
    }

    /// A pace of the same job that is not stopped with this one.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(&self.crew)
    }

    /// One more thread, which keeps what is returned as long as it works.
    #[must_use]
    pub fn member(&self) -> Member {
        self.crew.member()
    }

    /// Waits until that many bytes may be moved.
    ///
    /// # Errors
    /// As [`Self::refuse_stopped`].
    pub fn take(&self, bytes: u64) -> Result<()> {
        let free_at = self.crew.meter.reserve(bytes);
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
        let free_at = self.crew.meter.reserve(bytes);
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
        Ok(self.crew.meter.nap(until))
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
        let pace = Arc::new(Pace::new(&Crew::new("1kB/s".parse().unwrap())));
        let waiting = Arc::clone(&pace);
        let thread = thread::spawn(move || waiting.take(1 << 30));
        thread::sleep(SECOND / 10);
        let began = Instant::now();
        drop(StopWhenDropped(pace));
        let error = thread.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Interrupted);
        assert!(began.elapsed() < SECOND * 10, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_crew_has_ended_when_its_last_thread_has() {
        let crew = Crew::default();
        crew.ended().await;
        let members = [Pace::new(&crew).member(), Pace::new(&crew).member()];
        for member in members {
            let waited = tokio::time::timeout(SECOND / 100, crew.ended()).await;
            assert!(waited.is_err(), "a thread is at work");
            drop(member);
        }
        crew.ended().await;
    }
}
