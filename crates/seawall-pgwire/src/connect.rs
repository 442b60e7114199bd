//! Trying hosts until one gives a suitable session (`PQconnectPoll`, fe-connect.c).

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, timeout};

use crate::cancel::CancelToken;
use crate::config::{Config, Host, Replication, SslMode, TargetSessionAttrs};
use crate::connection::Connection;
use crate::startup::{Security, start};
use crate::tls::{self, Negotiated};
use crate::transport::{self, Address, Stream};
use crate::vet::{self, Verdict};
use crate::{FailedAttempt, PgError};

/// What connecting carries from host to host.
struct Attempts<'a> {
    config: &'a Config,
    tls: Option<Arc<ClientConfig>>,
    failed: Vec<FailedAttempt>,
    /// When all hosts together must be done, if there is such a time.
    deadline: Option<Instant>,
    /// How many hosts are still to be tried, the one at hand among them.
    hosts_left: usize,
}

/// Tries every address of every host in order; see [`Connection::connect`].
pub(crate) async fn connect(config: &Config) -> Result<Connection, PgError> {
    let wanted = config.target_session_attrs;
    let rounds = if wanted == TargetSessionAttrs::PreferStandby { 2 } else { 1 };
    let mut attempts = Attempts {
        config,
        tls: None,
        failed: Vec::new(),
        deadline: config.time_for_all_hosts.map(|time| Instant::now() + time),
        hosts_left: rounds * config.hosts.len(),
    };
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
        PgError::Auth(_) | PgError::ScramTooSlow { .. } | PgError::Pooler { .. } => true,
        PgError::Server(error) => error.sqlstate != "57P03",
        _ => false,
    }
}

impl Attempts<'_> {
    async fn try_hosts(&mut self, wanted: TargetSessionAttrs) -> Option<Connection> {
        for host in &self.config.hosts {
            let addresses = within(self.share(1), transport::addresses(host)).await;
            let addresses = match addresses {
                Ok(addresses) => addresses,
                Err(reason) => {
                    self.failed.push(FailedAttempt { target: host.to_string(), reason });
                    self.hosts_left = self.hosts_left.saturating_sub(1);
                    continue;
                }
            };
            for (index, address) in addresses.iter().enumerate() {
                let limit = self.share(addresses.len() - index);
                match within(limit, self.try_address(host, address, wanted, limit)).await {
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
            self.hosts_left = self.hosts_left.saturating_sub(1);
        }
        None
    }

    /// How long the next of `addresses` of this host may take: as long as any, and where all hosts
    /// share their time, its part of what is left.
    fn share(&self, addresses: usize) -> Duration {
        let limit = self.config.connect_timeout;
        let Some(deadline) = self.deadline else { return limit };
        let sharers = addresses + self.hosts_left.saturating_sub(1);
        let left = deadline.saturating_duration_since(Instant::now());
        limit.min(left.div_f64(f64::from(u32::try_from(sharers.max(1)).unwrap_or(u32::MAX))))
    }

    /// A session at one address that is what is wanted and that nothing will cut.
    async fn try_address(
        &mut self,
        host: &Host,
        address: &Address,
        wanted: TargetSessionAttrs,
        limit: Duration,
    ) -> Result<Connection, PgError> {
        let mut attempt = Attempt { host, address, without: Vec::new(), limit };
        loop {
            let mut connection = self.log_in(&attempt).await?;
            match self.examine(&mut connection, &attempt.without, wanted).await {
                Ok(Verdict::Suitable) => return Ok(connection),
                Ok(Verdict::WouldBeCut(limits)) => {
                    tracing::debug!(?limits, "logging in again without time limits");
                    connection.close().await;
                    attempt.without.extend(limits);
                }
                Err(error) => {
                    connection.close().await;
                    return Err(error);
                }
            }
        }
    }

    async fn examine(
        &self,
        connection: &mut Connection,
        without: &[String],
        wanted: TargetSessionAttrs,
    ) -> Result<Verdict, PgError> {
        // A walsender of the whole cluster takes no questions.
        if self.config.replication == Replication::Physical {
            return Ok(Verdict::Suitable);
        }
        let verdict = vet::vet(connection, without).await?;
        if verdict == Verdict::Suitable {
            check_session(connection, wanted).await?;
        }
        Ok(verdict)
    }

    async fn log_in(&mut self, attempt: &Attempt<'_>) -> Result<Connection, PgError> {
        let is_tcp = attempt.address.is_tcp();
        let mode = if is_tcp { self.config.tls.mode } else { SslMode::Disable };
        let tls = if mode == SslMode::Disable { None } else { Some(self.tls_config().await?) };
        let encrypted = tls.is_some();
        let mut session = session(attempt, self.config, tls).await;
        if encrypted && mode == SslMode::Prefer && session.as_ref().is_err_and(may_work_plain) {
            tracing::debug!(address = %attempt.address, "TLS did not work, trying without");
            session = self::session(attempt, self.config, None).await;
        }
        session.map_err(|error| vet::refused_by_pooler(&error).unwrap_or(error))
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

/// Where and how to log in.
pub(crate) struct Attempt<'a> {
    pub(crate) host: &'a Host,
    address: &'a Address,
    /// Time limits of the server's that are switched off in the startup packet, beside those that
    /// every major knows.
    pub(crate) without: Vec<String>,
    pub(crate) limit: Duration,
}

/// Holds a step to its time.
async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    timeout(limit, step).await.unwrap_or(Err(PgError::Timeout(limit)))
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
    attempt: &Attempt<'_>,
    config: &Config,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Connection, PgError> {
    let (stream, security) = open(attempt.address, config, tls.clone()).await?;
    let used_tls = tls.filter(|_| security.encrypted);
    let (wire, session) = start(stream, &security, attempt, config).await?;
    let token = CancelToken::new(attempt.address.clone(), config, used_tls, &session);
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
