use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{ObjectPath, ObjectPrefix, StoreError, StoreUrl};

/// The most objects one page of a listing holds, whatever was asked for.
pub const MAX_PAGE_OBJECTS: usize = 10_000;

/// The most bytes one call to [`Store::read`] or [`Store::read_range`] gives.
///
/// A length found on a disk or in a network answer must not decide how much memory is taken.
pub const MAX_READ_BYTES: u64 = 2 << 30;

/// What a store knows about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub path: ObjectPath,
    /// Its length.
    pub size_bytes: u64,
    /// When it was written, by the store's own clock. Ages are measured against another object's
    /// `modified` in the same store, never against this machine's clock.
    pub modified: Timestamp,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// Objects in byte order of their paths.
    pub objects: Vec<ObjectInfo>,
    /// Where the next page starts (`start_after`); `None` when the listing is complete.
    pub next: Option<ObjectPath>,
}

/// The last bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEnd {
    /// The bytes: as many as were asked for, or the whole of a shorter object.
    pub bytes: Bytes,
    /// The object's length.
    pub size_bytes: u64,
}

impl ObjectEnd {
    /// Where in the object the bytes begin.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.size_bytes.saturating_sub(self.bytes.len() as u64)
    }
}

/// Storage for objects that are written once.
///
/// A name is never both an object and a prefix of other objects: stores are free to refuse it.
///
/// Every promise here is one a crash cannot break. An object a call said it created is there after
/// a power cut, whole; one that is visible at all has all of its bytes.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Where the store is, as it may be shown to people: without secrets.
    fn url(&self) -> &StoreUrl;

    /// Creates a whole object; durable when it returns. For objects that fit in memory easily.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if anything is at `path`; what is there is durable and was
    /// not touched. After any other error the object may or may not exist.
    async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError>;

    /// Begins a large object that is written in order. Nothing is visible at `path` before
    /// [`ObjectWriter::finish`].
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the store notices already that `path` is taken.
    async fn create_large(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// Reads a whole object of at most [`MAX_READ_BYTES`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and [`StoreError::ShortRead`] if the object ends early.
    async fn read(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        self.read_within(path, MAX_READ_BYTES).await
    }

    /// Reads a whole object of at most `limit_bytes`: nothing of one that is longer.
    ///
    /// # Errors
    /// Also [`StoreError::TooLong`].
    async fn read_within(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError>;

    /// Reads exactly the bytes of `range`, at most [`MAX_READ_BYTES`].
    ///
    /// # Errors
    /// [`StoreError::RangeBeyondEnd`] if the object is shorter than `range.end`: never fewer bytes
    /// than asked for.
    async fn read_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Reads the last `bytes` bytes of an object, at most [`MAX_READ_BYTES`], and its length, in
    /// one call. All of an object that is shorter.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and [`StoreError::ShortRead`] if the object ends early.
    async fn read_end(&self, path: &ObjectPath, bytes: u64) -> Result<ObjectEnd, StoreError>;

    /// What the store knows about an object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError>;

    /// Makes an object durable that is there. Its writer may have died, or still be busy, between
    /// making it visible and making it durable: whoever builds a promise on it asks for this first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and whatever keeps the store from promising it.
    async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError>;

    /// One page of the objects below `prefix`, in byte order of the whole path, that come after
    /// `start_after` (which need not exist). `limit` is taken to lie within 1 and
    /// [`MAX_PAGE_OBJECTS`]; a page may hold fewer objects and still not be the last.
    ///
    /// An object that was finished before the call and not deleted is in the listing. A prefix
    /// below which nothing is gives an empty page.
    ///
    /// # Errors
    /// Whatever kept the listing from being complete.
    async fn list(
        &self,
        prefix: &ObjectPrefix,
        start_after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<ListPage, StoreError>;

    /// The first components below `prefix`, of objects and of what objects are below, in byte
    /// order: what a directory shows. What has no object in it is not among them.
    ///
    /// # Errors
    /// Whatever kept the listing from being complete.
    async fn list_children(&self, prefix: &ObjectPrefix) -> Result<Vec<String>, StoreError>;

    /// Deletes an object, durably. What is not there is deleted already: that is success, so that
    /// a delete can be repeated.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] for instance when the store holds the object locked.
    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError>;

    /// Deletes objects, each as [`Self::delete`] does, in any order and in as few calls to the
    /// storage as it can.
    ///
    /// # Errors
    /// Those of [`Self::delete`]. Each of the others may then be gone or be there; as many as can
    /// be are gone.
    async fn delete_many(&self, paths: &[ObjectPath]) -> Result<(), StoreError>;

    /// Removes what killed writers left unfinished and nobody has written to for `older_than`. A
    /// writer that is alive and slower than that fails cleanly; a day is a safe choice. Nothing is
    /// done where nothing is ever left.
    ///
    /// # Errors
    /// What keeps something unfinished from being seen or removed.
    async fn sweep_unfinished(&self, older_than: Duration) -> Result<(), StoreError>;
}

/// A large object on its way into a [`Store`].
///
/// Dropping a writer abandons the object like [`abort`](Self::abort), without waiting for it.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Takes the next bytes. They may still be on their way when it returns; a store holds a
    /// bounded number of bytes and lets the caller wait beyond that.
    ///
    /// # Errors
    /// The first failure of this write or an earlier one. The writer is of no more use then, nor
    /// after the future of a `write` was dropped unfinished.
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError>;

    /// Makes the object durable and visible, in this order, and gives its size in bytes.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if anything is at the path by now; as for [`Store::create`].
    async fn finish(self: Box<Self>) -> Result<u64, StoreError>;

    /// Abandons the object and waits until what was written of it is gone, as far as possible.
    async fn abort(self: Box<Self>);
}
