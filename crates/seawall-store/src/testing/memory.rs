use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    ListPage, MAX_PAGE_OBJECTS, ObjectEnd, ObjectInfo, ObjectPath, ObjectPlace, ObjectPrefix,
    ObjectWriter, Store, StoreError, StoreUrl,
};

/// A store in memory, for tests that need many objects, or time to pass. Its copies are the same
/// store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    url: StoreUrl,
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    objects: BTreeMap<ObjectPath, Object>,
    /// How far its clock is ahead.
    ahead: Duration,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// A new store with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self { url: StoreUrl::Memory, content: Arc::default() }
    }

    /// Another store that has what this one has now.
    #[must_use]
    pub fn fork(&self) -> Self {
        let content = Arc::new(Mutex::new(self.content().clone()));
        Self { url: self.url.clone(), content }
    }

    /// Lets its clock jump ahead: what is there gets that much older beside what comes.
    pub fn age(&self, by: Duration) {
        self.content().ahead += by;
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        let mut content = self.content();
        if content.objects.contains_key(path) {
            return Err(StoreError::AlreadyExists { place: ObjectPlace::object(&self.url, path) });
        }
        let modified = Timestamp::now() + content.ahead;
        content.objects.insert(path.clone(), Object { bytes, modified });
        Ok(())
    }

    fn look<T>(
        &self,
        path: &ObjectPath,
        at: impl FnOnce(&Object, ObjectPlace) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let place = ObjectPlace::object(&self.url, path);
        match self.content().objects.get(path) {
            Some(object) => at(object, place),
            None => Err(StoreError::NotFound { place }),
        }
    }
}

/// A part of an object. `None` if the range does not lie in it.
fn slice(bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
    (start.max(end) <= bytes.len()).then(|| bytes.slice(start.min(end)..end))
}

fn info(path: &ObjectPath, object: &Object) -> ObjectInfo {
    let size_bytes = object.bytes.len() as u64;
    ObjectInfo { path: path.clone(), size_bytes, modified: object.modified }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> &StoreUrl {
        &self.url
    }

    async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        self.put(path, bytes)
    }

    async fn create_large(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Ok(Box::new(MemoryWriter { store: self.clone(), path: path.clone(), bytes: Vec::new() }))
    }

    async fn read_within(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.look(path, |object, place| {
            let size_bytes = object.bytes.len() as u64;
            if size_bytes > limit_bytes {
                return Err(StoreError::TooLong { place, size_bytes, limit_bytes });
            }
            Ok(object.bytes.clone())
        })
    }

    async fn read_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.look(path, |object, place| {
            let size_bytes = object.bytes.len() as u64;
            slice(&object.bytes, &range).ok_or(StoreError::RangeBeyondEnd {
                place,
                range,
                size_bytes,
            })
        })
    }

    async fn read_end(&self, path: &ObjectPath, bytes: u64) -> Result<ObjectEnd, StoreError> {
        self.look(path, |object, _| {
            let skipped =
                object.bytes.len() - object.bytes.len().min(bytes.try_into().unwrap_or(usize::MAX));
            let size_bytes = object.bytes.len() as u64;
            Ok(ObjectEnd { bytes: object.bytes.slice(skipped..), size_bytes })
        })
    }

    async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
        self.look(path, |object, _| Ok(info(path, object)))
    }

    async fn list(
        &self,
        prefix: &ObjectPrefix,
        start_after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE_OBJECTS);
        // Everything below `a` comes after `a` itself.
        let start = start_after.max(prefix.path());
        let range = (start.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let content = self.content();
        let mut below = content
            .objects
            .range::<ObjectPath, _>(range)
            // What sorts between a prefix and what is below it, such as `a-b`, is few.
            .skip_while(|(path, _)| prefix.strip(path).is_none() && precedes(path, prefix))
            .take_while(|(path, _)| prefix.strip(path).is_some());
        let objects: Vec<_> =
            below.by_ref().take(limit).map(|(path, object)| info(path, object)).collect();
        let next = below.next().and(objects.last()).map(|last| last.path.clone());
        Ok(ListPage { objects, next })
    }

    async fn list_children(&self, prefix: &ObjectPrefix) -> Result<Vec<String>, StoreError> {
        let content = self.content();
        let below = content.objects.keys().filter_map(|path| prefix.strip(path));
        let children: BTreeSet<&str> =
            below.map(|path| path.split_once('/').map_or(path, |(child, _)| child)).collect();
        Ok(children.into_iter().map(str::to_owned).collect())
    }

    async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.look(path, |_, _| Ok(()))
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.content().objects.remove(path);
        Ok(())
    }

    async fn delete_many(&self, paths: &[ObjectPath]) -> Result<(), StoreError> {
        let mut content = self.content();
        for path in paths {
            content.objects.remove(path);
        }
        Ok(())
    }

    /// What is unfinished goes with its writer.
    async fn sweep_unfinished(&self, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Whether a path sorts before everything below a prefix.
fn precedes(path: &ObjectPath, prefix: &ObjectPrefix) -> bool {
    path.as_str() < prefix.to_string().as_str()
}

struct MemoryWriter {
    store: MemoryStore,
    path: ObjectPath,
    bytes: Vec<u8>,
}

#[async_trait]
impl ObjectWriter for MemoryWriter {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(&part);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<u64, StoreError> {
        let size_bytes = self.bytes.len() as u64;
        self.store.put(&self.path, self.bytes.into())?;
        Ok(size_bytes)
    }

    async fn abort(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_ages_when_its_clock_jumps() {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let store = MemoryStore::new();
        let path = |text: &str| text.parse::<ObjectPath>().unwrap();
        store.create(&path("old"), Bytes::new()).await.unwrap();
        store.age(DAY);
        store.create(&path("young"), Bytes::new()).await.unwrap();
        let old = store.stat(&path("old")).await.unwrap().modified;
        let young = store.stat(&path("young")).await.unwrap().modified;
        assert!(old + DAY <= young, "{old} {young}");
    }
}
