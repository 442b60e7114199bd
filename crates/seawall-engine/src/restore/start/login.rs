use std::path::{Path, PathBuf};

use seawall_core::Code;
use seawall_core::{Result, ResultExt};
use seawall_pgwire::{Connection, Conninfo, ConninfoError, Environment};

use crate::cluster::Listening;

/// The superuser, where nothing says who it is.
pub const DEFAULT_ROLE: &str = "postgres";

/// How a restored server is logged in to: as the cluster was before it was restored, but for the
/// place.
#[derive(Debug, Clone)]
pub struct Login {
    /// Role and password, if they are in the connection string; where it leads counts for nothing.
    options: Conninfo,
    environment: Environment,
}

impl Login {
    /// As the role of a connection string, which needs not name one.
    #[must_use]
    pub const fn new(options: Conninfo, environment: Environment) -> Self {
        Self { options, environment }
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.options.get("user")
    }

    /// Connects to a database of the server.
    pub(super) async fn connect(&self, to: &Listening, database: &str) -> Result<Connection> {
        let config = self
            .options_for(to, database)
            .and_then(|options| options.resolve(&self.environment))
            .code(Code::ConninfoInvalid, || "the restored server cannot be reached".to_owned())?;
        Ok(Connection::connect(&config).await?)
    }

    fn options_for(&self, to: &Listening, database: &str) -> Result<Conninfo, ConninfoError> {
        let mut options = self.options.clone();
        let socket = Some(&to.socket_directory).filter(|it| !it.as_os_str().is_empty());
        let host = socket.map_or(Path::new("localhost"), PathBuf::as_path);
        for (keyword, value) in [
            ("host", host.display().to_string()),
            ("hostaddr", String::new()),
            ("port", to.port.to_string()),
            ("dbname", database.to_owned()),
            ("target_session_attrs", "any".to_owned()),
            ("connect_timeout", "10".to_owned()),
        ] {
            options.set(keyword, value)?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_and_password_are_the_backup_s_and_the_place_is_the_restored_server_s() {
        let text = "host=db1,db2 hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=admin password=x \
             dbname=app target_session_attrs=read-write";
        let login = Login::new(text.parse().unwrap(), Environment::new(|_| None));
        let to = Listening { socket_directory: "/run/x".into(), port: 5433 };
        let config = login.options_for(&to, "postgres").unwrap();
        let config = config.resolve(&Environment::new(|_| None)).unwrap();
        assert_eq!(
            (config.user(), config.dbname(), config.hosts().len()),
            ("admin", "postgres", 1)
        );
        let host = &config.hosts()[0];
        assert_eq!((host.socket_directory(), host.port()), (Some(Path::new("/run/x")), 5433));
        let nowhere = Listening { socket_directory: PathBuf::new(), port: 5433 };
        assert_eq!(login.options_for(&nowhere, "a").unwrap().get("host"), Some("localhost"));
    }
}
