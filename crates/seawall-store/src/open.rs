use std::sync::Arc;

use crate::fs::{FsOptions, FsStore};
use crate::{
    Credentials, Limited, Limits, ObjectPlace, RetryPolicy, Retrying, Store, StoreError, StoreUrl,
};

/// How a store is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// What it is shown.
    pub credentials: Credentials,
    /// How often it is asked again when it does not answer.
    pub retry: RetryPolicy,
    /// How much may be asked of it.
    pub limits: Limits,
}

/// Opens the store at a URL. It has to exist: a volume that is not mounted is not an empty store.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such directory or bucket, and
/// [`StoreError::NeedsNoCredentials`].
pub async fn open(url: &StoreUrl, options: &OpenOptions) -> Result<Arc<dyn Store>, StoreError> {
    let store = match url {
        StoreUrl::Directory(directory) => {
            refuse_credentials(url, &options.credentials)?;
            FsStore::open(directory, FsOptions::default()).await?
        }
        #[cfg(any(test, feature = "testing"))]
        StoreUrl::Memory => return Err(StoreError::NotFound { place: ObjectPlace::store(url) }),
    };
    Ok(layered(Arc::new(store), options))
}

/// Opens the store at a URL and makes it first if there is none.
///
/// # Errors
/// [`StoreError::Forbidden`] and the like if it cannot be made, and those of [`open`].
pub async fn open_or_create(
    url: &StoreUrl,
    options: &OpenOptions,
) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        StoreUrl::Directory(directory) => {
            FsStore::make_root(directory, FsOptions::default()).await?;
        }
        #[cfg(any(test, feature = "testing"))]
        StoreUrl::Memory => {}
    }
    open(url, options).await
}

/// Outside in: a call that waits to be repeated keeps no other one waiting.
fn layered(store: Arc<dyn Store>, options: &OpenOptions) -> Arc<dyn Store> {
    let mut store = store;
    if options.limits != Limits::default() {
        store = Arc::new(Limited::new(store, options.limits.clone()));
    }
    if options.retry != RetryPolicy::NEVER {
        store = Arc::new(Retrying::new(store, options.retry));
    }
    store
}

/// Who gives a secret expects that it guards something.
fn refuse_credentials(url: &StoreUrl, credentials: &Credentials) -> Result<(), StoreError> {
    match credentials {
        Credentials::OfTheProcess => Ok(()),
        Credentials::Named { .. } => {
            Err(StoreError::NeedsNoCredentials { place: ObjectPlace::store(url) })
        }
    }
}

#[cfg(test)]
mod tests {
    use seawall_core::{Code, Error, Secret};

    use super::*;

    #[tokio::test]
    async fn credentials_that_guard_nothing_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let url = StoreUrl::from_directory(directory.path()).unwrap();
        let secret = Secret::new("hunter2");
        let credentials = Credentials::Named { name: "me".to_owned(), secret };
        let options = OpenOptions { credentials, ..OpenOptions::default() };
        let refused = Error::from(open(&url, &options).await.unwrap_err());
        assert_eq!(refused.code(), Code::StoreUrlInvalid);
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
        open(&url, &OpenOptions::default()).await.unwrap();
    }
}
