//! The verb check: the cluster and all its repositories.

use seawall_core::{ClusterName, LocalPath, Result};
use seawall_repo::Repository;

use super::{
    CheckReport, CheckVerb, Job, JobEnd, JobEvent, JobFinding, JobReport, JobRepository, lacks,
};
use crate::check::{
    Candidate, CheckRequest, Finding, Protection, acknowledge, collect, findings, proven,
};
use crate::lines::current_line;

impl Job<'_> {
    pub(super) async fn check(&self, verb: &CheckVerb) -> Result<JobEnd> {
        let cluster = self.request.cluster.as_ref().ok_or_else(|| lacks("a cluster"))?;
        let mut repositories = Vec::new();
        for (repository, opened) in self.open_all().await.into_all() {
            repositories.push(candidate(repository, opened, cluster).await?);
        }
        let request = CheckRequest {
            cluster: cluster.clone(),
            connection: self.connection()?,
            data_directory: self.request.data_directory.clone().map(|LocalPath(path)| path),
            expected_archive_command: self.program.archive_command(cluster)?,
            repositories,
            patience: verb.wal_timeout(),
        };
        let facts = collect(request, self.reporter.as_ref()).await?;
        let mut findings = findings(&facts);
        acknowledge(&mut findings, &verb.acknowledge);
        findings.iter().for_each(|finding| self.tell_finding(cluster, finding));
        let has_findings = match Protection::of(&findings) {
            Protection::Protected => false,
            Protection::Advised { .. } => verb.strict,
            Protection::Endangered { .. } => true,
        };
        let report =
            CheckReport { cluster: facts.cluster.clone(), proven: proven(&facts), findings };
        Ok(JobEnd::done(JobReport::Check(report), has_findings))
    }

    fn tell_finding(&self, cluster: &ClusterName, finding: &Finding) {
        self.events.event(&JobEvent::Finding(JobFinding {
            id: finding.id.to_string(),
            severity: finding.severity,
            repository: None,
            cluster: Some(cluster.clone()),
            about: None,
            what: finding.what.clone(),
            fix: Some(finding.fix.clone()),
        }));
    }
}

async fn candidate(
    repository: &JobRepository,
    opened: Result<Repository>,
    cluster: &ClusterName,
) -> Result<Candidate> {
    let url = repository.url.clone().ok_or_else(|| lacks("the URL of a repository"))?;
    let line = async { current_line(&opened?, cluster).await }.await;
    Ok(Candidate { name: repository.name.clone(), url, line })
}
