//! A store in a local directory.
//!
//! An object is a regular file at its path below the root. It is written under a temporary name in
//! the same directory, synced, hard-linked to its name (which fails if the name is taken) and the
//! directory is synced; only then is it created. Temporary names end in
//! [`RESERVED_SUFFIX`](crate::RESERVED_SUFFIX), which no object's name may; a killed process leaves
//! such files behind, and [`FsStore::sweep_temporary`] removes them.
//!
//! A file without a name (`O_TMPFILE`) would leave nothing behind. It is not used: btrfs, in most
//! kernels there are, does not log such a file when it is synced (`btrfs_log_inode_parent`,
//! tree-log.c), so that between link and next commit a name could survive a power cut without its
//! bytes, and stand in the way for ever; and a directory that holds only such files is empty to whoever
//! deletes the last object in it, and goes.
//!
//! Nothing below the root is followed out of it: paths are walked one component at a time and
//! symbolic links, pipes and devices are refused. The root itself may be a symbolic link. The root
//! is kept open, so that a volume unmounted and replaced under a running process is not written to.

mod delete;
mod large;
mod list;
mod publish;
mod read;
mod root;
mod sweep;
mod sync;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::Mode;

use crate::{
    ListPage, ObjectEnd, ObjectInfo, ObjectPath, ObjectPlace, ObjectPrefix, ObjectWriter, Store,
    StoreDirectory, StoreError, StoreUrl,
};
use publish::Unfinished;
use sync::{Kernel, SyncCalls};
use tree::Tree;

pub use sweep::Swept;
pub use sync::{sync_directory, sync_directory_at};

/// How a filesystem store makes its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsOptions {
    /// Permission bits of objects, whatever the umask. 0600 unless told otherwise: a repository
    /// may hold unencrypted metadata of a whole database.
    pub file_mode: u32,
    /// Permission bits of directories that are made, whatever the umask. 0700 unless told otherwise.
    pub directory_mode: u32,
}

impl Default for FsOptions {
    fn default() -> Self {
        Self { file_mode: 0o600, directory_mode: 0o700 }
    }
}

impl FsOptions {
    const fn file(self) -> Mode {
        Mode::from_raw_mode(self.file_mode & 0o777)
    }

    const fn directory(self) -> Mode {
        Mode::from_raw_mode(self.directory_mode & 0o777)
    }
}

/// A store in a local directory. See the [module](self) for how it keeps its promises.
#[derive(Debug)]
pub struct FsStore {
    tree: Arc<Tree>,
}

impl FsStore {
    /// Opens the store in a directory that exists.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it does not.
    pub async fn open(directory: &StoreDirectory, options: FsOptions) -> Result<Self, StoreError> {
        Self::open_with(directory, options, Arc::new(Kernel)).await
    }

    /// Makes the directory of a store, and what it is in, durably, if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] and the like if it cannot be made.
    pub async fn make_root(
        directory: &StoreDirectory,
        options: FsOptions,
    ) -> Result<(), StoreError> {
        let root = directory.clone();
        let place = ObjectPlace::store(&StoreUrl::Directory(root.clone()));
        blocking(place, move || root::make(&root, options)).await
    }

    async fn open_with(
        directory: &StoreDirectory,
        options: FsOptions,
        syncs: Arc<dyn SyncCalls>,
    ) -> Result<Self, StoreError> {
        let root = directory.clone();
        let place = ObjectPlace::store(&StoreUrl::Directory(root.clone()));
        let tree = blocking(place, move || Tree::open(&root, options, syncs)).await?;
        Ok(Self { tree: Arc::new(tree) })
    }

    /// Removes unfinished files that nobody has written to for `older_than`: what killed processes
    /// left. A writer that is alive and slower than that fails cleanly; a day is a safe choice.
    ///
    /// # Errors
    /// The first directory that cannot be read or file that cannot be removed.
    pub async fn sweep_temporary(&self, older_than: Duration) -> Result<Swept, StoreError> {
        self.blocking(ObjectPlace::store(self.url()), move |tree| sweep::sweep(tree, older_than))
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        place: ObjectPlace,
        work: impl FnOnce(&Tree) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tree = Arc::clone(&self.tree);
        blocking(place, move || work(&tree)).await
    }

    fn place(&self, path: &ObjectPath) -> ObjectPlace {
        ObjectPlace::object(self.url(), path)
    }
}

#[async_trait]
impl Store for FsStore {
    fn url(&self) -> &StoreUrl {
        self.tree.url()
    }

    async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        let object = path.clone();
        self.blocking(self.place(path), move |tree| {
            let file = Unfinished::begin(tree, &object)?;
            file.write_at(&bytes, 0)?;
            file.publish(tree)
        })
        .await
    }

    async fn create_large(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let object = path.clone();
        let file =
            self.blocking(self.place(path), move |tree| Unfinished::begin(tree, &object)).await?;
        Ok(Box::new(large::FsWriter::start(Arc::clone(&self.tree), file)))
    }

    async fn read_within(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let object = path.clone();
        self.blocking(self.place(path), move |tree| read::whole(tree, &object, limit_bytes)).await
    }

    async fn read_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        let object = path.clone();
        self.blocking(self.place(path), move |tree| read::range(tree, &object, range)).await
    }

    async fn read_end(&self, path: &ObjectPath, bytes: u64) -> Result<ObjectEnd, StoreError> {
        let object = path.clone();
        self.blocking(self.place(path), move |tree| read::end(tree, &object, bytes)).await
    }

    async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
        let object = path.clone();
        self.blocking(self.place(path), move |tree| read::stat(tree, &object)).await
    }

    async fn list(
        &self,
        prefix: &ObjectPrefix,
        start_after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let place = ObjectPlace::prefix(self.url(), prefix);
        let (prefix, start_after) = (prefix.clone(), start_after.cloned());
        self.blocking(place, move |tree| list::page(tree, &prefix, start_after.as_ref(), limit))
            .await
    }

    async fn list_children(&self, prefix: &ObjectPrefix) -> Result<Vec<String>, StoreError> {
        let (place, prefix) = (ObjectPlace::prefix(self.url(), prefix), prefix.clone());
        self.blocking(place, move |tree| list::children(tree, &prefix)).await
    }

    async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let object = path.clone();
        self.blocking(self.place(path), move |tree| publish::make_durable(tree, &object)).await
    }

    async fn sweep_unfinished(&self, older_than: Duration) -> Result<(), StoreError> {
        self.sweep_temporary(older_than).await.map(drop)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let object = path.clone();
        let delete = move |tree: &Tree| delete::objects(tree, std::slice::from_ref(&object));
        self.blocking(self.place(path), delete).await
    }

    async fn delete_many(&self, paths: &[ObjectPath]) -> Result<(), StoreError> {
        let paths = paths.to_vec();
        let place = ObjectPlace::store(self.url());
        self.blocking(place, move |tree| delete::objects(tree, &paths)).await
    }
}

/// Runs filesystem calls on a thread that may wait for a disk. They go on to their end even if the
/// returned future is dropped.
async fn blocking<T: Send + 'static>(
    place: ObjectPlace,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => {
            Err(StoreError::Io { place, doing: "accessing", source: std::io::Error::other(error) })
        }
    }
}
