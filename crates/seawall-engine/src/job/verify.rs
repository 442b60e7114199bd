//! The verb verify: every repository of the request.

use std::collections::BTreeSet;

use seawall_core::{Action, BackupId, Code, Error, Result, hint};
use seawall_repo::Repository;

use super::{
    Job, JobEnd, JobEvent, JobFinding, JobReport, JobRepository, RepositoryOutcome, VerifyVerb,
    lacks,
};
use crate::check::{FindingId, Severity};
use crate::lines::prove_stored;
use crate::survey::{Candidate, CopyAt, FoundBackup};
use crate::verify::{self, VerifyReport, VerifyRequest};

impl Job<'_> {
    pub(super) async fn verify(&self, verb: &VerifyVerb) -> Result<JobEnd> {
        if self.request.repositories.is_empty() {
            return Err(lacks("a repository"));
        }
        let mut opened = self.open_all().await;
        let wanted = match &verb.backup {
            Some(word) => self.backup_meant(&mut opened, word).await?,
            None => None,
        };
        let (mut repositories, mut failed) = (Vec::new(), Vec::new());
        for (repository, opened) in opened.into_all() {
            let name = repository.name.clone();
            let look = async {
                self.verify_one(repository, &opened?, verb.sample_percent, wanted.as_ref()).await
            };
            let report = match look.await {
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
        opened: &Repository,
        sample_percent: u8,
        wanted: Option<&FoundBackup<Vec<CopyAt>>>,
    ) -> Result<VerifyReport> {
        let clusters = repository.clusters.clone();
        // That there is nothing of one that has to be there is a finding.
        if let Some(named) = self.request.cluster.as_ref().filter(|it| !clusters.contains(it)) {
            prove_stored(opened, named).await?;
        }
        let backups = wanted.map(|wanted| backups_in(&repository.name, wanted)).transpose()?;
        let (jobs, crew) = (self.workers, self.crew.clone());
        let request = VerifyRequest { backups, clusters, sample_percent, jobs, crew };
        let report = verify::run(opened, &request, self.reporter.as_ref()).await?;
        self.tell_damage(repository, &report);
        Ok(report)
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

/// The backup that is meant, and those that `latest` passes over, as far as a repository has them:
/// else they would not be looked at again.
fn backups_in(repository: &str, wanted: &FoundBackup<Vec<CopyAt>>) -> Result<BTreeSet<BackupId>> {
    let is_here =
        |one: &&Candidate<Vec<CopyAt>>| one.what.iter().any(|copy| copy.repository == repository);
    let meant = &wanted.backup;
    if !is_here(&meant) {
        let what = format!("repository {repository} does not have backup {}", meant.id);
        return Err(Error::new(Code::NoSuchBackup, what)
            .with_hint(hint![Action::List, " shows which repositories have it."]));
    }
    let all = wanted.passed_over.iter().filter(is_here).chain([meant]);
    Ok(all.map(|one| one.id).collect())
}
