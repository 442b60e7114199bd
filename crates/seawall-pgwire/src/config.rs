use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use seawall_core::Secret;

use crate::conninfo::{Conninfo, ConninfoError, Environment, PassfileWarning};
use crate::vet::SESSION_SETTINGS;
use crate::{PgError, Sessions};

/// The port PostgreSQL listens on unless told otherwise.
pub(crate) const DEFAULT_PORT: u16 = 5432;

/// Everything a connection needs, with every default filled in.
///
/// Passwords are in it, and neither `Debug` nor `Display` shows them.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) dbname: String,
    pub(crate) application_name: String,
    pub(crate) options: Option<String>,
    pub(crate) replication: Replication,
    pub(crate) startup_parameters: Vec<(String, String)>,
    pub(crate) connect_timeout: Duration,
    pub(crate) time_for_all_hosts: Option<Duration>,
    pub(crate) target_session_attrs: TargetSessionAttrs,
    pub(crate) tls: TlsSettings,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) allowed_auth: AllowedAuth,
    pub(crate) require_peer: Option<String>,
    pub(crate) keepalive: Keepalive,
    pub(crate) limits: Limits,
    /// Where they are counted, if they are.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) warnings: Vec<PassfileWarning>,
    /// The password file that was looked at, and as whom.
    pub(crate) passfile: Option<(PathBuf, Option<String>)>,
}

impl Config {
    /// Parses a connection string and fills in service files, environment, password file and
    /// defaults. Reads files, blocking.
    ///
    /// # Errors
    /// [`ConninfoError`]
    pub fn parse(conninfo: &str, environment: &Environment) -> Result<Self, ConninfoError> {
        Conninfo::from_str(conninfo)?.resolve(environment)
    }

    /// Sends one more parameter in the startup packet, such as `statement_timeout`.
    #[must_use]
    pub fn with_startup_parameter(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        self.startup_parameters.push((name.into(), value.into()));
        self
    }

    /// Bounds the time that all hosts together may take to give a session. Each address still to be
    /// tried gets an equal share of what is left, at most `connect_timeout`: a host that is dead does
    /// not use up the time of one that lives.
    #[must_use]
    pub fn with_time_to_connect(mut self, time: Duration) -> Self {
        self.time_for_all_hosts = Some(time);
        self
    }

    /// Replaces the limits on what a server may send, and on the time it may take.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Has its sessions counted among those, which can be waited for.
    #[must_use]
    pub fn with_sessions(mut self, sessions: &Sessions) -> Self {
        self.sessions = Some(sessions.clone());
        self
    }

    /// The servers, in the order they are tried.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database to connect to.
    #[must_use]
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// Why a password file was left unused. Worth showing, since libpq shows it too.
    #[must_use]
    pub fn warnings(&self) -> &[PassfileWarning] {
        &self.warnings
    }

    /// Says where a password was looked for in vain: root that acts as another user is not asked for
    /// its own.
    pub(crate) fn with_passfile(&self, error: PgError) -> PgError {
        let (PgError::Auth(message), Some((path, user))) = (&error, &self.passfile) else {
            return error;
        };
        if !message.contains("no password") {
            return error;
        }
        let whose = user.as_ref().map_or_else(String::new, |user| format!(" of user {user}"));
        let state = match self.warnings.first() {
            Some(ignored) => ignored.why(),
            None if path.exists() => "has no line for it".to_owned(),
            None => "does not exist".to_owned(),
        };
        PgError::Auth(format!("{message}; the password file{whose}, {}, {state}", path.display()))
    }

    /// The parameters of the startup packet, in order.
    pub(crate) fn startup_packet(&self) -> Vec<(&str, &str)> {
        let mut packet = vec![("user", self.user.as_str()), ("database", self.dbname.as_str())];
        match self.replication {
            Replication::No => {}
            Replication::Physical => packet.push(("replication", "true")),
            Replication::Database => packet.push(("replication", "database")),
        }
        if let Some(options) = &self.options {
            packet.push(("options", options));
        }
        packet.push(("application_name", &self.application_name));
        packet.push(("client_encoding", "UTF8"));
        // The later one of a name counts: nothing in `options` comes before these.
        packet.extend(SESSION_SETTINGS);
        let extra = self.startup_parameters.iter();
        packet.extend(extra.map(|(name, value)| (name.as_str(), value.as_str())));
        packet
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database \"{}\" as \"{}\" at ", self.dbname, self.user)?;
        for (index, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A server of a connection string.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) place: HostPlace,
    pub(crate) port: u16,
    pub(crate) password: Option<Secret>,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostPlace {
    /// The directory of its Unix socket; one that begins with `@` is an abstract name.
    Socket(PathBuf),
    /// A host name or address, and the address to use instead of looking the name up.
    Tcp { name: String, address: Option<IpAddr> },
}

impl Host {
    /// The port, which is part of a Unix socket's name too.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket, if it is one.
    #[must_use]
    pub fn socket_directory(&self) -> Option<&std::path::Path> {
        match &self.place {
            HostPlace::Socket(directory) => Some(directory),
            HostPlace::Tcp { .. } => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            HostPlace::Socket(directory) => {
                write!(f, "socket \"{}/.s.PGSQL.{}\"", directory.display(), self.port)
            }
            HostPlace::Tcp { name, address: None } => {
                write!(f, "host \"{name}\", port {}", self.port)
            }
            HostPlace::Tcp { name, address: Some(address) } => {
                write!(f, "host \"{name}\" ({address}), port {}", self.port)
            }
        }
    }
}

/// The `replication` keyword: what kind of session the server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    No,
    /// A walsender of the whole cluster, which refuses SQL.
    Physical,
    /// A walsender that takes SQL too.
    Database,
}

/// Which kind of server a connection is wanted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetSessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// How much TLS is asked for. `allow` is [`SslMode::Prefer`]: a plain connection tried first could
/// only be less private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The `ssl...` keywords.
#[derive(Debug, Clone)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    /// Starts TLS without asking first (PostgreSQL 17 and later).
    pub(crate) direct: bool,
    pub(crate) roots: RootCertificates,
    pub(crate) revoked: Option<RevocationList>,
    pub(crate) client: Option<ClientCertificate>,
    pub(crate) versions: TlsVersions,
    /// Whether the host name is sent in clear, for proxies that route by it.
    pub(crate) sni: bool,
}

/// Whose signature a server's certificate needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootCertificates {
    /// Nobody's: there is no file, and no home directory where it could be.
    None,
    /// `sslrootcert=system`.
    System,
    /// The authorities of a PEM file. Below `verify-ca` it need not exist.
    File(PathBuf),
}

/// The file of certificates that their authorities have taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevocationList {
    pub(crate) file: PathBuf,
    /// Named by `sslcrl`, not found in `~/.postgresql`.
    pub(crate) explicit: bool,
}

/// The client's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Named in the connection string, not found in `~/.postgresql`.
    pub(crate) explicit: bool,
}

/// Which TLS versions may be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TlsVersions {
    pub(crate) tls12: bool,
    pub(crate) tls13: bool,
}

/// The `channel_binding` keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// The ways to authenticate that `require_auth` leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllowedAuth {
    /// The server asks for nothing: trust, peer, or a client certificate.
    pub(crate) none: bool,
    pub(crate) password: bool,
    pub(crate) md5: bool,
    pub(crate) scram: bool,
}

/// TCP keepalives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) enabled: bool,
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) count: u32,
    pub(crate) user_timeout: Option<Duration>,
}

/// What a server may make this client hold in memory, and how long it may keep it waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message accepted.
    pub message_bytes: usize,
    /// The longest result of one query string: all its rows, columns and tags together.
    pub result_bytes: usize,
    /// How long one query string may take, unless [`Connection::within`](crate::Connection::within)
    /// says otherwise.
    pub query_time: Duration,
    /// How long the request to cancel a query may take after that, and then the query's end.
    pub cancel_time: Duration,
}

impl Default for Limits {
    /// 16 MiB a message, 64 MiB a result; a minute for a query, and twice ten seconds to end it.
    fn default() -> Self {
        Self {
            message_bytes: 16 << 20,
            result_bytes: 64 << 20,
            query_time: Duration::from_secs(60),
            cancel_time: Duration::from_secs(10),
        }
    }
}
