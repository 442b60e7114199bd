//! Connection strings, resolved for the user a command acts as.

use std::env::VarError;
use std::path::{Path, PathBuf};

use seawall_core::{Error, Result};
use seawall_engine::restore::Login;
use seawall_pgwire::{Config, Conninfo, ConninfoError, Environment, quote_conninfo_value};

use crate::owner::Owner;

/// The database and the program's name, where the connection string leaves them open.
const DEFAULTS: [(&str, &str); 2] = [("dbname", "postgres"), ("application_name", "seawall")];

/// Completes a connection string as libpq would for `owner`, whose password file is used.
///
/// # Errors
/// [`seawall_core::Code::ConninfoInvalid`]
pub fn resolve(conninfo: &str, owner: &Owner) -> Result<Config> {
    let environment = environment(owner);
    let config = parse(conninfo).and_then(|conninfo| conninfo.resolve(&environment));
    let config = config.map_err(|error| Error::from(seawall_pgwire::PgError::from(error)))?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// A login as `role`, with the password that a connection string or the owner's password file has.
///
/// # Errors
/// [`seawall_core::Code::ConninfoInvalid`]
pub fn login(conninfo: &str, role: &str, owner: &Owner) -> Result<Login> {
    let options = parse(conninfo).and_then(|mut options| {
        options.set("user", role)?;
        Ok(options)
    });
    let options = options.map_err(|error| Error::from(seawall_pgwire::PgError::from(error)))?;
    Ok(Login::new(options, environment(owner)))
}

/// What surrounds a connection that is made for `owner`.
fn environment(owner: &Owner) -> Environment {
    let home = owner.home().to_owned();
    let environment = Environment::new(move |name| match name {
        // The caller's, when root acts as the owner.
        "HOME" => Some(home.display().to_string()),
        _ => match std::env::var(name) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => {
                tracing::warn!("the variable {name} is not UTF-8, and counts as not set");
                None
            }
        },
    });
    environment.with_os_user(owner.name()).with_home(owner.home())
}

fn parse(conninfo: &str) -> Result<Conninfo, ConninfoError> {
    let mut conninfo: Conninfo = conninfo.parse()?;
    for (keyword, value) in DEFAULTS {
        if conninfo.get(keyword).is_none() {
            conninfo.set(keyword, value)?;
        }
    }
    Ok(conninfo)
}

/// The file of the first local socket a connection goes to: it belongs to the server's user.
pub fn socket_file(config: &Config) -> Option<PathBuf> {
    config
        .hosts()
        .iter()
        .find_map(|host| Some(host.socket_directory()?.join(format!(".s.PGSQL.{}", host.port()))))
}

/// A connection string that says what `config` came to, for a configuration file that is read
/// later in another environment. `None` for a server that is not on this machine.
pub fn spelled_out(config: &Config) -> Option<String> {
    let host = config.hosts().first()?;
    let directory = host.socket_directory()?;
    Some(format!(
        "host={} port={} user={} dbname={}",
        quote_conninfo_value(&directory.display().to_string()),
        host.port(),
        quote_conninfo_value(config.user()),
        quote_conninfo_value(config.dbname()),
    ))
}

/// The program's own absolute path, for `archive_command` and `restore_command`.
///
/// # Errors
/// [`seawall_core::Code::LocalIo`]
pub fn own_path() -> Result<PathBuf> {
    use seawall_core::{Code, ResultExt};
    std::env::current_exe()
        .code(Code::LocalIo, || "cannot find out where seawall itself is".to_owned())
}

/// The `archive_command` for a cluster. `%` has a meaning there and is doubled.
pub fn archive_command(program: &Path, config: &Path, cluster: &str) -> String {
    let word =
        |path: &Path| crate::render::shell_quote(&path.display().to_string()).replace('%', "%%");
    format!("{} --config {} wal push %p --cluster {cluster}", word(program), word(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_command_survives_shell_and_postgres() {
        let command = archive_command(
            Path::new("/usr/bin/seawall"),
            Path::new("/etc/my 100%/seawall.toml"),
            "main",
        );
        assert_eq!(
            command,
            "/usr/bin/seawall --config '/etc/my 100%%/seawall.toml' wal push %p --cluster main"
        );
    }

    #[test]
    fn a_default_connection_is_spelled_out() {
        let owner = Owner::current();
        let config = resolve("host=/run/postgresql user='o''brien x'", &owner);
        assert!(config.is_err(), "two quotes do not make one in a connection string");
        let config = resolve("host=/run/postgresql port=5433 user=postgres", &owner).unwrap();
        assert_eq!(
            spelled_out(&config).as_deref(),
            Some("host=/run/postgresql port=5433 user=postgres dbname=postgres")
        );
        assert_eq!(
            socket_file(&config).as_deref(),
            Some(Path::new("/run/postgresql/.s.PGSQL.5433"))
        );
        let remote = resolve("host=db.example.com", &owner).unwrap();
        assert_eq!(spelled_out(&remote), None);
    }
}
