//! The verb verify: every repository of the request.

use std::collections::BTreeSet;

use seawall_core::{Action, BackupId, Code, Progress, Result};
use seawall_repo::Repository;

use super::{
    Job, JobEnd, JobEvent, JobFinding, JobReport, JobRepository, RepositoryOutcome, VerifyVerb,
    lacks,
};
use crate::check::{FindingId, Severity};
use crate::survey::{candidates, find_backup};
use crate::verify::{self, VerifyReport, VerifyRequest};

impl Job<'_> {
    pub(super) async fn verify(&self, verb: &VerifyVerb) -> Result<JobEnd> {
        if self.request.repositories.is_empty() {
            return Err(lacks("a repository"));
        }
        let (mut repositories, mut failed) = (Vec::new(), Vec::new());
        for repository in &self.request.repositories {
            let name = repository.name.clone();
            let report = match self.verify_one(repository, verb).await {
                Ok(report) => Some(report),
                Err(error) => {
                    failed.push((name.clone(), error));
                    None
                }
            };
            repositories.push(RepositoryOutcome { name, report });
        }
        let reports =
            || repositories.iter().filter_map(|one| Some((&one.name, one.report.as_ref()?)));
        failed.extend(reports().filter_map(|(name, report)| Some((name.clone(), report.error()?))));
        let has_findings =
            reports().any(|(_, report)| !report.blocked_wal.is_empty() || report.lacks_backups());
        let report = JobReport::Verify { repositories };
        Ok(match self.all_but_last(failed) {
            Some(last) => JobEnd::with_error(report, last),
            None => JobEnd::done(report, has_findings),
        })
    }

    async fn verify_one(
        &self,
        repository: &JobRepository,
        verb: &VerifyVerb,
    ) -> Result<VerifyReport> {
        let opened = self.program.open(repository).await?;
        let request = VerifyRequest {
            backups: self.named_backups(repository, &opened, verb).await?,
            clusters: repository.clusters.clone(),
            sample_percent: verb.sample_percent,
            jobs: self.workers,
            crew: self.crew.clone(),
        };
        let report = verify::run(&opened, &request, self.reporter.as_ref()).await?;
        self.tell_damage(repository, &report);
        Ok(report)
    }

    /// The backup that a word means, and those that `latest` passes over: else they would not be looked
    /// at again.
    async fn named_backups(
        &self,
        repository: &JobRepository,
        opened: &Repository,
        verb: &VerifyVerb,
    ) -> Result<Option<BTreeSet<BackupId>>> {
        let Some(word) = &verb.backup else { return Ok(None) };
        let candidates = candidates(opened, self.request.cluster.as_ref()).await?;
        let found = find_backup(word, candidates)?;
        for note in found.notes() {
            self.reporter.note(&format!("repository {}: {note}", repository.name).into());
        }
        let all = found.passed_over.iter().chain([&found.backup]);
        Ok(Some(all.map(|one| one.id).collect()))
    }

    fn tell_damage(&self, repository: &JobRepository, report: &VerifyReport) {
        let tell = |finding| self.events.event(&JobEvent::Finding(finding));
        for damage in &report.findings {
            tell(JobFinding {
                id: damage.code.to_string(),
                severity: Severity::Critical,
                repository: Some(repository.name.clone()),
                cluster: None,
                about: Some(damage.object.clone()),
                what: damage.problem.clone(),
                fix: None,
            });
        }
        for cluster in &report.without_backup {
            tell(JobFinding {
                id: FindingId::NoBackup.to_string(),
                severity: Severity::Critical,
                repository: Some(repository.name.clone()),
                cluster: Some(cluster.clone()),
                about: None,
                what: format!("there is no backup of cluster {cluster} to verify"),
                fix: Some(Action::Backup { cluster: Some(cluster.clone()) }.into()),
            });
        }
        for blocked in &report.blocked_wal {
            tell(JobFinding {
                id: Code::WalGap.to_string(),
                severity: Severity::Critical,
                repository: Some(repository.name.clone()),
                cluster: Some(blocked.cluster.clone()),
                about: Some(format!("backup {}", blocked.backup)),
                what: blocked.message.clone(),
                fix: None,
            });
        }
    }
}
