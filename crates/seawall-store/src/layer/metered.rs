use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ListPage, ObjectInfo, ObjectPath, ObjectPrefix, ObjectWriter, Store, StoreError, StoreUrl,
};

/// How often a store was called, and the bytes that went through it. Failed calls count as calls,
/// their bytes do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of [`Store::create`].
    pub create: u64,
    /// Calls of [`Store::create_large`].
    pub create_large: u64,
    /// Calls of [`ObjectWriter::write`].
    pub write: u64,
    /// Calls of [`ObjectWriter::finish`].
    pub finish: u64,
    /// Calls of [`Store::read`] and [`Store::read_range`].
    pub read: u64,
    /// Calls of [`Store::stat`].
    pub stat: u64,
    /// Calls of [`Store::list`].
    pub list: u64,
    /// Calls of [`Store::delete`].
    pub delete: u64,
    /// Bytes the store took.
    pub written_bytes: u64,
    /// Bytes the store gave.
    pub read_bytes: u64,
}

#[derive(Debug, Default)]
struct Meters {
    create: AtomicU64,
    create_large: AtomicU64,
    write: AtomicU64,
    finish: AtomicU64,
    read: AtomicU64,
    stat: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    written_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

/// A store that counts what is asked of another one.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn Store>,
    meters: Arc<Meters>,
}

impl Metered {
    /// Counts from zero what goes to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, meters: Arc::default() }
    }

    /// The counts so far. Calls that are running may show in one number and not yet in another.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let meters = &self.meters;
        Counts {
            create: meters.create.load(Relaxed),
            create_large: meters.create_large.load(Relaxed),
            write: meters.write.load(Relaxed),
            finish: meters.finish.load(Relaxed),
            read: meters.read.load(Relaxed),
            stat: meters.stat.load(Relaxed),
            list: meters.list.load(Relaxed),
            delete: meters.delete.load(Relaxed),
            written_bytes: meters.written_bytes.load(Relaxed),
            read_bytes: meters.read_bytes.load(Relaxed),
        }
    }

    fn count_read(&self, bytes: Bytes) -> Bytes {
        self.meters.read_bytes.fetch_add(bytes.len() as u64, Relaxed);
        bytes
    }
}

#[async_trait]
impl Store for Metered {
    fn url(&self) -> &StoreUrl {
        self.inner.url()
    }

    async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        self.meters.create.fetch_add(1, Relaxed);
        let written = bytes.len() as u64;
        self.inner.create(path, bytes).await?;
        self.meters.written_bytes.fetch_add(written, Relaxed);
        Ok(())
    }

    async fn create_large(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.meters.create_large.fetch_add(1, Relaxed);
        let inner = self.inner.create_large(path).await?;
        Ok(Box::new(MeteredWriter { inner, meters: Arc::clone(&self.meters) }))
    }

    async fn read_within(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.meters.read.fetch_add(1, Relaxed);
        Ok(self.count_read(self.inner.read_within(path, limit_bytes).await?))
    }

    async fn read_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.meters.read.fetch_add(1, Relaxed);
        Ok(self.count_read(self.inner.read_range(path, range).await?))
    }

    async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
        self.meters.stat.fetch_add(1, Relaxed);
        self.inner.stat(path).await
    }

    async fn list(
        &self,
        prefix: &ObjectPrefix,
        start_after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        self.meters.list.fetch_add(1, Relaxed);
        self.inner.list(prefix, start_after, limit).await
    }

    async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.inner.make_durable(path).await
    }

    async fn sweep_unfinished(&self, older_than: Duration) -> Result<(), StoreError> {
        self.inner.sweep_unfinished(older_than).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.meters.delete.fetch_add(1, Relaxed);
        self.inner.delete(path).await
    }
}

struct MeteredWriter {
    inner: Box<dyn ObjectWriter>,
    meters: Arc<Meters>,
}

#[async_trait]
impl ObjectWriter for MeteredWriter {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        self.meters.write.fetch_add(1, Relaxed);
        let written = part.len() as u64;
        self.inner.write(part).await?;
        self.meters.written_bytes.fetch_add(written, Relaxed);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<u64, StoreError> {
        self.meters.finish.fetch_add(1, Relaxed);
        self.inner.finish().await
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::temporary_store;

    #[tokio::test]
    async fn calls_and_bytes_are_counted() {
        let (_guard, store) = temporary_store().await;
        let store = Metered::new(Arc::new(store));
        let path: ObjectPath = "a".parse().unwrap();
        store.create(&path, Bytes::from_static(b"four")).await.unwrap();
        store.create(&path, Bytes::from_static(b"never written")).await.unwrap_err();
        store.read(&path).await.unwrap();
        store.read_range(&path, 1..3).await.unwrap();
        let mut writer = store.create_large(&"b".parse().unwrap()).await.unwrap();
        writer.write(Bytes::from_static(b"seven b")).await.unwrap();
        writer.finish().await.unwrap();
        let expected = Counts {
            create: 2,
            create_large: 1,
            write: 1,
            finish: 1,
            read: 2,
            written_bytes: 11,
            read_bytes: 6,
            ..Counts::default()
        };
        assert_eq!(store.counts(), expected);
    }
}
