//! Trying hosts until one gives a suitable session (`PQconnectPoll`, fe-connect.c).

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::time::timeout;

use crate::cancel::CancelToken;
use crate::config::{Config, Host, SslMode, TargetSessionAttrs};
use crate::connection::Connection;
use crate::startup::{Security, start};
use crate::tls::{self, Negotiated};
use crate::transport::{self, Address, Stream};
use crate::{FailedAttempt, PgError};

/// What connecting carries from host to host.
struct Attempts<'a> {
    config: &'a Config,
    tls: Option<Arc<ClientConfig>>,
    failed: Vec<FailedAttempt>,
}

/// Tries every address of every host in order; see [`Connection::connect`].
pub(crate) async fn connect(config: &Config) -> Result<Connection, PgError> {
    let mut attempts = Attempts { config, tls: None, failed: Vec::new() };
    let wanted = config.target_session_attrs;
    if wanted == TargetSessionAttrs::PreferStandby {
        if let Some(connection) = attempts.try_hosts(TargetSessionAttrs::Standby).await {
            return Ok(connection);
        }
        if attempts.failed.last().is_none_or(|last| !is_final(&last.reason)) {
            attempts.failed.clear();
            if let Some(connection) = attempts.try_hosts(TargetSessionAttrs::Any).await {
                return Ok(connection);
            }
        }
    } else if let Some(connection) = attempts.try_hosts(wanted).await {
        return Ok(connection);
    }
    Err(PgError::Connect { attempts: attempts.failed })
}

/// Whether the next host would be the wrong thing to try: libpq goes on after a host that cannot be
/// reached or is starting up, and stops at one that refuses the login.
fn is_final(error: &PgError) -> bool {
    match error {
        PgError::Auth(_) => true,
        PgError::Server(error) => error.sqlstate != "57P03",
        _ => false,
    }
}

impl Attempts<'_> {
    async fn try_hosts(&mut self, wanted: TargetSessionAttrs) -> Option<Connection> {
        for host in &self.config.hosts {
            let addresses = match within(self.config, transport::addresses(host)).await {
                Ok(addresses) => addresses,
                Err(reason) => {
                    self.failed.push(FailedAttempt { target: host.to_string(), reason });
                    continue;
                }
            };
            for address in addresses {
                let attempt = self.try_address(host, &address, wanted).await;
                match attempt {
                    Ok(connection) => return Some(connection),
                    Err(reason) => {
                        tracing::debug!(%address, %reason, "no session");
                        let stop = is_final(&reason);
                        self.failed.push(FailedAttempt { target: address.to_string(), reason });
                        if stop {
                            return None;
                        }
                    }
                }
            }
        }
        None
    }

    async fn try_address(
        &mut self,
        host: &Host,
        address: &Address,
        wanted: TargetSessionAttrs,
    ) -> Result<Connection, PgError> {
        let mode = if address.is_tcp() { self.config.tls.mode } else { SslMode::Disable };
        let tls = if mode == SslMode::Disable { None } else { Some(self.tls_config().await?) };
        let encrypted = tls.is_some();
        let mut session = within(self.config, session(host, address, self.config, tls)).await;
        if encrypted && mode == SslMode::Prefer && session.as_ref().is_err_and(may_work_plain) {
            tracing::debug!(%address, "TLS did not work, trying without");
            session = within(self.config, self::session(host, address, self.config, None)).await;
        }
        let mut connection = session?;
        match within(self.config, check_session(&mut connection, wanted)).await {
            Ok(()) => Ok(connection),
            Err(error) => {
                connection.close().await;
                Err(error)
            }
        }
    }

    /// The files are read once, and only if a host needs them.
    async fn tls_config(&mut self) -> Result<Arc<ClientConfig>, PgError> {
        if let Some(config) = &self.tls {
            return Ok(Arc::clone(config));
        }
        let settings = self.config.tls.clone();
        let config = tokio::task::spawn_blocking(move || tls::client_config(&settings))
            .await
            .map_err(|error| PgError::Tls(format!("reading certificates: {error}")))??;
        Ok(Arc::clone(self.tls.insert(Arc::new(config))))
    }
}

/// Holds a step to `connect_timeout`.
async fn within<T>(
    config: &Config,
    step: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    match config.connect_timeout {
        Some(limit) => timeout(limit, step).await.unwrap_or(Err(PgError::Timeout(limit))),
        None => step.await,
    }
}

/// With `sslmode=prefer`, a failed handshake and a refusal by pg_hba.conf are worth a second try.
fn may_work_plain(error: &PgError) -> bool {
    match error {
        PgError::Tls(_) => true,
        PgError::Server(error) => error.sqlstate == "28000",
        _ => false,
    }
}

/// Logs in at one address.
async fn session(
    host: &Host,
    address: &Address,
    config: &Config,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Connection, PgError> {
    let (stream, security) = open(address, config, tls.clone()).await?;
    let used_tls = tls.filter(|_| security.encrypted);
    let (wire, session) = start(stream, &security, host, config).await?;
    let token = CancelToken::new(address.clone(), config, used_tls, &session);
    Connection::new(wire, session, token, config.limits)
}

/// A stream to the server, with TLS if the server agrees.
pub(crate) async fn open(
    address: &Address,
    config: &Config,
    tls: Option<Arc<ClientConfig>>,
) -> Result<(Stream, Security), PgError> {
    let stream = transport::dial(address, config).await?;
    let Some(tls) = tls else {
        return Ok((stream, Security { encrypted: false, endpoint: None }));
    };
    match tls::negotiate(stream, address, &config.tls, tls).await? {
        Negotiated::Plain(stream) => Ok((stream, Security { encrypted: false, endpoint: None })),
        Negotiated::Encrypted { stream, endpoint } => {
            Ok((stream, Security { encrypted: true, endpoint }))
        }
    }
}

/// Whether the session is the kind that is wanted.
async fn check_session(
    connection: &mut Connection,
    wanted: TargetSessionAttrs,
) -> Result<(), PgError> {
    let problem = match wanted {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => None,
        TargetSessionAttrs::ReadWrite => {
            is_read_only(connection).await?.then_some("the session is read-only")
        }
        TargetSessionAttrs::ReadOnly => {
            (!is_read_only(connection).await?).then_some("the session is not read-only")
        }
        TargetSessionAttrs::Primary => {
            is_standby(connection).await?.then_some("the server is a standby")
        }
        TargetSessionAttrs::Standby => {
            (!is_standby(connection).await?).then_some("the server is not a standby")
        }
    };
    problem.map_or(Ok(()), |problem| Err(PgError::Unsuitable(problem.to_owned())))
}

/// PostgreSQL 14 and later report it unasked.
async fn is_standby(connection: &mut Connection) -> Result<bool, PgError> {
    match connection.parameter("in_hot_standby") {
        Some(value) => Ok(value == "on"),
        None => connection.query_value("SELECT pg_catalog.pg_is_in_recovery()").await,
    }
}

async fn is_read_only(connection: &mut Connection) -> Result<bool, PgError> {
    let reported = (
        connection.parameter("default_transaction_read_only"),
        connection.parameter("in_hot_standby"),
    );
    match reported {
        (Some(read_only), Some(standby)) => Ok(read_only == "on" || standby == "on"),
        _ => connection.query_value("SHOW transaction_read_only").await,
    }
}
