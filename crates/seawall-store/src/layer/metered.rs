use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Answer, Layer, Layered};
use crate::call::{Asked, Call};
use crate::{Store, StoreError};

/// A store that counts what is asked of another one.
pub type Metered = Layered<Meters>;

/// How often a store was called, and the bytes that went through it. Failed calls count as calls,
/// their bytes do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    calls: [u64; Call::ALL.len()],
    /// Bytes the store took.
    pub written_bytes: u64,
    /// Bytes the store gave.
    pub read_bytes: u64,
}

impl Counts {
    /// Calls of one kind.
    #[must_use]
    pub fn of(&self, call: Call) -> u64 {
        self.calls.get(call as usize).copied().unwrap_or(0)
    }

    /// Calls of any kind.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// Calls that read bytes of objects.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.of(Call::Read) + self.of(Call::ReadRange) + self.of(Call::ReadEnd)
    }
}

/// The counters of a [`Metered`] store.
#[derive(Debug, Default)]
pub struct Meters {
    calls: [AtomicU64; Call::ALL.len()],
    written_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

impl Metered {
    /// Counts from zero what goes to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self::over(inner, Meters::default())
    }

    /// The counts so far. Calls that are running may show in one number and not yet in another.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Meters { calls, written_bytes, read_bytes } = self.layer();
        Counts {
            calls: std::array::from_fn(|call| {
                calls.get(call).map_or(0, |count| count.load(Relaxed))
            }),
            written_bytes: written_bytes.load(Relaxed),
            read_bytes: read_bytes.load(Relaxed),
        }
    }
}

impl Layer for Meters {
    async fn around_once<T: Answer>(
        &self,
        asked: &Asked<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if let Some(count) = self.calls.get(asked.call as usize) {
            count.fetch_add(1, Relaxed);
        }
        let answer = run.await?;
        self.written_bytes.fetch_add(asked.written_bytes, Relaxed);
        self.read_bytes.fetch_add(answer.read_bytes(), Relaxed);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ObjectPath;
    use crate::testing::MemoryStore;

    #[tokio::test]
    async fn calls_and_bytes_are_counted() {
        let store = Metered::new(Arc::new(MemoryStore::new()));
        let path: ObjectPath = "a".parse().unwrap();
        store.create(&path, Bytes::from_static(b"four")).await.unwrap();
        store.create(&path, Bytes::from_static(b"never written")).await.unwrap_err();
        store.read(&path).await.unwrap();
        store.read_range(&path, 1..3).await.unwrap();
        store.read_end(&path, 1).await.unwrap();
        let mut writer = store.create_large(&"b".parse().unwrap()).await.unwrap();
        writer.write(Bytes::from_static(b"seven b")).await.unwrap();
        writer.finish().await.unwrap();
        let counts = store.counts();
        let of = Call::ALL.map(|call| (call, counts.of(call)));
        let called: Vec<_> = of.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            called,
            [
                (Call::Create, 2),
                (Call::CreateLarge, 1),
                (Call::Write, 1),
                (Call::Finish, 1),
                (Call::Read, 1),
                (Call::ReadRange, 1),
                (Call::ReadEnd, 1),
            ]
        );
        assert_eq!((counts.calls(), counts.reads()), (8, 3));
        assert_eq!((counts.written_bytes, counts.read_bytes), (11, 7));
    }
}
