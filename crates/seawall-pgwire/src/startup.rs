//! From a stream to a session: startup packet, login, and what the server says about itself.

use std::collections::BTreeMap;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use seawall_core::printable;

use crate::PgError;
use crate::auth::{Login, authenticate};
use crate::config::Config;
use crate::connect::Attempt;
use crate::message::{BackendMessage, MessageStream, WireError};
use crate::server_message::{log_notice, server_error};
use crate::transport::Stream;

/// No honest message before the first query is longer.
const STARTUP_MESSAGE_BYTES: usize = 64 << 10;

/// PostgreSQL reports some fifteen. All names and values together; libpq takes 30 000 bytes of each.
const PARAMETERS_BYTES: usize = 256 << 10;

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
        let others = self.parameters.iter().filter(|(other, _)| *other != name);
        let held: usize = others.map(|(name, value)| parameter_bytes(name, value)).sum();
        if held + parameter_bytes(name, value) > PARAMETERS_BYTES {
            return Err(PgError::TooLarge(format!(
                "the parameters that the server reports exceed the limit of {PARAMETERS_BYTES} bytes"
            )));
        }
        self.parameters.insert(name.to_owned(), printable(value));
        Ok(())
    }
}

/// What a parameter costs in memory, about.
fn parameter_bytes(name: &str, value: &str) -> usize {
    2 * size_of::<String>() + name.len() + value.len()
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
    attempt: &Attempt<'_>,
    config: &Config,
) -> Result<(MessageStream<Stream>, Session), PgError> {
    let mut wire = MessageStream::new(stream, STARTUP_MESSAGE_BYTES);
    let mut packet = config.startup_packet();
    packet.extend(attempt.without.iter().map(|limit| (limit.as_str(), "0")));
    frontend::startup_message(packet, wire.outgoing())
        .map_err(|error| PgError::Auth(format!("a startup parameter: {error}")))?;
    wire.flush().await?;
    let login = Login {
        user: &config.user,
        password: attempt.host.password.as_ref(),
        allowed: config.allowed_auth,
        channel_binding: config.channel_binding,
        encrypted: security.encrypted,
        endpoint: security.endpoint.as_deref(),
        time: attempt.limit,
    };
    authenticate(&mut wire, &login).await.map_err(|error| config.with_passfile(error))?;
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
