//! From a stream to a session: startup packet, login, and what the server says about itself.

use std::collections::BTreeMap;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::PgError;
use crate::auth::{Login, authenticate};
use crate::config::{Config, Host};
use crate::message::{BackendMessage, MessageStream, WireError};
use crate::server_message::{log_notice, server_error};
use crate::transport::Stream;

/// No honest message before the first query is longer.
const STARTUP_MESSAGE_BYTES: usize = 64 << 10;

/// PostgreSQL reports some fifteen.
const MAX_PARAMETERS: usize = 1000;

/// What a session is known by.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// As `ParameterStatus` messages keep them.
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) backend_pid: i32,
    pub(crate) secret_key: i32,
    /// `I`, `T` or `E`, from the last `ReadyForQuery`.
    pub(crate) status: u8,
}

impl Session {
    /// Takes a `ParameterStatus`.
    pub(crate) fn set_parameter(&mut self, name: &str, value: &str) -> Result<(), PgError> {
        if self.parameters.len() >= MAX_PARAMETERS && !self.parameters.contains_key(name) {
            return Err(PgError::Protocol("the server reports too many parameters".to_owned()));
        }
        self.parameters.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

/// What the stream is, as far as the login cares.
pub(crate) struct Security {
    pub(crate) encrypted: bool,
    pub(crate) endpoint: Option<Vec<u8>>,
}

/// Logs in over a fresh stream.
pub(crate) async fn start(
    stream: Stream,
    security: &Security,
    host: &Host,
    config: &Config,
) -> Result<(MessageStream<Stream>, Session), PgError> {
    let mut wire = MessageStream::new(stream, STARTUP_MESSAGE_BYTES);
    frontend::startup_message(config.startup_packet(), wire.outgoing())
        .map_err(|error| PgError::Auth(format!("a startup parameter: {error}")))?;
    wire.flush().await?;
    let login = Login {
        user: &config.user,
        password: host.password.as_ref(),
        allowed: config.allowed_auth,
        channel_binding: config.channel_binding,
        encrypted: security.encrypted,
        endpoint: security.endpoint.as_deref(),
    };
    authenticate(&mut wire, &login).await?;
    let session = read_session(&mut wire).await?;
    wire.set_limit(config.limits.message_bytes);
    Ok((wire, session))
}

async fn read_session(wire: &mut MessageStream<Stream>) -> Result<Session, PgError> {
    let mut session = Session::default();
    loop {
        let BackendMessage::Standard(message) = wire.read().await? else {
            return Err(PgError::Protocol("a message out of order after the login".to_owned()));
        };
        match message {
            Message::ParameterStatus(body) => {
                session.set_parameter(body.name()?, body.value()?)?;
            }
            Message::BackendKeyData(body) => {
                session.backend_pid = body.process_id();
                session.secret_key = body.secret_key();
            }
            Message::NoticeResponse(body) => log_notice(&server_error(body.fields())),
            Message::ErrorResponse(body) => {
                return Err(PgError::Server(Box::new(server_error(body.fields()))));
            }
            Message::ReadyForQuery(body) => {
                session.status = body.status();
                return Ok(session);
            }
            _ => {
                return Err(PgError::Protocol("a message out of order after the login".to_owned()));
            }
        }
    }
}

impl From<WireError> for PgError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Closed | WireError::Io(_) => Self::lost(error),
            WireError::Malformed(problem) => Self::Protocol(problem),
            WireError::TooLarge { .. } => Self::TooLarge(error.to_string()),
        }
    }
}

/// Only parts of a message that postgres-protocol could not make sense of end up here.
impl From<std::io::Error> for PgError {
    fn from(error: std::io::Error) -> Self {
        Self::Protocol(error.to_string())
    }
}
