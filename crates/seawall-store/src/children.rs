use crate::{ObjectPath, ObjectPrefix, Store, StoreError};

/// The first components below `prefix`, of objects and of what objects are below, in order.
///
/// What a directory listing would show, made of [`Store::list`]: one short page per child, whatever
/// the number of objects below it.
///
/// # Errors
/// Those of [`Store::list`].
pub async fn list_children(
    store: &dyn Store,
    prefix: &ObjectPrefix,
) -> Result<Vec<String>, StoreError> {
    let mut children: Vec<String> = Vec::new();
    let mut after: Option<ObjectPath> = None;
    loop {
        let page = store.list(prefix, after.as_ref(), 1).await?;
        let Some(object) = page.objects.into_iter().next() else {
            let Some(next) = page.next else {
                children.sort_unstable();
                return Ok(children);
            };
            after = Some(next);
            continue;
        };
        let below = prefix.strip(&object.path).unwrap_or_default();
        let (child, is_object) =
            below.split_once('/').map_or((below, true), |(child, _)| (child, false));
        let known = children.last().is_some_and(|last| last == child);
        after = if is_object || known {
            Some(object.path.clone())
        } else {
            past_everything_below(prefix, child).or_else(|| Some(object.path.clone()))
        };
        if !known {
            children.push(child.to_owned());
        }
    }
}

/// A path that sorts after nearly all others below `prefix/child/`: `z` is the last byte allowed.
/// What sorts later still is met once more and costs a page, not a mistake.
fn past_everything_below(prefix: &ObjectPrefix, child: &str) -> Option<ObjectPath> {
    prefix.join(&format!("{child}/{}", "z".repeat(64))).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::Metered;
    use crate::fs::tests::temporary_store;

    #[tokio::test]
    async fn children_are_found_without_reading_every_object() {
        let (_guard, store) = temporary_store().await;
        let store = Metered::new(Arc::new(store));
        let last = format!("c/main/{}/x", "z".repeat(80));
        let mut names = vec!["c/about", "c/main0", "c/main-b/x", "d/x", last.as_str()];
        let many: Vec<String> = (0..40).map(|n| format!("c/main/pack/{n}")).collect();
        names.extend(many.iter().map(String::as_str));
        for name in names {
            store.create(&name.parse().unwrap(), Bytes::new()).await.unwrap();
        }
        let prefix = ObjectPrefix::below("c".parse().unwrap());
        let children = list_children(&store, &prefix).await.unwrap();
        assert_eq!(children, ["about", "main", "main-b", "main0"]);
        assert!(store.counts().list < 10, "{:?}", store.counts());
        assert_eq!(list_children(&store, &ObjectPrefix::root()).await.unwrap(), ["c", "d"]);
    }
}
