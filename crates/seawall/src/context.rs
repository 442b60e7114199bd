//! What a command works on: clusters and repositories, from flags, kit and configuration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seawall_core::{Action, ByteSize, ClusterName, Code, Error, LocalPath, Result, hint};
use seawall_engine::job::{ConnectionText, JobKey, JobRepository, JobRequest};
use seawall_engine::lines::{no_such_cluster, several_clusters};
use seawall_repo::Repository;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_store::{OpenOptions, StoreError, StoreUrl};

use crate::access;
use crate::args::{RepositoryArgs, ServerArgs};
use crate::config::{
    self, ClusterConfig, Config, DEFAULT_PACK_SIZE, Exposed, RepositoryConfig, SecretSource,
};
use crate::kit::Kit;
use crate::masking::masked;
use crate::owner::{Acting, Owner};
use crate::postgres;

/// The configuration as the flags change it. Made before the process becomes another user, since
/// files named by flags belong to whoever typed them.
#[derive(Debug)]
pub struct Context {
    /// The configuration file; [`Config::none`] where none is needed.
    pub config: Config,
    /// The repositories chosen by flags; `None` is those of the configuration.
    chosen: Option<Vec<Place>>,
    /// The clusters a kit names.
    kit_clusters: Vec<ClusterName>,
    /// What becomes of a key that others can read.
    exposed: Exposed,
    /// The flags again, absolute, for commands that are printed or given to PostgreSQL.
    pub again: Vec<OsString>,
}

/// A repository that is not open yet.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name in the configuration, or its URL.
    pub name: String,
    /// Where it is.
    pub url: StoreUrl,
    key: KeyPlace,
    /// What becomes of a key that others can read.
    exposed: Exposed,
    /// The user the configured servers run as, if their files are here.
    server_user: Option<Owner>,
    /// Whose the configuration is.
    config_owner: Option<Owner>,
    /// The zstd level new data is compressed with.
    pub compression_level: i32,
    /// The size a pack is finished at.
    pub pack_size: ByteSize,
}

#[derive(Debug, Clone)]
enum KeyPlace {
    Configured(SecretSource),
    Given(KeyFile),
}

/// A repository that is open.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Where it is and how it is written.
    pub place: Place,
    /// The repository.
    pub repository: Repository,
}

/// A cluster of a command, and the repositories it is in.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: ClusterName,
    /// Its section of the configuration.
    pub config: Option<ClusterConfig>,
    /// The file that has the section.
    pub config_path: PathBuf,
    /// Its repositories.
    pub places: Vec<Place>,
}

impl Context {
    /// Reads what the flags name: configuration, key, kit.
    ///
    /// # Errors
    /// Those of the configuration, [`Code::KeyUnreadable`], [`Code::KeyExposed`],
    /// [`Code::NotConfigured`].
    pub fn new(config: Option<&Path>, flags: &RepositoryArgs) -> Result<Self> {
        Self::read(config, flags, Exposed::Refused)
    }

    /// As [`Self::new`], for what PostgreSQL runs: a key that others can read is told, and used.
    ///
    /// # Errors
    /// Those of the configuration, [`Code::KeyUnreadable`], [`Code::NotConfigured`].
    pub fn of_server(config: Option<&Path>, flags: &RepositoryArgs) -> Result<Self> {
        Self::read(config, flags, Exposed::Told)
    }

    fn read(config: Option<&Path>, flags: &RepositoryArgs, exposed: Exposed) -> Result<Self> {
        if let Some(path) = &flags.kit {
            return Self::from_kit(path, exposed);
        }
        let url: Option<StoreUrl> = match flags.repo.as_deref() {
            Some(text) if is_url(text) => Some(text.parse()?),
            _ => None,
        };
        let key = flags.key.as_deref().map(|path| read_key(path, exposed)).transpose()?;
        let standalone = url.is_some() && key.is_some() && config.is_none();
        let mut context = Self {
            config: if standalone { Config::none() } else { config::load(config)? },
            chosen: None,
            kit_clusters: Vec::new(),
            exposed,
            again: Vec::new(),
        };
        if let Some(path) = &context.config.path {
            context.again.extend(["--config".into(), path.clone().into_os_string()]);
        }
        if let Some(repo) = &flags.repo {
            let place = context.choose(repo, url, key.clone())?;
            context.again.extend(["--repo".into(), shown_repo(repo, &place).into()]);
            context.chosen = Some(vec![place]);
        } else if let Some(key) = &key {
            context.chosen = Some(vec![context.only_repository_with(key)?]);
        }
        if let Some(path) = &flags.key {
            context.again.extend(["--key".into(), absolute(path).into_os_string()]);
        }
        Ok(context)
    }

    /// What a job's request names. Repositories without a key are those of the configuration.
    ///
    /// # Errors
    /// Those of the configuration, [`Code::KeyUnreadable`], [`Code::KeyExposed`],
    /// [`Code::NotConfigured`].
    pub fn of_job(config: Option<&Path>, request: &JobRequest) -> Result<Self> {
        let repositories = &request.repositories;
        let is_whole = |one: &JobRepository| one.url.is_some() && one.key.is_some();
        let standalone =
            config.is_none() && !repositories.is_empty() && repositories.iter().all(is_whole);
        let mut context = Self {
            config: if standalone { Config::none() } else { config::load(config)? },
            chosen: None,
            kit_clusters: Vec::new(),
            exposed: Exposed::Refused,
            again: Vec::new(),
        };
        if let Some(path) = &context.config.path {
            context.again.extend(["--config".into(), path.clone().into_os_string()]);
        }
        if let [only] = repositories.as_slice() {
            let repo = only.url.as_ref().map_or_else(|| only.name.clone(), StoreUrl::to_string);
            context.again.extend(["--repo".into(), repo.into()]);
            if let Some(JobKey::File(LocalPath(path))) = &only.key {
                context.again.extend(["--key".into(), absolute(path).into_os_string()]);
            }
        }
        if !repositories.is_empty() {
            let places = repositories.iter().map(|repository| context.place_of_job(repository));
            context.chosen = Some(places.collect::<Result<_>>()?);
        }
        Ok(context)
    }

    fn place_of_job(&self, repository: &JobRepository) -> Result<Place> {
        let key = match &repository.key {
            None => None,
            Some(JobKey::Text(text)) => Some(KeyFile::parse(text)?),
            Some(JobKey::File(LocalPath(path))) => Some(read_key(path, self.exposed)?),
        };
        let place = match (key, repository.url.clone()) {
            (Some(key), Some(url)) => Place::given(url, key),
            (key, url) => self.choose(&repository.name, url, key)?,
        };
        Ok(Place {
            name: repository.name.clone(),
            compression_level: repository.compression_level.unwrap_or(place.compression_level),
            pack_size: repository.pack_bytes.map_or(place.pack_size, ByteSize),
            ..place
        })
    }

    fn from_kit(path: &Path, exposed: Exposed) -> Result<Self> {
        let kit = Kit::read(path, exposed)?;
        Ok(Self {
            config: Config::none(),
            chosen: Some(vec![Place::given(kit.repository, kit.key)]),
            kit_clusters: kit.clusters,
            exposed,
            again: vec!["--kit".into(), absolute(path).into_os_string()],
        })
    }

    /// The repository `--repo` names.
    fn choose(&self, repo: &str, url: Option<StoreUrl>, key: Option<KeyFile>) -> Result<Place> {
        let configured = self.config.repositories.iter().find(|(name, repository)| {
            url.as_ref().map_or(*name == repo, |url| repository.url == *url)
        });
        match (configured, url, key) {
            (Some((name, repository)), _, None) => Ok(Place::configured(self, name, repository)),
            (Some((name, repository)), _, Some(key)) => {
                Ok(Place { key: KeyPlace::Given(key), ..Place::configured(self, name, repository) })
            }
            (None, Some(url), Some(key)) => Ok(Place::given(url, key)),
            (None, Some(url), None) => Err(Error::new(
                Code::NotConfigured,
                format!("the repository {url} is not in {}", self.config.shown_path()),
            )
            .with_hint("Give its key with `--key FILE`, or use `--kit FILE`.")),
            (None, None, _) => {
                let names: Vec<&str> =
                    self.config.repositories.keys().map(String::as_str).collect();
                Err(Error::new(
                    Code::NotConfigured,
                    format!(
                        "there is no repository \"{}\" in {}",
                        masked(repo),
                        self.config.shown_path()
                    ),
                )
                .with_hint(match names.as_slice() {
                    [] => "None is configured; give its URL and key: `--repo URL --key FILE`."
                        .to_owned(),
                    _ => format!("Configured: {}. A URL works too.", names.join(", ")),
                }))
            }
        }
    }

    fn only_repository_with(&self, key: &KeyFile) -> Result<Place> {
        let mut all = self.config.repositories.iter();
        match (all.next(), all.next()) {
            (Some((name, repository)), None) => Ok(Place {
                key: KeyPlace::Given(key.clone()),
                ..Place::configured(self, name, repository)
            }),
            _ => Err(Error::new(Code::Usage, "--key is given, and not whose key it is")
                .with_hint("Name the repository: `--repo NAME|URL`.")),
        }
    }

    /// Every repository of the command, whatever the cluster.
    pub fn places(&self) -> Vec<Place> {
        self.chosen.clone().unwrap_or_else(|| {
            let all = self.config.repositories.iter();
            all.map(|(name, repository)| Place::configured(self, name, repository)).collect()
        })
    }

    /// The one repository a command is about.
    ///
    /// # Errors
    /// [`Code::NotConfigured`] if there are several or none.
    pub fn one_place(&self) -> Result<Place> {
        let mut places = self.places();
        match (places.pop(), places.pop()) {
            (Some(place), None) => Ok(place),
            (None, _) => Err(Error::new(
                Code::NotConfigured,
                format!("{} names no repository", self.config.shown_path()),
            )
            .with_hint("Name one with `--repo URL --key FILE`, or `--kit FILE`.")),
            _ => {
                let names: Vec<&str> =
                    self.config.repositories.keys().map(String::as_str).collect();
                Err(Error::new(Code::NotConfigured, "there are several repositories")
                    .with_hint(format!("Name one with `--repo`: {}.", names.join(", "))))
            }
        }
    }

    /// The clusters known without opening a repository, by name; `named` alone if it is given.
    ///
    /// # Errors
    /// [`Code::NoSuchCluster`]
    pub fn known_targets(&self, named: Option<&ClusterName>) -> Result<Vec<Target>> {
        if let Some(name) = named {
            return self.target(name).map(|target| vec![target]);
        }
        let names = self.config.clusters.keys().chain(&self.kit_clusters);
        names.map(|name| self.target(name)).collect()
    }

    /// The one cluster of a command that needs its configuration.
    ///
    /// # Errors
    /// [`Code::NoSuchCluster`], [`Code::NotConfigured`]
    pub fn one_target(&self, named: Option<&ClusterName>) -> Result<Target> {
        let mut targets = self.known_targets(named)?;
        match (targets.pop(), targets.pop()) {
            (Some(target), None) => Ok(target),
            (None, _) => Err(Error::new(Code::NotConfigured, "no cluster is configured")
                .with_hint(hint![
                    "Protect one: ",
                    Action::Init { cluster: None, repository: None },
                    "."
                ])),
            _ => Err(several_clusters(self.config.clusters.keys().chain(&self.kit_clusters))),
        }
    }

    /// A cluster by its name.
    ///
    /// # Errors
    /// [`Code::NoSuchCluster`]
    pub fn target(&self, name: &ClusterName) -> Result<Target> {
        let config = self.config.clusters.get(name);
        if config.is_none() && !self.config.clusters.is_empty() && self.chosen.is_none() {
            return Err(no_such_cluster(name, self.config.clusters.keys()));
        }
        let places = match (&self.chosen, config) {
            (Some(places), _) => places.clone(),
            (None, Some(config)) => config
                .repositories
                .iter()
                .filter_map(|name| self.config.repositories.get_key_value(name))
                .map(|(name, repository)| Place::configured(self, name, repository))
                .collect(),
            (None, None) => self.places(),
        };
        let config_path = self.config.path.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
        Ok(Target { name: name.clone(), config: config.cloned(), config_path, places })
    }

    /// Root becomes the user whose files the command touches: the data directory's owner, or the
    /// repository's. Nobody else is changed.
    ///
    /// # Errors
    /// [`Code::WrongUser`]
    pub fn become_owner(&self, data_directory: Option<&Path>) -> Result<()> {
        self.owner(data_directory).map_or(Ok(()), |owner| owner.become_for_good())
    }

    /// As [`Self::become_owner`], until the guard is dropped.
    ///
    /// # Errors
    /// [`Code::WrongUser`]
    pub fn act_as_owner(&self) -> Result<Acting> {
        self.owner_or_current().act_as()
    }

    /// The user whose files the command touches.
    pub fn owner_or_current(&self) -> Owner {
        self.owner(None).unwrap_or_else(Owner::current)
    }

    /// The user a restored cluster will belong to: never root, as whom PostgreSQL does not run.
    ///
    /// # Errors
    /// [`Code::WrongUser`] if root runs the command and no such user is found.
    pub fn owner_of_restored(&self) -> Result<Owner> {
        let owner = self.owner_or_current();
        let owner = if owner.is_root() { Owner::packaged() } else { Some(owner) };
        owner.ok_or_else(|| {
            Error::new(
                Code::WrongUser,
                "PostgreSQL does not run as root, and there is no user postgres",
            )
            .with_hint(
                "Run this as the user PostgreSQL shall run as: `sudo -u USER seawall restore …`.",
            )
        })
    }

    /// Proves that the user this process acts as can read the key or kit named by flags: the server
    /// will have to, when it fetches WAL.
    ///
    /// # Errors
    /// [`Code::KeyUnreadable`], with how to make it readable.
    pub fn prove_flags_are_readable(&self) -> Result<()> {
        let mut flags = self.again.windows(2);
        let key = flags.find_map(|pair| match pair {
            [flag, path] if flag == "--key" || flag == "--kit" => Some(Path::new(path)),
            _ => None,
        });
        let Some(path) = key else { return Ok(()) };
        std::fs::File::open(path).map(drop).map_err(|error| {
            let owner = Owner::current();
            let (name, path) = (owner.name(), path.display());
            Error::new(
                Code::KeyUnreadable,
                format!("{name}, as whom the restored server fetches WAL, cannot read {path}"),
            )
            .with_source(error)
            .with_hint(format!(
                "Give that user a copy for as long as the restore takes, and name it instead: `install -o {name} -m 600 {path} {}/seawall.kit`.",
                owner.home().display()
            ))
        })
    }

    /// Whom root becomes; `None` for anybody else, and where nobody is found.
    fn owner(&self, data_directory: Option<&Path>) -> Option<Owner> {
        if !Owner::current().is_root() {
            return None;
        }
        let data_directories = self.config.clusters.values().map(|c| c.data_directory.as_deref());
        let data_directories = data_directory.into_iter().chain(data_directories.flatten());
        let places = self.places();
        let stores = places.iter().filter_map(|place| place.url.as_directory());
        data_directories.chain(stores).find_map(Owner::of).filter(|owner| !owner.is_root())
    }
}

impl Target {
    /// How to reach the server, and where its files are.
    ///
    /// # Errors
    /// As [`Self::address`], and [`Code::ConninfoInvalid`].
    pub fn server(&self, flags: &ServerArgs) -> Result<Server> {
        let (connection, data_directory) = self.address(flags)?;
        Ok(Server {
            connection: postgres::resolve(connection.reveal(), &Owner::current())?,
            data_directory: data_directory.map(|LocalPath(path)| path),
        })
    }

    /// The connection string of the server, and where its files are.
    ///
    /// # Errors
    /// [`Code::NotConfigured`] if neither flags nor configuration say how,
    /// and [`Code::ConfigUnreadable`] if others can read its password.
    pub fn address(&self, flags: &ServerArgs) -> Result<(ConnectionText, Option<LocalPath>)> {
        let configured = self.config.as_ref();
        let source = configured.and_then(|cluster| cluster.connection.as_ref());
        let connection = match (&flags.connection, source) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(source)) => Some(source.read(&self.config_path)?),
            (None, None) => None,
        };
        let connection = connection.ok_or_else(|| {
            Error::new(
                Code::NotConfigured,
                format!("there is no connection string for cluster {}", self.name),
            )
            .with_hint("Add `connection` to its section of the configuration, or give `--connection CONNINFO`.")
        })?;
        let data_directory = flags.data_directory.as_deref().map(absolute);
        let data_directory =
            data_directory.or_else(|| configured.and_then(|c| c.data_directory.clone()));
        Ok((connection.into(), data_directory.map(LocalPath)))
    }
}

/// A cluster's server, as a command reaches it.
#[derive(Debug, Clone)]
pub struct Server {
    /// The connection.
    pub connection: seawall_pgwire::Config,
    /// Where the files are; `None` for where the server says.
    pub data_directory: Option<PathBuf>,
}

impl Place {
    fn configured(context: &Context, name: &str, repository: &RepositoryConfig) -> Self {
        let config = &context.config;
        let mut directories = config.clusters.values().filter_map(|c| c.data_directory.as_deref());
        Self {
            server_user: directories.find_map(Owner::of).filter(|owner| !owner.is_root()),
            config_owner: config.path.as_deref().and_then(Owner::of),
            name: name.to_owned(),
            url: repository.url.clone(),
            key: KeyPlace::Configured(repository.key.clone()),
            exposed: context.exposed,
            compression_level: repository.compression_level,
            pack_size: repository.pack_size,
        }
    }

    /// A repository outside the configuration.
    pub fn given(url: StoreUrl, key: KeyFile) -> Self {
        Self {
            name: url.to_string(),
            url,
            key: KeyPlace::Given(key),
            exposed: Exposed::Refused,
            server_user: None,
            config_owner: None,
            compression_level: config::DEFAULT_COMPRESSION_LEVEL,
            pack_size: DEFAULT_PACK_SIZE,
        }
    }

    /// Gets the key.
    ///
    /// # Errors
    /// [`Code::KeyUnreadable`]
    pub fn key(&self) -> Result<KeyFile> {
        match &self.key {
            KeyPlace::Given(key) => Ok(key.clone()),
            KeyPlace::Configured(source) => {
                if matches!(source, SecretSource::Command(_)) {
                    refuse_foreign_command(self.config_owner.as_ref())?;
                }
                KeyFile::parse(&source.resolve(self.exposed)?)
                    .map_err(|error| error.context(format!("the key of repository {}", self.name)))
            }
        }
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// Those of the key, the store and the repository.
    pub async fn open(self) -> Result<Opened> {
        let unlock = Unlock::KeyFile(self.key()?);
        let store = seawall_store::open(&self.url, &OpenOptions::default())
            .await
            .map_err(|error| self.absent(error))?;
        let repository = Repository::open(Arc::clone(&store), &unlock)
            .await
            .map_err(|error| self.explain(error))?;
        Ok(Opened { place: self, repository })
    }

    /// A directory that does not exist holds no repository.
    fn absent(&self, error: StoreError) -> Error {
        if !error.is_not_found() {
            return self.explain(error.into());
        }
        let what = format!("there is no repository at {}", self.url);
        self.explain(Error::new(Code::NoRepository, what).with_source(error))
    }

    /// A user who may not use the repository, or does not find it, is told what helps.
    pub fn explain(&self, error: Error) -> Error {
        if error.code() == Code::NoRepository {
            return error.with_hint(format!(
                "{} If it has moved, name its new place: `--repo URL --key FILE`; a recovery kit is a key file too.",
                is_it_mounted(&self.url)
            ));
        }
        match self.url.as_directory() {
            Some(directory) => access::explain(error, directory, self.server_user.as_ref()),
            None => error,
        }
    }
}

/// Opens repositories, one after the other.
pub async fn open_all(places: Vec<Place>) -> Vec<(String, Result<Repository>)> {
    let mut opened = Vec::new();
    for place in places {
        let name = place.name.clone();
        opened.push((name, place.open().await.map(|opened| opened.repository)));
    }
    opened
}

/// What to ask first where a repository is not found: an empty mount point looks the same.
pub fn is_it_mounted(url: &StoreUrl) -> String {
    let Some(directory) = url.as_directory() else {
        return format!("Is {url} the store that was meant?");
    };
    let directory = crate::render::shell_quote(&directory.display().to_string());
    format!("Is the storage mounted? `findmnt -T {directory}` shows what is there.")
}

/// Root runs no command that somebody else wrote. Root that acts as another user for a while is
/// root still: a command could become it again.
///
/// # Errors
/// [`Code::WrongUser`]
pub fn refuse_foreign_command(config_owner: Option<&Owner>) -> Result<()> {
    let Some(owner) =
        config_owner.filter(|owner| !owner.is_root()).filter(|_| Owner::may_be_root())
    else {
        return Ok(());
    };
    let what = format!(
        "the key comes from a command in a configuration that belongs to {}, and root does not run it",
        owner.name()
    );
    Err(Error::new(Code::WrongUser, what).with_hint(owner.again()))
}

/// Whether `--repo` is a URL or path and not a name.
pub fn is_url(text: &str) -> bool {
    text.starts_with('/') || text.contains("://")
}

fn shown_repo(given: &str, place: &Place) -> String {
    if is_url(given) { place.url.to_string() } else { given.to_owned() }
}

/// Reads a key file, or a recovery kit as one.
///
/// # Errors
/// [`Code::KeyUnreadable`], [`Code::KeyExposed`]
pub fn read_key(path: &Path, exposed: Exposed) -> Result<KeyFile> {
    KeyFile::parse(&config::read_key_text(path, exposed)?)
        .map_err(|error| error.context(path.display()))
}

/// A path as it can be found from any directory.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
