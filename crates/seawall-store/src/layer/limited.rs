use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use seawall_core::{RateLimit, RateMeter};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{Answer, Layer, Layered};
use crate::call::Asked;
use crate::{Store, StoreError};

/// How much may be asked of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many calls run at a time; any number unless told otherwise.
    pub calls_at_once: Option<NonZeroUsize>,
    /// How many bytes a second go to it and come from it, together.
    pub rate: RateLimit,
}

/// A store that is asked no more than [`Limits`] allow; whoever asks for more waits.
///
/// Bytes that are written are waited for before they are sent, bytes that are read after they came:
/// how many there are is known only then.
pub type Limited = Layered<Gate>;

/// What the calls to a [`Limited`] store pass through.
#[derive(Debug)]
pub struct Gate {
    places: Option<Semaphore>,
    rate: RateMeter,
}

impl Limited {
    /// Holds what goes to `inner` to limits.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, limits: Limits) -> Self {
        let places = limits.calls_at_once.map(|most| Semaphore::new(most.get()));
        Self::over(inner, Gate { places, rate: RateMeter::new(limits.rate) })
    }
}

impl Gate {
    async fn pay(&self, bytes: u64) {
        let until = self.rate.reserve(bytes);
        while let Some(nap) = self.rate.nap(until) {
            sleep(nap).await;
        }
    }
}

impl Layer for Gate {
    async fn around_once<T: Answer>(
        &self,
        asked: &Asked<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.pay(asked.written_bytes).await;
        let answer = {
            let _place = match &self.places {
                // Nobody closes it.
                Some(places) => places.acquire().await.ok(),
                None => None,
            };
            run.await?
        };
        self.pay(answer.read_bytes()).await;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use tokio::task::JoinSet;

    use super::*;
    use crate::ObjectPath;
    use crate::testing::{Latency, MemoryStore};

    fn path(text: &str) -> ObjectPath {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_run_at_once_than_allowed() {
        const CALL: Duration = Duration::from_secs(1);
        let slow = Arc::new(Latency::new(Arc::new(MemoryStore::new()), CALL));
        let calls_at_once = NonZeroUsize::new(3);
        let limits = Limits { calls_at_once, ..Limits::default() };
        let store = Arc::new(Limited::new(slow, limits));
        let began = tokio::time::Instant::now();
        let mut calls = JoinSet::new();
        for number in 0..12 {
            let store = Arc::clone(&store);
            calls
                .spawn(async move { store.create(&path(&number.to_string()), Bytes::new()).await });
        }
        while let Some(created) = calls.join_next().await {
            created.unwrap().unwrap();
        }
        assert_eq!(began.elapsed().as_secs(), 4);
    }

    #[tokio::test]
    async fn bytes_take_their_time_in_both_directions() {
        let limits = Limits { rate: "1MB/s".parse().unwrap(), ..Limits::default() };
        let store = Limited::new(Arc::new(MemoryStore::new()), limits);
        let began = Instant::now();
        store.create(&path("a"), Bytes::from(vec![0; 100_000])).await.unwrap();
        store.stat(&path("a")).await.unwrap();
        let written = began.elapsed();
        assert!(written >= Duration::from_millis(100), "{written:?}");
        store.read_range(&path("a"), 0..50_000).await.unwrap();
        let read = began.elapsed();
        assert!(read >= Duration::from_millis(150), "{read:?}");
    }
}
