use super::{Facts, FindingList, RepositoryFacts, Severity};
use crate::check::FindingId;

impl FindingList {
    /// Another server was promoted, or restored, and archives, or one that was left does still: there
    /// are two pasts.
    pub(super) fn newer_timeline(&mut self, facts: &Facts, repository: &RepositoryFacts) {
        let newer = repository.newest_timeline.zip(facts.timeline);
        let Some((newest, server)) = newer.filter(|(newest, server)| newest > server) else {
            for foreign in &repository.foreign_wal {
                let fix = "stop the other server for good, then take a backup";
                let what = foreign.what();
                self.add(FindingId::Timelines, Severity::Warning, what, fix);
            }
            return;
        };
        self.add(
            FindingId::Timelines,
            Severity::Critical,
            format!(
                "the server writes timeline {server}, and repository {} has timeline {newest}: another server was promoted or restored as the primary, and restores have to be told which is meant (SW0609)",
                repository.name
            ),
            "if the other one is the primary now, stop this one, and point `connection` and `data_directory` there; if this one is, stop the other, and start yours again as a restore of its own timeline: `--latest --timeline N --as primary`, then take a backup",
        );
    }
}
