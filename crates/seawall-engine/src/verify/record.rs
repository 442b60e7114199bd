//! Noting in the repository which backups were found whole, and which damaged.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seawall_core::{BackupId, Error, Result};
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_store::ObjectPath;

use super::backups::{Checked, broken};
use super::{Findings, name_of, subject};
use crate::events::{self, Said};

/// What was found of backups, and whether it is recorded.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The backups without any finding, of which all was read.
    pub whole: Vec<String>,
    /// Why it is not recorded, or not of all.
    pub failure: Option<Error>,
}

/// Adds a `damaged` event to every backup of which something was found gone or spoilt, be it that it
/// shares it with one that was looked at or was made meanwhile, and a
/// `verified` event to every one without any finding, of which all was read and `proven`; `None` if
/// not all was to be read.
pub(super) async fn record(
    line: &Line,
    checked: Checked,
    proven: Option<&BTreeSet<ObjectPath>>,
    findings: &Findings,
    now: Timestamp,
) -> Recorded {
    let mut recorded = Recorded::default();
    let looked_at = checked.whole.iter().map(|(id, _)| *id).chain(checked.broken.iter().copied());
    let looked_at: BTreeSet<BackupId> = looked_at.collect();
    let mut judged = judged(line, checked, proven, findings);
    match sharing(line, &looked_at, findings).await {
        Ok(others) => judged.extend(others),
        Err(error) => recorded.failure = Some(error),
    }
    for (id, said) in judged {
        if said == Said::Verified {
            recorded.whole.push(id.to_string());
        }
        if let Err(error) = events::record(line, id, &said, now).await {
            recorded.failure.get_or_insert(error);
        }
    }
    recorded
}

/// What is to be said of each backup.
fn judged(
    line: &Line,
    checked: Checked,
    proven: Option<&BTreeSet<ObjectPath>>,
    findings: &Findings,
) -> Vec<(BackupId, Said)> {
    let found: BTreeSet<&str> = findings.listed.keys().map(|(object, _)| object.as_str()).collect();
    let mut judged = Vec::new();
    for id in checked.broken {
        let name = broken(&name_of(line, &LineObject::Backup(id, 0)), id);
        if let Some(problem) = findings.damaged.get(&name) {
            judged.push((id, damaged(&name, problem)));
        }
    }
    for (id, objects) in checked.whole {
        let about = subject(id);
        let names =
            || std::iter::once(about.as_str()).chain(objects.iter().map(ObjectPath::as_str));
        let problem = names().find_map(|name| Some((name, findings.damaged.get(name)?)));
        if let Some((name, problem)) = problem {
            judged.push((id, damaged(name, problem)));
            continue;
        }
        let was_read =
            proven.is_some_and(|proven| objects.iter().all(|path| proven.contains(path)));
        if was_read && !names().any(|name| found.contains(name)) {
            judged.push((id, Said::Verified));
        }
    }
    judged
}

/// Of the backups that were not looked at those that need something that was found gone or spoilt.
async fn sharing(
    line: &Line,
    looked_at: &BTreeSet<BackupId>,
    findings: &Findings,
) -> Result<Vec<(BackupId, Said)>> {
    let mut sharing = Vec::new();
    if findings.damaged.is_empty() {
        return Ok(sharing);
    }
    let mut there = BTreeSet::new();
    for below in ["pack", "map", "manifest"] {
        there.extend(line.repository().list(&line.paths().below(below)?).await?);
    }
    for backup in line.backups().await? {
        if looked_at.contains(&backup.id) || backup.info.is_err() {
            continue;
        }
        let Some(manifest) = line.manifest(backup.id).await? else { continue };
        let parts = &manifest.commit.parts;
        let packs = manifest.packs(line.store()).await?;
        let objects = packs.iter().map(|pack| LineObject::Pack(pack.id));
        let objects = objects.chain(parts.maps.iter().map(|map| LineObject::Map(map.id)));
        let manifests = parts.manifests.iter().map(|it| LineObject::Manifest(it.id));
        for object in objects.chain(manifests) {
            let path = line.paths().path(&object)?;
            let problem = findings.damaged.get(path.as_str()).map(String::as_str);
            let gone = (!there.contains(&path)).then_some("it is gone");
            if let Some(problem) = problem.or(gone) {
                sharing.push((backup.id, damaged(path.as_str(), problem)));
                break;
            }
        }
    }
    Ok(sharing)
}

fn damaged(object: &str, problem: &str) -> Said {
    Said::Damaged(BTreeMap::from([(object.to_owned(), problem.to_owned())]))
}
