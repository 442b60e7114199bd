use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

type Lookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What surrounds a connection string: environment variables, the operating system's user and its
/// home directory.
#[derive(Clone)]
pub struct Environment {
    lookup: Lookup,
    os_user: Option<String>,
    home: Option<PathBuf>,
    service_directories: Vec<PathBuf>,
}

impl Environment {
    /// The environment of this process and the user it runs as.
    #[must_use]
    pub fn of_process() -> Self {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let environment = Self::new(|name| std::env::var(name).ok());
        let (os_user, home) = user.map(|user| (user.name, user.dir)).unzip();
        Self { os_user, home, ..environment }
    }

    /// Variables from `lookup`; no operating system user, and no home directory but `HOME`.
    pub fn new(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        // Where Debian's and other builds of libpq look when PGSYSCONFDIR is not set.
        let service_directories = vec!["/etc/postgresql-common".into(), "/etc".into()];
        Self { lookup: Arc::new(lookup), os_user: None, home: None, service_directories }
    }

    /// The user a connection is made as when nothing names one.
    #[must_use]
    pub fn with_os_user(mut self, name: impl Into<String>) -> Self {
        self.os_user = Some(name.into());
        self
    }

    /// Where `.pgpass`, `.pg_service.conf` and `.postgresql` are, unless `HOME` is set.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
    }

    pub(crate) fn os_user(&self) -> Option<&str> {
        self.os_user.as_deref()
    }

    /// `$HOME` before the user database, as libpq does since 15.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        let variable = self.variable("HOME").filter(|home| !home.is_empty());
        variable.map(PathBuf::from).or_else(|| self.home.clone())
    }

    /// Where the system's `pg_service.conf` may be.
    pub(crate) fn service_directories(&self) -> Vec<PathBuf> {
        match self.variable("PGSYSCONFDIR") {
            Some(directory) => vec![directory.into()],
            None => self.service_directories.clone(),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the variables: PGPASSWORD is one of them.
        f.debug_struct("Environment")
            .field("os_user", &self.os_user)
            .field("home", &self.home())
            .finish_non_exhaustive()
    }
}
