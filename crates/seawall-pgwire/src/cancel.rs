use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::PgError;
use crate::config::Config;
use crate::connect::open;
use crate::sessions::Sessions;
use crate::startup::Session;
use crate::transport::Address;

/// Cancels whatever a session is running, from anywhere.
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<Inner>);

struct Inner {
    address: Address,
    config: Config,
    /// Set if the session has TLS; the request then goes the same way.
    tls: Option<Arc<ClientConfig>>,
    backend_pid: i32,
    secret_key: i32,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key: whoever has it can cancel too.
        write!(f, "backend {} at {}", self.backend_pid, self.address)
    }
}

impl CancelToken {
    pub(crate) fn new(
        address: Address,
        config: &Config,
        tls: Option<Arc<ClientConfig>>,
        session: &Session,
    ) -> Self {
        let (backend_pid, secret_key) = (session.backend_pid, session.secret_key);
        Self(Arc::new(Inner { address, config: config.clone(), tls, backend_pid, secret_key }))
    }

    /// Asks the server to cancel; the query then fails with SQLSTATE 57014, unless it ended before.
    /// The server does not say whether it did anything. It has [`Limits`](crate::Limits)'
    /// `cancel_time` to take the request.
    ///
    /// # Errors
    /// The request could not be sent.
    pub async fn cancel(&self) -> Result<(), PgError> {
        let limit = self.limit();
        timeout(limit, self.send()).await.unwrap_or(Err(PgError::Timeout(limit)))
    }

    /// How long the request may take, and then the end of the query.
    pub(crate) fn limit(&self) -> Duration {
        self.0.config.limits.cancel_time
    }

    /// Those that its session counts among.
    pub(crate) fn sessions(&self) -> Option<&Sessions> {
        self.0.config.sessions.as_ref()
    }

    async fn send(&self) -> Result<(), PgError> {
        let inner = &self.0;
        let (mut stream, security) = open(&inner.address, &inner.config, inner.tls.clone()).await?;
        if inner.tls.is_some() && !security.encrypted {
            return Err(PgError::Tls("the server has TLS no more".to_owned()));
        }
        let mut request = BytesMut::new();
        frontend::cancel_request(inner.backend_pid, inner.secret_key, &mut request);
        stream.write_all(&request).await.map_err(PgError::Unreachable)?;
        stream.flush().await.map_err(PgError::Unreachable)?;
        // The server closes once the signal is sent. TLS may report that as an error, or a reset.
        let _ = stream.read(&mut [0; 1]).await;
        Ok(())
    }
}
