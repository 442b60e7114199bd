//! The WAL of a line: is what the backups need there, and does it hang together?

use std::collections::BTreeSet;

use seawall_core::{Code, Result};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{FactsPart, WalArchive};
use seawall_store::ObjectPath;

use super::backups::Checked;
use super::{Findings, subject};
use crate::wal::BackupPlace;

/// Walks the seams of the WAL that backups need to become consistent, and adds its objects to those
/// they use.
pub(super) async fn check(archive: &WalArchive, checked: &mut Checked, findings: &mut Findings) {
    for place in &checked.places {
        let subject = subject(place.id);
        let ancestry = match archive.ancestry(place.stop_timeline).await {
            Ok(ancestry) => ancestry,
            Err(error) => {
                findings.error(subject, &error);
                continue;
            }
        };
        check_seams(archive, &ancestry, place, findings).await;
        match objects_of(archive, &ancestry, place).await {
            Ok(objects) => {
                let used = checked.whole.iter_mut().find(|(id, _)| *id == place.id);
                used.into_iter().for_each(|(_, used)| used.extend(objects.iter().cloned()));
            }
            Err(error) => findings.error(subject, &error),
        }
    }
}

async fn check_seams(
    archive: &WalArchive,
    ancestry: &Ancestry,
    place: &BackupPlace,
    findings: &mut Findings,
) {
    let (subject, stop) = (subject(place.id), place.stop_lsn);
    let mut facts = archive.facts(ancestry, place.start_lsn, stop);
    loop {
        match facts.next().await {
            Ok(Some(FactsPart::Facts { .. })) => {}
            Ok(Some(FactsPart::Hole(hole))) => {
                findings.add(&subject, Code::WalGap, hole.into_error().chain());
            }
            Ok(None) => break,
            Err(error) => {
                findings.error(&subject, &error);
                break;
            }
        }
    }
    if facts.complete_to() < stop {
        let what = format!("its WAL is complete to {} only, not to {stop}", facts.complete_to());
        findings.add(&subject, Code::WalGap, what);
    }
}

/// The ranges from a backup's start to its stop, and what tells of the timelines they are on.
async fn objects_of(
    archive: &WalArchive,
    ancestry: &Ancestry,
    place: &BackupPlace,
) -> Result<BTreeSet<ObjectPath>> {
    let ranges = archive.objects_of(ancestry, place.start_lsn, place.stop_lsn).await?;
    let mut objects = archive.history_objects(ancestry).await?;
    objects.extend(ranges);
    Ok(objects)
}
