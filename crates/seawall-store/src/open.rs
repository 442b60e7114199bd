use std::sync::Arc;

use crate::fs::{FsOptions, FsStore};
use crate::{Store, StoreError, StoreUrl};

/// Opens the store at a URL. It has to exist: a volume that is not mounted is not an empty store.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such directory.
pub async fn open(url: &StoreUrl) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(FsStore::open(url, FsOptions::default()).await?))
}

/// Opens the store at a URL and makes it first if there is none.
///
/// # Errors
/// [`StoreError::Forbidden`] and the like if it cannot be made.
pub async fn open_or_create(url: &StoreUrl) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(FsStore::open_or_create(url, FsOptions::default()).await?))
}
