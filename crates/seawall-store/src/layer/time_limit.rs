use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Answer, Layer, Layered};
use crate::call::Asked;
use crate::{Store, StoreError};

/// A store that is not waited for longer than a while: a call that takes longer has failed
/// ([`StoreError::Unavailable`]). The store may still do it.
///
/// It goes outside of [`Retrying`](super::Retrying): what counts is how long the caller waits.
pub type TimeLimited = Layered<TimeLimit>;

/// How long an answer of a [`TimeLimited`] store is waited for.
#[derive(Debug)]
pub struct TimeLimit(Duration);

impl TimeLimited {
    /// Waits for `inner` for so long, each time it is asked.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, limit: Duration) -> Self {
        Self::over(inner, TimeLimit(limit))
    }
}

impl Layer for TimeLimit {
    async fn around_once<T: Answer>(
        &self,
        asked: &Asked<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        timeout(self.0, run).await.unwrap_or_else(|_| {
            let told = format!("no answer within {} s", self.0.as_secs());
            let source = io::Error::new(io::ErrorKind::TimedOut, told);
            Err(StoreError::Unavailable { place: asked.place(), doing: "waiting for", source })
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::{Call, Fault, Faulty, MemoryStore};

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_longer_than_a_while_has_failed() {
        let slow = |seconds| Fault::Delay(Duration::from_secs(seconds));
        let store = Faulty::new(Arc::new(MemoryStore::new()))
            .fail(Call::Create, 1..=1, slow(9))
            .fail(Call::Create, 2..=2, slow(11))
            .fail(Call::Write, 2..=2, slow(3600));
        let store = TimeLimited::new(Arc::new(store), Duration::from_secs(10));
        store.create(&"a".parse().unwrap(), Bytes::new()).await.unwrap();
        let late = store.create(&"b".parse().unwrap(), Bytes::new()).await.unwrap_err();
        assert!(late.is_transient() && late.to_string().contains("b in "), "{late}");
        let mut writer = store.create_large(&"c".parse().unwrap()).await.unwrap();
        writer.write(Bytes::from_static(b"one")).await.unwrap();
        let late = writer.write(Bytes::from_static(b"two")).await.unwrap_err();
        assert!(late.is_transient(), "{late}");
    }
}
