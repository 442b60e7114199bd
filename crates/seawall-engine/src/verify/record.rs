//! Noting in the repository which backups were found whole, and which damaged.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seawall_core::{BackupId, Error};
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

/// Adds a `damaged` event to every backup of which something was found gone or spoilt, and a
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
    for (id, said) in judged(line, checked, proven, findings) {
        if said == Said::Verified {
            recorded.whole.push(id.to_string());
        }
        if recorded.failure.is_none() {
            recorded.failure = events::record(line, id, &said, now).await.err();
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

fn damaged(object: &str, problem: &str) -> Said {
    Said::Damaged(BTreeMap::from([(object.to_owned(), problem.to_owned())]))
}
