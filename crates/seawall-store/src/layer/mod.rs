//! Stores in front of stores: each is a [`Store`] that adds one thing to another.
//!
//! What all of them share, passing every call on, stands here once; a layer says only what it does
//! around a call. They can be put upon each other in any order. Retry goes outside of what fails
//! and of [`Limited`], so that a call that waits to be repeated holds no place.

mod limited;
mod metered;
mod retry;
#[cfg(test)]
mod tests;
mod time_limit;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::call::{About, Asked, Call};
use crate::{
    ListPage, ObjectEnd, ObjectInfo, ObjectPath, ObjectPrefix, ObjectWriter, Store, StoreError,
    StoreUrl,
};

pub use limited::{Limited, Limits};
pub use metered::{Counts, Metered};
pub use retry::{RetryPolicy, Retrying};
pub use time_limit::TimeLimited;

/// What a layer does around the calls that go through it.
pub(crate) trait Layer: Send + Sync + fmt::Debug + 'static {
    /// Around a call that is made once.
    fn around_once<T: Answer>(
        &self,
        asked: &Asked<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;

    /// Around a call that could be made again with the same outcome; `run` makes it. Those of a
    /// writer are none.
    fn around<T, F>(
        &self,
        asked: &Asked<'_>,
        run: impl Fn() -> F + Send + Sync,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Answer,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.around_once(asked, run())
    }

    /// Around [`Store::create`], which a second time finds what it made the first time.
    fn create(
        &self,
        inner: &dyn Store,
        asked: &Asked<'_>,
        path: &ObjectPath,
        bytes: &Bytes,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async move { self.around(asked, || inner.create(path, bytes.clone())).await }
    }
}

/// What a store answers.
pub(crate) trait Answer: Send {
    /// The bytes of objects in it.
    fn read_bytes(&self) -> u64 {
        0
    }

    /// What is left of it if a store says only the first `count` bytes or names, and that these
    /// are all.
    #[cfg(any(test, feature = "testing"))]
    fn cut_to(self, count: u64) -> Self;
}

/// A store with a layer before it.
pub struct Layered<L> {
    inner: Arc<dyn Store>,
    layer: Arc<L>,
}

impl<L> Layered<L> {
    pub(crate) fn over(inner: Arc<dyn Store>, layer: L) -> Self {
        Self { inner, layer: Arc::new(layer) }
    }

    pub(crate) fn layer(&self) -> &L {
        &self.layer
    }

    /// The layer, as long as no call was made.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn layer_mut(&mut self) -> Option<&mut L> {
        Arc::get_mut(&mut self.layer)
    }
}

impl<L: fmt::Debug> fmt::Debug for Layered<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("layer", &self.layer).field("inner", &self.inner).finish()
    }
}

#[async_trait]
impl<L: Layer> Store for Layered<L> {
    fn url(&self) -> &StoreUrl {
        self.inner.url()
    }

    async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        let asked = Asked::object(Call::Create, self.url(), path).bringing(&bytes);
        self.layer.create(&*self.inner, &asked, path, &bytes).await
    }

    async fn create_large(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let asked = Asked::object(Call::CreateLarge, self.url(), path);
        let inner = self.layer.around(&asked, || self.inner.create_large(path)).await?;
        let (url, path, layer) = (self.url().clone(), path.clone(), Arc::clone(&self.layer));
        Ok(Box::new(LayeredWriter { inner, url, path, layer }))
    }

    async fn read_within(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let asked = Asked::object(Call::Read, self.url(), path);
        self.layer.around(&asked, || self.inner.read_within(path, limit_bytes)).await
    }

    async fn read_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        let asked = Asked::object(Call::ReadRange, self.url(), path);
        self.layer.around(&asked, || self.inner.read_range(path, range.clone())).await
    }

    async fn read_end(&self, path: &ObjectPath, bytes: u64) -> Result<ObjectEnd, StoreError> {
        let asked = Asked::object(Call::ReadEnd, self.url(), path);
        self.layer.around(&asked, || self.inner.read_end(path, bytes)).await
    }

    async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
        let asked = Asked::object(Call::Stat, self.url(), path);
        self.layer.around(&asked, || self.inner.stat(path)).await
    }

    async fn list(
        &self,
        prefix: &ObjectPrefix,
        start_after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let asked = Asked::new(Call::List, self.url(), About::Prefix(prefix));
        self.layer.around(&asked, || self.inner.list(prefix, start_after, limit)).await
    }

    async fn list_children(&self, prefix: &ObjectPrefix) -> Result<Vec<String>, StoreError> {
        let asked = Asked::new(Call::ListChildren, self.url(), About::Prefix(prefix));
        self.layer.around(&asked, || self.inner.list_children(prefix)).await
    }

    async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let asked = Asked::object(Call::MakeDurable, self.url(), path);
        self.layer.around(&asked, || self.inner.make_durable(path)).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let asked = Asked::object(Call::Delete, self.url(), path);
        self.layer.around(&asked, || self.inner.delete(path)).await
    }

    async fn delete_many(&self, paths: &[ObjectPath]) -> Result<(), StoreError> {
        let asked = Asked::new(Call::DeleteMany, self.url(), About::Store);
        self.layer.around(&asked, || self.inner.delete_many(paths)).await
    }

    async fn sweep_unfinished(&self, older_than: Duration) -> Result<(), StoreError> {
        let asked = Asked::new(Call::SweepUnfinished, self.url(), About::Store);
        self.layer.around(&asked, || self.inner.sweep_unfinished(older_than)).await
    }
}

struct LayeredWriter<L> {
    inner: Box<dyn ObjectWriter>,
    url: StoreUrl,
    path: ObjectPath,
    layer: Arc<L>,
}

#[async_trait]
impl<L: Layer> ObjectWriter for LayeredWriter<L> {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        let asked = Asked::object(Call::Write, &self.url, &self.path).bringing(&part);
        self.layer.around_once(&asked, self.inner.write(part)).await
    }

    async fn finish(self: Box<Self>) -> Result<u64, StoreError> {
        let Self { inner, url, path, layer } = *self;
        let asked = Asked::object(Call::Finish, &url, &path);
        layer.around_once(&asked, inner.finish()).await
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}

impl Answer for () {
    #[cfg(any(test, feature = "testing"))]
    fn cut_to(self, _: u64) -> Self {}
}

impl Answer for u64 {
    #[cfg(any(test, feature = "testing"))]
    fn cut_to(self, count: u64) -> Self {
        self.min(count)
    }
}

impl Answer for Box<dyn ObjectWriter> {
    #[cfg(any(test, feature = "testing"))]
    fn cut_to(self, _: u64) -> Self {
        self
    }
}

impl Answer for Bytes {
    fn read_bytes(&self) -> u64 {
        self.len() as u64
    }

    #[cfg(any(test, feature = "testing"))]
    fn cut_to(mut self, count: u64) -> Self {
        self.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        self
    }
}

impl Answer for ObjectEnd {
    fn read_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    #[cfg(any(test, feature = "testing"))]
    fn cut_to(self, count: u64) -> Self {
        Self { bytes: self.bytes.cut_to(count), ..self }
    }
}

impl Answer for ObjectInfo {
    #[cfg(any(test, feature = "testing"))]
    fn cut_to(self, count: u64) -> Self {
        Self { size_bytes: self.size_bytes.min(count), ..self }
    }
}

impl Answer for ListPage {
    #[cfg(any(test, feature = "testing"))]
    fn cut_to(mut self, count: u64) -> Self {
        self.objects.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        self.next = None;
        self
    }
}

impl Answer for Vec<String> {
    #[cfg(any(test, feature = "testing"))]
    fn cut_to(mut self, count: u64) -> Self {
        self.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        self
    }
}
