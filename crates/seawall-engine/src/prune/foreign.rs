//! What another program wrote, and this one does not know: nothing is deleted beside it.

use seawall_core::{ClusterName, Code, Error, LineId, Result};
use seawall_repo::Repository;
use seawall_repo::layout::{clusters, lines_of};
use seawall_store::{ObjectPath, ObjectPrefix};

/// The directories of a repository.
const ROOMS: [&str; 5] = ["c", "epochs", "format", "keys", "removals"];

/// Refuses a repository that has a directory this program does not know, at its root or among its
/// lines. What is in a line is looked at there.
///
/// # Errors
/// [`Code::UnknownObject`], and those of the store.
pub(super) async fn refuse(repository: &Repository) -> Result<()> {
    let store = repository.store();
    for name in store.list_children(&ObjectPrefix::root()).await? {
        if !ROOMS.contains(&name.as_str()) {
            return Err(unknown(name));
        }
    }
    for cluster in store.list_children(&clusters()?).await? {
        let Ok(known) = cluster.parse::<ClusterName>() else {
            return Err(unknown(format!("c/{cluster}")));
        };
        let of_cluster = ObjectPath::new(format!("c/{cluster}")).map(ObjectPrefix::below);
        let of_cluster = of_cluster.map_err(|_| unknown(format!("c/{cluster}")))?;
        for name in store.list_children(&of_cluster).await? {
            if name != "i" {
                return Err(unknown(format!("c/{cluster}/{name}")));
            }
        }
        for line in store.list_children(&lines_of(&known)?).await? {
            if line.parse::<LineId>().is_err() {
                return Err(unknown(format!("c/{cluster}/i/{line}")));
            }
        }
    }
    Ok(())
}

/// A name that this format does not have.
pub(super) fn unknown(name: impl std::fmt::Display) -> Error {
    let what = format!(
        "nothing was deleted: {name} is in the repository, and its name is not one Seawall gives"
    );
    Error::new(Code::UnknownObject, what)
        .with_hint("If a newer Seawall wrote it, prune with that one; if it is not Seawall's, take it out of the repository.")
}
