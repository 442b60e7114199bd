use seawall_core::ByteSize;

use super::{FindingList, RepositoryFacts, Severity};
use crate::check::FindingId;

/// Room for fewer backups than this is a matter for soon.
const BACKUPS_AHEAD: u64 = 3;

impl FindingList {
    /// Whether the next backup will fit. Nothing is removed by itself.
    pub(super) fn room(&mut self, repository: &RepositoryFacts) {
        let Some((free, newest)) = repository.free_bytes.zip(repository.newest_backup_bytes) else {
            return;
        };
        if free >= newest.saturating_mul(BACKUPS_AHEAD) {
            return;
        }
        let (severity, fits) = if free < newest {
            (Severity::Critical, "the next one will not fit, and WAL fills what is left")
        } else {
            (Severity::Advice, "soon no other will fit")
        };
        self.add(
            FindingId::RepositoryRoom,
            severity,
            format!(
                "the disk of repository {} has {} free, and the newest backup took {}: {fits}",
                repository.name,
                ByteSize(free),
                ByteSize(newest)
            ),
            "make room there, or begin a new repository elsewhere: name it beside this one in `repositories`, back up into both, then take this one out",
        );
    }
}
