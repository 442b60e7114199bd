//! Every backup: are its parts there, and do they fit together?

use std::collections::BTreeSet;
use std::path::PathBuf;

use seawall_core::{BackupId, Code, NoProgress, Result, ResultExt};
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_store::ObjectPath;

use super::{Findings, VerifyRequest, name_of};
use crate::stored::{Layout, Sources, prove_backup};
use crate::wal::BackupPlace;

/// What a look at a line's backups gives.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Backups whose parts fit together, and the objects each uses.
    pub whole: Vec<(BackupId, BTreeSet<ObjectPath>)>,
    /// The others.
    pub broken: Vec<BackupId>,
    /// Where in the log the backups are that were looked at.
    pub places: Vec<BackupPlace>,
}

impl Checked {
    /// How many backups were looked at.
    pub fn count(&self) -> usize {
        self.whole.len() + self.broken.len()
    }

    /// All objects that backups use.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectPath> {
        self.whole.iter().flat_map(|(_, objects)| objects)
    }
}

/// Checks the backups of a line.
pub(super) async fn check(
    line: &Line,
    request: &VerifyRequest,
    findings: &mut Findings,
) -> Result<Checked> {
    let mut checked = Checked::default();
    for summary in line.backups().await? {
        if request.backups.as_ref().is_some_and(|wanted| !wanted.contains(&summary.id)) {
            continue;
        }
        checked.places.extend(BackupPlace::of(&summary));
        match check_backup(line, summary.id).await {
            Ok(objects) => checked.whole.push((summary.id, objects)),
            Err(error) => {
                checked.broken.push(summary.id);
                let name = name_of(line, &LineObject::Backup(summary.id, 0));
                findings.error(broken(&name, summary.id), &error);
            }
        }
    }
    Ok(checked)
}

/// What a finding about a backup whose parts do not fit together is about.
pub(super) fn broken(commit: &str, id: BackupId) -> String {
    format!("{commit} (backup {id})")
}

async fn check_backup(line: &Line, id: BackupId) -> Result<BTreeSet<ObjectPath>> {
    let Some(reader) = line.manifest(id).await? else { return Ok(BTreeSet::new()) };
    let info = &reader.commit.info;
    let sources = Sources::open(line, &reader, 0).await?;
    let mut objects: BTreeSet<ObjectPath> = sources.objects(&reader)?.into_iter().collect();
    objects.insert(line.paths().path(&LineObject::Backup(id, info.generation))?);
    objects.insert(line.paths().path(&LineObject::About)?);
    if let Some(head) = info.head {
        let path = line.paths().path(&LineObject::Head(head))?;
        line.store().stat(&path).await?;
    }
    let tablespaces = TablespaceMap::parse(&info.tablespace_map)
        .code(Code::ObjectInconsistent, || "its tablespace_map cannot be read".to_owned())?;
    // What a restore proves before it writes. Every object is read whole afterwards.
    let layout = Layout::new(PathBuf::from("/"), &tablespaces);
    prove_backup(&sources, &reader, &layout, None, &NoProgress).await?;
    Ok(objects)
}
