use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::Result;
use seawall_repo::Repository;
use seawall_repo::wal::listing_splits;
use seawall_store::{ObjectPath, ObjectPrefix, Store};

/// How many names a listing asks for at a time.
const LIST_PAGE: usize = 1000;

/// How many parts of a listing run at the same time.
const PARTS_AT_ONCE: usize = 16;

/// The bytes of all objects of a repository. Of a long archive the parts are listed at once.
///
/// # Errors
/// A store that fails.
pub async fn stored_bytes(repository: &Repository) -> Result<u64> {
    let mut splits = Vec::new();
    for (cluster, id) in repository.lines().await? {
        splits.extend(listing_splits(&repository.line(&cluster, id)?).await?);
    }
    splits.sort();
    let begins = std::iter::once(None).chain(splits.iter().map(Some));
    let ends = splits.iter().map(Some).chain([None]);
    let store = repository.store();
    let parts: Vec<_> =
        begins.zip(ends).map(|(after, until)| bytes_between(store, after, until).boxed()).collect();
    stream::iter(parts)
        .buffer_unordered(PARTS_AT_ONCE)
        .try_fold(0u64, |sum, bytes| async move { Ok(sum.saturating_add(bytes)) })
        .await
}

/// The bytes of the objects whose paths come after one and not after the other.
async fn bytes_between(
    store: &dyn Store,
    after: Option<&ObjectPath>,
    until: Option<&ObjectPath>,
) -> Result<u64> {
    let (mut bytes, mut after) = (0, after.cloned());
    loop {
        let page = store.list(&ObjectPrefix::root(), after.as_ref(), LIST_PAGE).await?;
        for object in &page.objects {
            if until.is_some_and(|until| object.path > *until) {
                return Ok(bytes);
            }
            bytes += object.size_bytes;
        }
        after = page.next;
        if after.is_none() {
            return Ok(bytes);
        }
    }
}
