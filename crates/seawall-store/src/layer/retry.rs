use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;

use super::{Answer, Layer, Layered};
use crate::call::Asked;
use crate::{ObjectPath, Store, StoreError};

/// How often, and for how long, a store that does not answer is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often it is asked after the first time; 0 for never.
    pub times: usize,
    /// How long to wait before it is asked again. It doubles each time, and up to as much again is
    /// added by lot, so that many who were refused at once do not come back at once.
    pub first_wait: Duration,
    /// The wait grows to this and no further.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    /// Some 5 to 10 s in all: what a network mount or a service needs to catch its breath. Who
    /// waits longer, such as a server whose `archive_command` failed, comes back by itself.
    fn default() -> Self {
        Self {
            times: 6,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(2),
        }
    }
}

impl RetryPolicy {
    /// Never asks again.
    pub const NEVER: Self =
        Self { times: 0, first_wait: Duration::ZERO, longest_wait: Duration::ZERO };

    const fn backoff(self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_max_times(self.times)
            .with_min_delay(self.first_wait)
            .with_max_delay(self.longest_wait)
            .with_jitter()
    }
}

/// A store that asks another one again when it does not answer ([`StoreError::is_transient`]).
///
/// Reads, listings and deletes are the same the second time. A creation may have been done the
/// first time, its answer lost: what is there then is compared, and is success if it is what was to
/// be created, byte for byte (every object of a repository has a random salt, so nobody else's is).
/// The calls of a writer are not repeated: bytes that are on their way are the adapter's, which
/// alone knows what has arrived.
///
/// When and how long to wait is the crate backon's.
pub type Retrying = Layered<Patience>;

/// What a [`Retrying`] store goes by.
#[derive(Debug)]
pub struct Patience(RetryPolicy);

impl Retrying {
    /// Asks `inner` again as the policy says.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self::over(inner, Patience(policy))
    }
}

fn again(asked: &Asked<'_>, error: &StoreError, wait: Duration) {
    let place = asked.place();
    tracing::warn!(call = ?asked.call, %place, %error, ?wait, "the store did not answer and is asked again");
}

impl Layer for Patience {
    async fn around<T, F>(
        &self,
        asked: &Asked<'_>,
        run: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        T: Answer,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let retry = run.retry(self.0.backoff()).when(StoreError::is_transient);
        retry.notify(|error, wait| again(asked, error, wait)).await
    }

    async fn around_once<T: Answer>(
        &self,
        _: &Asked<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        run.await
    }

    async fn create(
        &self,
        inner: &dyn Store,
        asked: &Asked<'_>,
        path: &ObjectPath,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        let attempts = AtomicUsize::new(0);
        let created = self
            .around(asked, || {
                attempts.fetch_add(1, Relaxed);
                inner.create(path, bytes.clone())
            })
            .await;
        match created {
            Err(taken) if taken.is_already_exists() && attempts.load(Relaxed) > 1 => {
                let length = bytes.len() as u64;
                match self.around(asked, || inner.read_within(path, length)).await {
                    Ok(there) if there == *bytes => Ok(()),
                    Ok(_) | Err(StoreError::TooLong { .. } | StoreError::NotFound { .. }) => {
                        Err(taken)
                    }
                    Err(error) => Err(error),
                }
            }
            created => created,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Call, Fault, Faulty, MemoryStore};

    const BYTES: Bytes = Bytes::from_static(b"salted");

    fn path(text: &str) -> ObjectPath {
        text.parse().unwrap()
    }

    fn patient(store: Faulty) -> (Arc<Faulty>, Retrying) {
        let faulty = Arc::new(store);
        (Arc::clone(&faulty), Retrying::new(faulty, RetryPolicy::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_asked_again_for_a_while() {
        let memory = Arc::new(MemoryStore::new());
        let store = Faulty::new(memory)
            .fail(Call::Read, 1..=3, Fault::Unavailable)
            .fail(Call::Stat, .., Fault::Unavailable)
            .fail(Call::List, .., Fault::Io);
        let (faulty, store) = patient(store);
        store.create(&path("a"), BYTES).await.unwrap();
        assert_eq!(store.read(&path("a")).await.unwrap(), BYTES);
        assert_eq!(faulty.count(Call::Read), 4);

        let began = tokio::time::Instant::now();
        assert!(store.stat(&path("a")).await.unwrap_err().is_transient());
        assert_eq!(faulty.count(Call::Stat), 7);
        let waited = began.elapsed().as_secs();
        assert!((3..=15).contains(&waited), "{waited} s");

        store.list(&crate::ObjectPrefix::root(), None, 1).await.unwrap_err();
        assert_eq!(faulty.count(Call::List), 1, "a broken disk is not asked again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_creation_whose_answer_was_lost_is_known_by_its_bytes() {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let lost = |store: &Arc<dyn Store>| {
            patient(Faulty::new(Arc::clone(store)).fail(Call::Create, 1..=1, Fault::AnswerLost)).1
        };
        lost(&memory).create(&path("ours"), BYTES).await.unwrap();
        assert_eq!(memory.read(&path("ours")).await.unwrap(), BYTES);

        for theirs in [&b"theirs"[..], b"a longer one", b""] {
            memory.create(&path("theirs"), Bytes::copy_from_slice(theirs)).await.unwrap();
            let refused = lost(&memory).create(&path("theirs"), BYTES).await.unwrap_err();
            assert!(refused.is_already_exists(), "{refused:?}");
            assert_eq!(memory.read(&path("theirs")).await.unwrap(), theirs);
            memory.delete(&path("theirs")).await.unwrap();
        }

        let equal = patient(Faulty::new(Arc::clone(&memory))).1;
        let refused = equal.create(&path("ours"), BYTES).await.unwrap_err();
        assert!(refused.is_already_exists(), "it was asked once, and did not make it");
    }
}
