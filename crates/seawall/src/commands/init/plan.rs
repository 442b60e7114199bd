//! What `init` will make and what is there already, decided before anything is written.

use std::path::{Path, PathBuf};

use seawall_core::{ClusterName, Code, Error, Result};
use seawall_store::StoreUrl;

use crate::config::{Config, ConnectionSource, SecretSource};
use crate::context::is_url;
use crate::masking::masked;

/// The names new repositories get, until they run out.
const REPOSITORY_NAMES: [&str; 3] = ["primary", "secondary", "tertiary"];

/// How the server is reached: what a command goes by, and what the configuration says or will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub text: String,
    pub source: ConnectionSource,
}

/// What an `init` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The configuration file, absolute.
    pub config_path: PathBuf,
    /// Whether the configuration has the cluster already.
    pub cluster_configured: bool,
    /// What the repository is or will be called.
    pub repository: String,
    /// Where it is or will be.
    pub url: StoreUrl,
    /// Whether the configuration has the repository already.
    pub repository_configured: bool,
    /// Where its key is or will be.
    pub key: SecretSource,
    /// How to reach the server, where it is known.
    pub connection: Option<Connection>,
    /// Where the cluster's files are, where it is known.
    pub data_directory: Option<PathBuf>,
}

/// What the user asks for.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    pub cluster: &'a ClusterName,
    pub repo: &'a str,
    pub connection: Option<ConnectionSource>,
    pub data_directory: Option<&'a Path>,
}

impl Plan {
    /// Compares what is asked for with the configuration.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] where the configuration says something else, with what to change.
    pub fn new(wish: Wish<'_>, config: &Config, config_path: &Path) -> Result<Self> {
        let (repository, configured) = find_repository(wish.repo, config)?;
        let (url, key) = match configured {
            Some(configured) => (configured.url.clone(), configured.key.clone()),
            None => {
                let directory = config_path.parent().unwrap_or(Path::new("/"));
                let key = directory.join(format!("{repository}.key"));
                (wish.repo.parse()?, SecretSource::File(key))
            }
        };
        let cluster = config.clusters.get(wish.cluster);
        if let Some(cluster) = cluster
            && !cluster.repositories.contains(&repository)
        {
            return Err(not_listed(wish.cluster, &repository, &url, &key, configured.is_some()));
        }
        let data_directory = cluster.and_then(|cluster| cluster.data_directory.clone());
        if let (Some(there), Some(wanted)) = (&data_directory, wish.data_directory)
            && there != wanted
        {
            return Err(Error::new(
                Code::ConfigInvalid,
                format!(
                    "cluster {} is configured with the data directory {}, not {}",
                    wish.cluster,
                    there.display(),
                    wanted.display()
                ),
            )
            .with_hint(format!(
                "Edit {}, or give another cluster another name.",
                config_path.display()
            )));
        }
        let source =
            wish.connection.or_else(|| cluster.and_then(|cluster| cluster.connection.clone()));
        let connection = source
            .map(|source| Ok::<_, Error>(Connection { text: source.read(config_path)?, source }))
            .transpose()?;
        Ok(Self {
            cluster: wish.cluster.clone(),
            config_path: config_path.to_owned(),
            cluster_configured: cluster.is_some(),
            repository,
            url,
            repository_configured: configured.is_some(),
            key,
            connection,
            data_directory: data_directory.or_else(|| wish.data_directory.map(Path::to_owned)),
        })
    }
}

/// A repository's name, and its section if there is one.
fn find_repository<'c>(
    repo: &str,
    config: &'c Config,
) -> Result<(String, Option<&'c crate::config::RepositoryConfig>)> {
    if !is_url(repo) {
        return match config.repositories.get(repo) {
            Some(configured) => Ok((repo.to_owned(), Some(configured))),
            None => Err(Error::new(
                Code::NotConfigured,
                format!("\"{}\" is neither a URL nor a configured repository", masked(repo)),
            )
            .with_hint(known_or_url(config))),
        };
    }
    let url: StoreUrl = repo.parse()?;
    let same = config.repositories.iter().find(|(_, configured)| configured.url == url);
    if let Some((name, configured)) = same {
        return Ok((name.clone(), Some(configured)));
    }
    let numbered = (REPOSITORY_NAMES.len() + 1..).map(|number| format!("repository-{number}"));
    let mut names = REPOSITORY_NAMES.iter().map(|name| (*name).to_owned()).chain(numbered);
    let free = names.find(|name| !config.repositories.contains_key(name));
    Ok((free.unwrap_or_default(), None))
}

fn known_or_url(config: &Config) -> String {
    let known: Vec<&str> = config.repositories.keys().map(String::as_str).collect();
    let url = "Give a URL, such as `--repo file:///srv/seawall`";
    if known.is_empty() {
        return format!("{url}.");
    }
    format!("{url}, or one that is configured: {}.", known.join(", "))
}

/// Adding a repository to a cluster's list means changing a line of the user's, which is left to
/// the user.
fn not_listed(
    cluster: &ClusterName,
    repository: &str,
    url: &StoreUrl,
    key: &SecretSource,
    configured: bool,
) -> Error {
    let mut hint = format!("Add \"{repository}\" to repositories in [cluster.{cluster}]");
    if let (false, SecretSource::File(path)) = (configured, key) {
        hint.push_str(&format!(
            ", add a section [repository.{repository}] with url = \"{url}\" and key = {{ file = \"{}\" }}",
            path.display()
        ));
    }
    hint.push_str(&format!(", then run this command again with --repo {repository}"));
    hint.push_str(if configured { "." } else { " --new-repository, unless it is there already." });
    Error::new(
        Code::ConfigInvalid,
        format!("cluster {cluster} is configured, and not with the repository {url}"),
    )
    .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const PATH: &str = "/etc/seawall/seawall.toml";
    const CONFIG: &str = "[cluster.main]\nconnection = \"host=/tmp\"\ndata_directory = \"/pg\"\n\
         repositories = [\"primary\"]\n[repository.primary]\nurl = \"/srv/one\"\n\
         key = { file = \"/k\" }\n";

    fn plan(cluster: &str, repo: &str, text: &str) -> Result<Plan> {
        let config = config::parse(Path::new(PATH), text)?;
        let cluster = cluster.parse().unwrap();
        let wish = Wish { cluster: &cluster, repo, connection: None, data_directory: None };
        Plan::new(wish, &config, Path::new(PATH))
    }

    #[test]
    fn the_first_repository_is_primary_and_its_key_is_beside_the_configuration() {
        let plan = plan("main", "file:///srv/one", "").unwrap();
        assert_eq!(plan.repository, "primary");
        assert_eq!(plan.key, SecretSource::File("/etc/seawall/primary.key".into()));
        assert!(!plan.cluster_configured && !plan.repository_configured);
    }

    #[test]
    fn running_it_again_finds_everything() {
        for repo in ["primary", "/srv/one", "file:///srv/one/"] {
            let plan = plan("main", repo, CONFIG).unwrap();
            assert!(plan.cluster_configured && plan.repository_configured, "{repo}");
            assert_eq!(plan.key, SecretSource::File("/k".into()));
            assert_eq!(plan.data_directory.as_deref(), Some(Path::new("/pg")));
        }
    }

    #[test]
    fn another_cluster_joins_a_repository() {
        let plan = plan("other", "primary", CONFIG).unwrap();
        assert!(!plan.cluster_configured && plan.repository_configured);
        assert_eq!(plan.data_directory, None);
    }

    #[test]
    fn a_second_repository_of_a_cluster_is_for_the_user_to_list() {
        let error = plan("main", "/srv/two", CONFIG).unwrap_err();
        assert_eq!(error.code(), Code::ConfigInvalid);
        let hint = format!("{:?}", error.hint());
        assert!(hint.contains("[repository.secondary]") && hint.contains("file:///srv/two"));
    }

    #[test]
    fn a_name_that_is_not_configured_is_not_taken_for_a_directory() {
        let error = plan("main", "srv", CONFIG).unwrap_err();
        assert_eq!(error.code(), Code::NotConfigured);
        assert!(format!("{:?}", error.hint()).contains("primary."), "{error:?}");
    }
}
