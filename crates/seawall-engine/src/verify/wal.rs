//! The WAL of a line: is what the backups need there, and does it hang together?

use seawall_core::{BackupId, Code, Lsn, Result, TimelineId};
use seawall_repo::Line;
use seawall_repo::wal::{FactsPart, WalArchive};

use super::Findings;

/// Walks the seams of the WAL that backups need to become consistent, and of all WAL after them.
pub(super) async fn check(
    line: &Line,
    spans: &[(BackupId, TimelineId, Lsn, Lsn)],
    findings: &mut Findings,
) -> Result<()> {
    let archive = WalArchive::open(line.clone()).await?;
    for (id, timeline, start, stop) in spans {
        let subject = format!("backup {id}");
        let ancestry = match archive.ancestry(*timeline).await {
            Ok(ancestry) => ancestry,
            Err(error) => {
                findings.error(subject, &error);
                continue;
            }
        };
        let mut facts = archive.facts(&ancestry, *start, *stop);
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
        if facts.complete_to() < *stop {
            let what =
                format!("its WAL is complete to {} only, not to {stop}", facts.complete_to());
            findings.add(&subject, Code::WalGap, what);
        }
    }
    Ok(())
}
