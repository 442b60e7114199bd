use seawall_core::Result;
use seawall_repo::Repository;
use seawall_store::ObjectPrefix;

/// How many names a listing asks for at a time.
const LIST_PAGE: usize = 1000;

/// The bytes of all objects of a repository.
///
/// # Errors
/// A store that fails.
pub async fn stored_bytes(repository: &Repository) -> Result<u64> {
    let (store, mut bytes, mut after) = (repository.store(), 0, None);
    loop {
        let page = store.list(&ObjectPrefix::root(), after.as_ref(), LIST_PAGE).await?;
        bytes += page.objects.iter().map(|object| object.size_bytes).sum::<u64>();
        after = page.next;
        if after.is_none() {
            return Ok(bytes);
        }
    }
}
