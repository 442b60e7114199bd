//! A look at the cluster before anything is done to it.

use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_pgdata::control::ControlFile;
use seawall_repo::manifest::Database;

use super::config_files::config_files;
use super::request::BackupRequest;
use crate::cluster::{
    LinkRules, MissingRights, ScanOptions, Server, ServerFacts, Survey, TablespaceLinks,
    prove_essentials, prove_own_files, survey,
};
use crate::delivery::WalDelivery;

/// What a look at the cluster showed: which one it is.
#[derive(Debug)]
pub(super) struct Seen {
    /// What the server says.
    pub facts: ServerFacts,
    /// What `pg_control` says.
    pub control: ControlFile,
    /// Where the files are.
    pub data_directory: PathBuf,
    /// Its databases.
    pub databases: Vec<Database>,
}

/// Looks which cluster it is, and whether its files are at hand.
///
/// # Errors
/// [`Code::PrivilegeMissing`], and those of server and files.
pub(super) async fn look(request: &BackupRequest) -> Result<Seen> {
    let mut server = Server::connect(&request.connection).await?;
    let facts = server.facts().await?;
    // All at once, and before PostgreSQL is asked for a checkpoint.
    let missing = MissingRights::ask(&mut server).await?.of_backups();
    if !missing.is_empty() {
        return Err(missing.error());
    }
    let data_directory =
        request.data_directory.clone().unwrap_or_else(|| facts.data_directory.clone());
    let control = prove_own_files(&mut server, &facts, &data_directory).await?;
    prove_essentials(&mut server, &data_directory).await?;
    let databases = server.databases().await?;
    server.close().await;
    Ok(Seen { facts, control, data_directory, databases })
}

impl Seen {
    /// Refuses a cluster that cannot be backed up as it is, and tells where its links lead.
    ///
    /// # Errors
    /// [`Code::SettingUnsuitable`], [`Code::UnsupportedCluster`], and those of the files.
    pub async fn refuse_unfit(&self, delivery: &dyn WalDelivery) -> Result<Survey> {
        refuse_unsuitable(&self.facts)?;
        delivery.prove_set_up(&self.facts)?;
        let survey = survey_cluster(&self.facts, &self.data_directory).await?;
        survey.unreadable.refuse()?;
        Ok(survey)
    }
}

/// Looks at every path that a backup will read, configuration included. What keeps one from being
/// read is to be known before the rest is copied.
///
/// # Errors
/// [`Code::ClusterUnreadable`] for configuration that cannot be read.
pub(crate) async fn survey_cluster(facts: &ServerFacts, data_directory: &Path) -> Result<Survey> {
    let configuration = config_files(facts)?.inside;
    let (root, major) = (data_directory.to_owned(), facts.major);
    let look = move || {
        let tablespaces = TablespaceLinks::of(&root)?;
        let links = LinkRules::for_configuration(&root, &configuration);
        survey(&ScanOptions { root, major, tablespaces, links })
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or_else(|_| Err(Error::new(Code::Internal, "a looking thread died")))
}

fn refuse_unsuitable(facts: &ServerFacts) -> Result<()> {
    if facts.in_recovery {
        return Err(Error::new(
            Code::UnsupportedCluster,
            "the server is a standby or still recovering; this version backs up primaries",
        )
        .with_hint("Point `connection` and `data_directory` at the primary."));
    }
    if facts.wal_level == "minimal" {
        return Err(facts.unsuitable(
            "wal_level",
            "wal_level is minimal: WAL cannot restore a backup",
            "ALTER SYSTEM SET wal_level = 'replica'; then restart PostgreSQL.".into(),
        ));
    }
    Ok(())
}
