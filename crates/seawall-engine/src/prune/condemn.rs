//! Condemning what nobody needs.

use jiff::{SignedDuration, Timestamp};
use seawall_core::Result;
use seawall_repo::layout::LineObject;
use seawall_repo::records::Condemnation;
use seawall_repo::{Line, ObjectSet, new_ulid};

use super::Gone;
use super::look::Scanned;

/// So many names are in one condemnation at most.
// By number in docs/format.md (§10).
const NAMES_MAX: usize = 10_000;

/// Condemns what was found, commits by themselves and before all else: nobody begins to use a backup
/// of which parts are to go.
pub(super) async fn condemn(line: &Line, scanned: Scanned, grace: SignedDuration) -> Result<Gone> {
    let Scanned { objects, gone } = scanned;
    condemn_all(line, &objects, grace).await?;
    Ok(gone)
}

/// Condemns all of these.
pub(super) async fn condemn_all(
    line: &Line,
    objects: &ObjectSet,
    grace: SignedDuration,
) -> Result<()> {
    let mut names: Vec<String> = Vec::new();
    let mut is_of_commits = true;
    for object in objects.iter() {
        let is_commit = matches!(object, LineObject::Backup(..));
        if names.len() >= NAMES_MAX || (is_of_commits && !is_commit) {
            create(line, std::mem::take(&mut names), grace).await?;
        }
        is_of_commits = is_commit;
        names.push(line.paths().name(&object)?);
    }
    create(line, names, grace).await
}

async fn create(line: &Line, names: Vec<String>, grace: SignedDuration) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let now = Timestamp::now();
    let condemnation = Condemnation {
        time_us: now.as_microsecond(),
        names,
        grace_s: grace.unsigned_abs().as_secs(),
    };
    let id = LineObject::Gc(new_ulid(now)?, LineObject::CONDEMNED);
    line.repository().create_record(&line.paths().path(&id)?, &condemnation).await
}
