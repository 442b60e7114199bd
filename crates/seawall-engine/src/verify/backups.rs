//! Every backup: are its parts there, and do they fit together?

use std::collections::BTreeSet;
use std::path::PathBuf;

use seawall_core::{BackupId, Code, NoProgress, Result, ResultExt};
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_store::ObjectPath;

use super::heads::Heads;
use super::{Findings, GoingBackup, VerifyRequest, name_of};
use crate::pinned::{Pinned, pin_read};
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
    /// Those that are to be deleted, which were not looked at.
    pub going: Vec<GoingBackup>,
    /// What keeps those that were looked at from being deleted meanwhile.
    pub pinned: Option<Pinned>,
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
    heads: &Heads,
    findings: &mut Findings,
) -> Result<Checked> {
    let mut checked = Checked::default();
    let mut summaries = line.all_backups().await?;
    summaries.retain(|it| request.backups.as_ref().is_none_or(|wanted| wanted.contains(&it.id)));
    let stays = summaries.iter().filter(|summary| summary.goes_at.is_none());
    checked.pinned = pin_read(line, "verify", stays.map(|summary| summary.id.0).collect()).await;
    for summary in summaries {
        if let Some(goes_at) = summary.goes_at {
            checked.going.push(GoingBackup { id: summary.id.to_string(), goes_at });
            continue;
        }
        checked.places.extend(BackupPlace::of(&summary));
        match check_backup(line, summary.id, heads).await {
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

async fn check_backup(line: &Line, id: BackupId, heads: &Heads) -> Result<BTreeSet<ObjectPath>> {
    let Some(reader) = line.manifest(id).await? else { return Ok(BTreeSet::new()) };
    let info = &reader.commit.info;
    let sources = Sources::open(line, &reader, 0).await?;
    let mut objects: BTreeSet<ObjectPath> = sources.objects(&reader)?.into_iter().collect();
    let commit = line.paths().path(&LineObject::Backup(id, info.generation))?;
    let head = info.head.filter(|_| !heads.vouch_for(&commit));
    objects.insert(commit);
    objects.insert(line.paths().path(&LineObject::About)?);
    if let Some(head) = head {
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
