//! The WAL of a line: is what the backups need there, and does it hang together?

use seawall_core::{BackupId, Code, Lsn, TimelineId};
use seawall_repo::wal::{FactsPart, WalArchive};

use super::{Findings, subject};

/// Walks the seams of the WAL that backups need to become consistent.
pub(super) async fn check(
    archive: &WalArchive,
    spans: &[(BackupId, TimelineId, Lsn, Lsn)],
    findings: &mut Findings,
) {
    for (id, timeline, start, stop) in spans {
        let subject = subject(*id);
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
}
