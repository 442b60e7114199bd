//! Deleting what was decided to go. What is gone already is deleted already.

use seawall_core::{Progress, Result, Ulid};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::{Line, ObjectSet};
use seawall_store::ObjectPath;

/// How many objects are deleted at a time.
const AT_ONCE: usize = 1000;

/// Deletes objects, commits first.
pub(super) async fn delete(line: &Line, goes: &ObjectSet, progress: &dyn Progress) -> Result<()> {
    let total = goes.len();
    let mut paths: Vec<ObjectPath> = Vec::new();
    let mut done = 0;
    let mut is_of_commits = true;
    for object in goes.iter() {
        // All commits are gone before anything that they name goes.
        let is_commit = matches!(object, LineObject::Backup(..));
        if paths.len() >= AT_ONCE || (is_of_commits && !is_commit) {
            done += paths.len();
            line.store().delete_many(&paths).await?;
            progress.detail(&format!("{done} of {total} objects deleted"));
            paths.clear();
        }
        is_of_commits = is_commit;
        paths.push(line.paths().path(&object)?);
    }
    line.store().delete_many(&paths).await?;
    Ok(())
}

/// Takes away what told that something goes, once it is gone and a head tells what remains. What was
/// decided goes last: alone it says nothing, and one that is alone is left over.
pub(super) async fn finish(line: &Line, decided: impl Iterator<Item = Ulid>) -> Result<()> {
    let path = |id, number| line.paths().path(&LineObject::Gc(id, number));
    for id in decided {
        line.store().delete(&path(id, LineObject::CONDEMNED)?).await?;
        line.store().delete(&path(id, LineObject::DECIDED)?).await?;
    }
    let mut alone = None;
    for listed in line.repository().list(&line.paths().below("gc")?).await? {
        let Some(ObjectName::Line(_, _, LineObject::Gc(id, number))) = ObjectName::parse(&listed)
        else {
            continue;
        };
        match number {
            LineObject::CONDEMNED => alone = Some(id),
            _ if alone == Some(id) => {}
            _ => line.store().delete(&listed).await?,
        }
    }
    Ok(())
}
